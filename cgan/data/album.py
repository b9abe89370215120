"""What a path means: pictures, or pixels in a CSV; which pictures a folder or .zip holds, and of which class.

The classes come from the folders (`cat/1.png`, also deeper), from torchvision's layout (`train/cat/1.png`,
`val/…`, `test/…`), or from a CSV beside the pictures, `path,label[,group][,split]`. What is not read is
counted and named.
"""

from __future__ import annotations

import contextlib
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

PICTURES = (".png", ".jpg", ".jpeg", ".jfif", ".gif", ".bmp", ".webp", ".tif", ".tiff")
ARCHIVES = (".zip", ".gz")
PASSED_OVER = ("Thumbs.db", "desktop.ini", "__MACOSX")
HEAD_BYTES = 4096
MIN_PIXELS = 64  # columns of a CSV
AS_SPLIT = {"training": "train", "valid": "val", "validation": "val"}


@dataclass
class Album:
    """The files below `root`, a folder or .zip, and which of them are pictures of which class.

    `names`: of all files; `left`: what is not read, and why; `labels`, `splits`, `groups`: a text a picture,
    by its name.
    """

    root: Path
    names: list[str]
    left: dict[str, str]
    archive: zipfile.ZipFile | None = None
    labels: dict[str, str] = field(default_factory=dict)
    splits: dict[str, str] = field(default_factory=dict)
    groups: dict[str, str] = field(default_factory=dict)

    def open(self, name: str) -> IO[bytes]:
        return self.archive.open(name) if self.archive else (self.root / name).open("rb")

    def head(self, name: str) -> bytes:
        """The first bytes; none of a damaged file: whoever reads it says in which way."""
        try:
            with self.open(name) as file:
                return file.read(HEAD_BYTES)
        except Exception:  # zipfile raises a dozen kinds
            return b""


@contextlib.contextmanager
def find(path: Path) -> Iterator[tuple[Path, Album | None]]:
    """Yield the file or folder that `data.path` means, and its pictures; None for pixels in a CSV, which may
    be packed.

    Raises SourceError where there is neither, for an archive with a link or a name that leads outside, and
    for a CSV of paths with faults.
    """
    if path.is_dir():
        album = _arranged(_of_folder(path))
        if album:
            yield path, album
            return
        files = sorted(f for f in path.glob("[!.]*") if f.suffix.lower() in (".csv", *ARCHIVES))
        if len(files) != 1:
            loose = [file.name for file in sorted(path.iterdir()) if is_picture(file.name)]
            raise SourceError(
                f"{path}: expected one .csv, .csv.gz or .zip, or pictures in folders, one a class; of such "
                f"files it has {listed([file.name for file in files]) or 'none'}"
                f"{f', and loose pictures: {listed(loose)}' * bool(loose)}. Set `data.path` to the one you "
                "mean, or put the pictures of each class into a folder with its name, or a CSV `path,label` "
                "beside them."
            )
        path = files[0]
    if not path.is_file():
        raise SourceError(
            f"{path} does not exist, or is no file or folder (looked from {Path.cwd()}). Give the path of a "
            ".csv, .csv.gz or .zip, or of a folder that holds one, or pictures."
        )
    if path.suffix.lower() == ".csv":
        beside = Album(path.parent, [path.name], {})
        listing = _lists_paths(beside.head(path.name))
        yield path, _by_listing(_of_folder(path.parent), path.name) if listing else None
        return
    try:
        archive = zipfile.ZipFile(path)
    except (OSError, ValueError, zipfile.BadZipFile, NotImplementedError):
        # No .zip, a damaged one, or one of a kind that zipfile does not know, for which it raises
        # NotImplementedError: whoever unpacks it gives the reason.
        yield path, None
        return
    with archive:
        yield path, _arranged(_of_zip(path, archive))


def is_picture(name: str) -> bool:
    return name.lower().endswith(PICTURES)


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


def first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


# --- which files there are -----------------------------------------------------------------------


def _of_folder(root: Path) -> Album:
    album, seen = Album(root, [], {}), {root.resolve()}
    for folder, inside, files in os.walk(root, followlinks=True):
        for name in sorted([*inside, *files]):
            path = Path(folder, name)
            shown = path.relative_to(root).as_posix()
            if why := _passed_over(name) or _unread(path, seen):
                album.left[shown] = why
                inside[:] = [other for other in inside if other != name]
            elif name not in inside:
                album.names.append(shown)
    album.names.sort()
    return album


def _unread(path: Path, seen: set[Path]) -> str:
    """Why a file or folder is not read, `` if it is. `seen`: folders, without links; this one is added."""
    if not path.is_dir():
        return "" if path.is_file() else "a dangling link" if path.is_symlink() else "no file"
    real = path.resolve()
    if real in seen:
        return "read already: a link"
    seen.add(real)
    return "" if any(path.iterdir()) else "an empty folder"


def _of_zip(path: Path, archive: zipfile.ZipFile) -> Album:
    refuse_hostile(archive, str(path))
    album = Album(path, [], {}, archive)
    for entry in archive.infolist():
        reasons = map(_passed_over, PurePosixPath(entry.filename).parts)
        if reason := next(filter(None, reasons), ""):
            album.left[entry.filename] = reason
        elif not entry.is_dir():
            album.names.append(entry.filename)
    album.names.sort()
    folders = {name[: name.rfind("/") + 1] for name in album.names}
    for name in archive.namelist():
        if name.endswith("/") and not any(folder.startswith(name) for folder in folders):
            album.left.setdefault(name, "an empty folder")
    return album


def _passed_over(name: str) -> str:
    if name in PASSED_OVER:
        return "a file of the system's"
    return "hidden" if name.startswith(".") else ""


# --- of which class each is ----------------------------------------------------------------------


def _arranged(album: Album) -> Album | None:
    """The album with its labels; None where it has no pictures in folders, or a CSV of pixels around them."""
    folders = {name.rpartition("/")[0] for name in album.names if is_picture(name)}
    around = os.path.commonpath(folders) if folders else ""
    for name in album.names:
        if name.lower().endswith(".csv") and f"{around}/".startswith(name[: name.rfind("/") + 1]):
            head = album.head(name)
            if _lists_paths(head):
                return _by_listing(album, name)
            if head.count(b",") >= MIN_PIXELS:
                return None
    return _by_folders(album, around.rpartition("/")[0] if len(folders) == 1 else around)


def _lists_paths(head: bytes) -> bool:
    columns = head.decode("utf-8-sig", "replace").partition("\n")[0].split(",")
    return {"path", "label"} <= {column.strip() for column in columns}


def _by_folders(album: Album, around: str) -> Album | None:
    """The class is the folder's name; in torchvision's layout that of the folder in train, val or test, of
    which val and test may also lie beside the classes."""
    start = f"{around}/" if around else ""
    paths = {n: n[len(start) :].split("/") for n in album.names if n.startswith(start)}
    heads = {path[0] for path in paths.values() if len(path) > 1}
    parts = {head: AS_SPLIT.get(head.lower(), head.lower()) for head in heads}
    laid_out = "train" in parts.values() and set(parts.values()) <= set(SPLITS)
    laid_out = laid_out and any(len(path) > 2 for path in paths.values())
    for name in album.names:
        head, *inside = paths.get(name, [name])
        if len(inside) > 1 and parts[head] in SPLITS and (laid_out or inside[0] in heads):
            album.labels[name], album.splits[name] = inside[0], parts[head]
        elif inside and not laid_out:
            album.labels[name], album.splits[name] = head, "train"
        else:
            album.left[name] = "in no class's folder" if is_picture(name) else "no picture"
    if not laid_out and set(album.splits.values()) == {"train"}:
        album.splits.clear()
    return album if any(map(is_picture, album.labels)) else None


def _by_listing(album: Album, table: str) -> Album:
    """What a CSV says: `path` from its own folder, `label`, and perhaps `group` and `split`."""
    import pandas as pd

    where = f"{album.root}/{table}"
    try:
        with album.open(table) as file:
            rows = pd.read_csv(file, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except (ValueError, pd.errors.ParserError) as error:
        raise SourceError(f"{where}: no CSV of `path,label` ({first_line(error)}).") from None
    rows = rows.rename(columns=str.strip).apply(lambda column: column.str.strip())
    inner, known, faults = table[: -len(PurePosixPath(table).name)], set(album.names), list[str]()
    for line, row in enumerate(rows.to_dict("records"), start=2):
        name, split = inner + row["path"], row.get("split", "train").lower()
        split = AS_SPLIT.get(split, split)
        if name not in known or name in album.labels:
            why = "listed a second time" if name in known else f"no such picture below {album.root}"
            faults.append(f"line {line}: {row['path']!r}: {why}")
        elif not row["label"] or split not in SPLITS:
            faults.append(
                f"line {line}: expected a label, and train, val or test; found {row}"[:300]
            )
        album.labels[name], album.splits[name] = row["label"], split
        album.groups[name] = row.get("group") or name
    if faults or not album.labels:
        shown = "".join(f"\n  - {fault}" for fault in faults[:5]) or " no rows"
        raise SourceError(f"{where}: {len(faults):,} faults:{shown}\nMend these lines.")
    if "split" not in rows:
        album.splits.clear()
    if "group" not in rows:
        album.groups.clear()
    unlisted = [name for name in album.names if name not in album.labels and is_picture(name)]
    album.left |= dict.fromkeys(unlisted, f"not in {table}")
    # Other files may lie around.
    folders = {PurePosixPath(name).parent for name in [table, *album.labels]}
    album.left = {n: why for n, why in album.left.items() if PurePosixPath(n).parent in folders}
    unused = sorted(set(rows) - {"path", "label", "group", "split"})
    album.left |= dict.fromkeys(unused, f"a column of {table} without a use")
    return album
