"""The generator for other programs: as ONNX, or as a program of `torch.export`. Needs the extra `export`.

Inputs: `latents` float32 [N, latent_dim] and `labels` int64 [N], any N. Output: `images` float32
[N, C, H, W] from -1 (black) to 1 (white). The facts of the generator's file travel along as JSON: in ONNX
under the metadata's key `cgan`, in a program of `torch.export` as the extra file `cgan.json`.
"""

import copy
import io
import json
import logging
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.export import ExportedProgram

from cgan.drawing.generator import Generator
from cgan.errors import CganError, ModelError
from cgan.files import write_bytes

CHECKED = 1000
TOLERANCE = 1e-4
Draw = Callable[[Tensor, Tensor], Tensor]


def export(generator: Generator, out: Path) -> str:
    """Write `out` in the form that its ending names; returns what was written, in words.

    What is written is first read and compared on 1,000 random inputs. Raises ModelError, and writes
    nothing, where a pixel differs by more than 1e-4.
    """
    form = {".onnx": "onnx", ".pt2": "torch-export"}.get(out.suffix)
    if not form:
        words = "expected a name that ends in .onnx, or in .pt2 (torch.export)."
        raise CganError(f"OUT {out}: {words}")
    a = generator.network.architecture
    latents = torch.randn(CHECKED, a.latent_dim, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(CHECKED) % a.classes
    network = copy.deepcopy(generator.network).to("cpu", memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    count = {0: torch.export.Dim("count", min=1, max=2**31)}  # torch 2.6 wants an end
    form_of = _as_onnx if form == "onnx" else _as_torch_export
    with warnings.catch_warnings(action="ignore"):  # torch's, of its own calls
        program = torch.export.export(
            network,
            (latents[:3], labels[:3]),
            dynamic_shapes={"latents": count, "labels": count},
            strict=True,  # without, a length is taken for a constant
        )
        written, draw = form_of(program, json.dumps(generator.facts, sort_keys=True))
    difference = float((draw(latents, labels) - network(latents, labels)).abs().max())
    if not difference <= TOLERANCE or len(draw(latents[:1], labels[:1])) != 1:
        raise ModelError(
            f"{out}: not written, because as {form} this generator's pixels differ from torch's by up to "
            f"{difference:.2g} (allowed: {TOLERANCE:.0e}). Try another version of torch or onnxruntime."
        )
    write_bytes(out, written)
    return f"{out}: {form}, within {difference:.1e} of torch on 1,000 inputs"


def _as_torch_export(program: ExportedProgram, facts: str) -> tuple[bytes, Draw]:
    buffer = io.BytesIO()
    torch.export.save(program, buffer, extra_files={"cgan.json": facts})
    return buffer.getvalue(), torch.export.load(io.BytesIO(buffer.getvalue())).module()


def _as_onnx(program: ExportedProgram, facts: str) -> tuple[bytes, Draw]:
    import onnxruntime

    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it tells that torchvision is not here
    names = {"input_names": ["latents", "labels"], "output_names": ["images"]}
    exported = torch.onnx.export(program, dynamo=True, verbose=False, **names)  # type: ignore[arg-type]
    assert exported is not None
    exported.model.metadata_props["cgan"] = facts
    with tempfile.TemporaryDirectory() as folder:
        exported.save(Path(folder, "generator.onnx"), external_data=False)
        written = Path(folder, "generator.onnx").read_bytes()
    session = onnxruntime.InferenceSession(written, providers=["CPUExecutionProvider"])

    def draw(latents: Tensor, labels: Tensor) -> Tensor:
        inputs = {"latents": latents.numpy(), "labels": labels.numpy()}
        return torch.from_numpy(session.run(["images"], inputs)[0])

    return written, draw
