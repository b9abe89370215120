"""Reads a CSV of images, and says what is wrong with one that is not valid.

A valid one has a header (the label column first; perhaps `group`; then the pixels in order) and an image in
each row, with integers for label and pixels. It is read once, and parsed by pandas in blocks of rows, so that
memory is that of the uint8 images. Since pandas takes 2.0, 1e2 and True for integers, too, only blocks with
the characters of integers are given to it. A block with others, or which it refuses, is checked value by
value, to name rows and columns.
"""

import io
import itertools
import math
import os
import re
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cgan.errors import DataError
from cgan.files import WEB_PAGE, looks_like_web_page, sha256_of
from cgan.images import MAX_CLASSES, MAX_SIDE, MIN_SIDE, Images, IntArray
from cgan.params.sections import ValidateParams
from cgan.settings import setting

MAX_HEADER_BYTES = 4_000_000
MAX_BYTES_PER_VALUE = 24  # three digits, a separator, and ample room for quotes and padding
VALUES_PER_BLOCK = 1_000_000
MAX_SHOWN_FAULTS = 5  # in a message
MAX_COUNTED_FAULTS = 1000  # then the search stops

_INTEGER_CHARACTERS = b"0123456789,\r\n \t+-"
_WHOLE_NUMBER = re.compile(rb"\+?0*\d{1,9}|-0+")
_QUOTED_NUMBER = re.compile(rb'(?<![^,\n])"([ \t]*\d+[ \t]*)"(?=[,\r\n]|$)')

Shape = tuple[int, int, int]  # channels, height, width


class Line(NamedTuple):
    number: int  # the header is line 1
    text: bytes


def read_csv(path: Path | str, params: ValidateParams, *, name: str | None = None) -> Images:
    """The images and labels of a CSV, every value checked. Messages call the path `name`.

    Raises DataError for a file that is no CSV of images, with row and column of the first faults and how many
    there are; also when the file changed while it was read.
    """
    try:
        sha256 = sha256_of(path)
        with Path(path).open("rb") as file:
            images = _read(file, params, sha256)
        if sha256_of(path) == sha256:
            return images
        raise DataError("the file changed while being read. Run again when nothing writes to it.")
    except DataError as error:
        raise DataError(f"{name or path}: {error}") from None


def _read(file: BufferedReader, params: ValidateParams, sha256: str) -> Images:
    if looks_like_web_page(file.peek(512)):
        raise DataError(WEB_PAGE)
    columns, has_groups, shape = _parse_header(file.readline(MAX_HEADER_BYTES), params)
    # A value takes two bytes at least. Memory that nothing is written to is not taken.
    size = os.fstat(file.fileno()).st_size
    max_rows = size // (2 * len(columns)) + 1
    images = np.empty((max_rows, *shape), np.uint8)
    labels, line_numbers = np.empty((2, max_rows), np.int64)
    max_label = (params.classes or MAX_CLASSES) - 1
    # Should the file grow, perhaps for ever, no more is read than there is room for.
    lines = itertools.islice(_lines(file, len(columns) * MAX_BYTES_PER_VALUE), max_rows)
    rows_per_block = max(1, VALUES_PER_BLOCK // len(columns))
    rows, last_text, groups, faults = 0, b"", list[str](), list[str]()
    while len(faults) < MAX_COUNTED_FAULTS:
        block = list(itertools.islice(lines, rows_per_block))
        if not block:
            break
        first, rows, last_text = rows, rows + len(block), block[-1].text
        if has_groups:
            split_lines = [_split_group(line) for line in block]
            groups += [group for group, _ in split_lines]
            block = [line for _, line in split_lines]
        text = b"".join(line.text for line in block)
        values = _parse(text, (len(block), len(columns)), max_label)
        if values is None:
            faults_before = len(faults)
            for row, line in enumerate(block, first + 1):
                place = f"row {row} (line {line.number})"
                faults += _row_faults(line.text, place, columns, max_label)
            if len(faults) == faults_before:
                faults.append(f"rows {first + 1} to {rows}: no valid CSV.")
        else:
            line_numbers[first:rows] = [line.number for line in block]
            labels[first:rows] = values[:, 0]
            images[first:rows] = values[:, 1:].reshape(-1, *shape)
    if faults:
        raise _faults_error(faults, columns[0], params)
    if rows == 0:
        raise DataError("0 rows after the header. Download or export it again.")
    warning = "The last line has no line end: make sure that the file is complete."
    return Images(
        images[:rows],
        labels[:rows],
        _class_names(labels[:rows], params),
        groups if has_groups else None,
        lines=line_numbers[:rows],
        source_sha256=sha256,
        notes=() if last_text.endswith(b"\n") else (warning,),
    )


def _split_group(line: Line) -> tuple[str, Line]:
    """The group of a row, which stands after its label, and the row without it."""
    label, _, rest = line.text.partition(b",")
    group, _, pixels = rest.partition(b",")
    without_group = Line(line.number, label + b"," + pixels)
    return group.decode("utf-8", "replace").strip(' \t"'), without_group


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
                f"row {row} (line {number}): longer than {limit:,} bytes; a quote or line end is missing. "
                "Fix or remove it, or download the file again."
            )
        if line.strip():
            yield Line(number, line)
            row += 1


def _parse(text: bytes, shape: tuple[int, int], max_label: int) -> NDArray[np.int64] | None:
    """The values of rows, labels first: int64 of the `shape` rows, columns. None where one may be wrong."""
    import pandas as pd  # a third of a second, and half of the memory: not for the stage download

    if b'"' in text:
        text = _QUOTED_NUMBER.sub(rb"\1", text)
    if text.translate(None, _INTEGER_CHARACTERS) or b"\r" in text.replace(b"\r\n", b"\n"):
        return None
    try:
        # int64: with uint8, 256 would become 0 (pandas#55232).
        table = pd.read_csv(io.BytesIO(text), header=None, dtype=np.int64, na_filter=False)
    except (ValueError, OverflowError, pd.errors.ParserError):
        return None
    values = table.to_numpy()
    if values.shape != shape or values.min() < 0:
        return None
    return values if values[:, 0].max() <= max_label and values[:, 1:].max() <= 255 else None


# --- The header ----------------------------------------------------------------------------------


def _parse_header(line: bytes, params: ValidateParams) -> tuple[list[str], bool, Shape]:
    """The names of the columns without `group`, whether there is one, and the shape of an image.

    Raises DataError for another header, and when pixels may be missing or permuted.
    """
    label, text = params.label_column, line.decode("utf-8-sig", "replace").rstrip("\r\n")
    columns = [column.strip().strip('"').strip() for column in text.split(",")]
    if len(line) == MAX_HEADER_BYTES:
        problem = f"the first line is longer than {MAX_HEADER_BYTES / 1e6:.0f} MB."
    elif "\0" in text or "\ufffd" in text or text.startswith("PK\3\4"):
        problem = (
            "not text in UTF-8, but UTF-16 (Excel's “Unicode text”), another encoding or a binary file, such "
            "as an archive or a picture. Unpack it, or save it as “CSV UTF-8”."
        )
    elif "\r" in text:
        problem = "lines end in CR alone (old Mac format). Save it with LF or CR LF line ends."
    elif not text.strip():
        problem = "the file is empty, or its first line is blank."
    elif "," not in text and any(sign in text for sign in ";\t|"):
        problem = "columns are separated by semicolons, tabs or bars. Export it again with commas."
    elif len(columns) == 1 and columns[0] != label:
        problem = (
            f"no table: the first line, {_quote(columns[0])}, has no comma. Give a .csv, .csv.gz or .zip, or "
            "a folder of pictures."
        )
    elif columns[0] != label and label in columns:
        problem = (
            f"column {_quote(label)} must be the first, it is number {columns.index(label) + 1}. Move it to "
            "the front, or save the table without the index before it (pandas: `to_csv(path, index=False)`)."
        )
    elif columns[0] != label:
        problem = (
            f"there is no column {_quote(label)}; the first line begins with "
            f"{', '.join(map(_quote, columns[:3]))}. If there is no header, write one. "
            f"If the column has another name, set {setting('validate.label_column')}. "
            "A test.csv has no labels: give the train.csv."
        )
    else:
        has_groups = columns[1:2] == ["group"]
        pixels = columns[1 + has_groups :]
        shape = _image_shape(len(pixels), params)
        _check_order(pixels, shape, first_column=2 + has_groups)
        return [label, *pixels], has_groups, shape
    raise DataError(f"{problem} Expected a header such as `{label},pixel0,pixel1,…`.")


def _image_shape(pixels: int, params: ValidateParams) -> Shape:
    channels, height, width = params.channels, params.height, params.width
    expected = f"{channels} × {height} × {width}"
    if height is None or width is None:
        height = width = math.isqrt(pixels // channels)
        expected = f"{channels} × a square with sides of {MIN_SIDE} to {MAX_SIDE}"
    if channels * height * width != pixels or not MIN_SIDE <= height <= MAX_SIDE:
        raise DataError(
            f"{pixels:,} pixel columns, expected channels × height × width = {expected}. Columns are missing "
            f"or too many; or set {setting('validate.channels', 3)} for colour (the planes of R, G and B one "
            f"after the other), {setting('validate.height')} and {setting('validate.width')} for images that "
            "are no squares."
        )
    return channels, height, width


def _check_order(pixels: list[str], shape: Shape, first_column: int) -> None:
    """Raises DataError unless the names count up, as pixel0, pixel1, … or 1x1, 1x2, …: permuted pixels are no
    images."""
    start = re.fullmatch(r"(|.*\D)(0*[01])", pixels[0], re.ASCII | re.DOTALL)
    if start is None:
        raise DataError(
            f"column {first_column}, the first pixel, is {_quote(pixels[0])}; expected a count from 0 or 1, "
            "such as `pixel0`. The columns before it are missing, or the names show no order."
        )
    prefix, digits = start.groups()
    names = [f"{prefix}{int(digits) + n:0{len(digits)}d}" for n in range(len(pixels))]
    if re.fullmatch(r"\d{1,6}x", prefix, re.ASCII):
        places = itertools.product(*map(range, shape))
        names = [f"{int(prefix[:-1]) + row}x{int(digits) + column}" for _, row, column in places]
    for number, (expected, column) in enumerate(zip(names, pixels, strict=True), first_column):
        if column != expected:
            raise DataError(
                f"column {number} should be {_quote(expected)}, it is {_quote(column)}: a column is missing, "
                "doubled or out of order. Put the pixel columns in their order, row by row."
            )


def _quote(text: str) -> str:
    return f"`{text[:40]}{'…' * (len(text) > 40)}`" if text else "a column without a name"


# --- Faults in rows ------------------------------------------------------------------------------


def _row_faults(line: bytes, place: str, columns: list[str], max_label: int) -> list[str]:
    """The faults of a row; each begins with the place, `row 3 (line 4)`."""
    fields = _QUOTED_NUMBER.sub(rb"\1", line).rstrip(b"\r\n").split(b",")
    if b"\0" in line:
        return [f"{place}: there is a NUL byte, so the file is damaged or not text."]
    if len(fields) != len(columns):
        number = f"{len(fields):,} value{'s' * (len(fields) > 1)}"
        end = "" if line.endswith(b"\n") else ", and the file ends there: it was cut off"
        return [f"{place}: {number}, expected {len(columns):,}{end}."]
    if fields[0].strip(b' \t"').decode("utf-8", "replace") == columns[0]:
        return [f"{place}: the header appears again. Were files joined?"]
    value_faults = [
        _value_fault(fields[0], max_label, is_label=True),
        *(_value_fault(field, 255) for field in fields[1:]),
    ]
    faults = zip(columns, value_faults, strict=True)
    return [f"{place}, column {column}: {fault}" for column, fault in faults if fault]


def _value_fault(field: bytes, highest: int, is_label: bool = False) -> str:
    """The fault of a label or pixel, which goes from 0 to `highest`; "" if there is none."""
    text = field.strip(b" \t")
    if not text:
        return "blank."
    if _WHOLE_NUMBER.fullmatch(text) and int(text) <= highest:
        return ""
    shown = text[:20].decode("utf-8", "backslashreplace") + "…" * (len(text) > 20)
    if re.fullmatch(rb"[+-]?\d+", text):
        return f"{shown} is outside {'the classes ' if is_label else ''}0–{highest}."
    if b"." in text and not is_label:
        return f"{shown!r} is not a whole number (write it without decimals, and unscaled: 0–255, not 0–1)."
    return f"{shown!r} is not a whole number."


def _faults_error(faults: list[str], label_column: str, params: ValidateParams) -> DataError:
    """One error for all faults, without the file's name."""
    lines = "".join(f"\n  - {fault}" for fault in _examples(faults))
    advice = "Fix or remove these rows, or download the file again."
    if all(
        f", column {label_column}: " in fault and not fault.endswith("blank.") for fault in faults
    ):
        advice += f" If these labels are right, {renumbering_advice(params)}"
    count = f"{len(faults):,} fault{'s' * (len(faults) > 1)}"
    if len(faults) >= MAX_COUNTED_FAULTS:
        count = f"at least {count}"
    if len(faults) > MAX_SHOWN_FAULTS:
        count = f"{count}, among them"
    return DataError(f"{count}:{lines}\n{advice}")


def _examples(faults: list[str]) -> list[str]:
    """MAX_SHOWN_FAULTS of them, in the order of the file: one of each kind, then one of each row, then
    others."""
    first_of_kind, first_of_row = dict[str, str](), dict[str, str]()
    for fault in faults:
        row, _, problem = fault.partition(")")  # of `row 3 (line 4), column pixel7: blank.`
        kind = re.sub(r", column [^:]*|'[^']*'|\d[\d,]*", "", problem)  # without column and values
        first_of_kind.setdefault(kind, fault)
        first_of_row.setdefault(row, fault)
    by_priority = dict.fromkeys([*first_of_kind.values(), *first_of_row.values(), *faults])
    return sorted([*by_priority][:MAX_SHOWN_FAULTS], key=faults.index)


def names_mismatch(classes: int, names: int) -> str:
    """The message for another number of `validate.class_names` than there are classes."""
    return (
        f"{classes} classes, with labels from 0 to {classes - 1}, and {setting('validate.class_names')} has "
        f"{names} names. Give each class one name, in the order of the labels, or set "
        f"{setting('validate.class_names', None)}."
    )


def renumbering_advice(params: ValidateParams) -> str:
    """How to turn any labels, also names, into 0, 1, 2, …"""
    column = f"frame[{params.label_column!r}]"
    number = f"{setting('validate.classes')} to their number, and " if params.classes else ""
    return (
        "renumber them in their order, with pandas: `frame = pandas.read_csv(old); "
        f"{column} = {column}.factorize(sort=True)[0]; frame.to_csv(new, index=False)`; and set "
        f"{number}{setting('validate.class_names')} to the old ones in that order."
    )
