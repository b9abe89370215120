"""Where data come from: the sample, a file, an archive, Kaggle; and archives that harm nothing."""

import base64
import gzip
import hashlib
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import KEY, Answer, KaggleServer
from synthetic import csv_lines, make_images, zip_of

from cgan.errors import SourceError
from cgan.params.sections import DataParams, ValidateParams
from cgan.readers import csv_reader, sources

CSV = ("\n".join(csv_lines(*make_images())) + "\n").encode()
GOOD = b"label,pixel0\n0,1\n"
TARGET = Path("data/raw/train.csv")
DEFAULTS = DataParams()
Start = Callable[..., KaggleServer]


def fetch(**changes: Any) -> dict[str, Any]:
    return sources.fetch(
        DEFAULTS.model_copy(update=changes), TARGET, TARGET.with_name("pictures.safetensors")
    )


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory in which the destination already holds a good file; 2 MB are the limit."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sources, "MAX_BYTES", 2_000_000)
    TARGET.parent.mkdir(parents=True)
    TARGET.write_bytes(GOOD)
    return tmp_path


def refuses(**changes: Any) -> str:
    """The message of the refusal, without a key; the destination must be as it was, with no litter beside
    it."""
    with pytest.raises(SourceError) as caught:
        fetch(**changes)
    assert TARGET.read_bytes() == GOOD and KEY not in str(caught.value)
    assert list(TARGET.parent.iterdir()) == [TARGET]
    return str(caught.value)


# --- sample and file ----------------------------------------------------------------------------


def test_the_sample_is_a_valid_shuffled_csv_and_always_the_same() -> None:
    info = fetch()
    table = csv_reader.read_csv(TARGET, ValidateParams())
    assert table.pixels.shape == (5000, 1, 28, 28)
    assert np.bincount(table.labels).tolist() == [500] * 10
    assert (np.diff(table.labels) != 0).mean() > 0.8
    assert info["sha256"] == table.source_sha256
    assert info == fetch()


ACCEPTED = {
    "digits.csv": CSV,
    "digits.csv.gz": gzip.compress(CSV),
    "text.csv.gz": CSV,
    "digits.zip": zip_of({"train.csv": CSV, "test.csv": b"x", "old/train.csv": b"x"}),
    "inside.zip": zip_of({"digits/train.csv": CSV, "__MACOSX/._train.csv": b"x"}),
    "no-suffix": zip_of({"train.csv": CSV}),
}


@pytest.mark.parametrize("name", ACCEPTED)
def test_a_csv_is_taken_out_of_any_usual_archive(name: str) -> None:
    Path(name).write_bytes(ACCEPTED[name])
    info = fetch(source="file", path=name)
    assert TARGET.read_bytes() == CSV
    sha256 = hashlib.sha256(CSV).hexdigest()
    known = {"source": "file", "origin": name, "sha256": sha256, "rows": 36, "bytes": len(CSV)}
    assert info == known


def test_a_folder_stands_for_the_only_data_file_in_it() -> None:
    inbox = {"source": "file", "path": "inbox"}
    assert "inbox does not exist" in refuses(**inbox)
    Path("inbox").mkdir()
    Path("inbox/mine.csv").write_bytes(CSV)
    Path("inbox/other.zip").touch()
    assert "found mine.csv, other.zip" in refuses(**inbox)
    Path("inbox/other.zip").unlink()
    assert fetch(**inbox)["origin"] == "inbox/mine.csv"


# --- hostile and broken files -------------------------------------------------------------------


def marked(at: int, value: bytes, content: bytes = CSV) -> bytes:
    """A zip with other values in its member's header: at 0 its flags, at 2 the method, at 16 the size."""
    changed = bytearray(zip_of({"train.csv": content}))
    for place in (6 + at, changed.rindex(b"PK\x01\x02") + 8 + at):
        changed[place : place + len(value)] = value
    return bytes(changed)


ZIP, GZIP = zip_of({"train.csv": CSV}), gzip.compress(CSV)
OUTSIDE = ("../train.csv", "/etc/train.csv", "C:\\train.csv", "..\\train.csv")
ZEROS = bytes(50_000_000)
# By its kind: files → what the message says.
REFUSED: dict[str, list[tuple[bytes, str]]] = {
    "damaged.zip": [
        *((ZIP[: int(len(ZIP) * kept)], "damaged") for kept in (0.3, 0.99)),
        (ZIP[:200] + b"x" + ZIP[201:], "damaged"),
        (marked(0, b"\1"), "is encrypted"),
        (marked(2, b"\x61"), "cannot unpack"),
    ],
    "damaged.gz": [
        (GZIP[:-6] + b"x" + GZIP[-5:], "damaged"),  # its checksum
        (GZIP[: len(GZIP) // 2], "damaged"),
    ],
    "hostile.zip": [
        *((zip_of({"train.csv": CSV, name: b"x"}), "points outside") for name in OUTSIDE),
        (zip_of({"train.csv": "/etc/passwd"}), "is a link"),
        (zip_of({"train.csv": ZEROS}), "more than 2 MB"),
        (marked(16, struct.pack("<I", 10), bytes(5_000_000)), "damaged|more than 2 MB"),
    ],
    "hostile.gz": [(gzip.compress(ZEROS), "more than 2 MB")],
    "members.zip": [
        (zip_of({"test.csv": b"x", "notes.txt": b"x"}), "`train.csv`.*found test.csv, notes.txt"),
        (zip_of({"a/train.csv": CSV, "b/train.csv": CSV}), "found a/train.csv, b/train.csv"),
        (zip_of({}), "found nothing"),
    ],
}


@pytest.mark.parametrize("name", REFUSED)
def test_broken_and_hostile_archives_are_refused(name: str) -> None:
    for content, words in REFUSED[name]:
        Path(name).write_bytes(content)
        assert re.search(words, refuses(source="file", path=name)), words
        assert not Path("../train.csv").exists()


# --- Kaggle -------------------------------------------------------------------------------------


def test_kaggle_gives_the_file_of_a_competition_or_dataset(kaggle: Start) -> None:
    basic = base64.b64encode(f"someone:{KEY}".encode()).decode()
    packed = Answer(ZIP, name="train.csv.zip")
    for answer, slug in ((packed, "digit-recognizer"), (Answer(CSV), "someone/digits")):
        call = "DownloadDataset" if "/" in slug else "DownloadDataFile"
        server = kaggle(answer)
        TARGET.write_bytes(GOOD)
        info = fetch(source="kaggle", kaggle=slug)
        assert TARGET.read_bytes() == CSV and (info["source"], info["origin"]) == ("kaggle", slug)
        path, authorization = server.seen[-1]
        assert path.endswith(call) and authorization == f"Basic {basic}"


TOKEN = r"refused them \(401\).*/settings/api.*KAGGLE_API_TOKEN.*kaggle\.json"


def test_refusals_by_kaggle_give_the_link_and_are_not_retried(
    kaggle: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    for status, words in ((401, TOKEN), (403, "403.*kaggle.com/competitions/digit-rec.*/rules")):
        server = kaggle(Answer(status=status))
        assert re.search(words, refuses(source="kaggle"))
        assert server.downloads == 1
    monkeypatch.delenv("KAGGLE_USERNAME")
    assert re.search(TOKEN, refuses(source="kaggle")), "one of the pair alone"


def test_passing_faults_of_kaggle_are_retried_and_lasting_ones_end(kaggle: Start) -> None:
    fault = Answer(status=503)
    server = kaggle(fault, Answer(CSV, cut=1000), Answer(CSV))
    fetch(source="kaggle")
    assert TARGET.read_bytes() == CSV and server.downloads == 3
    TARGET.write_bytes(GOOD)
    server = kaggle(fault)
    assert "run again later" in refuses(source="kaggle")
    assert server.downloads == 3


def test_a_missing_kagglehub_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "kagglehub", None)
    assert "pip install -e '.[kaggle]'" in refuses(source="kaggle")
