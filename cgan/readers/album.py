"""Opens a path, which may be a CSV of pixels or an album of pictures, and finds the class of each picture.

The classes come from the folders (`cat/1.png`, also deeper), from torchvision's layout (`train/cat/1.png`,
`val/…`, `test/…`), or from a listing: a CSV beside the pictures, `path,label[,group][,split]`. A file that is
not read keeps its entry in the album, with the reason.
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
HEAD_BYTES = 4096  # of a CSV, read to see its columns
MIN_PIXEL_COLUMNS = 64  # a CSV with more columns holds pixels
REQUIRED_COLUMNS = {"path", "label"}  # of a listing
KNOWN_COLUMNS = REQUIRED_COLUMNS | {"group", "split"}
TELLING_COLUMNS = REQUIRED_COLUMNS | {"group"}  # a CSV with one of these is meant to be a listing
SPLIT_SYNONYMS = {"training": "train", "valid": "val", "validation": "val", "testing": "test"}
# Reasons not to read a file.
NO_PICTURE = "no PNG, JPEG, GIF, BMP, WebP or TIFF"
STRAY = "not in a class's folder"


@dataclass
class Entry:
    """A file of an album."""

    name: str
    reason: str = ""  # why it is not read; "" if it is
    # By its folder or a listing; "" where neither says anything.
    label: str = ""
    split: str = ""
    group: str = ""
    in_subfolder: bool = False  # of the folder of its class
    # Found when the picture is read.
    damage: str = ""  # why it cannot be read
    size: tuple[int, int] = (0, 0)  # width, height, perhaps made smaller while it was unpacked
    original_size: tuple[int, int] = (0, 0)  # the same before that
    white_level: int = 0  # the value that is white, in a picture of fractions; 0 for all others
    is_transparent: bool = False
    has_frames: bool = False
    is_colour: bool = False


@dataclass
class Album:
    """The files below `root`, a folder or .zip."""

    root: Path
    archive: zipfile.ZipFile | None = None

    @functools.cached_property
    def entries(self) -> list[Entry]:
        """Sorted by name; raises SourceError for names that cannot be used."""
        root, archive = self.root, self.archive
        files = _files_in_zip(archive, root) if archive else _files_in_folder(root)
        return [Entry(name, reason) for name, reason in sorted(files)]

    def open(self, name: str) -> IO[bytes]:
        return self.archive.open(name) if self.archive else (self.root / name).open("rb")

    def columns(self, name: str) -> list[str]:
        """The columns of a CSV; none of a damaged one, about which its reader has an error."""
        try:
            with self.open(name) as file:
                line = file.readline(HEAD_BYTES).decode("utf-8-sig", "replace")
            line = line.replace("\0", "").strip("\ufffd")  # UTF-16
            return _columns(next(csv.reader([line], delimiter=_separator(line)), []))
        except Exception:  # zipfile raises a dozen kinds
            return []


@contextlib.contextmanager
def open_source(path: Path) -> Iterator[tuple[Path, Album | None]]:
    """Yield the file or folder that `data.path` means, and its album; None for pixels in a CSV, which may be
    packed.

    Raises SourceError where there is neither, for an archive with a link or a name that leads outside, and
    for a listing with faults.
    """
    if path.is_dir():
        if album := _classify(Album(path)):
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
        # No .zip, or one that zipfile cannot read: `cgan.readers.sources.unpack` has an error for that.
        with contextlib.suppress(OSError, ValueError, zipfile.BadZipFile, NotImplementedError):
            archive = opened.enter_context(zipfile.ZipFile(path))
        if archive:
            album = _classify(Album(path, archive))
        elif path.suffix.lower() in TABLES:
            beside = Album(path.parent)
            if REQUIRED_COLUMNS.issubset(beside.columns(path.name)):
                album = _classify_by_listing(beside, path.name)
        yield path, album


def _separator(line: str) -> str:
    return max(SEPARATORS, key=line.count)


def _columns(header: list[str]) -> list[str]:
    return [column.strip().lower() for column in header]


def is_picture(name: str) -> bool:
    return name.lower().endswith(PICTURES)


def refuse_hostile(archive: zipfile.ZipFile, path: str) -> None:
    """Raises SourceError for an archive of which any member is a link, absolute, or leads upwards."""
    for member in archive.infolist():
        absolute, drive, upwards = r"^[\\/]", r"^[^\\/]*:", r"(^|[\\/])\.\.([\\/]|$)"
        leads_outside = re.search(f"{absolute}|{drive}|{upwards}", member.filename)
        unix_mode = member.external_attr >> 16
        if leads_outside or stat.S_ISLNK(unix_mode):
            raise SourceError(
                f"{path}: member {member.filename[:80]!r} is a link, or points outside the archive. Nothing "
                "was unpacked; do not trust this file."
            )


def first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


# --- The files of an album -----------------------------------------------------------------------


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


def _files_in_folder(root: Path) -> list[tuple[str, str]]:
    """The names of files, and of folders that are not looked into, each with the reason why it is not read;
    "" if it is."""
    walk = _walk(root, {root.resolve()})
    files = [(path.relative_to(root).as_posix(), reason) for path, reason in walk]
    if foreign := sorted(name for name, _ in files if re.search("[\ud800-\udfff]", name)):
        raise SourceError(
            f"{root}: expected names in UTF-8, as DVC does; of others there are {len(foreign):,}: "
            f"{listed(foreign)}. Rename them: `convmv -r -f latin1 -t utf8 --notest FOLDER` does it for all."
        )
    return files


def _walk(folder: Path, seen: set[Path]) -> Iterator[tuple[Path, str]]:
    """What is in a folder, also deeper, with reasons. `seen` are resolved folders; those looked into are
    added."""
    folders = []
    for path in sorted(folder.iterdir()):
        if reason := _reason_by_name(path.name):
            yield path, reason
        elif path.name == "README.md" and folder.name == "inbox":
            continue  # it comes with the project
        elif not path.is_dir():
            link = "a dangling link" if path.is_symlink() else "no file"
            yield path, "" if path.is_file() else link
        elif path.resolve() in seen:
            yield path, "a link to something that is read already"
        elif not any(path.iterdir()):
            yield path, "an empty folder"
        else:
            seen.add(path.resolve())
            folders.append(path)
    for path in folders:
        yield from _walk(path, seen)


def _files_in_zip(archive: zipfile.ZipFile, path: Path) -> list[tuple[str, str]]:
    """As `_files_in_folder`."""
    refuse_hostile(archive, str(path))
    names = {*archive.namelist()}
    folders_with_files = {f"{above}/" for name in names for above in PurePosixPath(name).parents}
    files = []
    for name in names - folders_with_files:
        reasons = [reason for part in name.split("/") if (reason := _reason_by_name(part))]
        if name.endswith("/"):
            reasons = ["an empty folder"]
        files.append((name, reasons[0] if reasons else ""))
    return files


def _reason_by_name(name: str) -> str:
    """Why a file or folder of this name is not read; "" if it may be."""
    if name in SYSTEM_FILES:
        return "a system file"
    return "hidden" if name.startswith(".") else ""


# --- The class of each picture -------------------------------------------------------------------


def _classify(album: Album) -> Album | None:
    """The album with the class of each picture, by a listing or by folders. None where it holds no pictures
    in folders, or where a CSV of pixels lies in a folder around them."""
    names = [entry.name for entry in album.entries if not entry.reason]
    folders = {name.rpartition("/")[0] for name in names if is_picture(name)}
    top = os.path.commonpath(folders) if folders else ""
    columns = {name: album.columns(name) for name in names if name.lower().endswith(TABLES)}
    tables_around = [name for name in columns if _lies_around(name, top)]
    listings = [name for name in tables_around if REQUIRED_COLUMNS.issubset(columns[name])]
    listing = listings[0] if listings else ""
    if folders:
        _refuse_other_listings(album.root, columns, listing)
    if listing:
        return _classify_by_listing(album, listing)
    if any(len(columns[name]) > MIN_PIXEL_COLUMNS for name in tables_around):
        return None
    if len(folders) == 1:  # it is the class of all pictures
        top = top.rpartition("/")[0]
    _classify_by_folders(album.entries, top)
    return album if any(is_picture(e.name) for e in album.entries if not e.reason) else None


def _lies_around(name: str, folder: str) -> bool:
    """Whether this file is in `folder`, or in one above it."""
    return PurePosixPath(folder).is_relative_to(PurePosixPath(name).parent)


def _refuse_other_listings(root: Path, columns: dict[str, list[str]], listing: str) -> None:
    """Raises SourceError for a CSV that seems to be a listing, and is not the one that is read. `columns`:
    those of each CSV, by its name."""
    others = []
    for name, names in columns.items():
        seems_listing = len(names) <= MIN_PIXEL_COLUMNS and TELLING_COLUMNS.intersection(names)
        if name != listing and seems_listing:
            others.append(f"{name} ({', '.join(names)})")
    if others:
        found = [listing, *others] if listing else others
        raise SourceError(
            f"{root}: expected one CSV with the columns path and label, perhaps group and split, in the "
            f"folder around all pictures; found {listed(found)}. Correct its first line or its place; join "
            "several, with a column `split` (train, val, test), or set "
            f"{setting('data.path')} to the one that you mean. Take out of the folder what says nothing of "
            "these pictures."
        )


def _classify_by_folders(entries: list[Entry], top: str) -> None:
    """Give each picture below the folder `top` its class and split, by its path from there.

    `cat/1.png` is of the class `cat`. In torchvision's layout, `train/cat/1.png`, the first folder is the
    split. Folders `val` and `test` may also lie beside the classes (`val/cat/1.png` beside `cat/1.png`), or
    be above `top`. Whatever fits nowhere gets a reason not to be read.
    """
    prefix = f"{top}/" if top else ""
    inside = [entry for entry in entries if entry.name.startswith(prefix)]
    paths = [(entry, entry.name.removeprefix(prefix).split("/")) for entry in inside]
    first_folders = {
        first
        for entry, (first, *rest) in paths
        if rest and is_picture(entry.name) and not entry.reason
    }
    split_of = {name: split for name in first_folders if (split := _split_name(name)) in SPLITS}
    is_torchvision = len(split_of) == len(first_folders) and any(len(path) > 2 for _, path in paths)
    for entry, (first, *rest) in paths:
        second_is_class = len(rest) > 1 and (is_torchvision or rest[0] in first_folders)
        if first in split_of and second_is_class:
            entry.label, entry.split = rest[0], split_of[first]
            entry.in_subfolder = len(rest) > 2
        elif rest and not is_torchvision:
            entry.label, entry.split = first, "train"
            entry.in_subfolder = len(rest) > 1
        else:
            entry.reason = entry.reason or _reason_without_class(entry.name)
    for entry in entries:
        if not entry.name.startswith(prefix):
            entry.reason = entry.reason or _reason_without_class(entry.name)
    if not is_torchvision and {entry.split for entry in entries} <= {"", "train"}:
        for entry in entries:
            entry.split = ""  # the source has no splits
    splits_above = [name for name in map(_split_name, top.split("/")) if name in ("val", "test")]
    if splits_above:
        for entry in entries:
            entry.split = splits_above[-1] if entry.label else ""


def _reason_without_class(name: str) -> str:
    return STRAY if is_picture(name) else NO_PICTURE


def _split_name(name: str) -> str:
    """`val` for `Validation`, `valid` and `val`, and so on; the name in lower case, if it is no split's."""
    return SPLIT_SYNONYMS.get(name.lower(), name.lower())


def _classify_by_listing(album: Album, listing: str) -> Album:
    """The album with the class, group and split of each picture by a listing; paths start at its folder."""
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
            if any(columns.count(name) > 1 for name in KNOWN_COLUMNS):
                raise ValueError("two columns have one name")
    except Exception as error:  # zipfile raises a dozen kinds
        raise SourceError(
            f"{where}: expected a CSV of `path,label`; it cannot be read ({first_line(error)}). Correct it, "
            "or save it again as “CSV UTF-8”."
        ) from None
    readable = {entry.name: entry for entry in album.entries if not entry.reason}
    listed_entries, faults = dict[str, Entry](), list[str]()
    for line, row in rows:
        values = dict.fromkeys(columns, "") | dict(zip(columns, row, strict=False))
        name = str(PurePosixPath(folder, values["path"]))
        split = _split_name(values.get("split", ""))
        fault = ""
        if len(row) > len(columns):
            fault = f"{len(row)} values, expected {len(columns)}"
        elif name not in readable:
            fault = "there is no such picture"
        elif name in listed_entries:
            fault = "listed a second time"
        elif not values["label"]:
            fault = "no label"
        elif "split" in values and split not in SPLITS:
            fault = "its split is none of train, val and test"
        if fault:
            faults.append(f"\n  - line {line}, `{','.join(row)}`: {fault}")
        listed_entries[name] = entry = readable.get(name, Entry(name))
        entry.label, entry.split = values["label"], split
        if "group" in values:
            entry.group = values["group"] or name  # blank: a group of its own
    if faults or not rows:
        raise SourceError(
            f"{where}: expected a picture's path from here, such as `cat/1.png`, and its label in each line; "
            f"{len(faults):,} of {len(rows):,} lines are wrong:{''.join(faults[:5]) or ' there are none'}\n"
            "Correct these lines, or add some."
        )
    # Of other files, those count as left out that lie beside these, and are pictures or have a reason.
    folders = {PurePosixPath(name).parent for name in [listing, *listed_entries]}
    left_out = [
        Entry(entry.name, entry.reason or f"not in {listing}")
        for entry in album.entries
        if entry.name not in listed_entries
        and PurePosixPath(entry.name).parent in folders
        and (entry.reason or is_picture(entry.name))
    ]
    unknown = sorted({*columns} - KNOWN_COLUMNS)
    left_out += [
        Entry(name or "no name", f"a column of {listing} without a use") for name in unknown
    ]
    album.entries = [*listed_entries.values(), *left_out]
    return album
