"""Hostile files through the command: one paragraph, exit code 1, nothing changed.

Common mistakes are in acceptance/test_refusals.py.
"""

import gzip
import io
import json
import os
import pickle
import shutil
import struct
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import write_params
from safetensors.torch import save
from synthetic import csv_lines, make_images, zip_of

from cgan import Generator, cli
from cgan.model import file_facts, model_file
from cgan.model.networks import Architecture, build_generator

GOOD = "\n".join(csv_lines(*make_images())) + "\n"
MOST_S = 10.0  # of a core

Refused = Callable[..., str]


@pytest.fixture
def refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Refused:
    """Run `cgan …` in a project; it must refuse in words and change nothing. Returns the words."""
    monkeypatch.chdir(tmp_path)
    write_params(tmp_path)
    Path("picture.png").write_text("old")

    def contents() -> dict[Path, tuple[int, int]]:
        stats = {path: path.stat() for path in Path().rglob("*") if path.is_file()}
        return {path: (stat.st_mtime_ns, stat.st_size) for path, stat in stats.items()}

    def refused(*arguments: str) -> str:
        before = contents()
        monkeypatch.setattr(sys, "argv", ["cgan", *arguments])
        began = time.process_time()
        with pytest.raises(SystemExit) as ended:
            cli.main()
        words = capsys.readouterr().err
        assert ended.value.code == 1, words
        assert time.process_time() - began < MOST_S
        assert words.startswith("Error: ") and words.count("\n\n") == 0 and "Traceback" not in words
        assert len(words) < 4000 and all(c.isprintable() or c == "\n" for c in words)
        assert contents() == before
        return words

    return refused


FILES: dict[str, bytes] = {
    "a label that commands.csv": GOOD.replace("\n1", "\n\x1b[2J1").encode(),
    "a million columns.csv": b"label" + b",a0" * 1_000_000 + b"\n",
    "padding of megabytes.csv": GOOD.replace("\n1", "\n" + " " * 5_000_000 + "1").encode(),
    "junk behind.csv.gz": gzip.compress(GOOD.encode()) + b"junk",
    "nested.csv.gz": gzip.compress(gzip.compress(GOOD.encode())),
    "commands the terminal.zip": zip_of({"\x1b[2J\n\n.csv": GOOD.encode()}),
}


@pytest.mark.parametrize("name", FILES)
def test_a_hostile_csv_or_archive_is_refused(refused: Refused, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(FILES[name])
    assert name in refused("validate", name)


# At this path → what stands there.
STRANGE: dict[str, Callable[[Path], object]] = {
    "fifo": os.mkfifo,
    "loop": lambda path: path.symlink_to(path),
    "endless": lambda path: path.symlink_to("/dev/zero"),
    "huge": lambda path: os.truncate(shutil.copyfile(os.devnull, path), 10**12),
}


@pytest.mark.parametrize("name", STRANGE)
def test_what_is_no_file_is_refused(refused: Refused, tmp_path: Path, name: str) -> None:
    STRANGE[name](tmp_path / name)
    refused("validate", name)


# --- models -------------------------------------------------------------------------------------

NETWORK = build_generator(Architecture("deconv", 3, 1, 8, 8, features=4, latent_dim=4)).eval()
WEIGHTS = {name: tensor.contiguous() for name, tensor in NETWORK.state_dict().items()}
WEIGHT = next(name for name, tensor in WEIGHTS.items() if tensor.ndim > 1)


def model(change: Callable[[dict[str, Any]], Any] | None = None, **tensors: torch.Tensor) -> bytes:
    """A file that is right in all but what was changed: digest and seal fit."""
    content = {**WEIGHTS, **tensors}
    facts: dict[str, Any] = {
        "format": file_facts.FORMAT,
        "kind": "generator",
        "architecture": asdict(NETWORK.architecture),
    }
    facts["digest"] = model_file.digest_of(content)
    if change:
        change(facts)
    facts["seal"] = file_facts._digest_of_facts(facts)
    return save(content, {"cgan": json.dumps(facts)})


def header(change: Callable[[dict[str, Any]], Any]) -> bytes:
    """The same with another header over the same bytes."""
    raw = model()
    end = 8 + struct.unpack("<Q", raw[:8])[0]
    content = json.loads(raw[8:end])
    change(content)
    text = json.dumps(content).encode()
    return struct.pack("<Q", len(text)) + text + raw[end:]


def sized(**sizes: Any) -> bytes:
    return model(lambda facts: facts["architecture"].update(sizes))


class Hostile:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch ran",)


def torch_saved(value: Any) -> bytes:
    file = io.BytesIO()
    torch.save(value, file)
    return file.getvalue()


DEEP = b"[" * 1_000_000
MODELS: dict[str, Callable[[], bytes]] = {
    "cut in the header": lambda: model()[:200],
    "cut in the tensors": lambda: model()[:-1],
    "length 2^64 - 1": lambda: b"\xff" * 8 + model()[8:],
    "40 GB claimed": lambda: header(
        lambda h: h[WEIGHT].update(shape=[10**5, 10**5], data_offsets=[0, 4 * 10**10])
    ),
    "JSON without an end": lambda: struct.pack("<Q", len(DEEP)) + DEEP,
    "a pickle": lambda: pickle.dumps(Hostile()),
    "torch.save of a program": lambda: torch_saved(Hostile()),
    "facts that are a list": lambda: save(WEIGHTS, {"cgan": "[]"}),
    "a judge": lambda: model(lambda facts: facts.update(kind="judge")),
    "a kind that commands the terminal": lambda: model(lambda f: f.update(kind="\x1b[2J\n\nx")),
    "an architecture that is a program": lambda: sized(kind="os.system"),
    "terabytes": lambda: sized(classes=4096, features=4096, height=4096, width=4096),
    "a tensor with a line end": lambda: model(None, **{"\x1b[2J\n\nx": torch.zeros(1)}),
    "format 2": lambda: model(lambda facts: facts.update(format=2)),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_bad_model_is_refused_in_words(refused: Refused, tmp_path: Path, name: str) -> None:
    (tmp_path / "g.safetensors").write_bytes(MODELS[name]())
    words = refused("draw", "1", "--model", "g.safetensors", "--out", "picture.png")
    assert "g.safetensors" in words
    assert not (tmp_path / "ran").exists()


def test_a_model_that_was_not_damaged_is_drawn(tmp_path: Path) -> None:
    """The cases above are refused for their damage alone."""
    (tmp_path / "g.safetensors").write_bytes(model())
    assert len(Generator.load(tmp_path / "g.safetensors").draw("1")) == 1
