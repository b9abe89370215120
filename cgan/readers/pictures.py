"""Reads the pictures of an album as `Images` of one size, all grey or all in colour."""

import io
import statistics
import warnings

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from pydantic import TypeAdapter, ValidationError

from cgan.errors import SourceError
from cgan.images import MAX_SIDE, MIN_SIDE, SPLITS, Images, pixels_digest
from cgan.params.sections import ClassName, DataParams
from cgan.readers.album import MAX_BYTES, Album, Picture, first_line
from cgan.settings import setting
from cgan.text import listed

FORMATS = ("PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF", "PPM")
MAX_FILE_BYTES = 500_000_000
MAX_SHOWN_FAULTS = 5
PROPOSED_SIDE = 64  # pixels, at most
# If fewer of the pictures are in colour, that is probably a mistake, and noted.
MIN_COLOUR_FRACTION = 0.1

# The changes to pictures that nobody asked for, by the field of `Picture` that says which they are.
NOTES = {
    "is_transparent": "Transparent: {n:,} of {of:,} pictures, put on white: {names}.",
    "has_frames": "Several frames: {n:,} of {of:,} pictures, of which the first frame is read: {names}.",
    "is_colour": "Colour: {n:,} of {of:,} pictures, so that all are read in colour: {names}. Make these "
    "grey, unless you want colour.",
}


def read_album(album: Album, params: DataParams) -> Images:
    """The pictures as arrays, grey if all are grey, each fitted to `data.height` × `data.width`.

    Raises SourceError that names damaged files; for pictures of different sizes where no size is set; for a
    name that no class can have.
    """
    size = (params.width, params.height) if params.width and params.height else None
    pixels = _read_all(album, params, size)
    names = _class_names(album)
    label_of = {name: label for label, name in enumerate(names)}
    pictures = sorted(album.pictures, key=lambda picture: label_of[picture.label])
    labels = np.array([label_of[picture.label] for picture in pictures], np.int64)
    planes = [np.atleast_3d(pixels.pop(picture.name)).transpose(2, 0, 1) for picture in pictures]
    images = np.empty((len(pictures), max(map(len, planes)), *planes[0].shape[1:]), np.uint8)
    for image, channels in zip(images, planes, strict=True):
        image[:] = channels  # a grey picture gets three equal channels beside pictures in colour
    splits = groups = None
    if any(picture.split for picture in pictures):
        splits = np.array([SPLITS.index(picture.split) for picture in pictures], np.uint8)
    if any(picture.group for picture in pictures):
        groups = np.unique([picture.group for picture in pictures], return_inverse=True)[1]
    return Images(
        images,
        labels,
        names,
        groups,
        splits=splits,
        lines=np.arange(1, len(labels) + 1),
        files=[f"{album.root}/{picture.name}" for picture in pictures],
        sizes=np.array([picture.original_size for picture in pictures], np.int64),
        source_sha256=pixels_digest(
            images, labels, *(array for array in (splits, groups) if array is not None)
        ),
        notes=_notes(album),
    )


def _read_all(
    album: Album, params: DataParams, size: tuple[int, int] | None
) -> dict[str, NDArray[np.uint8]]:
    """The pixels of each picture by name, [H, W] or [H, W, 3], fitted to `size`; without one, all have one
    size. Pictures get what was found in them."""
    arrays = dict[str, NDArray[np.uint8]]()
    faults, largest = list[str](), 0  # bytes
    first_of_size = dict[tuple[int, int], str]()
    for picture in album.pictures:
        try:
            image = _open_picture(album, picture, 4 * max(size) if size else 0)
        except Exception as error:  # Pillow and zipfile raise a dozen kinds
            faults.append(f"{picture.name}: {first_line(error)}")
            continue
        picture.size = image.size
        first_of_size.setdefault(image.size, picture.name)
        if size or len(first_of_size) == 1:
            pixels = np.asarray(_fit(image, size or image.size, params.fit))
            arrays[picture.name] = pixels
            largest = max(largest, pixels.nbytes)  # one in colour makes all so
        if len(arrays) * largest > MAX_BYTES:
            raise SourceError(
                f"{album.root}: more than {MAX_BYTES / 1e6:,.0f} MB of pixels. Set smaller "
                f"{setting('data.height')} and {setting('data.width')}, or give fewer pictures."
            )
    if faults:
        shown = "".join(f"\n  - {fault}" for fault in faults[:MAX_SHOWN_FAULTS])
        raise SourceError(
            f"{album.root}: {len(faults):,} of {len(album.pictures):,} pictures cannot be read:{shown}\n"
            "Remove or replace them."
        )
    fits_in = all(MIN_SIDE <= side <= MAX_SIDE for found in first_of_size for side in found)
    if not size and (len(first_of_size) > 1 or not fits_in):
        shown = listed([f"{w} × {h} ({name})" for (w, h), name in first_of_size.items()], 4)
        width, height = _propose_size(album.pictures)
        raise SourceError(
            f"{album.root}: expected pictures of one size, with sides of {MIN_SIDE} to {MAX_SIDE}; found "
            f"{shown}. Set {setting('data.height', height)} and {setting('data.width', width)}, which is the "
            f"median shape, and {setting('data.fit', 'pad')} to cut off nothing."
        )
    return arrays


def _open_picture(album: Album, picture: Picture, min_side: int) -> Image.Image:
    """A picture upright, on white, in mode L if it has no colour, otherwise RGB.

    With `min_side`, a large JPEG is made smaller while it is unpacked, which is much faster, to no less than
    so many pixels a side. Raises ValueError for what cannot be read.
    """
    with album.open(picture.name) as file:
        content = file.read(MAX_FILE_BYTES + 1)
    if len(content) > MAX_FILE_BYTES:
        raise ValueError(f"larger than {MAX_FILE_BYTES / 1e6:.0f} MB")
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        image: Image.Image = Image.open(io.BytesIO(content), formats=FORMATS)
    original_size = image.size
    if min_side:
        image.draft(None, (min_side, min_side))
    picture.has_frames = image.format != "MPO" and getattr(image, "n_frames", 1) > 1
    image.seek(0)
    size_before_turn = image.size
    image = ImageOps.exif_transpose(image)
    is_turned = image.size != size_before_turn
    picture.original_size = original_size[::-1] if is_turned else original_size
    if image.mode.startswith(("I", "F")):
        raise ValueError("16 bits or fractions; save it as 8 bit")
    if image.has_transparency_data:
        layers = image.convert("RGBA")
        picture.is_transparent = np.asarray(layers.getchannel("A")).min() < 255
        if picture.is_transparent:
            layers = Image.alpha_composite(Image.new("RGBA", layers.size, "white"), layers)
        image = layers
    if image.mode in ("1", "L"):
        return image.convert("L")
    image = image.convert("RGB")
    red, green, blue = (plane.tobytes() for plane in image.split())
    picture.is_colour = not red == green == blue
    return image if picture.is_colour else image.getchannel(0)


def _fit(picture: Image.Image, size: tuple[int, int], fit: str) -> Image.Image:
    """The picture in `size`, which is width and height, as Pillow has them. `fit` is crop or pad."""
    if picture.size == size:
        return picture
    if fit == "crop":
        return ImageOps.fit(picture, size, Image.Resampling.LANCZOS)
    pixels = np.asarray(picture)
    edge = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    colour = tuple(np.atleast_1d(np.median(edge, axis=0)).astype(int).tolist())
    return ImageOps.pad(picture, size, Image.Resampling.LANCZOS, color=colour)


def _propose_size(pictures: list[Picture]) -> tuple[int, int]:
    """Width and height: the median ones, made smaller to PROPOSED_SIDE, in multiples of MIN_SIDE."""
    median = [statistics.median(sides) for sides in zip(*(p.size for p in pictures), strict=True)]
    scale = min(1.0, PROPOSED_SIDE / max(median))
    width, height = (max(1, round(side * scale / MIN_SIDE)) * MIN_SIDE for side in median)
    return width, height


def _class_names(album: Album) -> list[str]:
    """The classes in the order of their labels: sorted, by number if all are numbers."""
    names = sorted({picture.label for picture in album.pictures})
    try:
        TypeAdapter(list[ClassName]).validate_python(names)
    except ValidationError as error:
        wrong = [repr(names[int(fault["loc"][0])][:80]) for fault in error.errors()]
        raise SourceError(
            f"{album.root}: classes are named {listed(wrong)}; expected at most 60 characters that can be "
            "shown, no comma, and no space at an end. Rename them."
        ) from None
    return sorted(names, key=int) if all(name.isdecimal() for name in names) else names


def _notes(album: Album) -> list[str]:
    """What was left out, and which pictures were changed."""
    notes, pictures = list[str](), album.pictures
    if album.left_out:
        notes.append(
            f"Left out: {len(album.left_out):,}, no PNG, JPEG, GIF, BMP, WebP or TIFF of a class: "
            f"{listed(album.left_out)}."
        )
    for field, note in NOTES.items():
        names = [picture.name for picture in pictures if getattr(picture, field)]
        is_usual = field == "is_colour" and len(names) >= MIN_COLOUR_FRACTION * len(pictures)
        if names and not is_usual:
            notes.append(note.format(n=len(names), of=len(pictures), names=listed(names)))
    return notes
