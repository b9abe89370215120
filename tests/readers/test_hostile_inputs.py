"""Bad files through the command, as a user meets them: one paragraph, exit code 1, nothing changed.

Common mistakes are in acceptance/test_refusals.py; here are the rare and the hostile ones.
"""

import gzip
import io
import json
import os
import pickle
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

LINES = csv_lines(*make_images())
GOOD = "\n".join(LINES) + "\n"
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


# --- CSV ----------------------------------------------------------------------------------------


def changed(change: Callable[[str], str]) -> str:
    """The good CSV with another fourth row."""
    return "\n".join([*LINES[:4], change(LINES[4]), *LINES[5:]]) + "\n"


def with_columns(columns: int) -> str:
    return ",".join(["label", *(f"pixel{i}" for i in range(columns))]) + "\n"


CSVS: dict[str, str | bytes] = {
    "f01 a byte order mark alone": b"\xef\xbb\xbf",
    "f03 header with an invisible character": "\u200b" + GOOD,
    "f03 header that commands the terminal": GOOD.replace("label", "\x1b[2Jlabel"),
    "f03 a column without a name": "\n".join(f"{line}," for line in LINES),
    "f04 a million doubles": "label" + ",a0" * 1_000_000 + "\n",
    "f06 label that commands the terminal": changed(lambda row: "\x1b[2J" + row),
    "f09 a comma at the end of the rows": GOOD.replace("\n", ",\n").replace(",\n", "\n", 1),
    "f09 a footer": GOOD + "\x1a",
    "f10 a byte order mark within": changed(lambda row: "\ufeff" + row),
    "f10 a line end within quotes": changed(lambda row: '"' + row.replace(",", '\n",', 1)),
    "f11 Excel's line for separators": "sep=,\n" + GOOD,
    "f12 an answer in JSON": '{"error": 403}',
    "f12 a pointer of Git LFS": "version https://git-lfs.github.com/spec/v1\noid sha256:ab\n",
    "f17 padding of megabytes": changed(lambda row: " " * 5_000_000 + row),
    "f17 400,000 columns": with_columns(400_000),
    "colours, undeclared": with_columns(192) + ("1," + ",".join(["9"] * 192) + "\n") * 30,
}
ARCHIVES: dict[str, bytes] = {
    "f26 junk behind.csv.gz": gzip.compress(GOOD.encode()) + b"junk",
    "f29 nested.csv.gz": gzip.compress(gzip.compress(GOOD.encode())),
    "f29 commands the terminal.zip": zip_of({"\x1b[2J\n\n.csv": GOOD.encode()}),
    "a workbook.xlsx": zip_of({"[Content_Types].xml": b"<x/>", "xl/workbook.xml": b"<x/>"}),
}


FILES = {f"{name}.csv": content for name, content in CSVS.items()} | ARCHIVES


@pytest.mark.parametrize("name", FILES)
def test_f01_f02_f03_f04_f05_f08_f09_f11_bad_csv_or_archive_is_refused_in_words(
    refused: Refused, tmp_path: Path, name: str
) -> None:
    content = FILES[name]
    (tmp_path / name).write_bytes(content.encode() if isinstance(content, str) else content)
    assert name in refused("validate", name)


# At this path → what stands there.
STRANGE: dict[str, Callable[[Path], object]] = {
    "missing": lambda path: None,
    "folder": Path.mkdir,
    "fifo": os.mkfifo,
    "loop": lambda path: path.symlink_to(path),
    "endless": lambda path: path.symlink_to("/dev/zero"),
    "/proc/self/mem": lambda path: None,
    "x" * 5000: lambda path: None,
    "huge": lambda path: path.touch() or os.truncate(path, 10**12),
}


@pytest.mark.parametrize("name", STRANGE, ids=lambda name: name[:20])
def test_what_is_no_file_is_refused_as_csv_and_as_model(
    refused: Refused, tmp_path: Path, name: str
) -> None:
    STRANGE[name](tmp_path / name)
    refused("validate", name)
    refused("draw", "1", "--model", name, "--out", "picture.png")


# --- models -------------------------------------------------------------------------------------

NETWORK = build_generator(Architecture("deconv", 3, 1, 8, 8, features=4, latent_dim=4)).eval()
WEIGHTS = {name: tensor.contiguous() for name, tensor in NETWORK.state_dict().items()}
WEIGHT = next(name for name, tensor in WEIGHTS.items() if tensor.ndim > 1)
VARIANCE = next(name for name in WEIGHTS if name.endswith("running_var"))


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
    "f38 nothing": lambda: b"",
    "f38 zeros": lambda: bytes(10_000),
    "f38 cut in the length": lambda: model()[:4],
    "f38 cut in the header": lambda: model()[:200],
    "f38 cut in the tensors": lambda: model()[:-1],
    "f38 something behind": lambda: model() + b"x",
    "f38 length 10 GB": lambda: struct.pack("<Q", 10**10) + model()[8:],
    "f38 length 2^64 - 1": lambda: b"\xff" * 8 + model()[8:],
    "f38 40 GB claimed": lambda: header(
        lambda h: h[WEIGHT].update(shape=[10**5, 10**5], data_offsets=[0, 4 * 10**10])
    ),
    "f38 a shape beyond all numbers": lambda: header(lambda h: h[WEIGHT].update(shape=[2**63])),
    "f38 a shape below 0": lambda: header(lambda h: h[WEIGHT].update(shape=[-1])),
    "f38 a type that is none": lambda: header(lambda h: h[WEIGHT].update(dtype="F7")),
    "f38 another type": lambda: header(lambda h: h[WEIGHT].update(dtype="I32")),
    "f38 JSON without an end": lambda: struct.pack("<Q", len(DEEP)) + DEEP,
    "f39 pickle": lambda: pickle.dumps(Hostile()),
    "f39 pickle as text": lambda: pickle.dumps(Hostile(), 0),
    "f39 torch.save": lambda: torch_saved(WEIGHTS),
    "f39 torch.save of a program": lambda: torch_saved(Hostile()),
    "f39 zip": lambda: zip_of({"generator.safetensors": model()}),
    "f40 no facts": lambda: save(WEIGHTS),
    "f40 facts of another": lambda: save(WEIGHTS, {"format": "pt"}),
    "f40 facts that are a list": lambda: save(WEIGHTS, {"cgan": "[]"}),
    "f40 facts without an end": lambda: save(WEIGHTS, {"cgan": "[" * 99_999}),
    "f40 a judge": lambda: model(lambda facts: facts.update(kind="judge")),
    "f40 a kind that commands the terminal": lambda: model(lambda f: f.update(kind="\x1b[2J\n\nx")),
    "f40 no architecture": lambda: model(lambda facts: facts.pop("architecture")),
    "f40 an architecture that is a program": lambda: sized(kind="os.system"),
    "f40 0 classes": lambda: sized(classes=0),
    "f40 classes as text": lambda: sized(classes="3"),
    "f40 a latent of 10^9": lambda: sized(latent_dim=10**9),
    "f40 more features than weights": lambda: sized(features=4096),
    "f40 terabytes": lambda: sized(classes=4096, features=4096, height=4096, width=4096),
    "f40 a tensor more": lambda: model(more=torch.zeros(1)),
    "f40 a tensor with a line end": lambda: model(**{"\x1b[2J\n\nx": torch.zeros(1)}),
    "f40 weights of NaN": lambda: model(**{WEIGHT: WEIGHTS[WEIGHT] * float("nan")}),
    "f40 infinite weights": lambda: model(**{WEIGHT: WEIGHTS[WEIGHT] * float("inf")}),
    "f40 a variance below 0": lambda: model(**{VARIANCE: -WEIGHTS[VARIANCE]}),
    "f41 format 2": lambda: model(lambda facts: facts.update(format=2)),
    "f41 format '1'": lambda: model(lambda facts: facts.update(format="1")),
}


@pytest.mark.parametrize("name", MODELS)
def test_f38_f39_f40_f41_bad_model_is_refused_in_words(
    refused: Refused, tmp_path: Path, name: str
) -> None:
    (tmp_path / "g.safetensors").write_bytes(MODELS[name]())
    words = refused("draw", "1", "--model", "g.safetensors", "--out", "picture.png")
    assert "g.safetensors" in words
    assert not (tmp_path / "ran").exists()


def test_model_that_was_not_damaged_is_drawn(tmp_path: Path) -> None:
    """The cases above are refused for their damage alone."""
    (tmp_path / "g.safetensors").write_bytes(model())
    assert len(Generator.load(tmp_path / "g.safetensors").draw("1")) == 1
