"""The first line of a CSV: are all pixels there, in their order, and what shape is an image?"""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from cgan.errors import DataError
from cgan.params.sections import ValidateParams
from cgan.project import DVC_PULL

MIN_SIDE, MAX_SIDE = 8, 256
MAX_HEADER_BYTES = 4_000_000
BYTES_PER_FIELD = 24  # three digits, a separator, and ample room for quotes and padding

# First bytes of what is given for a CSV by mistake.
FILE_KINDS = (
    (b"PK\x03\x04", "a .zip archive"),
    (b"\x1f\x8b", "a .gz archive"),
    (b"BZh", "a bzip2 archive"),
    (b"\xfd7zXZ", "an xz archive"),
    (b"7z\xbc\xaf", "a 7-Zip archive"),
    (b"Rar!", "a RAR archive"),
    (b"\xd0\xcf\x11\xe0", "an old Excel workbook"),
    (b"PAR1", "a Parquet file"),
    (b"\x89HDF", "an HDF5 file"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"\x89PNG", "a PNG picture"),
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"GIF8", "a GIF picture"),
    (b"%PDF", "a PDF document"),
    (b"{", "JSON"),
    (b"[", "JSON"),
    (b"version https://git-lfs", "a Git LFS pointer; `git lfs pull` brings the file"),
    (b"outs:", f"a DVC pointer; {DVC_PULL} brings the file"),
)

WEB_PAGE = (
    "this is a web page, not a CSV; a log-in page saved by mistake? Log in, then download the file "
    "itself."
)


@dataclass(frozen=True)
class Header:
    """Names of all columns, the label first, and the shape (channels, height, width) of an image."""

    columns: list[str]
    shape: tuple[int, int, int]

    @property
    def line_limit(self) -> int:
        return max(4096, len(self.columns) * BYTES_PER_FIELD)


def looks_like_web_page(head: bytes) -> bool:
    """True for the first bytes of an HTML or XML page, such as a log-in page saved as .csv."""
    return head.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] == b"<"


def read_header(line: bytes, params: ValidateParams, name: str) -> Header:
    """Column names and image shape. Raises DataError when pixels may be missing or permuted."""
    if kind := next((kind for start, kind in FILE_KINDS if line.startswith(start)), ""):
        hint = (
            "`cgan validate` and `data.source: file` unpack a .zip or .gz that holds a CSV; unpack "
            "others first."
            if "archive" in kind
            else f"Give a CSV whose first line is {_example(params)}."
        )
        raise DataError(f"{name}: this is {kind}, not a CSV. {hint}")
    if len(line) >= MAX_HEADER_BYTES:
        raise DataError(
            f"{name}: the first line is longer than {MAX_HEADER_BYTES / 1e6:.0f} MB, expected a header "
            f"such as {_example(params)}. Is it a CSV?"
        )
    try:
        text = line.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise DataError(
            f"{name}: not text in UTF-8, but UTF-16 (Excel's “Unicode text”), another encoding or a binary "
            "file. Save it as “CSV UTF-8”."
        )
    if "\r" in text.rstrip("\r\n"):
        raise DataError(
            f"{name}: lines end in CR alone (old Mac format). Save it with LF or CR LF line ends."
        )
    if not text.strip():
        raise DataError(
            f"{name}: the first line is blank, expected a header such as {_example(params)}."
        )
    columns = [column.strip().strip('"').strip() for column in text.rstrip("\r\n").split(",")]
    if len(columns) == 1:
        for separator, word in ((";", "semicolons"), ("\t", "tabs"), ("|", "bars")):
            if separator in text:
                raise DataError(
                    f"{name}: columns are separated by {word}, expected commas. "
                    "Export it again with a comma as separator."
                )
    _check_label_column(columns, params, name)
    if columns[-1] == "":
        raise DataError(
            f"{name}: the header ends with a comma, so that its last column has no name. Export it "
            "without a comma at the end of the lines."
        )
    column, count = Counter(columns).most_common(1)[0]
    if count > 1:
        raise DataError(
            f"{name}: column {_quote(column)} stands {count} times in the header. Every pixel needs one "
            "column: remove the copies."
        )
    pixels = columns[1:]
    shape = _shape(len(pixels), params, name)
    _check_order(pixels, shape, name)
    return Header(columns, shape)


def _check_label_column(columns: list[str], params: ValidateParams, name: str) -> None:
    label = params.label_column
    if columns[0] == label:
        return
    if label in columns:
        hint = (
            "Save it without the index column (pandas: `to_csv(path, index=False)`)."
            if columns[0] in ("", "Unnamed: 0", "index") and columns[1] == label
            else "Move it to the front."
        )
        raise DataError(
            f"{name}: column {_quote(label)} must be the first, it is number "
            f"{columns.index(label) + 1}. {hint}"
        )
    if len(set(columns)) < len(columns) and all(c.replace(".", "", 1).isdigit() for c in columns):
        raise DataError(
            f"{name}: the file has no header, its first line is data. "
            f"Put a line with the column names before it: {_example(params)}."
        )
    near = [c for c in (columns[0], columns[-1]) if _letters(c) == _letters(label)]
    if near:
        hint = (
            f"Is it {_quote(near[0])}? Write it as in `validate.label_column`, or set that to it."
        )
    elif len(columns) == 1:
        hint = f"Is it a CSV? Its first line should be like {_example(params)}."
    else:
        hint = "Is it a test.csv, which has no labels? Give the train.csv, or set `validate.label_column`."
    raise DataError(
        f"{name}: no column {_quote(label)}; the header begins with "
        f"{', '.join(_quote(column) for column in columns[:3])}. {hint}"
    )


def _letters(column: str) -> str:
    """What two spellings of a name have in common: capitals, blanks and invisible characters aside."""
    return "".join(c for c in column.casefold() if c.isalnum())


def _shape(pixels: int, params: ValidateParams, name: str) -> tuple[int, int, int]:
    """(channels, height, width) of an image with this many pixel columns."""
    channels = params.channels
    if params.height is not None and params.width is not None:
        shape = (channels, params.height, params.width)
        if math.prod(shape) == pixels:
            return shape
        raise DataError(
            f"{name}: {pixels:,} pixel columns, expected {math.prod(shape):,} (channels × height × "
            f"width = {channels} × {params.height} × {params.width}). Columns are missing or too many, "
            "or the section `validate` of params.yaml describes other images."
        )
    side = math.isqrt(pixels // channels)
    if channels * side * side != pixels:
        other = 4 - channels  # 1 or 3
        near = channels * max(1, round(math.sqrt(pixels / channels))) ** 2
        hint = (
            f"With {other} they would: set `validate.channels: {other}` if the pixels are "
            f"{'R, G, B planes one after the other' if other == 3 else 'grey'}."
            if other * math.isqrt(pixels // other) ** 2 == pixels
            else f"The nearest is {near:,}: columns are missing or too many; if not, set `validate.height` "
            "and `validate.width` (and `validate.channels`)."
        )
        raise DataError(
            f"{name}: {pixels:,} pixel columns make no square image with `validate.channels: {channels}`. "
            f"{hint}"
        )
    if not MIN_SIDE <= side <= MAX_SIDE:
        raise DataError(
            f"{name}: {pixels:,} pixel columns, so images of {side} × {side} pixels, expected sides of "
            f"{MIN_SIDE} to {MAX_SIDE}."
        )
    return channels, side, side


def _check_order(pixels: list[str], shape: tuple[int, int, int], name: str) -> None:
    """Names must count up, as pixel0, pixel1, … or 1x1, 1x2, …: permuted pixels are no images."""
    start = re.fullmatch(r"(.*?)(\d+)", pixels[0], re.ASCII | re.DOTALL)
    if start is None:
        raise DataError(
            f"{name}: column 2 should be the first pixel, such as `pixel0`, it is "
            f"{_quote(pixels[0])}. Pixel columns need numbers that show their order."
        )
    if re.fullmatch(r"\d{1,6}x", start[1], re.ASCII):
        row, column = int(start[1][:-1]), int(start[2][-9:])
        expected: Iterator[str] = (
            f"{row + r}x{column + c}" for _, r, c in itertools.product(*map(range, shape))
        )
    else:
        prefix, digits = start[1], start[2]
        zeros = len(digits) if digits.startswith("0") else 1
        first = int(digits[-9:])
        expected = (f"{prefix}{first + i:0{zeros}d}" for i in range(len(pixels)))
        if first > 1:
            raise DataError(
                f"{name}: the first pixel column is {_quote(pixels[0])}, expected a count from 0 or 1. "
                "The columns before it are missing, or out of order."
            )
    for number, (wanted, found) in enumerate(zip(expected, pixels, strict=True), start=2):
        if found != wanted:
            what = "is missing" if wanted not in pixels else "is out of order"
            raise DataError(
                f"{name}: column {number} should be {_quote(wanted)}, it is {_quote(found)}: "
                f"{_quote(wanted)} {what}. Put the pixel columns in their order, row by row."
            )


def _example(params: ValidateParams) -> str:
    return f"`{params.label_column},pixel0,pixel1,…`"


def _quote(text: str) -> str:
    return f"`{text[:40]}{'…' * (len(text) > 40)}`" if text else "a column without a name"
