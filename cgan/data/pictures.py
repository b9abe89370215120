"""The pictures of an album → labelled arrays: of one size, grey or in colour, with what was done to them."""

from __future__ import annotations

import io
import itertools
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from pydantic import TypeAdapter, ValidationError

from cgan.data.album import NO_PICTURE, Album, first_line, is_picture
from cgan.data.dataset import SPLITS, LabelledImages, digest_of
from cgan.errors import SourceError, listed, percent
from cgan.params.sections import ClassName, DataParams

if TYPE_CHECKING:
    import pandas as pd

MAX_SIDE, MAX_CLASSES = 256, 1000
FORMATS = ("PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF", "PPM")
MAX_BYTES = 500_000_000  # of a picture's file
CUT_SEEN = 0.05  # share of the area: less is not worth a word
FEW = 0.1  # share of pictures that are unlike the rest
PROPOSED_AREA = 32 * 32  # pixels of the shape that is proposed

# What was done to pictures that nobody asked for, by the column of the table that says to which.
NOTES = {
    "white": "Transparent: {n:,} of {of:,} pictures, put on white: {names}.",
    "frames": "Several frames: {n:,} of {of:,} pictures, of which the first frame is read: {names}.",
    "colour": "Colour: {n:,} of {of:,} pictures, so that all are read in colour: {names}. Make these grey, "
    "unless you want colour.",
}


@dataclass
class PictureFacts:
    """What was found of a picture: its size, what was done to it, and why it cannot be read."""

    width: int = 0
    height: int = 0
    white: bool = False
    frames: bool = False
    colour: bool = False
    scale: int = 0  # of fractions: the value that is white; 0 for all other pictures
    damage: str = ""


def read_album(album: Album, params: DataParams) -> LabelledImages:
    """The pictures as arrays, grey if all are grey, each fitted to `data.height` × `data.width`.

    Raises SourceError that names all damaged files at once; for pictures of different sizes where no size is
    set; for a name that no class can have.
    """
    size = (params.width, params.height) if params.width and params.height else None
    arrays, seen = dict[str, NDArray[np.uint8]](), dict[str, PictureFacts]()
    first, most = None, 0
    for name in album.table.index[album.table["reason"] == ""]:
        seen[name] = facts = PictureFacts()
        try:
            picture = _picture(album, name, facts, 4 * max(size) if size else 0)
        except Exception as error:  # Pillow and zipfile raise a dozen kinds
            unknown = isinstance(error, UnidentifiedImageError)
            facts.damage = NO_PICTURE if unknown else first_line(error)
            if unknown and not is_picture(name):
                del seen[name]
                album.table.loc[name, "reason"] = NO_PICTURE
            continue
        facts.width, facts.height = picture.size
        first = first or picture.size
        if size or picture.size == first:
            arrays[name] = np.asarray(_fitted(picture, size or first, params.fit))
            most = max(most, arrays[name].nbytes)  # one in colour makes all so
            if len(arrays) * most > params.max_megabytes * 1_000_000:
                raise SourceError(
                    f"{album.root}: more than the limit of {params.max_megabytes:,} MB of pixels. Set "
                    "`data.height` and `data.width` to smaller sizes, or raise `data.max_megabytes`."
                )
    import pandas as pd  # not for a CSV: it is half of the memory of the stage download

    read = album.table.loc[[*seen]].join(pd.DataFrame(map(vars, seen.values()), index=[*seen]))
    _check(album, read, size)
    notes = _in_words(album.table, read)
    if size and params.fit == "crop":
        notes += _cut_in_words(read, size)
    names = _class_names(album, read)
    number_of = {name: number for number, name in enumerate(names)}
    read = read.assign(number=read["label"].map(number_of)).sort_values("number", kind="stable")
    labels = read["number"].to_numpy(np.int64)
    images = _stacked([arrays.pop(name) for name in read.index])
    splits = groups = None
    if read["split"].any():
        splits = read["split"].map(SPLITS.index).to_numpy(np.uint8)
    if read["group"].any():
        groups = np.unique(read["group"].to_numpy(str), return_inverse=True)[1]
    return LabelledImages(
        images,
        labels,
        np.arange(1, len(labels) + 1),
        len(names),
        digest_of(images, labels, *(array for array in (splits, groups) if array is not None)),
        images.nbytes,
        tuple(notes),
        files=[f"{album.root}/{name}" for name in read.index],
        class_names=None if names == [str(n) for n in range(len(names))] else names,
        splits=splits,
        groups=groups,
    )


# --- one picture ---------------------------------------------------------------------------------


def _picture(album: Album, name: str, facts: PictureFacts, enough: int) -> Image.Image:
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
    facts.frames = image.format != "MPO" and getattr(image, "n_frames", 1) > 1
    image.seek(0)
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith(("I", "F")):
        return Image.fromarray(_scaled(image, facts))
    if image.has_transparency_data:
        layers = image.convert("RGBA")
        facts.white = np.asarray(layers.getchannel("A")).min() < 255
        if facts.white:
            layers = Image.alpha_composite(Image.new("RGBA", layers.size, "white"), layers)
        image = layers
    if image.mode in ("1", "L"):
        return image.convert("L")
    image = image.convert("RGB")
    red, green, blue = (plane.tobytes() for plane in image.split())
    facts.colour = not red == green == blue
    return image if facts.colour else image.getchannel(0)


def _scaled(image: Image.Image, facts: PictureFacts) -> NDArray[np.uint8]:
    """Whole numbers of 16 bits and fractions → 0–255, by the scale that their kind has."""
    values = np.asarray(image)
    low, high = float(values.min()), float(values.max())
    whole = image.mode.startswith("I")
    scale = 65535 if whole else next((most for most in (1, 255, 65535) if high <= most), 0)
    if not (low >= 0 and high <= scale):  # NaN too
        raise ValueError(f"values from {low:g} to {high:g}, expected 0–1, 0–255 or 0–65,535")
    facts.scale = 0 if whole else scale
    scaled = values >> 8 if whole else (values * (255 / scale)).round()
    return scaled.astype(np.uint8)


def _fitted(picture: Image.Image, size: tuple[int, int], fit: str) -> Image.Image:
    """`size`: width, height, as Pillow has them."""
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


def _class_names(album: Album, read: pd.DataFrame) -> list[str]:
    """In the order of their labels; of the numbers where all are numbers."""
    every = sorted(set(read["label"]))
    trained = set(read["label"][read["split"].isin(["", "train"])])
    if missing := [name for name in every if name not in trained]:
        raise SourceError(
            f"{album.root}: expected pictures of every class to train on; of {listed(missing)} there are "
            "some in val or test alone. Add some to train, or remove those."
        )
    if len(every) > MAX_CLASSES:
        raise SourceError(
            f"{album.root}: {len(every):,} classes, expected at most {MAX_CLASSES:,}."
        )
    try:
        TypeAdapter(list[ClassName]).validate_python(every)
    except ValidationError as error:
        wrong = [repr(every[int(fault["loc"][0])][:80]) for fault in error.errors()]
        raise SourceError(
            f"{album.root}: classes are named {listed(wrong)}; expected at most 60 characters that can be "
            "shown, no comma, and no space at an end. Rename them."
        ) from None
    return sorted(every, key=int) if all(name.isdecimal() for name in every) else every


def _check(album: Album, read: pd.DataFrame, size: tuple[int, int] | None) -> None:
    """Raises SourceError with all that keeps the pictures from being read."""
    problems, damaged = [], read["damage"][read["damage"] != ""]
    if len(damaged):
        shown = "".join(f"\n  - {name}: {why}" for name, why in damaged[:5].items())
        problems.append(
            f"{len(damaged):,} of {len(read):,} pictures cannot be read:{shown}\nRemove or replace them."
        )
    whole = read[read["damage"] == ""]
    shapes = whole[["width", "height"]].drop_duplicates()
    if not size and (len(shapes) > 1 or (shapes > MAX_SIDE).any(axis=None)):
        shown = listed([f"{w} × {h} ({name})" for name, w, h in shapes.itertuples()], 4)
        height, width = _proposed(whole)
        problems.append(
            f"pictures of {shown}; expected one size, at most {MAX_SIDE} × {MAX_SIDE}. Set `data.height: "
            f"{height}` and `data.width: {width}` in params.yaml, which cuts off least; and `data.fit: pad` "
            "to cut off nothing."
        )
    scales = whole[whole["scale"] > 0].drop_duplicates("scale")["scale"]
    if len(scales) > 1:  # a dark picture of 0–255 would be taken for one of 0–1
        shown = listed([f"0–{scale:,}: {name}" for name, scale in scales.items()])
        problems.append(f"pictures of fractions differ in scale ({shown}). Give all the same one.")
    if problems:
        raise SourceError(f"{album.root}: " + "\n".join(problems))


def _proposed(read: pd.DataFrame) -> tuple[int, int]:
    """Height and width in steps of 8, by which pictures lose least; each class counts alike."""

    def loss(size: tuple[int, int]) -> float:
        return round(float(_cut(read, size[::-1]).groupby(read["label"]).mean().mean()), 2)

    pairs = itertools.product(range(16, 72, 8), repeat=2)
    near = [(h, w) for h, w in pairs if 0.7 < h * w / PROPOSED_AREA < 1.5]
    return min(near, key=lambda size: (loss(size), abs(size[0] - size[1])))


def _cut(read: pd.DataFrame, to: tuple[int, int]) -> pd.Series[float]:
    """The share of each picture's area that a crop cuts off."""
    sides = read[["width", "height"]] / list(to)
    return 1 - sides.min(axis=1) / sides.max(axis=1)


def _in_words(table: pd.DataFrame, read: pd.DataFrame) -> list[str]:
    notes, unread = [], table[table["reason"] != ""]
    if len(unread):
        reasons = [
            f"{why[0].upper()}{why[1:]}: {listed([*unread.index[unread['reason'] == why]])}."
            for why in unread["reason"].unique()
        ]
        notes.append(f"Left out: {len(unread):,}. {' '.join(reasons)}")
    without = unread["label"][unread["reason"] == NO_PICTURE]
    if lost := sorted(set(without) - set(read["label"]) - {""}):
        notes.append(
            f"Folders that become no class: {listed(lost)}. They hold no picture that can be read; "
            "save pictures as PNG or JPEG."
        )
    for column, words in NOTES.items():
        names = read.index[read[column]]
        if len(names) and (column != "colour" or len(names) < FEW * len(read)):
            notes.append(words.format(n=len(names), of=len(read), names=listed([*names])))
    return notes


def _cut_in_words(read: pd.DataFrame, to: tuple[int, int]) -> list[str]:
    """A line where the crop removes much: how much of the area, by class."""
    cuts = _cut(read, to).groupby(read["label"]).agg(["median", "max"])
    if not ((cuts["median"] > CUT_SEEN) | (cuts["max"] > 2 * CUT_SEEN)).any():
        return []
    shown = [
        f"{label} {percent(median, 0)} ({percent(most, 0)})"
        for label, median, most in cuts.sort_values("median", ascending=False).itertuples()
    ]
    return [
        f"Cut off: to fit {to[1]} × {to[0]}, pictures lose a part of their area, at the median (at most): "
        f"{listed(shown, 10)}. The generator never learns what is cut off. `data.fit: pad` keeps all of it."
    ]
