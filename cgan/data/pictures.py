"""The pictures of an album → labelled arrays: of one size, grey or in colour, with what was done to them."""

from __future__ import annotations

import statistics
import warnings
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from pydantic import TypeAdapter, ValidationError
from safetensors.numpy import save_file

from cgan.data.album import Album, first_line, is_picture_name
from cgan.data.dataset import SPLITS, LabelledImages, digest_of
from cgan.errors import SourceError, listed
from cgan.files import replacing
from cgan.model import file_facts
from cgan.params.sections import ClassName, DataParams

MAX_SIDE, MAX_CLASSES = 256, 1000
FORMATS = ("PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF", "PPM")
MAX_PIXELS = 89_000_000  # of a picture; Pillow warns of a bomb above
CUT_SEEN = 0.05  # share of the area: less is not worth a word
FEW = 0.1  # share of pictures that are unlike the rest
ASPECT_AREA = 32 * 32  # pixels of the shape that is proposed
TENSORS = ("images", "labels", "splits", "groups")  # of the file


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
            if is_picture_name(name) or not isinstance(error, UnidentifiedImageError):
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
