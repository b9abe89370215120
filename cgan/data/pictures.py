"""Reads the pictures of an album as `Images` of one size, all grey or all in colour."""

import io
import statistics
import warnings
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from pydantic import TypeAdapter, ValidationError

from cgan.base.errors import DataError
from cgan.base.settings import setting
from cgan.base.text import bullets, listed
from cgan.data.album import Album, Picture, first_line
from cgan.data.arrays import MAX_SIDE, MIN_SIDE, pixels_digest
from cgan.data.images import SPLITS, Images
from cgan.params.sections import ClassName, SourceFormatParams

FORMATS = ("PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF", "PPM")
MAX_FILE_BYTES = 500_000_000
MAX_PIXEL_BYTES = 4_000_000_000  # of the pixels of all pictures
PROPOSED_SIDE = 64  # pixels, at most
MAX_CROPPED = 0.25  # of a picture; where cropping takes away more, it is noted

MIN_COLOUR_FRACTION = 0.1  # of the pictures: fewer in colour are probably a mistake, and noted
Size = tuple[int, int]  # width and height in pixels, as Pillow has them


def read_album(album: Album, params: SourceFormatParams) -> Images:
    """The pictures as arrays, grey if all are grey, each fitted to `height` × `width`; without these, where
    their sizes differ or no image can have theirs, to a size that the notes give. DataError for damaged
    files, and for a name that no class can have."""
    names = _class_names(album)
    label_of = {name: label for label, name in enumerate(names)}
    pictures = sorted(album.pictures, key=lambda picture: label_of[picture.label])
    size = (params.width, params.height) if params.width and params.height else None
    pixels, sizes, notes = _read_all(album, pictures, size, params.fit)
    if not size and not (len({*sizes}) == 1 and _is_in_range(sizes[0])):
        size = _suitable_size(sizes)
        pixels, sizes, notes = _read_all(album, pictures, size, params.fit)
        notes = [_note_on_size(pictures, sizes, size), *notes]
    if size and params.fit == "crop":
        notes += _notes_on_cropping(pictures, sizes, size)
    splits = [SPLITS.index(picture.split) for picture in pictures if picture.split]
    groups = [picture.group for picture in pictures]
    images = Images(
        pixels,
        [picture.label for picture in pictures],
        names,
        groups if any(groups) else None,
        splits=np.array(splits, np.uint8) if splits else None,
        lines=np.arange(1, len(pictures) + 1),
        files=[f"{album.root}/{picture.name}" for picture in pictures],
        sizes=np.array(sizes),
        notes=notes,
    )
    known = [array for array in (images.splits, images.groups) if array is not None]
    return replace(images, source_sha256=pixels_digest(images.pixels, images.labels, *known))


def _read_all(
    album: Album, pictures: list[Picture], size: Size | None, fit: str
) -> tuple[NDArray[np.uint8], list[Size], list[str]]:
    """The pixels of all pictures, uint8 [N, C, H, W], of this `size`; their own sizes; notes on them."""
    pixels = np.empty((0, 1, 0, 0), np.uint8)
    sizes, faults = list[Size](), list[str]()
    with_frames, in_colour = list[str](), list[str]()
    for row, picture in enumerate(pictures):
        try:
            min_side = 4 * max(size or (MAX_SIDE,))
            image, original_size, has_frames = _open_picture(album, picture, min_side)
        except Exception as error:  # Pillow and zipfile raise a dozen kinds
            faults.append(f"{picture.name}: {first_line(error)}")
            continue
        sizes.append(original_size)
        with_frames += [picture.name] if has_frames else []
        in_colour += [picture.name] if image.mode == "RGB" else []
        if size:
            image = _resize(image, size, fit)
        elif original_size != sizes[0] or not _is_in_range(original_size):
            continue  # all are read again, in another size
        planes = np.atleast_3d(np.asarray(image)).transpose(2, 0, 1)
        if len(pictures) * planes.nbytes > MAX_PIXEL_BYTES:
            raise DataError(
                f"{album.root}: more than {MAX_PIXEL_BYTES / 1e6:,.0f} MB of pixels. Set smaller "
                f"{setting('data.height')} and {setting('data.width')}, or give fewer pictures."
            )
        if not len(pixels):
            pixels = np.empty((len(pictures), *planes.shape), np.uint8)
        if len(planes) > pixels.shape[1]:  # the first in colour
            pixels = pixels.repeat(3, axis=1)
        pixels[row] = planes
    if faults:
        raise DataError(
            f"{album.root}: {len(faults):,} of {len(pictures):,} pictures cannot be read:"
            f"{bullets(faults)}\nRemove or replace them."
        )
    return pixels, sizes, _notes(album, with_frames, in_colour)


def _notes(album: Album, with_frames: list[str], in_colour: list[str]) -> list[str]:
    """Notes on what was left out, and on grey pictures that are read in colour for the sake of a few."""
    is_colour = len(in_colour) >= MIN_COLOUR_FRACTION * len(album.pictures)
    kinds = (
        ("Left out", album.left_out, "not a picture of a class"),
        ("Several frames", with_frames, "of which the first is read"),
        ("Colour", [] if is_colour else in_colour, "for which all are read in colour"),
    )
    return [f"{kind}: {len(f):,}, {why}: {listed(f)}." for kind, f, why in kinds if f]


def _open_picture(album: Album, picture: Picture, min_side: int) -> tuple[Image.Image, Size, bool]:
    """A picture upright, on white, in mode L if it has no colour, otherwise RGB; its own size; whether it has
    several frames. A large JPEG is unpacked smaller, which is faster, with sides of at least `min_side`."""
    with album.open(picture.name) as file:
        content = file.read(MAX_FILE_BYTES + 1)
    if len(content) > MAX_FILE_BYTES:
        raise ValueError(f"larger than {MAX_FILE_BYTES / 1e6:.0f} MB")
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        image: Image.Image = Image.open(io.BytesIO(content), formats=FORMATS)
    width, height = image.size
    image.draft(None, (min_side, min_side))
    has_frames = image.format != "MPO" and getattr(image, "n_frames", 1) > 1
    size_before_turn = image.size
    image = ImageOps.exif_transpose(image)
    original_size = (width, height) if image.size == size_before_turn else (height, width)
    if image.mode.startswith(("I", "F")):
        raise ValueError("16 bits or fractions; save it as 8 bit")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    if image.mode in ("1", "L"):
        return image.convert("L"), original_size, has_frames
    image = image.convert("RGB")
    red, green, blue = (plane.tobytes() for plane in image.split())
    return image.getchannel(0) if red == green == blue else image, original_size, has_frames


def _resize(picture: Image.Image, size: Size, fit: str) -> Image.Image:
    """The picture in this size; `fit` is crop or pad."""
    if picture.size == size:
        return picture
    if fit == "crop":
        return ImageOps.fit(picture, size, Image.Resampling.LANCZOS)
    pixels = np.asarray(picture)
    edge = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    colour = tuple(np.atleast_1d(np.median(edge, axis=0)).astype(int).tolist())
    return ImageOps.pad(picture, size, Image.Resampling.LANCZOS, color=colour)


def _is_in_range(size: Size) -> bool:
    return all(MIN_SIDE <= side <= MAX_SIDE for side in size)


def _suitable_size(sizes: list[Size]) -> Size:
    """The median sides; those of large pictures made smaller to PROPOSED_SIDE, in multiples of MIN_SIDE."""
    width, height = (statistics.median(sides) for sides in zip(*sizes, strict=True))
    scale = min(1.0, PROPOSED_SIDE / max(width, height))
    step = 1 if scale == 1 else MIN_SIDE
    sides = (max(MIN_SIDE, round(side * scale / step) * step) for side in (width, height))
    return next(sides), next(sides)


def _note_on_size(pictures: list[Picture], sizes: list[Size], size: Size) -> str:
    """The sizes that there are, the one that pictures are made, and how to set it."""
    first_of_size = dict[Size, Picture]()
    for picture, original in zip(pictures, sizes, strict=True):
        first_of_size.setdefault(original, picture)
    found = [f"{w} × {h} ({picture.name})" for (w, h), picture in first_of_size.items()]
    width, height = size
    return (
        f"Sizes: {listed(found, 3)}. All are made {width} × {height} pixels, near the median shape. Set "
        f"{setting('data.height', height)} and {setting('data.width', width)} to keep this size, or another."
    )


def _notes_on_cropping(pictures: list[Picture], sizes: list[Size], size: Size) -> list[str]:
    """A note where cropping takes away more than MAX_CROPPED of some pictures."""
    shape = size[0] / size[1]
    kept = [min(width / height / shape, shape * height / width) for width, height in sizes]
    cropped = [p.label for p, share in zip(pictures, kept, strict=True) if share < 1 - MAX_CROPPED]
    if not cropped:
        return []
    return [
        f"Cropping takes away over a quarter in {len(cropped):,} of {len(sizes):,} pictures, most in class "
        f"{statistics.mode(sorted(cropped))}. {setting('data.fit', 'pad')} keeps them whole."
    ]


def _class_names(album: Album) -> list[str]:
    """The classes, sorted, by number if all are numbers."""
    names = sorted({picture.label for picture in album.pictures})
    try:
        TypeAdapter(list[ClassName]).validate_python(names)
    except ValidationError as error:
        wrong = [repr(names[int(fault["loc"][0])][:80]) for fault in error.errors()]
        raise DataError(
            f"{album.root}: classes are named {listed(wrong)}; expected at most 60 characters that can be "
            "shown, no comma, and no space at an end. Rename them."
        ) from None
    return sorted(names, key=int) if all(name.isdecimal() for name in names) else names
