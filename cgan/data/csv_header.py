"""The first line of a CSV: are all pixels there, in their order, and what shape is an image?"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

from cgan.errors import DataError
from cgan.params.sections import ValidateParams
from cgan.project import DVC_PULL

MIN_SIDE, MAX_SIDE = 8, 256
MAX_HEADER_BYTES = 4_000_000
BYTES_PER_FIELD = 24  # three digits, a separator, and ample room for quotes and padding
SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars"}
POINTERS = {
    "version https://git-lfs": "a Git LFS pointer; `git lfs pull` brings the file",
    "outs:": f"a DVC pointer; {DVC_PULL} brings the file",
}
EXTRA = ("group", "split")  # columns between the label and the pixels


@dataclass(frozen=True)
class Header:
    """The label and the pixels, the columns of EXTRA that stand between them, and the shape of an image:
    channels, height, width."""

    columns: list[str]
    extra: list[str]
    shape: tuple[int, int, int]

    @property
    def line_limit(self) -> int:
        return max(4096, len(self.columns) * BYTES_PER_FIELD)


def read_header(line: bytes, params: ValidateParams) -> Header:
    """Column names and image shape of at most MAX_HEADER_BYTES of a first line.

    Raises DataError, without the file's name, when pixels may be missing or permuted.
    """
    example = f"`{params.label_column},pixel0,pixel1,…`"
    text = _text(line, example)
    columns = [column.strip().strip('"').strip() for column in text.split(",")]
    separator = next((word for sign, word in SEPARATORS.items() if sign in text), "")
    if separator and len(columns) == 1:
        raise DataError(
            f"columns are separated by {separator}, expected commas. Export it again with a comma as "
            "separator."
        )
    _check_label_column(columns, params.label_column, example)
    extra = [*itertools.takewhile(EXTRA.__contains__, columns[1:])]
    kept = [columns[0], *columns[1 + len(extra) :]]
    if len(kept) == 1:
        raise DataError(f"no pixel columns, expected a header such as {example}.")
    shape = _shape(len(kept) - 1, params)
    _check_order(kept[1:], shape, 2 + len(extra))
    return Header(kept, extra, shape)


def _text(line: bytes, example: str) -> str:
    if len(line) >= MAX_HEADER_BYTES:
        raise DataError(
            f"the first line is longer than {MAX_HEADER_BYTES / 1e6:.0f} MB, expected a header such as "
            f"{example}. Is it a CSV?"
        )
    try:
        text = line.decode("utf-8-sig").rstrip("\r\n")
    except UnicodeDecodeError:
        text = "\0"
    if kind := next((kind for start, kind in POINTERS.items() if text.startswith(start)), ""):
        raise DataError(f"this is {kind}, not a CSV.")
    if "\0" in text or text.startswith("PK\3\4"):
        raise DataError(
            "not text in UTF-8, but UTF-16 (Excel's “Unicode text”), another encoding or a binary file, such "
            "as an archive, a workbook or a picture. Unpack it, or save it as “CSV UTF-8”."
        )
    if "\r" in text:
        raise DataError(
            "lines end in CR alone (old Mac format). Save it with LF or CR LF line ends."
        )
    if not text.strip():
        raise DataError(f"the first line is blank, expected a header such as {example}.")
    return text


def _check_label_column(columns: list[str], label: str, example: str) -> None:
    if columns[0] == label:
        return
    if label in columns:
        number = columns.index(label) + 1
        hint = (
            "Save it without the index column (pandas: `to_csv(path, index=False)`)."
            if columns[0] in ("", "Unnamed: 0", "index") and number == 2
            else "Move it to the front."
        )
        raise DataError(f"column {_quote(label)} must be the first, it is number {number}. {hint}")
    is_data = all(re.fullmatch(r"\d+\.?\d*", column) for column in columns)
    if is_data and len(set(columns)) < len(columns):
        raise DataError(
            "the file has no header, its first line is data. Put a line with the column names before it: "
            f"{example}."
        )
    hint = (
        f"Is it a CSV? Its first line should be like {example}."
        if len(columns) == 1
        else "Is that column called otherwise? Set `validate.label_column`. A test.csv has no labels: give "
        "the train.csv."
    )
    found = ", ".join(map(_quote, columns[:3]))
    raise DataError(f"no column {_quote(label)}; the header begins with {found}. {hint}")


def _shape(pixels: int, params: ValidateParams) -> tuple[int, int, int]:
    """(channels, height, width) of an image with this many pixel columns."""
    channels, height, width = params.channels, params.height, params.width
    if height is None or width is None:
        sides = {planes: math.isqrt(pixels // planes) for planes in (1, 3)}
        square = [planes for planes, side in sides.items() if planes * side**2 == pixels]
        if channels not in square:
            hint = (
                f"They would with `validate.channels: {square[0]}`"
                if square
                else "Columns are missing or too many; if not, set `validate.height` and `validate.width`"
            )
            raise DataError(
                f"{pixels:,} pixel columns make no square image with `validate.channels: {channels}`. "
                f"{hint} (3 channels: the planes of R, G and B one after the other)."
            )
        height = width = sides[channels]
        if not MIN_SIDE <= height <= MAX_SIDE:
            raise DataError(
                f"{pixels:,} pixel columns, so images of {height} × {width} pixels, expected sides of "
                f"{MIN_SIDE} to {MAX_SIDE}."
            )
    if (expected := channels * height * width) != pixels:
        raise DataError(
            f"{pixels:,} pixel columns, expected {expected:,} (channels × height × width = {channels} × "
            f"{height} × {width}). Columns are missing or too many, or the section `validate` of "
            "params.yaml describes other images."
        )
    return channels, height, width


def _check_order(pixels: list[str], shape: tuple[int, int, int], at: int) -> None:
    """Names must count up, as pixel0, pixel1, … or 1x1, 1x2, …: permuted pixels are no images."""
    start = re.fullmatch(r"(.*?)(\d+)", pixels[0], re.ASCII | re.DOTALL)
    if start is None:
        raise DataError(
            f"column {at} should be the first pixel, such as `pixel0`, it is {_quote(pixels[0])}. Pixel "
            "columns need numbers that show their order."
        )
    prefix, digits = start.groups()
    first = int(digits[-9:])
    if re.fullmatch(r"\d{1,6}x", prefix, re.ASCII):
        row = int(prefix[:-1])
        expected: Iterator[str] = (
            f"{row + r}x{first + c}" for _, r, c in itertools.product(*map(range, shape))
        )
    elif first > 1:
        raise DataError(
            f"the first pixel column is {_quote(pixels[0])}, expected a count from 0 or 1. The columns "
            "before it are missing, or out of order."
        )
    else:
        zeros = len(digits) if digits.startswith("0") else 1
        expected = (f"{prefix}{first + i:0{zeros}d}" for i in range(len(pixels)))
    for number, (wanted, found) in enumerate(zip(expected, pixels, strict=True), start=at):
        if found != wanted:
            what = "is out of order" if wanted in pixels else "is missing"
            raise DataError(
                f"column {number} should be {_quote(wanted)}, it is {_quote(found)}: {_quote(wanted)} "
                f"{what}. Put the pixel columns in their order, row by row."
            )


def _quote(text: str) -> str:
    return f"`{text[:40]}{'…' * (len(text) > 40)}`" if text else "a column without a name"
