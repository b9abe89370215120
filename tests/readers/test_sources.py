import base64
import gzip
import hashlib
import re
import struct
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kaggle_server import KEY, Answer, KaggleServer
from kaggle_server import kaggle as kaggle
from synthetic import csv_lines, make_images, zip_of

from cgan.errors import SourceError
from cgan.params.sections import DataParams, ValidateParams
from cgan.readers import csv_reader, sources
from cgan.readers import kaggle as kaggle_module

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
    """A working directory in which the destination already holds a good file."""
    monkeypatch.chdir(tmp_path)
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


def test_sample_is_a_valid_shuffled_csv_and_always_the_same() -> None:
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
    "digits.zip": zip_of({"train.csv": CSV, "test.csv": b"x", "old/train.csv": b"x"}),
    "inside.zip": zip_of({"digits/train.csv": CSV, "__MACOSX/train.csv": b"x"}),
    "no-suffix": zip_of({"train.csv": CSV}),
    "stored.zip": zip_of({"train.csv": CSV}, zipfile.ZIP_STORED),
    "lzma.zip": zip_of({"train.csv": CSV}, zipfile.ZIP_LZMA),
    "bzip2.zip": zip_of({"train.csv": CSV}, zipfile.ZIP_BZIP2),
}


@pytest.mark.parametrize("name", ACCEPTED)
def test_f10_csv_is_taken_out_of_any_usual_archive(name: str) -> None:
    Path(name).write_bytes(ACCEPTED[name])
    info = fetch(source="file", path=name)
    assert TARGET.read_bytes() == CSV
    sha256 = hashlib.sha256(CSV).hexdigest()
    known = {"source": "file", "origin": name, "sha256": sha256, "rows": 36, "bytes": len(CSV)}
    assert info == known


def test_folder_stands_for_the_only_data_file_in_it() -> None:
    inbox = {"source": "file", "path": "inbox"}
    assert "inbox does not exist" in refuses(**inbox)
    Path("inbox").mkdir()
    Path("inbox/mine.csv").write_bytes(CSV)
    Path("inbox/other.zip").touch()
    assert "found mine.csv, other.zip" in refuses(**inbox)
    Path("inbox/other.zip").unlink()
    assert fetch(**inbox)["origin"] == "inbox/mine.csv"


# --- hostile and broken files -------------------------------------------------------------------


def damaged(content: bytes, at: int) -> bytes:
    changed = bytearray(content)
    changed[at] ^= 0xFF
    return bytes(changed)


def marked(at: int, value: bytes, content: bytes = CSV) -> bytes:
    """A zip with other values in its member's header: at 0 its flags, at 2 the method, at 16 the size."""
    changed = bytearray(zip_of({"train.csv": content}))
    for place in (6 + at, changed.rindex(b"PK\x01\x02") + 8 + at):
        changed[place : place + len(value)] = value
    return bytes(changed)


PAGE = b"\n <!DOCTYPE html><html><title>Sign in</title>"
ZIP, GZIP = zip_of({"train.csv": CSV}), gzip.compress(CSV)
METHODS = (zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED, zipfile.ZIP_LZMA)
OUTSIDE = ("../train.csv", "a/../../train.csv", "/etc/train.csv", "C:\\train.csv", "..\\train.csv")
ZEROS = bytes(50_000_000)
# By its kind: files → what the message says.
REFUSED: dict[str, list[tuple[bytes, str]]] = {
    "page.csv": [(PAGE, "this is a web page"), (gzip.compress(PAGE), "this is a web page")],
    "page.gz": [(PAGE, "this is a web page"), (CSV, r"not a \.gz archive")],
    "page.zip": [
        (PAGE, "this is a web page"),
        (zip_of({"train.csv": PAGE}), "this is a web page"),
        (CSV, r"not a \.zip archive"),
    ],
    "damaged.zip": [
        *((damaged(zip_of({"train.csv": CSV}, method), 200), "damaged") for method in METHODS),
        *((ZIP[: int(len(ZIP) * kept)], "damaged") for kept in (0.3, 0.7, 0.99)),
        (marked(0, b"\1"), "is encrypted"),
        (marked(2, b"\x61"), "cannot unpack"),
    ],
    "damaged.gz": [
        (damaged(GZIP, -6), "damaged"),  # its checksum
        *((GZIP[: int(len(GZIP) * kept)], "damaged") for kept in (0.3, 0.7, 0.99)),
    ],
    "hostile.zip": [
        *((zip_of({"train.csv": CSV, name: b"x"}), "points outside") for name in OUTSIDE),
        (zip_of({"train.csv": "/etc/passwd"}), "is a link"),
        (zip_of({"train.csv": ZEROS}), "more than 2 MB"),
        (marked(16, struct.pack("<I", 10), bytes(5_000_000)), "damaged|more than 2 MB"),
    ],
    "hostile.gz": [(gzip.compress(ZEROS), "more than 2 MB")],
    "members.zip": [
        (
            zip_of({"test.csv": b"x", "notes.txt": b"x"}),
            "named `train.csv`.*test.csv, notes.txt.*`data.member`",
        ),
        (zip_of({f"{i}.txt": b"" for i in range(15)}), "9.txt and 5 more"),
        (zip_of({"a/train.csv": CSV, "b/train.csv": CSV}), "holds: a/train.csv, b/train.csv"),
        (zip_of({}), "It holds: nothing"),
        (zip_of({"train.csv.zip": ZIP}), "holds: train.csv.zip.*unpack"),
    ],
}


@pytest.mark.parametrize("name", REFUSED)
def test_f12_f24_f26_f27_f28_f29_broken_and_hostile_files_are_refused(name: str) -> None:
    for content, words in REFUSED[name]:
        Path(name).write_bytes(content)
        assert re.search(words, refuses(source="file", path=name, max_megabytes=2)), words
        assert not Path("../train.csv").exists()


# --- Kaggle -------------------------------------------------------------------------------------


def test_kaggle_gives_the_file_of_a_competition_or_dataset(kaggle: Start) -> None:
    basic = base64.b64encode(f"someone:{KEY}".encode()).decode()
    packed = Answer(ZIP, name="train.csv.zip")
    answers = [(answer, "digit-recognizer") for answer in (Answer(CSV), packed, Answer(GZIP))]
    for answer, slug in (*answers, (Answer(CSV), "someone/digits")):
        call = "DownloadDataset" if "/" in slug else "DownloadDataFile"
        server = kaggle(answer)
        TARGET.write_bytes(GOOD)
        info = fetch(source="kaggle", kaggle=slug)
        assert TARGET.read_bytes() == CSV and (info["source"], info["origin"]) == ("kaggle", slug)
        path, authorization = server.seen[-1]
        assert path.endswith(call) and authorization == f"Basic {basic}"


def test_f21_missing_credentials_name_variables_and_file(
    kaggle: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = kaggle(Answer(CSV))
    monkeypatch.delenv("KAGGLE_USERNAME")
    for _ in range(2):  # one of the pair, and none
        message = refuses(source="kaggle")
        for needed in ("KAGGLE_API_TOKEN", "KAGGLE_USERNAME", "KAGGLE_KEY", ".kaggle/kaggle.json"):
            assert needed in message
        monkeypatch.delenv("KAGGLE_KEY", raising=False)
    assert server.seen == []


TOKEN = r"refused them \(401\).*/settings/api.*KAGGLE_API_TOKEN.*kaggle\.json"
REFUSALS = [
    (401, "digit-recognizer", TOKEN),
    (403, "digit-recognizer", r"not .* yet.*kaggle\.com/competitions/digit-recognizer/rules"),
    (403, "someone/digits", r"not .* yet.*kaggle\.com/datasets/someone/digits"),
    (404, "digit-recognizer", "Kaggle failed: .*404"),
]


def test_f22_refusals_by_kaggle_differ_give_the_link_and_are_not_retried(kaggle: Start) -> None:
    for status, slug, words in REFUSALS:
        server = kaggle(Answer(status=status))
        assert re.search(words, refuses(source="kaggle", kaggle=slug))
        assert server.downloads == 1


MD5 = base64.b64encode(hashlib.md5(CSV).digest()).decode()
SUM = {"x-goog-hash": f"crc32c=AAAAAA==,md5={MD5}"}
DAMAGED = Answer(CSV.replace(b"5", b"6"), headers=SUM)


def test_f23_f24_passing_faults_are_retried_and_lasting_ones_end_after_bounded_tries(
    kaggle: Start,
) -> None:
    for fault in (Answer(status=429), Answer(status=503), Answer(CSV, cut=1000), DAMAGED):
        server = kaggle(fault, fault, Answer(CSV, headers=SUM))
        fetch(source="kaggle")
        assert TARGET.read_bytes() == CSV and server.downloads == 3
        TARGET.write_bytes(GOOD)
        server = kaggle(fault)
        assert "Run again later" in refuses(source="kaggle")
        assert server.downloads == 4


def test_f23_silent_server_is_left_after_the_timeout_and_no_network_is_said_plainly(
    kaggle: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seconds in (0.5, 4, 16):  # a busy machine takes long to ask
        monkeypatch.setattr(kaggle_module, "TIMEOUT_S", seconds)
        server = kaggle(Answer(status=500, silence_s=300))
        started = time.monotonic()
        assert f"not complete after {seconds:.0f} s" in refuses(source="kaggle")
        assert time.monotonic() - started < 240, "nobody waited the silence out"
        if server.downloads:
            break
    assert server.downloads == 1
    kaggle(Answer(CSV)).server_close()
    assert "Kaggle failed: ConnectionError" in refuses(source="kaggle")
    import kagglesdk.kaggle_env as env

    monkeypatch.setitem(env._env_to_endpoint, env.KaggleEnv.PROD, "http://kaggle.invalid")
    assert "Kaggle failed: ConnectionError" in refuses(source="kaggle")


def test_f12_f28_login_page_and_download_above_the_cap_are_refused(kaggle: Start) -> None:
    kaggle(Answer(PAGE))
    assert "train.csv of digit-recognizer: " in refuses(source="kaggle")
    kaggle(Answer(bytes(10_000_000)))
    assert "more than 2 MB" in refuses(source="kaggle", max_megabytes=2)


def test_missing_kagglehub_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "kagglehub", None)
    assert "pip install -e '.[kaggle]'" in refuses(source="kaggle")
