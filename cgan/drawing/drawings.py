"""Sets of drawings as .npz, .csv or a folder."""

import contextlib
import math
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from cgan.base.errors import CganError
from cgan.base.files import replacing
from cgan.drawing.class_names import names_in
from cgan.drawing.generator import Generator
from cgan.models.sampling import ImageArray, encode_png

MAX_SET_BYTES = 2**30  # of pixels
MAX_FILES = 100_000  # in a folder


def write_set(out: str, generator: Generator, per_class: int, seed: int) -> str:
    """Write as many drawings of each class, in the order 0, 1, …, 0, 1, …; returns a line about them."""
    path, classes = Path(out), generator.classes
    folder = out.endswith("/") or path.is_dir() or not path.suffix
    if not folder and path.suffix not in (".npz", ".csv"):
        raise CganError(
            f"--out {out}: a set of drawings is a .npz, a .csv or a folder. Give a name that ends in .npz, "
            ".csv or /, or has no extension."
        )
    most = min(MAX_SET_BYTES // math.prod(generator.shape), MAX_FILES if folder else MAX_SET_BYTES)
    if per_class > most // classes:
        raise CganError(f"--per-class {per_class}: expected at most {most // classes:,}.")
    labels, note = list(range(classes)) * per_class, ""
    images = generator.draw(labels, seed)
    if folder:
        note = _write_folder(path, images, labels, generator.class_names)
    elif path.suffix == ".npz":
        arrays = {"images": images, "labels": np.array(labels)}
        if names := names_in(generator.facts, classes):
            arrays["class_names"] = np.array(names)
        # A file object keeps numpy from adding an ending of its own to the temporary name.
        with replacing(path) as temporary, temporary.open("wb") as packed:
            np.savez_compressed(packed, **arrays)  # type: ignore[arg-type]
    else:
        _write_csv(path, images, labels)
    words = f"{len(labels):,} drawings, {per_class:,} of each of {classes} classes"
    return f"{out}: {words}, seed {seed}{note}"


def _write_csv(path: Path, images: ImageArray, labels: list[int]) -> None:
    """Label, then the pixels row by row; colours plane by plane."""
    planes = images if images.ndim == 3 else images.transpose(0, 3, 1, 2)
    rows = np.column_stack([np.array(labels, np.uint16), planes.reshape(len(images), -1)])
    header = ",".join(["label", *(f"pixel{i}" for i in range(rows.shape[1] - 1))])
    with replacing(path) as temporary:
        np.savetxt(temporary, rows, "%d", ",", header=header, comments="", encoding="utf-8")


def _write_folder(out: Path, images: ImageArray, labels: list[int], names: list[str]) -> str:
    """A folder of PNGs for each class, by name; by number, with a note, where one cannot name a folder."""
    note = ""
    if wrong := [name for name in names if Path(name).name != name or name.startswith(".")]:
        note = f"; folders have the classes' numbers, for none can be named {wrong[0]}"
        names = [str(label) for label in range(len(names))]
    with new_folder(out) as folder:
        for name in names:
            (folder / name).mkdir()
        for row, (label, image) in enumerate(zip(labels, images, strict=True)):
            file = f"{names[label]}_{row // len(names):05d}.png"
            (folder / names[label] / file).write_bytes(encode_png(image))
    return note


@contextlib.contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """Yield a folder that becomes `out` at the end. Raises CganError where `out` holds something."""
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise CganError(f"{out}: exists and is not empty. Remove it, or choose another folder.")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as temporary:
        folder = Path(temporary, "new")
        folder.mkdir()
        yield folder
        folder.replace(out)
