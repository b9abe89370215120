"""`cgan export`: the file draws what torch draws, in the way of its own users, or is not written."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from synthetic import a_model
from typer.testing import CliRunner

from cgan.cli import app
from cgan.drawing import export
from cgan.drawing.generator import Generator
from cgan.errors import CganError, ModelError

needs_onnx = pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("onnx", "onnxruntime", "onnxscript"))),
    reason="the extra `export` is not installed (pip install -e '.[export]')",
)
pytestmark = pytest.mark.filterwarnings("ignore")  # torch's, of its own calls
FORMS = [pytest.param("onnx", marks=needs_onnx), "torch-export"]
KINDS = [
    ("deconv", 3, 3, 10, 14, 4, 6),
    ("upsample", 12, 1, 20, 9, 4, 5),
    ("embed", 3, 1, 8, 8, 4, 2),
    ("demo", 10, 1, 28, 28, 8, 100),
]


def compare(form: str, path: Path, generator: Generator) -> None:
    draw: Any
    if form == "torch-export":
        files = {"cgan.json": ""}
        draw = torch.export.load(path, extra_files=files).module()
        facts = files["cgan.json"]
    else:
        import onnxruntime

        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        facts = session.get_modelmeta().custom_metadata_map["cgan"]

        def draw(latents: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
            inputs = {"latents": latents.numpy(), "labels": labels.numpy()}
            return torch.from_numpy(session.run(["images"], inputs)[0])

    assert json.loads(facts) == generator.facts
    network = generator.network
    for count in (1, 2, 1000):
        latents = torch.randn(count, network.architecture.latent_dim)
        labels = torch.randint(generator.classes, (count,))
        ours = network.from_condition(latents, network.condition(labels))
        theirs = draw(latents, labels)
        assert theirs.shape == ours.shape and theirs.dtype == torch.float32
        assert (theirs - ours).abs().max() <= 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_every_kind_of_generator_draws_the_same_pixels_in_batches_of_any_size(
    form: str, tmp_path: Path
) -> None:
    out = tmp_path / {"onnx": "g.onnx", "torch-export": "g.pt2"}[form]
    result = CliRunner().invoke(app, ["export", str(out), "--model", "digits"])
    assert result.exit_code == 0, result.output
    assert result.output.startswith(f"{out}: {form}, within ")
    compare(form, out, Generator.load())
    assert list(tmp_path.iterdir()) == [out]
    for architecture in KINDS:
        generator = Generator.load(a_model(tmp_path / "g.safetensors", *architecture))
        assert export.export(generator, out)
        compare(form, out, generator)


def test_what_draws_other_pixels_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "TOLERANCE", -1.0)
    small = Generator.load(a_model(tmp_path / "g.safetensors", *KINDS[2]))
    with pytest.raises(ModelError, match="not written"):
        export.export(small, tmp_path / "g.pt2")
    assert not (tmp_path / "g.pt2").exists()


def test_another_ending_is_refused() -> None:
    for name in ("g.txt", "g"):
        result = CliRunner().invoke(app, ["export", name])
        assert isinstance(result.exception, CganError) and ".onnx" in str(result.exception)
