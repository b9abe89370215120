"""A folder or .zip of pictures → labelled arrays.

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
import statistics
import warnings
import zipfile
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from pydantic import TypeAdapter, ValidationError
from safetensors.numpy import save_file

from cgan.data.dataset import SPLITS, LabelledImages, digest_of
from cgan.errors import SourceError, listed
from cgan.files import replacing
from cgan.model import file_facts
from cgan.params.sections import ClassName, DataParams

MAX_SIDE, MAX_CLASSES = 256, 1000
SUFFIXES = (".png", ".jpg", ".jpeg", ".jfif", ".gif", ".bmp", ".webp", ".tif", ".tiff")
FORMATS = ("PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF", "PPM")
PASSED_OVER = ("Thumbs.db", "desktop.ini", "__MACOSX")
MAX_PIXELS = 89_000_000  # of a picture; Pillow warns of a bomb above
MAX_FILE_BYTES = 500_000_000  # of a picture in an archive
MAX_DEPTH = 3  # folders around the classes
AS_SPLIT = {"training": "train", "valid": "val", "validation": "val"}
CUT_SEEN = 0.05  # share of the area: less is not worth a word
FEW = 0.1  # share of pictures that are unlike the rest
ASPECT_AREA = 32 * 32  # pixels of the shape that is proposed
TENSORS = ("images", "labels", "splits", "groups")  # of the file


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


# --- what is there ------------------------------------------------------------------------------


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


def _is_picture_name(name: str) -> bool:
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
        if len(heads) != 1 or any(map(_is_picture_name, _loose(album, inner))):
            break
        deeper = f"{inner}{heads.pop()}/"
        loose = _loose(album, deeper)
        if any(map(_is_picture_name, loose)) and not any(n.endswith(".csv") for n in loose):
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
            album.left[name] = "in no class's folder" if _is_picture_name(name) else "no picture"
    album.folders = {
        f for f in album.folders if f.startswith(inner) and f[len(inner) :].count("/") == laid_out
    }
    if any(map(_is_picture_name, album.labels)):
        return album
    if loose := [name for name in album.names if _is_picture_name(name)]:
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
    unlisted = [n for n in album.names if n not in album.labels and _is_picture_name(n)]
    album.left |= dict.fromkeys(unlisted, f"not in {table}")
    near = {
        PurePosixPath(name).parent for name in [table, *album.labels]
    }  # it may lie among other files
    album.left = {n: why for n, why in album.left.items() if PurePosixPath(n).parent in near}
    album.folders = set()
    return album


# --- what it is like ----------------------------------------------------------------------------


@dataclass
class Notes:
    """Of the pictures, by their names: what was done to them that nobody asked for."""

    white: list[str] = field(default_factory=list)
    frames: list[str] = field(default_factory=list)
    colour: list[str] = field(default_factory=list)
    scales: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))


def read_album(album: Album, params: DataParams) -> LabelledImages:
    """The pictures as arrays, grey if all are grey, each fitted to `data.height` × `data.width`.

    Raises SourceError that names all damaged files at once; for pictures of different sizes where no size is
    set; for a name that no class can have.
    """
    notes, damaged = Notes(), dict[str, str]()
    sizes: dict[tuple[int, int], str] = {}
    shapes: dict[str, list[float]] = defaultdict(list)
    cuts: dict[str, list[float]] = defaultdict(list)
    size = (params.width, params.height) if params.width and params.height else None
    found: dict[str, NDArray[np.uint8]] = {}
    total = 0
    for name, label in album.labels.items():
        try:
            picture = _picture(album, name, notes, 4 * max(size) if size else 0)
        except Exception as error:  # Pillow and zipfile raise a dozen kinds
            if _is_picture_name(name) or not isinstance(error, UnidentifiedImageError):
                unknown = isinstance(error, UnidentifiedImageError)
                damaged[name] = "none of " + ", ".join(FORMATS) if unknown else first_line(error)
            else:
                album.left[name] = "no picture"
            continue
        sizes.setdefault(picture.size, name)
        shapes[label].append(picture.height / picture.width)
        if size or len(sizes) == 1:
            cuts[label].append(_cut(picture.size, size, params.fit))
            found[name] = np.asarray(_fitted(picture, size or picture.size, params.fit))
            total += found[name].size
            _check_room(total, params, album.root)
    kept = [name for name in album.labels if name in found]
    _check(album, kept, damaged, notes, {} if size else sizes, shapes)
    names, labels = _classes(album, kept)
    order = np.argsort(labels, kind="stable")
    kept, labels = [kept[n] for n in order], labels[order]
    images = _stacked([found.pop(name) for name in kept])
    _check_room(images.size, params, album.root)
    splits = np.array([SPLITS.index(album.splits.get(n, "train")) for n in kept], np.uint8)
    groups = np.unique([album.groups.get(n, n) for n in kept], return_inverse=True)[1]
    known = [array for array, there in ((splits, album.splits), (groups, album.groups)) if there]
    said = _in_words(album, kept, notes, images.shape[1] == 3)
    cut = {label: (statistics.median(each), max(each)) for label, each in cuts.items() if each}
    if any(middle > CUT_SEEN or most > 2 * CUT_SEEN for middle, most in cut.values()):
        said.append(_cut_in_words(cut, images.shape[2:]))
    return LabelledImages(
        images,
        labels,
        np.arange(1, len(labels) + 1),
        len(names),
        digest_of(images, labels, *known),
        images.nbytes,
        tuple(said),
        files=[f"{album.root}/{name}" for name in kept],
        class_names=None if names == [str(n) for n in range(len(names))] else names,
        splits=splits if album.splits else None,
        groups=groups if album.groups else None,
    )


def save_pictures(path: Path, pictures: LabelledImages) -> None:
    """Write atomically; equal pictures give equal bytes."""
    arrays = {name: getattr(pictures, name) for name in TENSORS}
    tensors = {name: array for name, array in arrays.items() if array is not None}
    facts = {
        "kind": "pictures",
        "digest": pictures.sha256,
        "class_names": pictures.class_names,
        "classes": pictures.classes,
        "warnings": list(pictures.warnings),
    }
    with replacing(path) as temporary:
        save_file(tensors, temporary, file_facts.metadata_of(facts))


def _picture(album: Album, name: str, notes: Notes, enough: int) -> Image.Image:
    """`enough`: pixels a side to which a large JPEG may be made smaller while it is unpacked, far sooner."""
    with album.read(name) as file, warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # MAX_PIXELS refuses it
        with Image.open(file, formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ValueError(f"{image.width:,} × {image.height:,} pixels are too many")
            if enough:
                image.draft(None, (enough, enough))
            return _plain(image, name, notes)


def _plain(image: Image.Image, name: str, notes: Notes) -> Image.Image:
    """Upright, on white, in mode L where it has no colour, else RGB. Raises ValueError for no picture."""
    if image.format != "MPO" and getattr(image, "n_frames", 1) > 1:
        notes.frames.append(name)
        image.seek(0)
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith(("I", "F")):
        return Image.fromarray(_scaled(image, name, notes))
    if image.has_transparency_data:
        layers = image.convert("RGBA")
        image = layers.convert("RGB")
        if np.asarray(layers.getchannel("A")).min() < 255:
            notes.white.append(name)
            white = Image.new("RGBA", layers.size, "white")
            image = Image.alpha_composite(white, layers).convert("RGB")
    if image.mode in ("1", "L"):
        return image.convert("L")
    image = image.convert("RGB")
    red, green, blue = (plane.tobytes() for plane in image.split())
    if red == green == blue:
        return image.getchannel(0)
    notes.colour.append(name)
    return image


def _scaled(image: Image.Image, name: str, notes: Notes) -> NDArray[np.uint8]:
    """Whole numbers of 16 bits and fractions → 0–255, by the scale that their kind has."""
    values = np.asarray(image)
    low, high = float(values.min()), float(values.max())
    if image.mode.startswith("I"):
        scale = 65535
    else:
        scale = next((most for most in (1, 255, 65535) if high <= most), 0)
        notes.scales[f"0–{scale:,}"].append(name)
    if not (low >= 0 and high <= scale):  # NaN too
        raise ValueError(f"values from {low:g} to {high:g}, expected 0–1, 0–255 or 0–65,535")
    if image.mode.startswith("I"):
        return (values >> 8).astype(np.uint8)
    return (values * (255 / scale)).round().astype(np.uint8)


def _fitted(picture: Image.Image, size: tuple[int, int], fit: str) -> Image.Image:
    if picture.size == size:
        return picture
    if fit == "stretch":
        return picture.resize(size, Image.Resampling.LANCZOS)
    if fit == "crop":
        return ImageOps.fit(picture, size, Image.Resampling.LANCZOS)
    pixels = np.asarray(picture)
    edge = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    colour = tuple(np.atleast_1d(np.median(edge, axis=0)).astype(int).tolist())
    return ImageOps.pad(picture, size, Image.Resampling.LANCZOS, color=colour)


def _cut(size: tuple[int, int], to: tuple[int, int] | None, fit: str) -> float:
    """The share of a picture's area that is cut off."""
    if to is None or fit != "crop":
        return 0.0
    width, height = size[0] / to[0], size[1] / to[1]
    return 1 - min(width, height) / max(width, height)


def _stacked(pictures: list[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """→ uint8 [N, C, H, W]; grey ones get three equal planes beside colour."""
    channels = max(3 if picture.ndim == 3 else 1 for picture in pictures)
    images = np.empty((len(pictures), channels, *pictures[0].shape[:2]), np.uint8)
    for n, picture in enumerate(pictures):
        images[n] = picture.transpose(2, 0, 1) if picture.ndim == 3 else picture
    return images


def _classes(album: Album, kept: list[str]) -> tuple[list[str], NDArray[np.int64]]:
    """The names of the classes, in the order of their numbers where all are numbers, and the labels."""
    found = {album.labels[name] for name in kept}
    trained = {album.labels[n] for n in kept if album.splits.get(n, "train") == "train"}
    if missing := sorted(found - trained):
        raise SourceError(
            f"{album.root}: no picture of {listed(missing)} to train on, in val or test alone. Add some, or "
            "remove those."
        )
    numbers = all(name.isdecimal() for name in found)
    names = sorted(found, key=lambda name: (int(name) if numbers else 0, name))
    for name in names:
        try:
            TypeAdapter(ClassName).validate_python(name)
        except ValidationError as error:
            reason = error.errors()[0]["msg"].removeprefix("Value error, ")
            raise SourceError(
                f"{album.root}: {name[:80]!r} cannot name a class: {reason}. Rename it."
            ) from None
    if len(names) > MAX_CLASSES:
        raise SourceError(
            f"{album.root}: {len(names):,} classes, expected at most {MAX_CLASSES:,}."
        )
    number_of = {name: number for number, name in enumerate(names)}
    return names, np.array([number_of[album.labels[name]] for name in kept], np.int64)


def _check(
    album: Album,
    kept: list[str],
    damaged: dict[str, str],
    notes: Notes,
    sizes: dict[tuple[int, int], str],
    shapes: dict[str, list[float]],
) -> None:
    problems = []
    if damaged:
        shown = "".join(f"\n  - {name}: {why}" for name, why in [*damaged.items()][:5])
        problems.append(
            f"{len(damaged):,} of {len(album.labels):,} pictures cannot be read:{shown}\nRemove or replace "
            "them."
        )
    if len(notes.scales) > 1:
        shown = ", ".join(f"{scale}: {listed(names, 2)}" for scale, names in notes.scales.items())
        problems.append(f"pictures of fractions have different scales ({shown}). Give them one.")
    if len(sizes) > 1 or any(max(size) > MAX_SIDE for size in sizes):
        shown = listed([f"{w} × {h} ({name})" for (w, h), name in sizes.items()], 4)
        height, width = _proposed(shapes)
        problems.append(
            f"pictures of {shown}; expected one size, at most {MAX_SIDE} × {MAX_SIDE}. Set `data.height: "
            f"{height}` and `data.width: {width}` in params.yaml: of this shape least is cut off. With "
            "`data.fit: pad` nothing is."
        )
    if not (problems or kept):
        problems.append("no pictures. Put them there.")
    if problems:
        raise SourceError(f"{album.root}: " + "\n".join(problems))


def _proposed(shapes: dict[str, list[float]]) -> tuple[int, int]:
    """Height and width in steps of 8, by which pictures lose least; each class counts alike."""

    def loss(tall: float) -> float:
        cuts = ([1 - min(tall / h, h / tall) for h in each] for each in shapes.values())
        return statistics.fmean(map(statistics.fmean, cuts))

    sides = range(16, 72, 8)
    pairs = [(h, w) for h in sides for w in sides if 0.7 < h * w / ASPECT_AREA < 1.5]
    return min(pairs, key=lambda pair: (round(loss(pair[0] / pair[1]), 2), abs(pair[0] - pair[1])))


def _check_room(size: int, params: DataParams, root: Path) -> None:
    if size > params.max_megabytes * 1_000_000:
        raise SourceError(
            f"{root}: more than {params.max_megabytes:,} MB of pixels, the limit. Set `data.height` and "
            "`data.width` to smaller sizes, or raise `data.max_megabytes` in params.yaml."
        )


def _in_words(album: Album, kept: list[str], notes: Notes, colour: bool) -> list[str]:
    left = dict(album.left)
    labels = {album.labels[name] for name in kept}
    left |= {
        f: "no picture in it" for f in sorted(album.folders) if f.rpartition("/")[2] not in labels
    }
    few = colour and len(notes.colour) < FEW * len(kept)
    found = [
        (left, f"Left out: {len(left):,}: {listed([f'{n} ({why})' for n, why in left.items()])}."),
        (
            notes.white,
            f"Transparent: {len(notes.white):,} pictures were put on white: {listed(notes.white)}.",
        ),
        (
            notes.frames,
            f"Several frames: of {len(notes.frames):,} the first is read: {listed(notes.frames)}.",
        ),
        (
            few,
            f"Colour: {len(notes.colour):,} of {len(kept):,} pictures have colour, so that all are read in "
            f"colour: {listed(notes.colour)}. Make these grey, unless it is meant so.",
        ),
    ]
    return [text for there, text in found if there]


def _cut_in_words(cut: dict[str, tuple[float, float]], shape: tuple[int, ...]) -> str:
    by_class = sorted(cut.items(), key=lambda item: -item[1][0])
    shown = [
        f"{name} {100 * middle:.0f} % (most {100 * most:.0f} %)"
        for name, (middle, most) in by_class
    ]
    return (
        f"Cut off: to fit {shape[0]} × {shape[1]}, pictures lose a part of their area, at the median "
        f"{listed(shown, 10)}. What lies there is never drawn. `data.fit: pad` keeps all of it."
    )


def first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
