"""What `cgan draw` makes: a text or grid as PNG, sets of drawings as .npz, .csv or a folder."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, TextIO

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cgan.errors import CganError
from cgan.files import replacing
from cgan.model.sampling import draw, picture_of, save_png
from cgan.serving.class_names import names_in
from cgan.serving.generator import Generator
from cgan.serving.picture import Style, compose, png_of

MAX_SET_BYTES = 2**30
MAX_FILES = 100_000
SET_FORMATS = ".npz, .csv, or a folder (a name that ends in / or has no ending)"


def write_picture(
    out: str, generator: Generator, labels: list[int], rows: int, seed: int, style: Style
) -> tuple[Tensor, str]:
    """The picture that `compose` makes, as PNG → the drawings, and what was written, in words."""
    if not out.endswith(".png"):
        raise CganError(f"--out {out}: a text or a grid is written as .png, name a file like that.")
    images, picture = compose(generator.network, labels, rows, seed, style)
    with _write_errors(out):
        save_png(out, picture)
    return images, f"{out}: {picture.shape[1]}×{picture.shape[0]} pixels, seed {seed}"


def write_set(out: str, generator: Generator, per_class: int, seed: int) -> str:
    """As many drawings of each class, in the order 0, 1, …, 0, 1, …; returns what was written."""
    classes, shape = generator.classes, generator.shape
    count = classes * per_class
    write = _writer(out)
    size = count * int(np.prod(shape))
    if size > MAX_SET_BYTES or (write is _write_folder and count > MAX_FILES):
        most = min(
            MAX_SET_BYTES // int(np.prod(shape)), MAX_FILES if write is _write_folder else count
        )
        raise CganError(
            f"--per-class {per_class} asks for {count:,} drawings ({size:,} bytes), at most {most:,} "
            f"fit here. Ask for {most // classes:,} a class, several times with other seeds."
        )
    labels = torch.arange(classes).repeat(per_class)
    images = draw(generator.network, labels, seed, generator.device)
    names = names_in(generator.facts, classes)
    with _write_errors(out):
        write(Path(out), images, labels, names)
    return f"{out}: {count:,} drawings, {per_class:,} of each of {classes} classes, seed {seed}"


def _writer(out: str) -> Any:
    if out.endswith("/") or Path(out).is_dir() or not Path(out).suffix:
        return _write_folder
    writer = {".npz": _write_npz, ".csv": _write_csv}.get(Path(out).suffix)
    if writer is None:
        raise CganError(f"--out {out}: a set of drawings is written as {SET_FORMATS}.")
    return writer


def _write_npz(out: Path, images: Tensor, labels: Tensor, names: list[str] | None) -> None:
    # A file object keeps numpy from adding an ending of its own to the temporary name.
    with replacing(out) as temporary, temporary.open("wb") as file:
        npz_into(file, images, labels, names)


def npz_into(file: BinaryIO, images: Tensor, labels: Tensor, names: list[str] | None) -> None:
    """`images` uint8 [N, H, W] or [N, H, W, 3], `labels` and, where the classes have names, `class_names`."""
    arrays: dict[str, Any] = {
        "images": picture_of(images.permute(0, 2, 3, 1).contiguous()),
        "labels": labels.numpy(),
    }
    if names:
        arrays["class_names"] = np.array(names)
    np.savez_compressed(file, **arrays)


def _write_csv(out: Path, images: Tensor, labels: Tensor, _: list[str] | None) -> None:
    with replacing(out) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        csv_into(file, images, labels)


def csv_into(file: TextIO, images: Tensor, labels: Tensor) -> None:
    """Kaggle's form: label, then the pixels row by row; colours plane by plane."""
    pixels: NDArray[np.uint8] = images.flatten(1).numpy()
    texts = [str(value) for value in range(256)]
    file.write(",".join(["label", *(f"pixel{i}" for i in range(pixels.shape[1]))]) + "\n")
    for label, row in zip(labels.tolist(), pixels, strict=True):
        file.write(f"{label},{','.join([texts[value] for value in row.tolist()])}\n")


def _write_folder(out: Path, images: Tensor, labels: Tensor, _: list[str] | None) -> None:
    """`<label>/<label>_<index>.png`, all or nothing."""
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise CganError(f"{out}: exists and is not empty. Remove it or name another folder.")
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{out.name}.", suffix=".tmp", dir=out.parent))
    made = temporary / "set"
    try:
        made.mkdir()
        counts = [0] * (int(labels.max()) + 1)
        for label, image in zip(labels.tolist(), images, strict=True):
            folder = made / str(label)
            folder.mkdir(exist_ok=True)
            png = png_of(image)
            (folder / f"{label}_{counts[label]:05d}.png").write_bytes(png)
            counts[label] += 1
        made.replace(out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextlib.contextmanager
def _write_errors(out: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CganError(
            f"--out {out}: cannot be written ({error.strerror or error}). Name another place."
        ) from None
