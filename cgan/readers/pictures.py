"""The pictures of an album → labelled arrays: of one size, grey or in colour, with what was done to them."""

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
CUT_SEEN = 0.05  # share of the area: less is not worth a word
MUCH = 0.25  # share of the area: so much may be what the picture is about
FEW = 0.1  # share of pictures that are unlike the rest
PROPOSED_AREAS = 32 * 32, 64 * 64  # pixels of the shapes that are proposed

# What was done to pictures that nobody asked for, by the mark of an entry that says to which.
NOTES = {
    "white": "Transparent: {n:,} of {of:,} pictures, put on white: {names}.",
    "frames": "Several frames: {n:,} of {of:,} pictures, of which the first frame is read: {names}.",
    "deeper": "Folders in folders: {n:,} of {of:,} pictures, whose class is the outer folder: {names}. If it "
    "is the inner one, move these up.",
    "colour": "Colour: {n:,} of {of:,} pictures, so that all are read in colour: {names}. Make these grey, "
    "unless you want colour.",
}


class SizeRequired(SourceError):  # noqa: N818 - like StopIteration
    """Pictures of several sizes need `data.height` and `data.width`; `sizes` are proposals, width first."""

    def __init__(self, message: str, sizes: list[tuple[int, int]]) -> None:
        super().__init__(message)
        self.sizes = sizes


def read_album(album: Album, params: DataParams) -> Images:
    """The pictures as arrays, grey if all are grey, each fitted to `data.height` × `data.width`.

    Raises SourceError that names all damaged files at once; for pictures of different sizes where no size is
    set; for a name that no class can have.
    """
    size = (params.width, params.height) if params.width and params.height else None
    arrays = _arrays(album, params, size)
    read = [entry for entry in album.entries if not entry.reason]
    _check(album, read, size)
    notes = _in_words(album.entries, read)
    if size and params.fit == "crop":
        notes += _cut_in_words(read, *size)
    names = _class_names(album, read)
    number_of = {name: number for number, name in enumerate(names)}
    read.sort(key=lambda entry: number_of[entry.label])
    labels = np.array([number_of[entry.label] for entry in read], np.int64)
    planes = [np.atleast_3d(arrays.pop(entry.name)).transpose(2, 0, 1) for entry in read]
    images = np.empty((len(read), max(map(len, planes)), *planes[0].shape[1:]), np.uint8)
    for image, channels in zip(images, planes, strict=True):
        image[:] = channels  # a grey picture gets three equal channels beside pictures in colour
    splits = groups = None
    if any(entry.split for entry in read):
        splits = np.array([SPLITS.index(entry.split) for entry in read], np.uint8)
    if any(entry.group for entry in read):
        groups = np.unique([entry.group for entry in read], return_inverse=True)[1]
    return Images(
        images,
        labels,
        names,
        groups,
        splits=splits,
        lines=np.arange(1, len(labels) + 1),
        files=[f"{album.root}/{entry.name}" for entry in read],
        sizes=np.array([entry.original for entry in read], np.int64),
        source_sha256=pixels_digest(
            images, labels, *(array for array in (splits, groups) if array is not None)
        ),
        notes=notes,
    )


def _arrays(
    album: Album, params: DataParams, size: tuple[int, int] | None
) -> dict[str, NDArray[np.uint8]]:
    """Each picture that can be read, [H, W] or [H, W, 3], by its name: fitted to `size`, or without one those
    that have the size of the first. Its entry says what was found. Raises SourceError for too many pixels."""
    arrays, first, most = dict[str, NDArray[np.uint8]](), None, 0
    for entry in album.entries:
        if entry.reason:
            continue
        try:
            picture = _picture(album, entry, 4 * max(size) if size else 0)
        except Exception as error:  # Pillow and zipfile raise a dozen kinds
            unknown = isinstance(error, UnidentifiedImageError)
            entry.damage = NO_PICTURE if unknown else first_line(error)
            if unknown and not is_picture(entry.name):
                entry.reason = NO_PICTURE
            continue
        entry.size = picture.size
        first = first or picture.size
        if size or picture.size == first:
            arrays[entry.name] = np.asarray(_fitted(picture, size or first, params.fit))
            most = max(most, arrays[entry.name].nbytes)  # one in colour makes all so
            if len(arrays) * most > params.max_megabytes * 1_000_000:
                raise SourceError(
                    f"{album.root}: more than the limit of {params.max_megabytes:,} MB of pixels. Set "
                    f"{setting('data.height')} and {setting('data.width')} to smaller sizes, or raise "
                    f"{setting('data.max_megabytes')}."
                )
    return arrays


# --- one picture ---------------------------------------------------------------------------------


def _picture(album: Album, entry: Entry, enough: int) -> Image.Image:
    """Upright, on white, in mode L where it has no colour, else RGB. `enough`: pixels a side to which a large
    JPEG may be made smaller while it is unpacked, far sooner. Raises ValueError for no picture."""
    with album.open(entry.name) as file:
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise ValueError(f"larger than {MAX_BYTES / 1e6:.0f} MB")
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        image: Image.Image = Image.open(io.BytesIO(content), formats=FORMATS)
    original = image.size
    if enough:
        image.draft(None, (enough, enough))
    entry.frames = image.format != "MPO" and getattr(image, "n_frames", 1) > 1
    image.seek(0)
    stored = image.size
    image = ImageOps.exif_transpose(image)
    entry.original = original if image.size == stored else original[::-1]
    if image.mode.startswith(("I", "F")):
        return Image.fromarray(_scaled(image, entry))
    if image.has_transparency_data:
        layers = image.convert("RGBA")
        entry.white = np.asarray(layers.getchannel("A")).min() < 255
        if entry.white:
            layers = Image.alpha_composite(Image.new("RGBA", layers.size, "white"), layers)
        image = layers
    if image.mode in ("1", "L"):
        return image.convert("L")
    image = image.convert("RGB")
    red, green, blue = (plane.tobytes() for plane in image.split())
    entry.colour = not red == green == blue
    return image if entry.colour else image.getchannel(0)


def _scaled(image: Image.Image, entry: Entry) -> NDArray[np.uint8]:
    """Whole numbers of 16 bits and fractions → 0–255, by the scale that their kind has."""
    values = np.asarray(image)
    low, high = float(values.min()), float(values.max())
    whole = image.mode.startswith("I")
    scale = 65535 if whole else next((most for most in (1, 255, 65535) if high <= most), 0)
    if not (low >= 0 and high <= scale):  # NaN too
        raise ValueError(f"values from {low:g} to {high:g}, expected 0–1, 0–255 or 0–65,535")
    entry.scale = 0 if whole else scale
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


def _class_names(album: Album, read: list[Entry]) -> list[str]:
    """In the order of their labels; of the numbers where all are numbers."""
    every = sorted({entry.label for entry in read})
    trained = {entry.label for entry in read if entry.split in ("", "train")}
    if trained and (missing := [name for name in every if name not in trained]):
        raise SourceError(
            f"{album.root}: expected pictures of every class to train on; of {listed(missing)} there are "
            "some in val or test alone. Add some to train, or remove those."
        )
    if len(every) > MAX_CLASSES:
        raise SourceError(f"{album.root}: {len(every):,} classes, expected up to {MAX_CLASSES:,}.")
    try:
        TypeAdapter(list[ClassName]).validate_python(every)
    except ValidationError as error:
        wrong = [repr(every[int(fault["loc"][0])][:80]) for fault in error.errors()]
        raise SourceError(
            f"{album.root}: classes are named {listed(wrong)}; expected at most 60 characters that can be "
            "shown, no comma, and no space at an end. Rename them."
        ) from None
    return sorted(every, key=int) if all(name.isdecimal() for name in every) else every


def _check(album: Album, read: list[Entry], size: tuple[int, int] | None) -> None:
    """Raises SourceError with all that keeps the pictures from being read."""
    sizes = list[tuple[int, int]]()
    problems, shapes, scales = [], dict[tuple[int, int], str](), dict[int, str]()
    if damaged := [entry for entry in read if entry.damage]:
        shown = "".join(f"\n  - {entry.name}: {entry.damage}" for entry in damaged[:5])
        problems.append(
            f"{len(damaged):,} of {len(read):,} pictures cannot be read:{shown}\nRemove or replace them."
        )
    whole = [entry for entry in read if not entry.damage]
    for entry in whole:
        shapes.setdefault(entry.size, entry.name)
        scales.setdefault(entry.scale, entry.name)
    sides = {side for shape in shapes for side in shape}
    if sides and not size and (len(shapes) > 1 or min(sides) < MIN_SIDE or max(sides) > MAX_SIDE):
        shown = listed([f"{w} × {h} ({name})" for (w, h), name in shapes.items()], 4)
        sizes = [_proposed(whole, area) for area in PROPOSED_AREAS]
        (width, height), (wider, higher) = sizes
        problems.append(
            f"pictures of {shown}; expected one size, with sides of {MIN_SIDE} to {MAX_SIDE}. Set "
            f"{setting('data.height', height)} and {setting('data.width', width)}, or, to see more, {higher} "
            f"and {wider}, which cut off least; and {setting('data.fit', 'pad')} to cut off nothing."
        )
    scales.pop(0, None)
    if len(scales) > 1:  # a dark picture of 0–255 would be taken for one of 0–1
        shown = listed([f"0–{scale:,}: {name}" for scale, name in scales.items()])
        problems.append(f"pictures of fractions differ in scale ({shown}). Give all the same one.")
    message = f"{album.root}: " + "\n".join(problems)
    if sizes and len(problems) == 1:
        raise SizeRequired(message, sizes)
    if problems:
        raise SourceError(message)


def _proposed(read: list[Entry], area: int) -> tuple[int, int]:
    """Width and height in steps of 8, by which pictures lose least; each class counts alike."""

    def loss(size: tuple[int, int]) -> float:
        return round(statistics.fmean(map(statistics.fmean, _cut(read, *size).values())), 2)

    pairs = itertools.product(range(16, 136, 8), repeat=2)
    near = [(w, h) for h, w in pairs if 0.7 < h * w / area < 1.5 and max(h, w) < 2.1 * area**0.5]
    return min(near, key=lambda size: (loss(size), abs(size[0] - size[1])))


def _cut(read: list[Entry], width: int, height: int) -> dict[str, list[float]]:
    """The share of each picture's area that a crop cuts off, by class."""
    cut = dict[str, list[float]]()
    for entry in read:
        sides = entry.size[0] / width, entry.size[1] / height
        cut.setdefault(entry.label, []).append(1 - min(sides) / max(sides))
    return cut


def _in_words(entries: list[Entry], read: list[Entry]) -> list[str]:
    notes, unread = [], dict[str, list[str]]()
    for entry in entries:
        if entry.reason:
            unread.setdefault(entry.reason, []).append(entry.name)
    if unread:
        reasons = [f"{why[0].upper()}{why[1:]}: {listed(names)}." for why, names in unread.items()]
        notes.append(f"Left out: {sum(map(len, unread.values())):,}. {' '.join(reasons)}")
    without = {entry.label for entry in entries if entry.reason == NO_PICTURE}
    if lost := sorted(without - {entry.label for entry in read} - {""}):
        notes.append(
            f"Folders that become no class: {listed(lost)}. They hold no picture that can be read; "
            "save pictures as PNG or JPEG."
        )
    for mark, words in NOTES.items():
        names = [entry.name for entry in read if getattr(entry, mark)]
        if names and (mark != "colour" or len(names) < FEW * len(read)):
            notes.append(words.format(n=len(names), of=len(read), names=listed(names)))
    return notes


def _cut_in_words(read: list[Entry], width: int, height: int) -> list[str]:
    """A line where the crop removes much: how much of the area, by class, and of how many pictures."""
    cut = _cut(read, width, height)
    median = {label: statistics.median(shares) for label, shares in cut.items()}
    if not any(median[label] > CUT_SEEN or max(cut[label]) > 2 * CUT_SEEN for label in cut):
        return []

    def words(label: str) -> str:
        much = sum(share > MUCH for share in cut[label])
        over = f"; over a quarter in {much:,} of {len(cut[label]):,}" if much else ""
        return f"{label} {percent(median[label], 0)} (at most {percent(max(cut[label]), 0)}{over})"

    worst = sorted(
        cut,
        key=lambda label: (-sum(s > MUCH for s in cut[label]) / len(cut[label]), -median[label]),
    )
    return [
        f"Cut off: to fit {width} × {height}, pictures lose a part of their area, at the median: "
        f"{listed([*map(words, worst)], 10)}. The generator never learns what is cut off. "
        f"{setting('data.fit', 'pad')} keeps all of it."
    ]
