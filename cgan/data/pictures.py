"""The pictures of an album → labelled arrays: of one size, grey or in colour, with what was done to them."""

from __future__ import annotations

import io
import itertools
import statistics
import warnings
from collections import defaultdict

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from pydantic import TypeAdapter, ValidationError

from cgan.data.album import Album, first_line, is_picture
from cgan.data.dataset import SPLITS, LabelledImages, digest_of
from cgan.errors import SourceError, listed, percent
from cgan.params.sections import ClassName, DataParams

MAX_SIDE, MAX_CLASSES = 256, 1000
FORMATS = ("PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF", "PPM")
MAX_BYTES = 500_000_000  # of a picture's file
CUT_SEEN = 0.05  # share of the area: less is not worth a word
FEW = 0.1  # share of pictures that are unlike the rest
PROPOSED_AREA = 32 * 32  # pixels of the shape that is proposed

Size = tuple[int, int]  # width, height, as Pillow has them
Notes = defaultdict[str, list[str]]
"""By what was done to pictures that nobody asked for: their names."""


def read_album(album: Album, params: DataParams) -> LabelledImages:
    """The pictures as arrays, grey if all are grey, each fitted to `data.height` × `data.width`.

    Raises SourceError that names all damaged files at once; for pictures of different sizes where no size is
    set; for a name that no class can have.
    """
    size = (params.width, params.height) if params.width and params.height else None
    notes, damaged, found = Notes(list), dict[str, str](), dict[str, NDArray[np.uint8]]()
    sizes: dict[str, list[Size]] = defaultdict(list)  # by class
    examples: dict[Size, str] = {}
    for name, label in album.labels.items():
        try:
            picture = _picture(album, name, notes, 4 * max(size) if size else 0)
        except Exception as error:  # Pillow and zipfile raise a dozen kinds
            if not isinstance(error, UnidentifiedImageError):
                damaged[name] = first_line(error)
            elif is_picture(name):
                damaged[name] = f"none of {', '.join(FORMATS)}"
            else:
                album.left[name] = "no picture"
            continue
        sizes[label].append(picture.size)
        examples.setdefault(picture.size, name)
        if size or len(examples) == 1:
            found[name] = np.asarray(_fitted(picture, size or picture.size, params.fit))
            values = found[name].shape[0] * found[name].shape[1] * (3 if notes["colour"] else 1)
            if len(found) * values > params.max_megabytes * 1_000_000:
                raise SourceError(
                    f"{album.root}: more than {params.max_megabytes:,} MB of pixels, the limit. Set "
                    "`data.height` and `data.width` to smaller sizes, or raise `data.max_megabytes`."
                )
    _check(album, damaged, notes, {} if size else examples, sizes)
    names = _class_names(album, found)
    number_of = {name: number for number, name in enumerate(names)}
    kept = sorted(found, key=lambda name: number_of[album.labels[name]])
    labels = np.array([number_of[album.labels[name]] for name in kept], np.int64)
    images = _stacked([found.pop(name) for name in kept])
    splits = groups = None
    if album.splits:
        splits = np.array([SPLITS.index(album.splits[name]) for name in kept], np.uint8)
    if album.groups:
        groups = np.unique([album.groups[name] for name in kept], return_inverse=True)[1]
    said = _in_words(album, notes, len(kept))
    if size and params.fit == "crop":
        said += _cut_in_words(sizes, size)
    return LabelledImages(
        images,
        labels,
        np.arange(1, len(labels) + 1),
        len(names),
        digest_of(images, labels, *(array for array in (splits, groups) if array is not None)),
        images.nbytes,
        tuple(said),
        files=[f"{album.root}/{name}" for name in kept],
        class_names=None if names == [str(n) for n in range(len(names))] else names,
        splits=splits,
        groups=groups,
    )


# --- one picture ---------------------------------------------------------------------------------


def _picture(album: Album, name: str, notes: Notes, enough: int) -> Image.Image:
    """Upright, on white, in mode L where it has no colour, else RGB. `enough`: pixels a side to which a large
    JPEG may be made smaller while it is unpacked, far sooner. Raises ValueError for no picture."""
    with album.open(name) as file:
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise ValueError(f"larger than {MAX_BYTES / 1e6:.0f} MB")
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        image: Image.Image = Image.open(io.BytesIO(content), formats=FORMATS)
    if enough:
        image.draft(None, (enough, enough))
    if image.format != "MPO" and getattr(image, "n_frames", 1) > 1:
        notes["frames"].append(name)
        image.seek(0)
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith(("I", "F")):
        return Image.fromarray(_scaled(image, name, notes))
    if image.has_transparency_data:
        layers = image.convert("RGBA")
        image = layers.convert("RGB")
        if np.asarray(layers.getchannel("A")).min() < 255:
            notes["white"].append(name)
            white = Image.new("RGBA", layers.size, "white")
            image = Image.alpha_composite(white, layers).convert("RGB")
    if image.mode in ("1", "L"):
        return image.convert("L")
    image = image.convert("RGB")
    red, green, blue = (plane.tobytes() for plane in image.split())
    if red == green == blue:
        return image.getchannel(0)
    notes["colour"].append(name)
    return image


def _scaled(image: Image.Image, name: str, notes: Notes) -> NDArray[np.uint8]:
    """Whole numbers of 16 bits and fractions → 0–255, by the scale that their kind has."""
    values = np.asarray(image)
    low, high = float(values.min()), float(values.max())
    whole = image.mode.startswith("I")
    scale = 65535 if whole else next((most for most in (1, 255, 65535) if high <= most), 0)
    if not (low >= 0 and high <= scale):  # NaN too
        raise ValueError(f"values from {low:g} to {high:g}, expected 0–1, 0–255 or 0–65,535")
    if whole:
        return (values >> 8).astype(np.uint8)
    notes[f"scale 0–{scale:,}"].append(name)
    return (values * (255 / scale)).round().astype(np.uint8)


def _fitted(picture: Image.Image, size: Size, fit: str) -> Image.Image:
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


# --- all of them ---------------------------------------------------------------------------------


def _stacked(pictures: list[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """→ uint8 [N, C, H, W]; grey ones get three equal planes beside colour."""
    channels = max(3 if picture.ndim == 3 else 1 for picture in pictures)
    images = np.empty((len(pictures), channels, *pictures[0].shape[:2]), np.uint8)
    for n, picture in enumerate(pictures):
        images[n] = picture.transpose(2, 0, 1) if picture.ndim == 3 else picture
    return images


def _class_names(album: Album, found: dict[str, NDArray[np.uint8]]) -> list[str]:
    """In the order of their labels; of the numbers where all are numbers."""
    every = {album.labels[name] for name in found}
    trained = {album.labels[n] for n in found if album.splits.get(n, "train") == "train"}
    if missing := sorted(every - trained):
        raise SourceError(
            f"{album.root}: no picture of {listed(missing)} to train on, in val or test alone. Add some, or "
            "remove those."
        )
    if len(every) > MAX_CLASSES:
        raise SourceError(
            f"{album.root}: {len(every):,} classes, expected at most {MAX_CLASSES:,}."
        )
    for name in sorted(every):
        try:
            TypeAdapter(ClassName).validate_python(name)
        except ValidationError as error:
            reason = error.errors()[0]["msg"].removeprefix("Value error, ")
            raise SourceError(
                f"{album.root}: {name[:80]!r} cannot name a class: {reason}. Rename it."
            ) from None
    numbers = all(name.isdecimal() for name in every)
    return sorted(every, key=lambda name: (int(name) if numbers else 0, name))


def _check(
    album: Album,
    damaged: dict[str, str],
    notes: Notes,
    examples: dict[Size, str],
    sizes: dict[str, list[Size]],
) -> None:
    """Raises SourceError with all that keeps the pictures from being read. `examples`: a name by size, where
    all must be of one."""
    problems = []
    if damaged:
        shown = "".join(f"\n  - {name}: {why}" for name, why in [*damaged.items()][:5])
        problems.append(
            f"{len(damaged):,} of {len(album.labels):,} pictures cannot be read:{shown}\nRemove or replace "
            "them."
        )
    scales = {note: names for note, names in notes.items() if note.startswith("scale")}
    if len(scales) > 1:
        shown = ", ".join(f"{scale}: {listed(names, 2)}" for scale, names in scales.items())
        problems.append(f"pictures of fractions differ in scale ({shown}). Give them one.")
    if len(examples) > 1 or any(max(size) > MAX_SIDE for size in examples):
        shown = listed([f"{w} × {h} ({name})" for (w, h), name in examples.items()], 4)
        height, width = _proposed(sizes)
        problems.append(
            f"pictures of {shown}; expected one size, at most {MAX_SIDE} × {MAX_SIDE}. Set `data.height: "
            f"{height}` and `data.width: {width}` in params.yaml: of this shape least is cut off. With "
            "`data.fit: pad` nothing is."
        )
    if not (problems or sizes):
        problems.append("no pictures. Put them there.")
    if problems:
        raise SourceError(f"{album.root}: " + "\n".join(problems))


def _proposed(sizes: dict[str, list[Size]]) -> tuple[int, int]:
    """Height and width in steps of 8, by which pictures lose least; each class counts alike."""

    def loss(size: tuple[int, int]) -> float:
        cuts = ((_cut(picture, (size[1], size[0])) for picture in each) for each in sizes.values())
        return round(statistics.fmean(map(statistics.fmean, cuts)), 2)

    pairs = itertools.product(range(16, 72, 8), repeat=2)
    near = [(h, w) for h, w in pairs if 0.7 < h * w / PROPOSED_AREA < 1.5]
    return min(near, key=lambda size: (loss(size), abs(size[0] - size[1])))


def _cut(picture: Size, to: Size) -> float:
    """The share of a picture's area that a crop cuts off."""
    width, height = picture[0] / to[0], picture[1] / to[1]
    return 1 - min(width, height) / max(width, height)


def _in_words(album: Album, notes: Notes, count: int) -> list[str]:
    left, white, frames, colour = album.left, notes["white"], notes["frames"], notes["colour"]
    said = []
    if left:
        reasons = listed([f"{name} ({why})" for name, why in left.items()])
        said.append(f"Left out: {len(left):,}: {reasons}.")
    if white:
        said.append(f"Transparent: {len(white):,} pictures were put on white: {listed(white)}.")
    if frames:
        said.append(f"Several frames: of {len(frames):,} the first is read: {listed(frames)}.")
    if 0 < len(colour) < FEW * count:
        said.append(
            f"Colour: {len(colour):,} of {count:,} pictures have colour, so that all are read in colour: "
            f"{listed(colour)}. Make these grey, unless it is meant so."
        )
    return said


def _cut_in_words(sizes: dict[str, list[Size]], to: Size) -> list[str]:
    """A line where the crop removes much: how much of the area, by class."""
    cuts = {label: [_cut(size, to) for size in each] for label, each in sizes.items()}
    cut = {label: (statistics.median(each), max(each)) for label, each in cuts.items()}
    if not any(middle > CUT_SEEN or most > 2 * CUT_SEEN for middle, most in cut.values()):
        return []
    shown = [
        f"{label} {percent(middle, 0)} (most {percent(most, 0)})"
        for label, (middle, most) in sorted(cut.items(), key=lambda item: -item[1][0])
    ]
    return [
        f"Cut off: to fit {to[1]} × {to[0]}, pictures lose a part of their area, at the median "
        f"{listed(shown, 10)}. What lies there is never drawn. `data.fit: pad` keeps all of it."
    ]
