"""A folder or .zip of pictures, one folder a class → the CSV that everything else reads."""

from __future__ import annotations

import contextlib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps
from pydantic import TypeAdapter, ValidationError

from cgan.data.csv_header import MAX_SIDE
from cgan.errors import SourceError
from cgan.files import replacing
from cgan.params.sections import ClassName

SUFFIXES = (".png", ".jpg", ".jpeg", ".gif", ".bmp", ".webp", ".tif", ".tiff")
ORIENTATION = 0x0112  # of EXIF; above 4, width and height change places
MAX_DEPTH = 3  # folders around the classes
GREY = ("1", "L", "LA", "I", "I;16")

Place = Path | zipfile.Path
Classes = dict[str, list[Place]]  # the name of a class → its pictures
Shape = dict[str, int]  # channels, height and width, as `validate` has them


def find_classes(path: Path) -> Classes:
    """The folders of pictures in a folder or .zip, in the order of their names; empty where there are none.

    Folders 0, 1, …, 10 stand in the order of their numbers. A folder around all of them is looked through.
    """
    place: Place = path
    if not path.is_dir():
        if not zipfile.is_zipfile(path):
            return {}
        try:
            place = zipfile.Path(path)
        except Exception:  # damaged: whoever unpacks it says in which way
            return {}
        if any(name.lower().endswith(".csv") for name in place.root.namelist()):
            return {}
    for _ in range(MAX_DEPTH):
        folders = [f for f in place.iterdir() if f.is_dir() and not f.name.startswith((".", "__"))]
        found = {folder.name: _pictures(folder) for folder in folders}
        classes = {name: pictures for name, pictures in found.items() if pictures}
        if classes or len(folders) != 1:
            numbers = all(name.isdecimal() for name in classes)
            order = sorted(classes, key=lambda name: (int(name) if numbers else 0, name))
            return {name: classes[name] for name in order}
        (place,) = folders
    return {}


def _pictures(folder: Place) -> list[Place]:
    files = (f for f in folder.iterdir() if f.name.lower().endswith(SUFFIXES) and f.is_file())
    return sorted((f for f in files if not f.name.startswith(".")), key=lambda f: f.name)


def write_csv(
    classes: Classes, destination: Path, side: int | None, max_bytes: int, name: str
) -> tuple[list[str] | None, list[str], Shape]:
    """Write `label,pixel0,…`, atomically → the names of the classes, None where they are 0, 1, 2, …, the
    picture of each row, and the shape of all.

    Pictures are grey if all are, else their R, G and B planes stand one after the other. With `side`, each
    is scaled and its middle cut out, so that it has `side` × `side` pixels. Raises SourceError for pictures
    of different sizes or a large one without it, for a file that is no picture, and for a name that no class
    can have.
    """
    names = [_class_name(each, name) for each in classes]
    pictures = [(label, each) for label, those in enumerate(classes.values()) for each in those]
    sizes: dict[tuple[int, int], Place] = {}
    mode = "L"
    for _, picture in pictures:
        with _opened(picture) as image:
            turned = image.getexif().get(ORIENTATION, 1) > 4
            sizes.setdefault(image.size[::-1] if turned else image.size, picture)
            mode = mode if image.mode in GREY else "RGB"
    if side is None and (len(sizes) > 1 or max(max(size) for size in sizes) > MAX_SIDE):
        shown = ", ".join(f"{w} × {h} ({picture})" for (w, h), picture in list(sizes.items())[:4])
        raise SourceError(
            f"{name}: pictures of {shown}; expected one size, at most {MAX_SIDE} × {MAX_SIDE}. Set "
            "`data.side: 32` in params.yaml: each is scaled to 32 × 32, and what does not fit is cut off."
        )
    width, height = (side, side) if side else next(iter(sizes))
    columns = [f"pixel{i}" for i in range(width * height * len(mode))]
    texts = [str(value) for value in range(256)]
    with replacing(destination) as temporary, temporary.open("w", encoding="ascii") as file:
        size = file.write(",".join(["label", *columns]) + "\n")
        for label, picture in pictures:
            pixels = (texts[value] for value in _pixels(picture, (width, height), mode))
            size += file.write(",".join([str(label), *pixels]) + "\n")
            if size > max_bytes:
                raise SourceError(
                    f"{name}: more than {max_bytes // 1_000_000:,} MB of CSV, the limit. Set `data.side` "
                    "to a smaller size, or raise `data.max_megabytes` in params.yaml."
                )
    numbered = names == [str(n) for n in range(len(names))]
    files = [str(picture) for _, picture in pictures]
    shape = {"channels": len(mode), "height": height, "width": width}
    return None if numbered else names, files, shape


def _class_name(folder: str, name: str) -> str:
    try:
        return TypeAdapter(ClassName).validate_python(folder)
    except ValidationError as error:
        reason = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise SourceError(
            f"{name}: the folder {folder[:80]!r} cannot name a class: {reason}. Rename the folder."
        ) from None


@contextlib.contextmanager
def _opened(picture: Place) -> Iterator[Image.Image]:
    try:
        with picture.open("rb") as file, Image.open(file) as image:
            yield image
    except Exception as error:  # Pillow and zipfile raise a dozen kinds
        raise SourceError(
            f"{picture}: not a readable picture ({first_line(error)}). Remove or replace it."
        ) from None


def first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def _pixels(picture: Place, size: tuple[int, int], mode: str) -> list[int]:
    """Row by row; of a colour picture all of R, then G, then B."""
    with _opened(picture) as image:
        if image.mode.startswith("I"):  # 16 bits a pixel
            image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
        image = ImageOps.exif_transpose(image).convert(mode)
        if image.size != size:
            image = ImageOps.fit(image, size, Image.Resampling.LANCZOS)
        planes = [np.asarray(plane).ravel() for plane in image.split()]
        found: list[int] = np.concatenate(planes).tolist()
        return found
