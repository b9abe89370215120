"""Reads a CSV of images, and says which value is wrong, by row and column.

A valid one has a header (the label column first; perhaps `group`; then the pixels in order) and an image in
each row. pandas parses it in blocks of rows, so that memory is that of the uint8 images and a constant.
"""

import hashlib
import io
import itertools
import math
import re
from collections.abc import Callable, Iterator
from typing import IO

import numpy as np

from cgan.base.errors import DataError
from cgan.base.settings import setting
from cgan.base.text import bullets
from cgan.data.arrays import MAX_CLASSES, MAX_SIDE, MIN_SIDE, NUMBERING_ADVICE, IntArray
from cgan.data.images import Images
from cgan.params.sections import ValidateParams

MAX_CSV_BYTES = 4_000_000_000  # of a CSV
MAX_HEADER_BYTES = 4_000_000
MAX_BYTES_PER_VALUE = 24  # three digits, a separator, and ample room for quotes and padding
VALUES_PER_BLOCK = 1_000_000

# In quotes, if it begins with one.
_WHOLE_NUMBER = re.compile(r'[ \t]*(")?[ \t]*\+?0*(\d{1,9})[ \t]*(?(1)"[ \t]*)', re.ASCII)

Line = tuple[int, bytes]  # its number, from 1 for the header, and its text
Stream = IO[bytes] | io.BufferedIOBase


def read_csv(file: Stream, params: ValidateParams, name: str) -> Images:
    """The images of a CSV, which messages call `name`, every value checked. Raises DataError with row and
    column of the first faults."""
    try:
        return _read(file, params)
    except DataError as error:
        raise DataError(f"{name}: {error}") from None


def _read(file: Stream, params: ValidateParams) -> Images:
    header = file.readline(MAX_HEADER_BYTES)
    columns, shape = _parse_header(header, params)
    digest = hashlib.sha256(header)
    max_label = (params.class_count or MAX_CLASSES) - 1
    # The pixels as bytes: memory never holds all images twice.
    pixels = bytearray()
    labels, line_numbers = list[int](), list[int]()
    groups = list[str]()
    lines = _lines(file, len(columns) * MAX_BYTES_PER_VALUE, digest.update)
    while block := [*itertools.islice(lines, max(1, VALUES_PER_BLOCK // len(columns)))]:
        try:
            values, block_groups = _parse(block, columns, max_label)
        except (ValueError, OverflowError):
            raise _faults_error(block, len(labels), columns, max_label) from None
        pixels += values[:, 1:].astype(np.uint8).tobytes()
        labels += values[:, 0].tolist()
        groups += block_groups
        line_numbers += [number for number, _ in block]
    if not labels:
        raise DataError("0 rows after the header. Download or export it again.")
    return Images(
        np.frombuffer(pixels, np.uint8).reshape(-1, *shape),
        labels,
        params.class_names or [*map(str, range(params.classes or max(labels) + 1))],
        groups or None,
        lines=np.array(line_numbers),
        source_sha256=digest.hexdigest(),
        notes=(),  # for `validation` to make
    )


def _lines(file: Stream, limit: int, see: Callable[[bytes], object]) -> Iterator[Line]:
    """The lines after the header that are not blank; `see` gets all of them. Raises DataError for one of
    `limit` bytes or more, and for more than MAX_CSV_BYTES in all."""
    row, size = 1, 0
    for number, line in enumerate(iter(lambda: file.readline(limit), b""), 2):
        see(line)
        size += len(line)
        if len(line) == limit:
            raise DataError(
                f"row {row} (line {number}): expected less than {limit:,} bytes, found more. A quote or line "
                "end is missing."
            )
        if size > MAX_CSV_BYTES:
            raise DataError(f"more than {MAX_CSV_BYTES / 1e6:,.0f} MB of CSV.")
        if line.strip():
            yield number, line
            row += 1


def _parse(block: list[Line], columns: list[str], max_label: int) -> tuple[IntArray, list[str]]:
    """The values of some rows, int64 [rows, columns without `group`], and their groups. Raises ValueError or
    OverflowError where one is wrong."""
    import pandas as pd  # a third of a second, and half of the memory: not for the stage download

    group = [1] if columns[1] == "group" else []
    # int64: with uint8, 256 would become 0 (pandas#55232).
    types = dict.fromkeys(range(len(columns)), np.int64) | dict.fromkeys(group, str)
    text = io.BytesIO(b"".join(line for _, line in block))
    table = pd.read_csv(text, header=None, dtype=types, na_filter=False)
    if table.shape != (len(block), len(columns)):
        raise ValueError
    values = table.drop(columns=group).to_numpy()
    if values.min() < 0 or values[:, 0].max() > max_label or values[:, 1:].max() > 255:
        raise ValueError
    return values, [name for column in group for name in table[column].str.strip()]


def _parse_header(line: bytes, params: ValidateParams) -> tuple[list[str], tuple[int, int, int]]:
    """The names of the columns, and the shape of an image; DataError where they do not fit."""
    label = params.label_column
    text = line.decode("utf-8-sig", "replace").strip()
    if not text or "\0" in text or "\ufffd" in text or len(line) == MAX_HEADER_BYTES:
        raise DataError(
            "expected a CSV in UTF-8; the first line is blank, too long, binary or in another encoding, as "
            "UTF-16. Unpack it, or save it as “CSV UTF-8”."
        )
    columns = [column.strip(' "\t') for column in text.split(",")]
    if columns[0] != label:
        raise DataError(
            f"expected a header such as `{label},pixel0,pixel1,…`; the first line begins with `{text[:40]}`. "
            f"Put the column `{label}` first, with commas between columns; or set "
            f"{setting('validate.label_column')} if it has another name. A test.csv has no labels: give the "
            "train.csv."
        )
    first = 2 if columns[1:2] == ["group"] else 1
    shape = _image_shape(len(columns) - first, params)
    # As in pixel0, pixel1, … or 1x1, 1x2, …
    numbers = [[*map(int, re.findall(r"\d{1,9}", name))] for name in columns]
    for n in range(first + 1, len(columns)):
        if numbers[n] <= numbers[n - 1]:
            raise DataError(
                f"column {n + 1}: expected a name with a larger number than `{columns[n - 1][:40]}`, found "
                f"`{columns[n][:40]}`. Put the pixel columns in their order, row by row."
            )
    return columns, shape


def _image_shape(pixels: int, params: ValidateParams) -> tuple[int, int, int]:
    """Channels, height and width of an image of so many pixels; DataError where they do not fit."""
    channels, height, width = params.channels, params.height, params.width
    expected = f"{channels} × {height} × {width}"
    if height is None or width is None:
        height = width = math.isqrt(pixels // channels)
        expected = f"{channels} × a square with sides of {MIN_SIDE} to {MAX_SIDE}"
    if channels * height * width != pixels or not MIN_SIDE <= height <= MAX_SIDE:
        raise DataError(
            f"expected channels × height × width = {expected} pixel columns, found {pixels:,}. Add or remove "
            f"columns, or set {setting('validate.channels', 3)} for colour (the planes of R, G and B), "
            f"{setting('validate.height')} and {setting('validate.width')} for images that are no squares."
        )
    return channels, height, width


def _faults_error(
    block: list[Line], rows_before: int, columns: list[str], max_label: int
) -> DataError:
    """The first faults of a block, with their places."""

    def faults() -> Iterator[str]:
        for row, (number, line) in enumerate(block, rows_before + 1):
            place = f"row {row} (line {number})"
            fields = line.decode("utf-8", "backslashreplace").rstrip("\r\n").split(",")
            if len(fields) != len(columns):
                yield f"{place}: expected {len(columns):,} values, found {len(fields):,}"
                continue
            for column, field in zip(columns, fields, strict=True):
                most = max_label if column == columns[0] else 255
                value = _WHOLE_NUMBER.fullmatch(field)
                if column != "group" and not (value and int(value[2]) <= most):
                    expected = f"expected a whole number from 0 to {most}"
                    yield f"{place}, column {column}: {expected}, found {field.strip()[:20]!r}"

    found = [*itertools.islice(faults(), 5)]
    found = found or [f"rows {rows_before + 1} to {rows_before + len(block)}: no valid CSV"]
    advice = "Fix or remove these rows, or download the file again."
    if any(f", column {columns[0]}: " in fault for fault in found):
        advice += f" If the labels are right, {NUMBERING_ADVICE}"
    return DataError(f"{bullets(found)}\n{advice}")
