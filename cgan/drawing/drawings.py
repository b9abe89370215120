"""Sets of drawings as .npz, .csv or a folder."""

import contextlib
import math
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from cgan.drawing.class_names import names_in
from cgan.drawing.generator import Generator
from cgan.errors import CganError
from cgan.files import replacing
from cgan.model.sampling import Picture, encode_png

MAX_SET_BYTES = 2**30  # of pixels
MAX_FILES = 100_000  # in a folder


def write_set(out: str, generator: Generator, per_class: int, seed: int) -> str:
    """Write as many drawings of each class, in the order 0, 1, …, 0, 1, …; returns a line about them."""
    path, classes = Path(out), generator.classes
    folder = out.endswith("/") or path.is_dir() or not path.suffix
    if not folder and path.suffix not in (".npz", ".csv"):
        raise CganError(
            f"--out {out}: a set of drawings is written as a .npz, as a .csv, or as a folder. Give a name "
            "that ends in .npz, .csv or /, or has no extension."
        )
    most = min(MAX_SET_BYTES // math.prod(generator.shape), MAX_FILES if folder else MAX_SET_BYTES)
    count = classes * per_class
    if count > most:
        raise CganError(
            f"--per-class {per_class} asks for {count:,} drawings, expected at most {most:,}. Ask for up to "
            f"{most // classes:,} per class, several times with different seeds."
        )
    labels = list(range(classes)) * per_class
    images = generator.draw(labels, seed)
    if folder:
        folders = class_folders(generator.class_names)
        names = (
            f"{folders[label]}/{folders[label]}_{row // classes:05d}.png"
            for row, label in enumerate(labels)
        )
        write_folder(path, images, names)
    elif path.suffix == ".npz":
        arrays = {"images": images, "labels": np.array(labels)}
        if class_names := names_in(generator.facts, classes):
            arrays["class_names"] = np.array(class_names)
        # A file object keeps numpy from adding an ending of its own to the temporary name.
        with replacing(path) as temporary, temporary.open("wb") as packed:
            np.savez_compressed(packed, **arrays)  # type: ignore[arg-type]
    else:
        write_csv(path, images, labels)
    words = f"{out}: {count:,} drawings, {per_class:,} of each of {classes} classes, seed {seed}"
    return words + numbered(generator.class_names) if folder else words


def write_csv(path: Path, images: Picture, labels: list[int], column: str = "label") -> None:
    """Kaggle's form: label, then the pixels row by row; colours plane by plane."""
    planes = images if images.ndim == 3 else images.transpose(0, 3, 1, 2)
    rows = np.column_stack([np.array(labels, np.uint16), planes.reshape(len(images), -1)])
    header = ",".join([column, *(f"pixel{i}" for i in range(rows.shape[1] - 1))])
    with replacing(path) as temporary:
        np.savetxt(temporary, rows, "%d", ",", header=header, comments="", encoding="utf-8")


def write_folder(out: Path, images: Picture, names: Iterable[str]) -> None:
    """Each image as PNG under its name, `<class>/….png`."""
    with new_folder(out) as folder:
        for name, image in zip(names, images, strict=True):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(encode_png(image))


def class_folders(names: list[str]) -> list[str]:
    """The classes' names, where all can be names of folders of pictures, else their numbers."""
    return [str(label) for label in range(len(names))] if numbered(names) else names


def numbered(names: list[str]) -> str:
    """Why folders have numbers in place of these names, in words; `` where they have not."""
    wrong = [name for name in names if Path(name).name != name or name.startswith(".")]
    return f"; folders have the classes' numbers, for none can be named {wrong[0]}" if wrong else ""


@contextlib.contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """Yield a folder that becomes `out` at the end, all or nothing. Raises CganError where `out` holds
    something."""
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise CganError(f"{out}: exists and is not empty. Remove it, or choose another folder.")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as temporary:
        folder = Path(temporary, "new")
        folder.mkdir()
        yield folder
        folder.replace(out)
