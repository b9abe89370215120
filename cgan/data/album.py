"""What a path means: pixels in a CSV, or pictures, as one table of the files in a folder or .zip.

The classes come from the folders (`cat/1.png`, also deeper), from torchvision's layout (`train/cat/1.png`,
`val/…`, `test/…`), or from a CSV beside the pictures, `path,label[,group][,split]`. What is not read keeps
its row, with the reason.
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
from typing import IO, TYPE_CHECKING

from cgan.data.dataset import SPLITS
from cgan.errors import SourceError, listed

if TYPE_CHECKING:
    import pandas as pd

PICTURES = (".png", ".jpg", ".jpeg", ".jfif", ".gif", ".bmp", ".webp", ".tif", ".tiff")
ARCHIVES = (".zip", ".gz")
OF_THE_SYSTEM = ("Thumbs.db", "desktop.ini", "__MACOSX")
HEAD_BYTES = 4096
MIN_PIXELS = 64  # columns of a CSV
AS_SPLIT = {"training": "train", "valid": "val", "validation": "val"}
COLUMNS = ["label", "split", "group", "reason"]
NO_PICTURE = "no PNG, JPEG, GIF, BMP, WebP or TIFF"


@dataclass
class Album:
    """The files below `root`, a folder or .zip. `reasons`: by name why a file is not read, `` if it is.
    `table`: a row a file, by its name; texts: `label`, `split`, `group`, blank where nothing says them, and
    `reason`."""

    root: Path
    archive: zipfile.ZipFile | None
    reasons: dict[str, str]
    table: pd.DataFrame = field(init=False)

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
        if album := _arranged(Album(path, None, _in_folder(path))):
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
            album = _arranged(Album(path, archive, _in_zip(path, archive)))
        elif path.suffix.lower() == ".csv":
            beside = Album(path.parent, None, {})
            if _lists_paths(beside.head(path.name)):
                beside.reasons = _in_folder(path.parent)
                album = _by_listing(beside, path.name)
        yield path, album


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
    files = sorted(f for f in folder.glob("[!.]*") if f.suffix.lower() in (".csv", *ARCHIVES))
    if len(files) == 1:
        return files[0]
    raise SourceError(
        f"{folder}: expected one .csv, .csv.gz or .zip, or folders of pictures, one a class; found "
        f"{listed([file.name for file in files]) or 'neither'}. Put the pictures of each class into a folder "
        "with its name, or a CSV `path,label` beside them. Of several files, set `data.path` to the one that "
        "you mean."
    )


def _in_folder(root: Path) -> dict[str, str]:
    """The files below it, each with why it is not read, `` if it is."""
    reasons, seen = dict[str, str](), {root.resolve()}
    for folder, inside, names in os.walk(root, followlinks=True):
        inside.sort()
        for name in [*inside, *names]:
            path = Path(folder, name)
            why = _by_name(name) or _on_disk(path, seen)
            if why and name in inside:
                inside.remove(name)
            if name not in inside:
                reasons[path.relative_to(root).as_posix()] = why
    if foreign := [name for name in reasons if re.search("[\ud800-\udfff]", name)]:
        raise SourceError(
            f"{root}: expected names in UTF-8, as DVC does; of others there are {len(foreign):,}: "
            f"{listed(foreign)}. Rename them: `convmv -r -f latin1 -t utf8 --notest FOLDER` does it for all."
        )
    return reasons


def _on_disk(path: Path, seen: set[Path]) -> str:
    """Why a file or folder is not read. `seen`: folders, without links; this one is added."""
    if not path.is_dir():
        return "" if path.is_file() else "a dangling link" if path.is_symlink() else "no file"
    real = path.resolve()
    if real in seen:
        return "a link to something that is read already"
    seen.add(real)
    return "" if any(path.iterdir()) else "an empty folder"


def _in_zip(path: Path, archive: zipfile.ZipFile) -> dict[str, str]:
    """As `_in_folder`."""
    refuse_hostile(archive, str(path))
    files = [entry.filename for entry in archive.infolist() if not entry.is_dir()]
    filled = {folder for name in files for folder in PurePosixPath(name).parents}
    empty = [n for n in archive.namelist() if n.endswith("/") and PurePosixPath(n) not in filled]
    reasons = {n: next(filter(None, map(_by_name, PurePosixPath(n).parts)), "") for n in files}
    return reasons | dict.fromkeys(empty, "an empty folder")


def _by_name(name: str) -> str:
    if name in OF_THE_SYSTEM:
        return "a system file"
    return "hidden" if name.startswith(".") else ""


# --- of which class each is ----------------------------------------------------------------------


def _arranged(album: Album) -> Album | None:
    """The album with its table; None where it has no pictures in folders, or a CSV of pixels around them."""
    names = sorted(name for name, why in album.reasons.items() if not why)
    folders = {name.rpartition("/")[0] for name in names if is_picture(name)}
    around = os.path.commonpath(folders) if folders else ""
    for name in names:
        if name.lower().endswith(".csv") and f"{around}/".startswith(name[: name.rfind("/") + 1]):
            head = album.head(name)
            if _lists_paths(head):
                return _by_listing(album, name)
            if head.count(b",") >= MIN_PIXELS:
                return None
    album.table = _by_folders(
        album.reasons, around.rpartition("/")[0] if len(folders) == 1 else around
    )
    readable = album.table.index[album.table["reason"] == ""]
    return album if any(map(is_picture, readable)) else None


def _lists_paths(head: bytes) -> bool:
    columns = head.decode("utf-8-sig", "replace").partition("\n")[0].split(",")
    return {"path", "label"} <= {column.strip() for column in columns}


def _by_folders(reasons: dict[str, str], around: str) -> pd.DataFrame:
    """The class is the folder's name; in torchvision's layout that of the folder in train, val or test, of
    which val and test may also lie beside the classes."""
    import pandas as pd  # not for a CSV: it is half of the memory of the stage download

    start, rows = f"{around}/" if around else "", dict[str, tuple[str, ...]]()
    paths = {n: n[len(start) :].split("/") for n in sorted(reasons) if n.startswith(start)}
    heads = {path[0] for name, path in paths.items() if len(path) > 1 and not reasons[name]}
    parts = {head: AS_SPLIT.get(head.lower(), head.lower()) for head in heads}
    laid_out = "train" in parts.values() and set(parts.values()) <= set(SPLITS)
    laid_out = laid_out and any(len(path) > 2 for path in paths.values())
    for name in sorted(reasons):
        head, *inside = paths.get(name, [name])
        label, split = (head, "train") if inside and not laid_out else ("", "")
        if len(inside) > 1 and parts.get(head) in SPLITS and (laid_out or inside[0] in heads):
            label, split = inside[0], parts[head]
        stray = "not in a class's folder" if is_picture(name) else NO_PICTURE
        rows[name] = (label, split, "", reasons[name] or stray * (not label))
    table = pd.DataFrame.from_dict(rows, orient="index", columns=COLUMNS)
    if set(table["split"]) <= {"", "train"}:
        table["split"] = "" if not laid_out else table["split"]
    return table


def _by_listing(album: Album, listing: str) -> Album:
    """What a CSV says: `path` from its own folder, `label`, and perhaps `group` and `split`."""
    import numpy as np
    import pandas as pd

    where = f"{album.root}/{listing}"
    try:
        with album.open(listing) as file:
            rows = pd.read_csv(file, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except (ValueError, pd.errors.ParserError) as error:
        raise SourceError(
            f"{where}: expected a CSV of `path,label`; it cannot be read ({first_line(error)}). Correct it, "
            "or save it again as “CSV UTF-8”."
        ) from None
    rows = rows.rename(columns=str.strip).apply(lambda column: column.str.strip())
    unused = sorted(set(rows) - {"path", "label", "group", "split"})
    names = listing[: -len(PurePosixPath(listing).name)] + rows["path"]
    table = rows.reindex(columns=COLUMNS, fill_value="").set_index(names)
    if "split" in rows:
        table["split"] = table["split"].str.lower().replace(AS_SPLIT)
    if "group" in rows:
        table["group"] = table["group"].where(table["group"] != "", names.to_numpy())
    splits = [*SPLITS] if "split" in rows else [""]
    faults = {
        "there is no such picture": ~names.isin(
            [name for name, why in album.reasons.items() if not why]
        ),
        "listed a second time": names.duplicated(),
        "no label": rows["label"] == "",
        "its split is none of train, val and test": ~table["split"].isin(splits).to_numpy(),
    }
    why = np.select([*faults.values()], [*faults], "")
    wrong = np.flatnonzero(why != "")
    if len(wrong) or rows.empty:
        shown = [f"\n  - line {n + 2}, `{','.join(rows.loc[n])}`: {why[n]}" for n in wrong[:5]]
        raise SourceError(
            f"{where}: expected a picture and its label in each line; {len(wrong):,} of {len(rows):,} lines "
            f"are wrong:{''.join(shown) or ' there are none'}\nCorrect these lines, or add some."
        )
    # Other files may lie around.
    folders = {PurePosixPath(name).parent for name in [listing, *names]}
    beside = {
        name: why or f"not in {listing}"
        for name, why in sorted(album.reasons.items())
        if PurePosixPath(name).parent in folders and (why or is_picture(name))
    }
    beside |= dict.fromkeys(unused, f"a column of {listing} without a use")
    others = pd.DataFrame({"reason": beside}, dtype=str).drop(index=names, errors="ignore")
    album.table = pd.concat([table, others.reindex(columns=COLUMNS, fill_value="")])
    return album
