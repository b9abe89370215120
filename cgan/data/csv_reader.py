"""What a valid CSV is: one reader for every stage.

A valid CSV has a header (the label column first, then the pixels in order) and one image a row, all
values whole numbers. It is read once, line by line, and parsed in blocks of rows, so that memory is that of
the uint8 images; a line longer than the header allows is never held whole. numpy parses a block that looks
right; a block that does not is looked at value by value (`csv_faults`), to name rows and columns.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cgan.data.csv_faults import (
    MAX_COUNTED,
    Fault,
    faults_error,
    find_faults,
    highest_label,
    is_scaled,
    unquoted,
)
from cgan.data.csv_header import (
    MAX_HEADER_BYTES,
    WEB_PAGE,
    Header,
    looks_like_web_page,
    read_header,
)
from cgan.data.dataset import LabelledImages
from cgan.errors import DataError
from cgan.files import sha256_of
from cgan.params.sections import ValidateParams

BLOCK_VALUES = 100_000  # parsed at once: they stay in the cache
MAX_BLANK_LINES = 10_000

DEFAULTS = ValidateParams(
    label_column="label",
    classes=None,
    class_names=None,
    channels=1,
    height=None,
    width=None,
    min_per_class=10,
    max_imbalance=10.0,
)
"""The values of params.yaml, for a CSV that is validated where there is no params.yaml."""

_CSV_BYTES = b'0123456789,\r\n \t"+-'


def read_csv(
    path: Path | str,
    params: ValidateParams,
    *,
    max_bytes: int | None = None,
    name: str | None = None,
) -> LabelledImages:
    """The images and labels of a CSV, every value checked. `name` stands for the path in messages.

    Raises DataError for what is no CSV of images; it names row and column of the first faults, and says how
    many there are. Raises it also when the file changed while it was read.
    """
    path, name = Path(path), name or str(path)
    if not path.is_file():
        raise DataError(f"{name}: not found, or not a file. Give the path of a CSV.")
    size = path.stat().st_size
    if size == 0:
        raise DataError(f"{name}: the file is empty. Download or export it again.")
    if max_bytes is not None and size > max_bytes:
        raise DataError(
            f"{name}: {size / 1e6:,.0f} MB, expected at most {max_bytes / 1e6:,.0f} MB. Raise "
            "`data.max_megabytes` in params.yaml if the file is right."
        )
    sha256 = sha256_of(path)
    try:
        with path.open("rb") as file:
            images, labels, lines = _read(file, size, params)
            file.seek(max(0, os.fstat(file.fileno()).st_size - 1))  # it may have been cut since
            ended = file.read() == b"\n"
    except DataError as error:
        raise DataError(f"{name}: {error}") from None
    if sha256_of(path) != sha256:
        raise DataError(
            f"{name}: the file changed while it was read. Run again when nothing writes to it."
        )
    warning = "The last line has no line end: make sure that the file is complete."
    classes = params.classes or int(labels.max()) + 1
    return LabelledImages(images, labels, lines, classes, sha256, size, () if ended else (warning,))


def _read(
    file: BufferedReader, size: int, params: ValidateParams
) -> tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.int64]]:
    if looks_like_web_page(file.peek(512)):
        raise DataError(WEB_PAGE)
    first_line = file.readline(MAX_HEADER_BYTES)
    header = read_header(first_line, params)
    # A value takes two bytes at least. Room that nothing is written to takes no memory.
    room = (size - len(first_line) + 1) // (2 * len(header.columns))
    images = np.empty((room, *header.shape), np.uint8)
    labels, numbers = np.empty((2, room), np.int64)
    lines = _lines(file, header.line_limit)
    at_once = max(1, BLOCK_VALUES // len(header.columns))
    faults: list[Fault] = []
    rows = 0
    # More valid rows than there is room for: the file grows while it is read.
    while (rows <= room or faults) and len(faults) < MAX_COUNTED:
        if not (block := list(itertools.islice(lines, at_once))):
            break
        start, rows = rows, rows + len(block)
        values = _parsed([line for _, line in block], header, params)
        if values is None:
            found = find_faults(block, start, header, params)
            if not found:
                raise DataError(
                    f"between row {start + 1} and row {rows}: not valid CSV. Export it again."
                )
            number, line = block[found[0][0] - start - 1]
            if not faults and is_scaled(line):
                raise DataError(
                    f"row {found[0][0]} (line {number}): the pixels are fractions, already scaled to 0–1 or "
                    "−1–1; expected whole numbers from 0 to 255. Export the pixels unscaled."
                )
            faults += found
        elif rows <= room:
            numbers[start:rows] = [number for number, _ in block]
            labels[start:rows] = values[:, 0]
            images[start:rows] = values[:, 1:].reshape(-1, *header.shape)
    if rows == 0:
        raise DataError("0 rows after the header. Download or export it again.")
    if faults:
        raise faults_error(faults, header.columns[0], params)
    return images[:rows], labels[:rows], numbers[:rows]


def _lines(file: BufferedReader, limit: int) -> Iterator[tuple[int, bytes]]:
    """The lines with rows, and their numbers; of a line that is too long, the beginning."""
    blank_lines = 0
    for number in itertools.count(2):
        line = piece = file.readline(limit)
        while len(piece) == limit and not piece.endswith(b"\n"):
            piece = file.readline(limit)
        if line.strip() or len(line) == limit:
            yield number, line
        elif not line:
            return
        else:
            blank_lines += 1
            if blank_lines > MAX_BLANK_LINES:
                raise DataError(
                    f"line {number}: more than {MAX_BLANK_LINES:,} blank lines. The file is damaged: "
                    "download or export it again."
                )


def _parsed(lines: list[bytes], header: Header, params: ValidateParams) -> NDArray[np.int16] | None:
    """Label and pixels of these rows; None where one of them may be wrong."""
    for line in lines:
        # numpy takes some control characters for blanks; here they are damage.
        if (
            line.count(b",") != len(header.columns) - 1
            or line.translate(None, _CSV_BYTES)
            or len(line) == header.line_limit
        ):
            return None
    rows = [unquoted(line) if b'"' in line else line for line in lines]
    try:
        # int16 holds what lies just outside 0–255 too, so that one look at the extremes suffices.
        values: NDArray[np.int16] = np.loadtxt(
            rows, dtype=np.int16, delimiter=",", comments=None, ndmin=2, encoding="ascii"
        )
    except (ValueError, OverflowError):
        return None
    pixels, labels = values[:, 1:], values[:, 0]
    right = values.min() >= 0 and labels.max() <= highest_label(params) and pixels.max() <= 255
    return values if right else None
