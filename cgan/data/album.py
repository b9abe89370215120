"""Opens a path, which may be a CSV of pixels or an album of pictures, and finds the class of each picture.

The classes come from the folders (`cat/1.png`, also deeper), from those below `train`, `val` and `test`
(`train/cat/1.png`), or from a listing: a CSV `path,label[,group][,split]`, with paths from its own folder.
"""

import contextlib
import os
import re
import stat
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from cgan.base.errors import DataError
from cgan.base.settings import setting
from cgan.base.text import bullets, listed
from cgan.data.images import SPLITS

PICTURE_ENDINGS = (
    ".png", ".jpg", ".jpeg", ".jfif", ".gif", ".bmp", ".webp", ".tif", ".tiff", ".pgm", ".ppm"
)  # fmt: skip
HEAD_BYTES = 4096  # of a CSV, read to see whether it is a listing
# In an archive: an absolute path, a drive, a way upwards.
LEADS_OUTSIDE = re.compile(r"^[\\/]|^[^\\/]*:|(^|[\\/])\.\.([\\/]|$)")


@dataclass(frozen=True)
class Picture:
    """A picture of an album; `split` and `group` are "" where the source has none."""

    name: str
    label: str
    split: str = ""
    group: str = ""


@dataclass(frozen=True)
class Album:
    """The pictures below `root`, a folder or .zip, and the names of the files that are left out."""

    root: Path
    pictures: list[Picture]
    left_out: list[str]
    archive: zipfile.ZipFile | None = None

    def open(self, name: str) -> IO[bytes]:
        return self.archive.open(name) if self.archive else (self.root / name).open("rb")


@contextlib.contextmanager
def open_source(path: Path) -> Iterator[Path | Album]:
    """Yield the album at `path`, or the file of pixels: a CSV, which may be packed. Raises
    DataError where there is neither, for an unsafe archive, and for a listing with faults."""
    if path.is_dir():
        if album := _album_of_folders(path, _files_below(path)):
            yield album
            return
        path = _only_file(path)
    if not path.is_file():
        raise DataError(
            f"{path} does not exist, or is neither a file nor a folder (looked from {Path.cwd()}). "
            "Give the path of a .csv, .csv.gz or .zip, or of a folder that holds one, or pictures."
        )
    with contextlib.ExitStack() as opened:
        archive = None
        # No .zip, or one that zipfile cannot read: reading the CSV in it reports that.
        with contextlib.suppress(OSError, ValueError, zipfile.BadZipFile, NotImplementedError):
            archive = opened.enter_context(zipfile.ZipFile(path))
        if archive:
            yield _album_of_folders(path, safe_members(archive, str(path)), archive) or path
        else:
            with path.open("rb") as file:
                head = file.readline(HEAD_BYTES).decode("utf-8-sig", "replace")
            is_listing = {"path", "label"} <= {*head.strip().split(",")}
            yield _album_of_listing(path) if is_listing else path


def safe_members(archive: zipfile.ZipFile, name: str) -> list[str]:
    """The names of the files in an archive, which messages call `name`. Raises DataError where any member is
    a link, absolute, or leads upwards."""
    for member in archive.infolist():
        is_link = stat.S_ISLNK(member.external_attr >> 16)
        if is_link or LEADS_OUTSIDE.search(member.filename):
            raise DataError(
                f"{name}: member {member.filename[:80]!r} is a link, or points outside the archive. Nothing "
                "was unpacked; do not trust this file."
            )
    return [member.filename for member in archive.infolist() if not member.is_dir()]


def first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def _only_file(folder: Path) -> Path:
    """The one CSV or archive in a folder without pictures."""
    files = sorted(f for f in folder.glob("[!.]*") if f.suffix.lower() in (".csv", ".zip", ".gz"))
    if len(files) == 1:
        return files[0]
    raise DataError(
        f"{folder}: expected one .csv, .csv.gz or .zip, or folders of pictures (PNG, JPEG, GIF, BMP, WebP or "
        f"TIFF), one a class; found {listed([file.name for file in files]) or 'neither'}. Put the pictures "
        f"of each class into a folder with its name, or set {setting('data.path')} to one of several files."
    )


def _files_below(root: Path) -> Iterator[str]:
    """The names of all files below a folder. A folder to which several links lead is read once."""
    seen = set[str]()
    for folder, folders, files in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        paths = (Path(folder, name) for name in files)
        yield from (path.relative_to(root).as_posix() for path in paths if path.is_file())


def _is_picture(name: str) -> bool:
    hidden = any(part.startswith(".") or part == "__MACOSX" for part in name.split("/"))
    return name.lower().endswith(PICTURE_ENDINGS) and not hidden


def _album_of_folders(
    root: Path, files: Iterable[str], archive: zipfile.ZipFile | None = None
) -> Album | None:
    """The album of the pictures in folders, a folder per class, in whatever folder is around them all or in
    its `train`, `val` and `test`; None where there are none."""
    names = sorted(name for name in files if name != "README.md")  # it comes with data/inbox
    pictures = [name for name in names if _is_picture(name)]
    folders = {name.rpartition("/")[0] for name in pictures}
    top = PurePosixPath(os.path.commonpath(folders) if folders else "")
    if len(folders) == 1:  # it is the class of all pictures
        top = top.parent
    paths = {name: PurePosixPath(name).relative_to(top).parts for name in pictures}
    has_splits = {path[0] for path in paths.values() if len(path) > 1} <= {*SPLITS}
    found = list[Picture]()
    for name, (first, *rest) in paths.items():
        if has_splits and len(rest) > 1:
            found.append(Picture(name, rest[0], first))
        elif rest and not has_splits:
            found.append(Picture(name, first))
    left_out = sorted({*names} - {picture.name for picture in found})
    return Album(root, found, left_out, archive) if found else None


def _album_of_listing(listing: Path) -> Album:
    """The album of the pictures that a listing names."""
    import pandas as pd

    root = listing.parent
    try:
        table = pd.read_csv(listing, dtype=str, keep_default_na=False)
    except ValueError as error:
        raise DataError(
            f"{listing}: expected a CSV of `path,label`; {first_line(error)}."
        ) from None
    pictures, faults = dict[str, Picture](), list[str]()
    for row, values in enumerate(table.to_dict("records"), 1):
        name, split = str(PurePosixPath(values["path"])), values.get("split")
        if not (root / name).is_file() or name in pictures:
            faults.append(f"row {row}: expected a picture that is there once, found `{name}`")
        elif not values["label"] or split not in (None, *SPLITS):
            faults.append(
                f"row {row}: expected a label, and a split of train, val or test; found "
                f"`{','.join(values.values())}`"
            )
        pictures[name] = Picture(name, values["label"], split or "", values.get("group", ""))
    if faults or not pictures:
        shown = bullets(faults) or " 0 rows."
        raise DataError(
            f"{listing}:{shown}\nGive each row a picture's path from this file's folder."
        )
    folders = {(root / name).parent for name in pictures}
    beside = {file.relative_to(root).as_posix() for folder in folders for file in folder.iterdir()}
    return Album(root, [*pictures.values()], sorted(filter(_is_picture, beside - pictures.keys())))
