"""Reads a CSV of images, and says which value is wrong, by row and column.

A valid one has a header (the label column first; perhaps `group`; then the pixels in order) and an image in
each row, with whole numbers for label and pixels. pandas parses it in blocks of rows, so that memory is that
of the uint8 images and a constant. In a block that is wrong each value is looked at, to name its place.
"""

import io
import itertools
import math
import os
import re
from collections.abc import Iterator
from dataclasses import replace
from io import BufferedReader
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cgan.errors import DataError
from cgan.files import WEB_PAGE, looks_like_web_page, sha256_of
from cgan.images import MAX_CLASSES, MAX_SIDE, MIN_SIDE, Images, IntArray
from cgan.params.sections import ValidateParams
from cgan.settings import setting

MAX_HEADER_BYTES = 4_000_000
MAX_BYTES_PER_VALUE = 24  # three digits, a separator, and ample room for quotes and padding
VALUES_PER_BLOCK = 1_000_000
MAX_SHOWN_FAULTS = 5

# In quotes, if it begins with one.
_WHOLE_NUMBER = re.compile(r'[ \t]*(")?[ \t]*\+?0*(\d{1,9})[ \t]*(?(1)"[ \t]*)', re.ASCII)

Shape = tuple[int, int, int]  # channels, height, width


class Line(NamedTuple):
    number: int  # the header is line 1
    text: bytes


def read_csv(path: Path | str, params: ValidateParams, *, name: str | None = None) -> Images:
    """The images and labels of a CSV, every value checked. Messages call the path `name`.

    Raises DataError for a file that is no CSV of images, with row and column of the first faults.
    """
    try:
        with Path(path).open("rb") as file:
            images = _read(file, params)
        return replace(images, source_sha256=sha256_of(path))
    except DataError as error:
        raise DataError(f"{name or path}: {error}") from None


def _read(file: BufferedReader, params: ValidateParams) -> Images:
    if looks_like_web_page(file.peek(512)):
        raise DataError(WEB_PAGE)
    columns, shape = _parse_header(file.readline(MAX_HEADER_BYTES), params)
    max_label = (params.classes or MAX_CLASSES) - 1
    # A value takes two bytes at least, a group one. Memory that nothing is written to is not taken.
    max_rows = os.fstat(file.fileno()).st_size // (2 * math.prod(shape)) + 1
    images = np.empty((max_rows, *shape), np.uint8)
    labels, line_numbers = np.empty((2, max_rows), np.int64)
    groups = list[str]()
    lines = itertools.islice(_lines(file, len(columns) * MAX_BYTES_PER_VALUE), max_rows)
    rows, rows_per_block = 0, max(1, VALUES_PER_BLOCK // len(columns))
    while block := list(itertools.islice(lines, rows_per_block)):
        parsed = _parse(block, columns, max_label)
        if parsed is None:
            raise _faults_error(block, rows, columns, max_label)
        values, block_groups = parsed
        groups += block_groups
        part = slice(rows, rows + len(block))
        line_numbers[part] = [line.number for line in block]
        labels[part] = values[:, 0]
        images[part] = values[:, 1:].reshape(-1, *shape)
        rows = part.stop
    if rows == 0:
        raise DataError("0 rows after the header. Download or export it again.")
    return Images(
        images[:rows],
        labels[:rows],
        _class_names(labels[:rows], params),
        groups or None,
        lines=line_numbers[:rows],
    )


def _class_names(labels: IntArray, params: ValidateParams) -> list[str]:
    classes = params.classes or int(labels.max()) + 1
    names = params.class_names or [str(label) for label in range(classes)]
    if len(names) != classes:
        raise DataError(names_mismatch(classes, len(names)))
    return names


def _lines(file: BufferedReader, limit: int) -> Iterator[Line]:
    """The lines after the header that are not blank. Raises DataError for one of `limit` bytes or more, of
    which it holds no more."""
    row = 1
    for number, line in enumerate(iter(lambda: file.readline(limit), b""), 2):
        if len(line) == limit:
            raise DataError(
                f"row {row} (line {number}): expected less than {limit:,} bytes, found more. A quote or line "
                "end is missing."
            )
        if line.strip():
            yield Line(number, line)
            row += 1


def _parse(
    lines: list[Line], columns: list[str], max_label: int
) -> tuple[IntArray, list[str]] | None:
    """The values of some rows, int64 [rows, columns without `group`], and their groups. None where one is
    wrong."""
    import pandas as pd  # a third of a second, and half of the memory: not for the stage download

    has_groups = columns[1] == "group"
    # int64: with uint8, 256 would become 0 (pandas#55232).
    types = dict.fromkeys(range(len(columns)), np.int64) | ({1: str} if has_groups else {})
    text = io.BytesIO(b"".join(line.text for line in lines))
    try:
        table = pd.read_csv(text, header=None, dtype=types, na_filter=False)
    except (ValueError, OverflowError):
        return None
    if table.shape != (len(lines), len(columns)):
        return None
    groups = table[1].str.strip().tolist() if has_groups else []
    values = (table.drop(columns=1) if has_groups else table).to_numpy()
    if values.min() < 0 or values[:, 0].max() > max_label or values[:, 1:].max() > 255:
        return None
    return values, groups


# --- The header ----------------------------------------------------------------------------------


def _parse_header(line: bytes, params: ValidateParams) -> tuple[list[str], Shape]:
    """The names of the columns, and the shape of an image. Raises DataError for another header, and when
    pixels may be missing or permuted."""
    label, text = params.label_column, line.decode("utf-8-sig", "replace").strip()
    if not text or "\0" in text or "\ufffd" in text or len(line) == MAX_HEADER_BYTES:
        raise DataError(
            "expected a CSV in UTF-8; the first line is blank, of another encoding (such as UTF-16) or of a "
            f"binary file, or longer than {MAX_HEADER_BYTES / 1e6:.0f} MB. Unpack it, or save it as “CSV "
            "UTF-8”."
        )
    columns = [column.strip().strip('"').strip() for column in text.split(",")]
    if columns[0] != label:
        raise DataError(
            f"expected a header such as `{label},pixel0,pixel1,…`; the first line begins with `{text[:40]}`. "
            f"Put the column `{label}` first, with commas between columns; or set "
            f"{setting('validate.label_column')} if it has another name. A test.csv has no labels: give the "
            "train.csv."
        )
    pixels = columns[2:] if columns[1:2] == ["group"] else columns[1:]
    shape = _image_shape(len(pixels), params)
    _check_order(pixels, shape, first_column=len(columns) - len(pixels) + 1)
    return columns, shape


def _image_shape(pixels: int, params: ValidateParams) -> Shape:
    channels, height, width = params.channels, params.height, params.width
    expected = f"{channels} × {height} × {width}"
    if height is None or width is None:
        height = width = math.isqrt(pixels // channels)
        expected = f"{channels} × a square with sides of {MIN_SIDE} to {MAX_SIDE}"
    if channels * height * width != pixels or not MIN_SIDE <= height <= MAX_SIDE:
        raise DataError(
            f"expected channels × height × width = {expected} pixel columns, found {pixels:,}. Columns are "
            f"missing or too many; or set {setting('validate.channels', 3)} for colour (the planes of R, G "
            f"and B one after the other), {setting('validate.height')} and {setting('validate.width')} for "
            "images that are no squares."
        )
    return channels, height, width


def _check_order(pixels: list[str], shape: Shape, first_column: int) -> None:
    """Raises DataError unless the numbers in the names count up, as pixel0, pixel1, … or 1x1, 1x2, …:
    permuted pixels are no images."""
    numbers = [[*map(int, re.findall(r"\d{1,9}", name))] for name in pixels]
    first, (_, height, width) = numbers[0], shape
    for n, (name, found) in enumerate(zip(pixels, numbers, strict=True)):
        expected = [number + n for number in first[:1]]
        if len(first) == 2:
            expected = [first[0] + n // width % height, first[1] + n % width]
        if not expected or found != expected:
            raise DataError(
                f"column {first_column + n}: expected a name with the number "
                f"{'x'.join(map(str, expected)) or 0}, found `{name[:40]}`. Put the pixel columns in their "
                "order, row by row; none may be missing."
            )


# --- Faults in rows ------------------------------------------------------------------------------


def _faults_error(
    lines: list[Line], rows_before: int, columns: list[str], max_label: int
) -> DataError:
    """The first faults of a block, with their places."""
    faults = list[str]()
    for row, line in enumerate(lines, rows_before + 1):
        place = f"row {row} (line {line.number})"
        fields = line.text.decode("utf-8", "backslashreplace").rstrip("\r\n").split(",")
        if len(fields) != len(columns):
            faults.append(f"{place}: expected {len(columns):,} values, found {len(fields):,}")
            continue
        for column, field in zip(columns, fields, strict=True):
            most = max_label if column == columns[0] else 255
            number = _WHOLE_NUMBER.fullmatch(field)
            if column != "group" and not (number and int(number[2]) <= most):
                faults.append(
                    f"{place}, column {column}: expected a whole number from 0 to {most}, found "
                    f"{field.strip()[:20]!r}"
                )
    faults = faults or [f"rows {rows_before + 1} to {rows_before + len(lines)}: no valid CSV"]
    advice = "Fix or remove these rows, or download the file again."
    if any(f", column {columns[0]}: " in fault for fault in faults[:MAX_SHOWN_FAULTS]):
        advice += f" If the labels are right, {NUMBERING_ADVICE}"
    return DataError("".join(f"\n  - {f}" for f in faults[:MAX_SHOWN_FAULTS]) + f"\n{advice}")


NUMBERING_ADVICE = (
    "number them from 0 without a gap, in pandas by `factorize(sort=True)`, and give their names as "
    "`class_names`."
)


def names_mismatch(classes: int, names: int) -> str:
    """The message for another number of `validate.class_names` than there are classes."""
    return (
        f"{classes} classes, with labels from 0 to {classes - 1}, and {setting('validate.class_names')} has "
        f"{names} names. Give each class one name, in the order of the labels, or set "
        f"{setting('validate.class_names', None)}."
    )
