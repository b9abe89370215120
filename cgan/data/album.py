"""Which pictures a folder or .zip holds, and of which class each is.

The classes come from the folders (`cat/1.png`, also deeper), from torchvision's layout (`train/cat/1.png`,
`val/…`, `test/…`), or from a CSV beside the pictures, `path,label[,group][,split]`. What is not read is
counted and named.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import stat
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO

from cgan.data.dataset import SPLITS
from cgan.errors import SourceError, listed

SUFFIXES = (".png", ".jpg", ".jpeg", ".jfif", ".gif", ".bmp", ".webp", ".tif", ".tiff")
PASSED_OVER = ("Thumbs.db", "desktop.ini", "__MACOSX")
MAX_FILE_BYTES = 500_000_000  # of a picture in an archive
MAX_DEPTH = 3  # folders around the classes
AS_SPLIT = {"training": "train", "valid": "val", "validation": "val"}


@dataclass
class Album:
    """The files below `root`, a folder or .zip: which are pictures of which class.

    `labels`, `splits`, `groups`: a text a file, by its name; `left`: what is not read, and why; `folders`:
    of classes.
    """

    root: Path
    names: list[str]
    left: dict[str, str]
    folders: set[str] = field(default_factory=set)
    archive: zipfile.ZipFile | None = None
    labels: dict[str, str] = field(default_factory=dict)
    splits: dict[str, str] = field(default_factory=dict)
    groups: dict[str, str] = field(default_factory=dict)

    def read(self, name: str) -> IO[bytes]:
        if self.archive is None:
            return (self.root / name).open("rb")
        if (
            self.archive.getinfo(name).file_size > MAX_FILE_BYTES
        ):  # zipfile reads no more than it states
            raise ValueError(f"larger than {MAX_FILE_BYTES / 1e6:.0f} MB")
        return io.BytesIO(self.archive.read(name))  # Pillow seeks; a packed stream does so slowly


@contextlib.contextmanager
def find_album(path: Path) -> Iterator[Album | None]:
    """Yield the pictures that a folder, a .zip or a CSV of paths means; None where there are none.

    Raises SourceError for an archive with a link or a name that leads outside, for paths in a CSV without a
    picture, and for pictures without a class.
    """
    with contextlib.ExitStack() as opened:
        if path.is_dir():
            album = _of_folder(path)
        elif path.suffix.lower() == ".csv":
            yield _by_listing(_of_folder(path.parent), path.name) if is_listing(path) else None
            return
        else:
            try:
                archive = opened.enter_context(zipfile.ZipFile(path))
            except (OSError, ValueError, zipfile.BadZipFile, NotImplementedError):
                yield None  # no .zip, or a damaged one: whoever unpacks it says in which way
                return
            album = _of_zip(path, archive)
        inner = _inner(album)
        tables = [n for n in _loose(album, inner) if n.lower().endswith(".csv")]
        if listings := [n for n in tables if _is_listing_head(_head(album, n))]:
            yield _by_listing(album, listings[0])
        elif album.archive and any(n.lower().endswith((".csv", ".xml")) for n in album.names):
            yield None  # a CSV in an archive, or a workbook
        else:
            yield _by_folders(album, inner)


def is_listing(path: Path) -> bool:
    """Is this a CSV of `path,label…`?"""
    with path.open("rb") as file:
        return _is_listing_head(file.read(200))


def _head(album: Album, name: str) -> bytes:
    try:
        with album.archive.open(name) if album.archive else (album.root / name).open("rb") as file:
            return file.read(200)
    except Exception:  # damaged: whoever unpacks it says in which way
        return b""


def _is_listing_head(head: bytes) -> bool:
    columns = re.split(r"\s*,\s*", head.decode("utf-8-sig", "replace").partition("\n")[0].strip())
    return {"path", "label"} <= set(columns)


def _of_folder(root: Path) -> Album:
    album, seen = Album(root, [], {}), {root.resolve()}
    for folder, inside, files in os.walk(root, followlinks=True):
        place = Path(folder)
        kept = []
        for name in sorted(inside):
            shown = (place / name).relative_to(root).as_posix()
            real = (place / name).resolve()
            if reason := _passed_over(name) or ("read already: a link" if real in seen else ""):
                album.left[shown] = reason
            else:
                seen.add(real)
                kept.append(name)
                album.folders.add(shown)
        inside[:] = kept
        for name in files:
            shown = (place / name).relative_to(root).as_posix()
            if reason := _passed_over(name) or _no_file(place / name):
                album.left[shown] = reason
            else:
                album.names.append(shown)
    album.names.sort()
    return album


def _no_file(path: Path) -> str:
    if path.is_file():
        return ""
    return "a dangling link" if path.is_symlink() else "no file"


def _of_zip(path: Path, archive: zipfile.ZipFile) -> Album:
    refuse_hostile(archive, str(path))
    album = Album(path, [], {}, archive=archive)
    for entry in archive.infolist():
        parts = PurePosixPath(entry.filename).parts
        if reason := next(filter(None, map(_passed_over, parts)), ""):
            album.left[entry.filename] = reason
        elif not entry.is_dir():
            album.names.append(entry.filename)
        depths = range(1, len(parts) + entry.is_dir())
        album.folders |= {"/".join(parts[:depth]) for depth in depths if not reason}
    album.names.sort()
    return album


def refuse_hostile(archive: zipfile.ZipFile, path: str) -> None:
    """Raises SourceError for an archive of which any member is a link, absolute, or leads upwards."""
    for entry in archive.infolist():
        # Absolute, with a drive, or upwards.
        outside = re.search(r"^[\\/]|^[^\\/]*:|(^|[\\/])\.\.([\\/]|$)", entry.filename)
        if outside or stat.S_ISLNK(entry.external_attr >> 16):
            raise SourceError(
                f"{path}: member {entry.filename[:80]!r} is a link, or points outside the archive. Nothing "
                "was unpacked; do not trust this file."
            )


def _passed_over(name: str) -> str:
    if name in PASSED_OVER:
        return "a file of the system's"
    return "hidden" if name.startswith(".") else ""


def is_picture_name(name: str) -> bool:
    return name.lower().endswith(SUFFIXES)


def _loose(album: Album, inner: str) -> list[str]:
    """The files that lie directly in the folder `inner`, which is empty or ends with a slash."""
    return [n for n in album.names if n.startswith(inner) and "/" not in n[len(inner) :]]


def _inner(album: Album) -> str:
    """The folder around all classes: one that stands alone is looked through."""
    inner = ""
    for _ in range(MAX_DEPTH):
        below = [name[len(inner) :] for name in album.names if name.startswith(inner)]
        heads = {name.partition("/")[0] for name in below if "/" in name}
        if len(heads) != 1 or any(map(is_picture_name, _loose(album, inner))):
            break
        deeper = f"{inner}{heads.pop()}/"
        loose = _loose(album, deeper)
        if any(map(is_picture_name, loose)) and not any(n.endswith(".csv") for n in loose):
            break  # this one is a class
        inner = deeper
    return inner


def _by_folders(album: Album, inner: str) -> Album | None:
    """The class is the folder's name; in torchvision's layout that of the folder in train, val or test."""
    paths = {n: n[len(inner) :].split("/") for n in album.names if n.startswith(inner)}
    heads = {path[0] for path in paths.values() if len(path) > 1}
    parts = {head: AS_SPLIT.get(head.lower(), head.lower()) for head in heads}
    laid_out = "train" in parts.values() and set(parts.values()) <= set(SPLITS)
    laid_out = laid_out and any(len(path) > 2 for path in paths.values())
    for name in album.names:
        path = paths.get(name, [name])
        if len(path) > 1 + laid_out:
            album.labels[name] = path[laid_out]
            if laid_out:
                album.splits[name] = parts[path[0]]
        elif path[-1] != "README.md":
            album.left[name] = "in no class's folder" if is_picture_name(name) else "no picture"
    album.folders = {
        f for f in album.folders if f.startswith(inner) and f[len(inner) :].count("/") == laid_out
    }
    if any(map(is_picture_name, album.labels)):
        return album
    if loose := [name for name in album.names if is_picture_name(name)]:
        raise SourceError(
            f"{album.root}: {len(loose):,} pictures, none in a class's folder ({listed(loose)}). Put those "
            "of each class into a folder with its name, or a CSV `path,label` beside them."
        )
    return None


def _by_listing(album: Album, table: str) -> Album:
    """What a CSV says: `path` from its own folder, `label`, and perhaps `group` and `split`."""
    import pandas as pd

    where = f"{album.root}/{table}"
    try:
        with album.read(table) as file:
            rows = pd.read_csv(file, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except (ValueError, pd.errors.ParserError) as error:
        raise SourceError(f"{where}: not a CSV of `path,label` ({first_line(error)}).") from None
    rows.columns = [column.strip() for column in rows.columns]
    if unknown := set(rows.columns) - {"path", "label", "group", "split"}:
        album.left |= dict.fromkeys(sorted(unknown), f"a column of {table} without a use")
    inner, known, faults = table[: -len(PurePosixPath(table).name)], set(album.names), []
    for row, values in enumerate(rows.to_dict("records"), start=2):
        name, split = inner + values["path"].strip(), values.get("split", "train").strip().lower()
        split = AS_SPLIT.get(split, split)
        if name not in known:
            faults.append(f"line {row}: no picture {values['path']!r} below {album.root}")
        elif name in album.labels:
            faults.append(f"line {row}: {values['path']!r} is listed a second time")
        elif not values["label"].strip() or split not in SPLITS:
            faults.append(
                f"line {row}: expected a label, and train, val or test; found {values}"[:300]
            )
        else:
            album.labels[name] = values["label"].strip()
            if "split" in values:
                album.splits[name] = split
            if "group" in values:
                album.groups[name] = values["group"].strip() or name
    if faults or not album.labels:
        shown = "".join(f"\n  - {fault}" for fault in faults[:5]) or " no rows"
        raise SourceError(f"{where}: {len(faults):,} faults:{shown}\nMend these lines.")
    unlisted = [n for n in album.names if n not in album.labels and is_picture_name(n)]
    album.left |= dict.fromkeys(unlisted, f"not in {table}")
    near = {
        PurePosixPath(name).parent for name in [table, *album.labels]
    }  # it may lie among other files
    album.left = {n: why for n, why in album.left.items() if PurePosixPath(n).parent in near}
    album.folders = set()
    return album


def first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
