"""Reads the pictures of an album as `Images` of one size, all grey or all in colour, with notes on
changes."""

import io
import itertools
import statistics
import warnings

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from pydantic import TypeAdapter, ValidationError

from cgan.errors import SourceError
from cgan.images import MAX_CLASSES, MAX_SIDE, MIN_SIDE, SPLITS, Images, pixels_digest
from cgan.params.sections import ClassName, DataParams
from cgan.readers.album import NO_PICTURE, Album, Entry, first_line, is_picture
from cgan.settings import setting
from cgan.text import listed, percent

FORMATS = ("PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF", "PPM")
MAX_BYTES = 500_000_000  # of a picture's file
# Of the area of a picture, how much a crop may cut off without a note, and how much may be what the picture
# shows. Chosen by hand, as what follows.
MAX_UNNOTED_CROP, LARGE_CROP = 0.05, 0.25
# If fewer of the pictures are in colour, that is probably a mistake, and noted.
MIN_COLOUR_FRACTION = 0.1
PROPOSED_AREAS = 32 * 32, 64 * 64  # pixels of the sizes that are proposed
PROPOSED_SIDES = range(16, 136, 8)  # pixels

# The changes to pictures that nobody asked for, by the field of `Entry` that says which pictures they are.
NOTES = {
    "is_transparent": "Transparent: {n:,} of {of:,} pictures, put on white: {names}.",
    "has_frames": "Several frames: {n:,} of {of:,} pictures, of which the first frame is read: {names}.",
    "in_subfolder": "Folders in folders: {n:,} of {of:,} pictures, whose class is the outer folder: {names}. "
    "If it is the inner one, move these up.",
    "is_colour": "Colour: {n:,} of {of:,} pictures, so that all are read in colour: {names}. Make these "
    "grey, unless you want colour.",
}


def read_album(album: Album, params: DataParams) -> Images:
    """The pictures as arrays, grey if all are grey, each fitted to `data.height` × `data.width`.

    Raises SourceError that names all damaged files at once; for pictures of different sizes where no size is
    set; for a name that no class can have.
    """
    size = (params.width, params.height) if params.width and params.height else None
    arrays = _read_arrays(album, params, size)
    pictures = [entry for entry in album.entries if not entry.reason]
    _check_pictures(album, pictures, size)
    notes = _change_notes(album.entries, pictures)
    if size and params.fit == "crop":
        notes += _crop_notes(pictures, *size)
    names = _class_names(album, pictures)
    label_of = {name: label for label, name in enumerate(names)}
    pictures.sort(key=lambda entry: label_of[entry.label])
    labels = np.array([label_of[entry.label] for entry in pictures], np.int64)
    planes = [np.atleast_3d(arrays.pop(entry.name)).transpose(2, 0, 1) for entry in pictures]
    images = np.empty((len(pictures), max(map(len, planes)), *planes[0].shape[1:]), np.uint8)
    for image, channels in zip(images, planes, strict=True):
        image[:] = channels  # a grey picture gets three equal channels beside pictures in colour
    splits = groups = None
    if any(entry.split for entry in pictures):
        splits = np.array([SPLITS.index(entry.split) for entry in pictures], np.uint8)
    if any(entry.group for entry in pictures):
        groups = np.unique([entry.group for entry in pictures], return_inverse=True)[1]
    return Images(
        images,
        labels,
        names,
        groups,
        splits=splits,
        lines=np.arange(1, len(labels) + 1),
        files=[f"{album.root}/{entry.name}" for entry in pictures],
        sizes=np.array([entry.original_size for entry in pictures], np.int64),
        source_sha256=pixels_digest(
            images, labels, *(array for array in (splits, groups) if array is not None)
        ),
        notes=notes,
    )


def _read_arrays(
    album: Album, params: DataParams, size: tuple[int, int] | None
) -> dict[str, NDArray[np.uint8]]:
    """The pictures by name, [H, W] or [H, W, 3], fitted to `size`; without one, those that have the size of
    the first. Entries get what was found in their picture. Raises SourceError for too many pixels."""
    arrays = dict[str, NDArray[np.uint8]]()
    first_size, largest = None, 0  # width, height; bytes
    for entry in album.entries:
        if entry.reason:
            continue
        try:
            picture = _open_picture(album, entry, 4 * max(size) if size else 0)
        except Exception as error:  # Pillow and zipfile raise a dozen kinds
            is_unknown = isinstance(error, UnidentifiedImageError)
            entry.damage = NO_PICTURE if is_unknown else first_line(error)
            if is_unknown and not is_picture(entry.name):
                entry.reason = NO_PICTURE
            continue
        entry.size = picture.size
        first_size = first_size or picture.size
        if size or picture.size == first_size:
            arrays[entry.name] = np.asarray(_fit(picture, size or first_size, params.fit))
            largest = max(largest, arrays[entry.name].nbytes)  # one in colour makes all so
            if len(arrays) * largest > params.max_megabytes * 1_000_000:
                raise SourceError(
                    f"{album.root}: more than the limit of {params.max_megabytes:,} MB of pixels. Set "
                    f"{setting('data.height')} and {setting('data.width')} to smaller sizes, or raise "
                    f"{setting('data.max_megabytes')}."
                )
    return arrays


# --- One picture ---------------------------------------------------------------------------------


def _open_picture(album: Album, entry: Entry, min_side: int) -> Image.Image:
    """A picture upright, on white, in mode L if it has no colour, otherwise RGB; the entry gets what was
    found.

    With `min_side`, a large JPEG is made smaller while it is unpacked, which is much faster, to no less than
    so many pixels a side. Raises ValueError for what is no picture.
    """
    with album.open(entry.name) as file:
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise ValueError(f"larger than {MAX_BYTES / 1e6:.0f} MB")
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        image: Image.Image = Image.open(io.BytesIO(content), formats=FORMATS)
    original_size = image.size
    if min_side:
        image.draft(None, (min_side, min_side))
    entry.has_frames = image.format != "MPO" and getattr(image, "n_frames", 1) > 1
    image.seek(0)
    size_before_turn = image.size
    image = ImageOps.exif_transpose(image)
    is_turned = image.size != size_before_turn
    entry.original_size = original_size[::-1] if is_turned else original_size
    if image.mode.startswith(("I", "F")):
        return Image.fromarray(_scale_to_bytes(image, entry))
    if image.has_transparency_data:
        layers = image.convert("RGBA")
        entry.is_transparent = np.asarray(layers.getchannel("A")).min() < 255
        if entry.is_transparent:
            layers = Image.alpha_composite(Image.new("RGBA", layers.size, "white"), layers)
        image = layers
    if image.mode in ("1", "L"):
        return image.convert("L")
    image = image.convert("RGB")
    red, green, blue = (plane.tobytes() for plane in image.split())
    entry.is_colour = not red == green == blue
    return image if entry.is_colour else image.getchannel(0)


def _scale_to_bytes(image: Image.Image, entry: Entry) -> NDArray[np.uint8]:
    """0–255, from integers of 16 bits, or from fractions of 0–1, 0–255 or 0–65,535: the least range that
    holds them. Raises ValueError for others."""
    values = np.asarray(image)
    low, high = float(values.min()), float(values.max())
    is_integer = image.mode.startswith("I")
    possible_levels = (65535,) if is_integer else (1, 255, 65535)
    white_level = next((level for level in possible_levels if high <= level), 0)
    if not (low >= 0 and high <= white_level):  # NaN too
        raise ValueError(f"values from {low:g} to {high:g}, expected 0–1, 0–255 or 0–65,535")
    if is_integer:
        return (values >> 8).astype(np.uint8)
    entry.white_level = white_level
    return (values * (255 / white_level)).round().astype(np.uint8)


def _fit(picture: Image.Image, size: tuple[int, int], fit: str) -> Image.Image:
    """The picture in `size`, which is width and height, as Pillow has them. `fit` is stretch, crop or pad."""
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


# --- All pictures --------------------------------------------------------------------------------


def _class_names(album: Album, pictures: list[Entry]) -> list[str]:
    """The classes in the order of their labels: sorted, by number if all are numbers."""
    names = sorted({entry.label for entry in pictures})
    trained = {entry.label for entry in pictures if entry.split in ("", "train")}
    if trained and (missing := [name for name in names if name not in trained]):
        raise SourceError(
            f"{album.root}: expected pictures of every class to train on; of {listed(missing)} there are "
            "some in val or test alone. Add some to train, or remove those."
        )
    if len(names) > MAX_CLASSES:
        raise SourceError(f"{album.root}: {len(names):,} classes, expected up to {MAX_CLASSES:,}.")
    try:
        TypeAdapter(list[ClassName]).validate_python(names)
    except ValidationError as error:
        wrong = [repr(names[int(fault["loc"][0])][:80]) for fault in error.errors()]
        raise SourceError(
            f"{album.root}: classes are named {listed(wrong)}; expected at most 60 characters that can be "
            "shown, no comma, and no space at an end. Rename them."
        ) from None
    return sorted(names, key=int) if all(name.isdecimal() for name in names) else names


def _check_pictures(album: Album, pictures: list[Entry], size: tuple[int, int] | None) -> None:
    """Raises SourceError with all problems of the pictures."""
    problems = list[str]()
    if damaged := [entry for entry in pictures if entry.damage]:
        shown = "".join(f"\n  - {entry.name}: {entry.damage}" for entry in damaged[:5])
        problems.append(
            f"{len(damaged):,} of {len(pictures):,} pictures cannot be read:{shown}\nRemove or replace them."
        )
    whole = [entry for entry in pictures if not entry.damage]
    # Each size and white level that is found, with the first picture that has it.
    first_by_size, first_by_level = dict[tuple[int, int], str](), dict[int, str]()
    for entry in whole:
        first_by_size.setdefault(entry.size, entry.name)
        if entry.white_level:
            first_by_level.setdefault(entry.white_level, entry.name)
    fits_in = all(MIN_SIDE <= side <= MAX_SIDE for found in first_by_size for side in found)
    if not size and (len(first_by_size) > 1 or not fits_in):
        shown = listed([f"{w} × {h} ({name})" for (w, h), name in first_by_size.items()], 4)
        (width, height), (wider, higher) = (_propose_size(whole, area) for area in PROPOSED_AREAS)
        problems.append(
            f"pictures of {shown}; expected one size, with sides of {MIN_SIDE} to {MAX_SIDE}. Set "
            f"{setting('data.height', height)} and {setting('data.width', width)}, or, to see more, {higher} "
            f"and {wider}, which cut off least; and {setting('data.fit', 'pad')} to cut off nothing."
        )
    if len(first_by_level) > 1:  # a dark picture of 0–255 would be taken for one of 0–1
        shown = listed([f"0–{level:,}: {name}" for level, name in first_by_level.items()])
        problems.append(f"pictures of fractions differ in scale ({shown}). Give all the same one.")
    if problems:
        raise SourceError(f"{album.root}: " + "\n".join(problems))


def _propose_size(pictures: list[Entry], area: int) -> tuple[int, int]:
    """Width and height, about so many pixels, at which a crop cuts off least of the pictures, to a hundredth;
    among equals the nearest to a square. Each class counts alike."""

    def loss(size: tuple[int, int]) -> float:
        losses_by_class = _crop_losses(pictures, *size).values()
        return round(statistics.fmean(map(statistics.fmean, losses_by_class)), 2)

    sizes = [
        (width, height)
        for height, width in itertools.product(PROPOSED_SIDES, repeat=2)
        if 0.7 < height * width / area < 1.5 and max(height, width) < 2.1 * area**0.5
    ]
    return min(sizes, key=lambda size: (loss(size), abs(size[0] - size[1])))


def _crop_losses(pictures: list[Entry], width: int, height: int) -> dict[str, list[float]]:
    """The fraction of each picture's area that a crop to this size cuts off, by class."""
    losses = dict[str, list[float]]()
    for entry in pictures:
        scales = entry.size[0] / width, entry.size[1] / height
        losses.setdefault(entry.label, []).append(1 - min(scales) / max(scales))
    return losses


def _change_notes(entries: list[Entry], pictures: list[Entry]) -> list[str]:
    """What was left out of all entries, and which of the pictures were changed."""
    notes, unread = [], dict[str, list[str]]()
    for entry in entries:
        if entry.reason:
            unread.setdefault(entry.reason, []).append(entry.name)
    if unread:
        reasons = [f"{key[0].upper()}{key[1:]}: {listed(names)}." for key, names in unread.items()]
        notes.append(f"Left out: {sum(map(len, unread.values())):,}. {' '.join(reasons)}")
    labels_without_picture = {entry.label for entry in entries if entry.reason == NO_PICTURE}
    no_classes = labels_without_picture - {entry.label for entry in pictures} - {""}
    if no_classes:
        notes.append(
            f"Folders that become no class: {listed(sorted(no_classes))}. They hold no picture that can be "
            "read; save pictures as PNG or JPEG."
        )
    for field, note in NOTES.items():
        names = [entry.name for entry in pictures if getattr(entry, field)]
        is_usual = field == "is_colour" and len(names) >= MIN_COLOUR_FRACTION * len(pictures)
        if names and not is_usual:
            notes.append(note.format(n=len(names), of=len(pictures), names=listed(names)))
    return notes


def _crop_notes(pictures: list[Entry], width: int, height: int) -> list[str]:
    """A note where the crop cuts off much: how much of the area, by class, the worst first."""
    losses = _crop_losses(pictures, width, height)
    median = {label: statistics.median(of_class) for label, of_class in losses.items()}
    if not any(
        median[label] > MAX_UNNOTED_CROP or max(losses[label]) > 2 * MAX_UNNOTED_CROP
        for label in losses
    ):
        return []
    large = {label: sum(loss > LARGE_CROP for loss in losses[label]) for label in losses}

    def describe(label: str) -> str:
        count = len(losses[label])
        over = f"; over a quarter in {large[label]:,} of {count:,}" if large[label] else ""
        return (
            f"{label} {percent(median[label], 0)} (at most {percent(max(losses[label]), 0)}{over})"
        )

    worst_first = sorted(
        losses, key=lambda label: (-large[label] / len(losses[label]), -median[label])
    )
    return [
        f"Cut off: to fit {width} × {height}, pictures lose a part of their area, at the median: "
        f"{listed([*map(describe, worst_first)], 10)}. The generator never learns what is cut off. "
        f"{setting('data.fit', 'pad')} keeps all of it."
    ]
