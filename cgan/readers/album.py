"""Finds what a path means, pixels in a CSV or an album of pictures, and the class of each picture.

The classes come from the folders (`cat/1.png`, also deeper), from torchvision's layout (`train/cat/1.png`,
`val/…`, `test/…`), or from a CSV beside the pictures, `path,label[,group][,split]`. What is not read keeps
its row, with the reason.
"""

import contextlib
import csv
import functools
import io
import itertools
import os
import re
import stat
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from cgan.errors import SourceError
from cgan.images import SPLITS
from cgan.settings import setting
from cgan.text import listed

PICTURES = (
    ".png", ".jpg", ".jpeg", ".jfif", ".gif", ".bmp", ".webp", ".tif", ".tiff", ".pgm", ".ppm"
)  # fmt: skip
ARCHIVES = (".zip", ".gz")
TABLES = (".csv", ".tsv")
SEPARATORS = ",;\t|"
SYSTEM_FILES = ("Thumbs.db", "desktop.ini", "__MACOSX", "@eaDir")
HEAD_BYTES = 4096
MIN_PIXELS = 64  # columns of a CSV
PATHS = {"path", "label"}  # columns of a CSV that lists pictures
COLUMNS = PATHS | {"group", "split"}  # of which it may have these two as well
LISTING_COLUMNS = PATHS | {"group"}  # a CSV with one of these is meant to be read
AS_SPLIT = {"training": "train", "valid": "val", "validation": "val", "testing": "test"}
NO_PICTURE = "no PNG, JPEG, GIF, BMP, WebP or TIFF"
STRAY = "not in a class's folder"  # of pictures


@dataclass
class Entry:
    """A file of an album. `reason`: why it is not read, "" if it is. `label`, `split` and `group`: what its
    folder or a CSV says, "" where neither does. The rest is found when its picture is read."""

    name: str
    reason: str = ""
    label: str = ""
    split: str = ""
    group: str = ""
    damage: str = ""  # why its picture cannot be read
    size: tuple[int, int] = (0, 0)  # width, height, perhaps made smaller while it was unpacked
    original: tuple[int, int] = (0, 0)  # the same before that
    scale: int = 0  # of fractions: the value that is white; 0 for all other pictures
    white: bool = False  # was put on it
    frames: bool = False
    colour: bool = False
    deeper: bool = False  # in a folder of its class's folder


@dataclass
class Album:
    """The files below `root`, a folder or .zip."""

    root: Path
    archive: zipfile.ZipFile | None = None

    @functools.cached_property
    def entries(self) -> list[Entry]:
        """Sorted by name; raises SourceError for names that cannot be used."""
        files = _in_zip(self.archive, self.root) if self.archive else _in_folder(self.root)
        return [Entry(name, why) for name, why in sorted(files)]

    def open(self, name: str) -> IO[bytes]:
        return self.archive.open(name) if self.archive else (self.root / name).open("rb")

    def columns(self, name: str) -> list[str]:
        """The first line of a CSV; of a damaged one nothing: whoever reads it says in which way."""
        try:
            with self.open(name) as file:
                line = file.readline(HEAD_BYTES).decode("utf-8-sig", "replace")
            line = line.replace("\0", "").strip("\ufffd")  # UTF-16
            return _columns(next(csv.reader([line], delimiter=_separator(line)), []))
        except Exception:  # zipfile raises a dozen kinds
            return []


@contextlib.contextmanager
def find(path: Path) -> Iterator[tuple[Path, Album | None]]:
    """Yield the file or folder that `data.path` means, and its pictures; None for pixels in a CSV, which may
    be packed.

    Raises SourceError where there is neither, for an archive with a link or a name that leads outside, and
    for a CSV of paths with faults.
    """
    if path.is_dir():
        if album := _with_classes(Album(path)):
            yield path, album
            return
        path = _only_file(path)
    if not path.is_file():
        raise SourceError(
            f"{path} does not exist, or is neither a file nor a folder (looked from {Path.cwd()}). "
            "Give the path of a .csv, .csv.gz or .zip, or of a folder that holds one, or pictures."
        )
    with contextlib.ExitStack() as opened:
        archive = album = None
        # A .zip that is damaged, or packed in a way that zipfile does not know, for which it raises
        # NotImplementedError: whoever unpacks it gives the reason.
        with contextlib.suppress(OSError, ValueError, zipfile.BadZipFile, NotImplementedError):
            archive = opened.enter_context(zipfile.ZipFile(path))
        if archive:
            album = _with_classes(Album(path, archive))
        elif path.suffix.lower() in TABLES:
            beside = Album(path.parent)
            if PATHS.issubset(beside.columns(path.name)):
                album = _by_listing(beside, path.name)
        yield path, album


def _separator(line: str) -> str:
    return max(SEPARATORS, key=line.count)


def _columns(header: list[str]) -> list[str]:
    return [column.strip().lower() for column in header]


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


def _only_file(folder: Path) -> Path:
    """The one CSV or archive in a folder without pictures."""
    files = sorted(f for f in folder.glob("[!.]*") if f.suffix.lower() in (*TABLES, *ARCHIVES))
    if len(files) == 1:
        return files[0]
    raise SourceError(
        f"{folder}: expected one .csv, .csv.gz or .zip, or folders of pictures (PNG, JPEG, GIF, BMP, WebP or "
        f"TIFF), one a class; found {listed([file.name for file in files]) or 'neither'}. Put the pictures "
        "of each class into a folder with its name, or a CSV `path,label` beside them. Of several files, set "
        f"{setting('data.path')} to the one that you mean."
    )


def _in_folder(root: Path) -> list[tuple[str, str]]:
    """The files, and the folders that are not looked into, and why each is not read, `` if it is."""
    below = _below(root, {root.resolve()})
    files = [(path.relative_to(root).as_posix(), why) for path, why in below]
    if foreign := sorted(name for name, _ in files if re.search("[\ud800-\udfff]", name)):
        raise SourceError(
            f"{root}: expected names in UTF-8, as DVC does; of others there are {len(foreign):,}: "
            f"{listed(foreign)}. Rename them: `convmv -r -f latin1 -t utf8 --notest FOLDER` does it for all."
        )
    return files


def _below(folder: Path, seen: set[Path]) -> Iterator[tuple[Path, str]]:
    """`seen`: folders, without links; those looked into are added."""
    inside = []
    for path in sorted(folder.iterdir()):
        if why := _by_name(path.name):
            yield path, why
        elif path.name == "README.md" and folder.name == "inbox":
            continue  # ours
        elif not path.is_dir():
            link = "a dangling link" if path.is_symlink() else "no file"
            yield path, "" if path.is_file() else link
        elif path.resolve() in seen:
            yield path, "a link to something that is read already"
        elif not any(path.iterdir()):
            yield path, "an empty folder"
        else:
            seen.add(path.resolve())
            inside.append(path)
    for path in inside:
        yield from _below(path, seen)


def _in_zip(archive: zipfile.ZipFile, path: Path) -> list[tuple[str, str]]:
    """See `_in_folder`."""
    refuse_hostile(archive, str(path))
    names = {*archive.namelist()}
    filled = {f"{above}/" for name in names for above in PurePosixPath(name).parents}
    reasons = {n: next(filter(None, map(_by_name, n.split("/"))), "") for n in names - filled}
    return [(n, "an empty folder" if n.endswith("/") else why) for n, why in reasons.items()]


def _by_name(name: str) -> str:
    if name in SYSTEM_FILES:
        return "a system file"
    return "hidden" if name.startswith(".") else ""


# --- of which class each is ----------------------------------------------------------------------


def _with_classes(album: Album) -> Album | None:
    """The album with the class of each picture, by a CSV of paths or by folders. None where it holds no
    pictures in folders, or where a CSV of pixels lies around them."""
    names = [entry.name for entry in album.entries if not entry.reason]
    folders = {name.rpartition("/")[0] for name in names if is_picture(name)}
    top = os.path.commonpath(folders) if folders else ""
    columns_of = {name: album.columns(name) for name in names if name.lower().endswith(TABLES)}
    around = [name for name in columns_of if _is_around(name, top)]
    listing = next((name for name in around if PATHS.issubset(columns_of[name])), "")
    if folders:
        _refuse_other_listings(album.root, columns_of, listing)
    if listing:
        return _by_listing(album, listing)
    if any(len(columns_of[name]) > MIN_PIXELS for name in around):
        return None
    # All in one folder: it is their class.
    _by_folders(album.entries, top.rpartition("/")[0] if len(folders) == 1 else top)
    return album if any(is_picture(e.name) for e in album.entries if not e.reason) else None


def _is_around(name: str, folder: str) -> bool:
    """Is this file in `folder`, or in one above it?"""
    return PurePosixPath(folder).is_relative_to(PurePosixPath(name).parent)


def _refuse_other_listings(root: Path, columns_of: dict[str, list[str]], listing: str) -> None:
    """Raises SourceError for a CSV that seems to list pictures, and is not the one that is read."""
    others = [
        f"{name} ({', '.join(columns)})"
        for name, columns in columns_of.items()
        if name != listing and len(columns) <= MIN_PIXELS and LISTING_COLUMNS.intersection(columns)
    ]
    if others:
        found = [listing, *others] if listing else others
        raise SourceError(
            f"{root}: expected one CSV with the columns path and label, perhaps group and split, in the "
            f"folder around all pictures; found {listed(found)}. Correct its first line or its place; join "
            "several, with a column `split` (train, val, test), or set "
            f"{setting('data.path')} to the one that you mean. Take out of the folder what says nothing of "
            "these pictures."
        )


def _by_folders(entries: list[Entry], top: str) -> None:
    """Give each picture the name of its folder in `top` as its class; in torchvision's layout that of the
    folder in train, val or test, of which val and test may also lie beside the classes, or around all."""
    prefix = f"{top}/" if top else ""
    inside = [(e, e.name.removeprefix(prefix)) for e in entries if e.name.startswith(prefix)]
    paths = [(entry, name.split("/")) for entry, name in inside]
    firsts = {path[0] for e, path in paths if len(path) > 1 and is_picture(e.name) and not e.reason}
    split_of = {first: split for first in firsts if (split := _as_split(first)) in SPLITS}
    all_in_splits = len(split_of) == len(firsts) and any(len(path) > 2 for _, path in paths)
    for entry, (first, *rest) in paths:
        if first in split_of and len(rest) > 1 and (all_in_splits or rest[0] in firsts):
            entry.label, entry.split, entry.deeper = rest[0], split_of[first], len(rest) > 2
        elif rest and not all_in_splits:
            entry.label, entry.split, entry.deeper = first, "train", len(rest) > 1
        elif not entry.reason:
            entry.reason = STRAY if is_picture(entry.name) else NO_PICTURE
    outside = [entry for entry in entries if not entry.name.startswith(prefix)]
    for entry in outside:
        entry.reason = entry.reason or (STRAY if is_picture(entry.name) else NO_PICTURE)
    if not all_in_splits and {entry.split for entry in entries} <= {"", "train"}:
        for entry in entries:
            entry.split = ""  # nothing is held out by the source
    above = [split for split in map(_as_split, top.split("/")) if split in ("val", "test")]
    if above:
        for entry in entries:
            entry.split = above[-1] if entry.label else ""


def _as_split(name: str) -> str:
    return AS_SPLIT.get(name.lower(), name.lower())


def _by_listing(album: Album, listing: str) -> Album:
    """What a CSV says: `path` from its own folder, `label`, and perhaps `group` and `split`."""
    where, folder = f"{album.root}/{listing}", listing[: listing.rfind("/") + 1]
    try:
        with album.open(listing) as file:
            text = io.TextIOWrapper(file, "utf-8-sig", newline="")
            first = text.readline()
            lines = itertools.chain([first], text)
            table = csv.reader(lines, delimiter=_separator(first), strict=True)
            stripped = ([value.strip() for value in row] for row in table)
            (_, header), *rows = [(table.line_num, row) for row in stripped if any(row)]
            columns = _columns(header)
            if any(columns.count(name) > 1 for name in COLUMNS):
                raise ValueError("two columns have one name")
    except Exception as error:  # zipfile raises a dozen kinds
        raise SourceError(
            f"{where}: expected a CSV of `path,label`; it cannot be read ({first_line(error)}). Correct it, "
            "or save it again as “CSV UTF-8”."
        ) from None
    readable = {entry.name: entry for entry in album.entries if not entry.reason}
    taken, wrong = dict[str, Entry](), list[str]()
    for line, row in rows:
        values = dict.fromkeys(columns, "") | dict(zip(columns, row, strict=False))
        name, split = str(PurePosixPath(folder, values["path"])), _as_split(values.get("split", ""))
        fault = ""
        if len(row) > len(columns):
            fault = f"{len(row)} values, expected {len(columns)}"
        elif name not in readable:
            fault = "there is no such picture"
        elif name in taken:
            fault = "listed a second time"
        elif not values["label"]:
            fault = "no label"
        elif "split" in values and split not in SPLITS:
            fault = "its split is none of train, val and test"
        if fault:
            wrong.append(f"\n  - line {line}, `{','.join(row)}`: {fault}")
        taken[name] = entry = readable.get(name, Entry(name))
        entry.label, entry.split = values["label"], split
        if "group" in values:
            entry.group = values["group"] or name  # blank: of its own
    if wrong or not rows:
        raise SourceError(
            f"{where}: expected a picture's path from here, such as `cat/1.png`, and its label in each line; "
            f"{len(wrong):,} of {len(rows):,} lines are wrong:{''.join(wrong[:5]) or ' there are none'}\n"
            "Correct these lines, or add some."
        )
    # Other files may lie around.
    folders = {PurePosixPath(name).parent for name in [listing, *taken]}
    beside = [
        Entry(e.name, e.reason or f"not in {listing}")
        for e in album.entries
        if e.name not in taken and PurePosixPath(e.name).parent in folders
        if e.reason or is_picture(e.name)
    ]
    unused = sorted({*columns} - COLUMNS)
    beside += [Entry(name or "no name", f"a column of {listing} without a use") for name in unused]
    album.entries = [*taken.values(), *beside]
    return album
