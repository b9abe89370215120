"""Where data come from: the sample, a file, an archive, Kaggle; and archives that harm nothing."""

import base64
import gzip
import re
import struct
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import JSON, KEY, Answer, KaggleServer, csv_lines, plain, uneven, write_folder, zip_of

import cgan
from cgan.base.errors import DataError
from cgan.data import pictures, read
from cgan.data.images import load_images
from cgan.params.sections import DataParams

CSV = ("\n".join(csv_lines(plain(uneven(width=8)))) + "\n").encode()
GOOD = b"label,pixel0\n0,1\n"
TARGET = Path("data/raw/train.csv")
DEFAULTS = DataParams()
BASIC = base64.b64encode(f"someone:{KEY}".encode()).decode()  # what is sent
Start = Callable[..., KaggleServer]


def fetch(**changes: Any) -> dict[str, Any]:
    return read.fetch(
        DEFAULTS.model_copy(update=changes), TARGET, TARGET.with_name("pictures.safetensors")
    )


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory in which the destination already holds a good file; 20 MB are the limit."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(read, "MAX_CSV_BYTES", 20_000_000)
    TARGET.parent.mkdir(parents=True)
    TARGET.write_bytes(GOOD)
    return tmp_path


def refuses(**changes: Any) -> str:
    """The message, without a key; the destination must be as it was, with no litter beside it."""
    with pytest.raises(DataError) as caught:
        fetch(**changes)
    assert TARGET.read_bytes() == GOOD and KEY not in str(caught.value)
    assert list(TARGET.parent.iterdir()) == [TARGET]
    return str(caught.value)


# --- sample and file ----------------------------------------------------------------------------


def test_the_sample_is_a_valid_shuffled_csv_and_always_the_same() -> None:
    info = fetch()
    table = cgan.read(TARGET)
    assert table.pixels.shape == (5000, 1, 28, 28)
    assert np.bincount(table.labels).tolist() == [500] * 10
    assert (np.diff(table.labels) != 0).mean() > 0.8
    assert info["sha256"] == table.source_sha256
    assert info == fetch()


ZIP, GZIP = zip_of({"train.csv": CSV}), gzip.compress(CSV, mtime=0)


def test_a_csv_is_taken_out_of_an_archive_with_its_facts() -> None:
    facts = {"source": "file", "sha256": sha256(CSV).hexdigest(), "rows": 56}
    for name, content in (("digits.csv", CSV), ("digits.gz", GZIP), ("digits.zip", ZIP)):
        Path(name).write_bytes(content)
        assert fetch(source="file", path=name) == {**facts, "origin": name}
        assert TARGET.read_bytes() == CSV


def test_pictures_take_the_place_of_a_csv_and_a_csv_of_pictures() -> None:
    write_folder(Path("own"), uneven())
    stored = TARGET.with_name("pictures.safetensors")
    info = fetch(source="file", path="own")
    images = load_images(stored)
    assert not TARGET.exists() and len(info["files"]) == len(images) == info["rows"] == 56
    assert info["sha256"] == images.source_sha256
    fetch()
    assert TARGET.exists() and not stored.exists()


@pytest.mark.parametrize(
    ("limit", "size", "words"),
    [
        ("MAX_FILE_BYTES", 60, r"56 of 56 pictures cannot.*\.png: larger"),
        ("MAX_PIXEL_BYTES", 56 * 96 - 1, r"more than 0 MB of pixels.*`data\.height`"),
    ],
)
def test_large_files_and_many_pixels_are_refused(
    monkeypatch: pytest.MonkeyPatch, limit: str, size: int, words: str
) -> None:
    write_folder(Path("own"), uneven())
    monkeypatch.setattr(pictures, limit, size)
    assert re.search(words, refuses(source="file", path="own"), re.DOTALL)
    monkeypatch.setattr(pictures, limit, 56 * 96)
    assert fetch(source="file", path="own")["rows"] == 56


ZEROS = bytes(50_000_000)


def claims(size: int, content: bytes) -> bytes:
    """A zip whose member says that it has another size."""
    changed = bytearray(zip_of({"train.csv": content}))
    for place in (22, changed.rindex(b"PK\x01\x02") + 24):
        changed[place : place + 4] = struct.pack("<I", size)
    return bytes(changed)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (zip_of({"train.csv": ZEROS}), "more than 20 MB"),
        (claims(10, bytes(30_000_000)), "damaged|more than 20 MB"),
        (gzip.compress(ZEROS, mtime=0), "more than 20 MB"),
        (GZIP[:-6] + b"x" + GZIP[-5:], "damaged"),  # its checksum, when all is unpacked
        (zip_of({"train.csv": CSV, "../train.csv": b"x"}), "points outside"),
    ],
)
def test_bombs_and_broken_archives_leave_what_was_there(content: bytes, words: str) -> None:
    Path("archive").write_bytes(content)
    assert re.search(words, refuses(source="file", path="archive"))
    assert not Path("../train.csv").exists()


# --- Kaggle -------------------------------------------------------------------------------------


def test_kaggle_gives_the_file_of_a_competition_or_dataset(kaggle: Start) -> None:
    packed = Answer(ZIP, name="train.csv.zip")
    for answer, slug in ((packed, "digit-recognizer"), (Answer(CSV), "someone/digits")):
        call = "DownloadDataset" if "/" in slug else "DownloadDataFile"
        server = kaggle(answer)
        TARGET.write_bytes(GOOD)
        info = fetch(source="kaggle", kaggle=slug)
        assert TARGET.read_bytes() == CSV and (info["source"], info["origin"]) == ("kaggle", slug)
        path, authorization = server.seen[-1]
        assert path.endswith(call) and authorization == f"Basic {BASIC}"


TOKEN = r"refused them \(401\).*/settings/api.*KAGGLE_API_TOKEN.*kaggle\.json"


def test_refusals_by_kaggle_give_the_link_and_are_not_retried(
    kaggle: Start, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """And say no key, which the server says back."""
    caplog.set_level("DEBUG")
    echo = f'{{"message": "{KEY} {BASIC}"}}'.encode()
    for status, words in ((401, TOKEN), (403, "403.*kaggle.com/competitions/digit-rec.*/rules")):
        server = kaggle(Answer(echo, status, JSON))
        said = refuses(source="kaggle")
        assert re.search(words, said) and not re.search(f"{KEY}|{BASIC}", said + caplog.text)
        assert server.downloads == 1
    monkeypatch.delenv("KAGGLE_USERNAME")
    assert re.search(TOKEN, refuses(source="kaggle")), "one of the pair alone"


def test_passing_faults_of_kaggle_are_retried_and_others_end(kaggle: Start) -> None:
    fault = Answer(status=503)
    server = kaggle(fault, Answer(CSV, cut=1000), Answer(CSV))
    fetch(source="kaggle")
    assert TARGET.read_bytes() == CSV and server.downloads == 3
    TARGET.write_bytes(GOOD)
    server = kaggle(fault)
    assert "run again later" in refuses(source="kaggle")
    assert server.downloads == 3
