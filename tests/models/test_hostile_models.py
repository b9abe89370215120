"""A hostile model file is refused in words, and runs nothing."""

import io
import json
import os
import pickle
import struct
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save

from cgan import Generator
from cgan.base.errors import ModelError
from cgan.models.file_facts import facts_metadata
from cgan.models.model_file import digest_of
from cgan.models.networks import Architecture, build_generator

NETWORK = build_generator(Architecture("deconv", 3, 1, 8, 8, features=4, latent_dim=4)).eval()
WEIGHTS = {name: tensor.contiguous() for name, tensor in NETWORK.state_dict().items()}
SIZES = asdict(NETWORK.architecture)
WEIGHT = next(name for name, tensor in WEIGHTS.items() if tensor.ndim > 1)


def model(tensors: dict[str, torch.Tensor] | None = None, **changes: Any) -> bytes:
    """A file that is right in all but what was changed: digest and seal fit."""
    content = WEIGHTS | (tensors or {})
    facts = {"kind": "generator", "architecture": SIZES}
    return save(content, facts_metadata(facts | {"digest": digest_of(content)} | changes))


def of_40_gigabytes() -> bytes:
    """So says the header, over the same bytes."""
    end = 8 + struct.unpack("<Q", MODEL[:8])[0]
    header = json.loads(MODEL[8:end])
    header[WEIGHT].update(shape=[10**5, 10**5], data_offsets=[0, 4 * 10**10])
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + MODEL[end:]


class Hostile:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("ran",)


MODEL, DEEP = model(), b"[" * 1_000_000
PROGRAM = io.BytesIO()
torch.save(Hostile(), PROGRAM)
MODELS: dict[str, bytes] = {
    "cut in the header": MODEL[:200],
    "cut in the tensors": MODEL[:-1],
    "length 2^64 - 1": b"\xff" * 8 + MODEL[8:],
    "40 GB claimed": of_40_gigabytes(),
    "JSON without an end": struct.pack("<Q", len(DEEP)) + DEEP,
    "a pickle": pickle.dumps(Hostile()),
    "torch.save of a program": PROGRAM.getvalue(),
    "facts that are a list": save(WEIGHTS, {"cgan": "[]"}),
    "a judge": model(kind="judge"),
    "a kind that commands the terminal": model(kind="\x1b[2J\n\nx"),
    "an architecture that is a program": model(architecture=SIZES | {"kind": "os.system"}),
    "terabytes": model(architecture=SIZES | dict.fromkeys(("classes", "features", "height"), 4096)),
    "a tensor with a line end": model({"\x1b[2J\n\nx": torch.zeros(1)}),
    "format 2": model(format=2),
}


def test_a_hostile_model_is_refused_in_words_and_runs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = Path("g.safetensors")
    for name, content in MODELS.items():
        path.write_bytes(content)
        with pytest.raises(ModelError, match=r"^g\.safetensors: ") as caught:
            Generator.load(path)
        words = str(caught.value)
        assert words.replace("\n", "").isprintable() and len(words) < 4000, name
        assert [*Path().iterdir()] == [path], name
    path.write_bytes(MODEL)
    assert len(Generator.load(path).draw("1")) == 1, "the others are refused for their damage alone"
    pickle.loads(MODELS["a pickle"])
    assert Path("ran").exists(), "it runs where somebody unpickles it"
