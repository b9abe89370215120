"""What a valid CSV is: one reader for every stage. It refuses; `csv_faults` finds the words.

A valid CSV has a header (the label column first, then the pixels in order) and one image a row, all
values whole numbers. The file is read once, line by line, and parsed in blocks of rows: `CsvBlocks` takes a
few MB, `read_csv` the uint8 images as well, and a line longer than the header allows is never held whole.
The fast path says only yes or no. After a no, `csv_faults` reads the file again, slowly, to name rows and
columns.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import math
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from cgan.data.csv_faults import (
    FILE_KINDS,
    MAX_BLANK_LINES,
    MAX_CLASSES,
    WEB_PAGE,
    WHOLE_NUMBER,
    explain_faults,
    looks_like_web_page,
    unquoted,
)
from cgan.data.dataset import room_for
from cgan.errors import DataError
from cgan.files import sha256_of
from cgan.params.sections import ValidateParams

MIN_SIDE, MAX_SIDE = 8, 256
MAX_HEADER_BYTES = 4_000_000
BYTES_PER_FIELD = 24  # three digits, a separator, and ample room for quotes and padding
BLOCK_VALUES = 100_000  # parsed at once: they stay in the cache

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


@dataclass(frozen=True)
class Table:
    """A CSV whole; large images lie in a mapped file (`dataset.room_for`).

    `images` uint8 [N, C, H, W]; `labels` int64 [N], all below `classes`; `sha256` of the file's bytes.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    classes: int
    sha256: str
    size_bytes: int
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Header:
    """Names of all columns, the label first, and the shape (channels, height, width) of an image."""

    columns: list[str]
    shape: tuple[int, int, int]

    @property
    def line_limit(self) -> int:
        return max(4096, len(self.columns) * BYTES_PER_FIELD)


class CsvBlocks:
    """A CSV in blocks of rows, every value checked: `for labels, images in CsvBlocks(…)`, once.

    `labels` int64 [n], `images` uint8 [n, C, H, W]. `shape`: (C, H, W); `room`: rows that there are at
    most; `size_bytes`. `sha256` and `warnings` are known when all blocks have been read.
    """

    def __init__(
        self,
        path: Path | str,
        params: ValidateParams,
        *,
        max_bytes: int | None = None,
        name: str | None = None,
    ) -> None:
        """`name` stands for the path in messages. Raises DataError for what is no CSV of images."""
        self.path, self.params = Path(path), params
        self.name = name = name or str(path)
        if not self.path.is_file():
            raise DataError(f"{name}: not found, or not a file. Give the path of a CSV.")
        self.size_bytes = size = self.path.stat().st_size
        if size == 0:
            raise DataError(f"{name}: the file is empty. Download or export it again.")
        if max_bytes is not None and size > max_bytes:
            raise DataError(
                f"{name}: {size / 1e6:,.0f} MB, expected at most {max_bytes / 1e6:,.0f} MB. "
                "Raise `data.max_megabytes` in params.yaml if the file is right."
            )
        with self._reading() as file:
            if looks_like_web_page(file.peek(512)):
                raise DataError(f"{name}: {WEB_PAGE}")
            self._first_line = file.readline(MAX_HEADER_BYTES)
        self._header = _read_header(self._first_line, params, name)
        self.shape = self._header.shape
        # A value takes two bytes at least.
        self.room = (size - len(self._first_line) + 1) // (2 * len(self._header.columns))
        self._digest, self._last_byte = hashlib.sha256(self._first_line), b"\n"

    def __iter__(self) -> Iterator[tuple[NDArray[np.int64], NDArray[np.uint8]]]:
        """Raises DataError that names the row and column of the first faults, and says how many there
        are; or that the file changed while it was read."""
        with self._reading() as file:
            file.seek(len(self._first_line))
            try:
                for values in _parsed_blocks(self._rows(file), self._header, self.params):
                    yield (
                        values[:, 0].astype(np.int64),
                        values[:, 1:].astype(np.uint8).reshape(-1, *self.shape),
                    )
            except (ValueError, OverflowError) as error:
                file.seek(len(self._first_line))
                raise explain_faults(
                    file,
                    self._header.columns,
                    self._header.line_limit,
                    self.params,
                    self.name,
                    str(error),
                ) from None
            if sha256_of(self.path) != self.sha256:
                raise self.changed_meanwhile()

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()

    @property
    def warnings(self) -> tuple[str, ...]:
        if self._last_byte == b"\n":
            return ()
        return ("The last line has no line end: make sure that the file is complete.",)

    def changed_meanwhile(self) -> DataError:
        return DataError(
            f"{self.name}: the file changed while it was read. Run again when nothing writes to it."
        )

    @contextlib.contextmanager
    def _reading(self) -> Iterator[BufferedReader]:
        try:
            with self.path.open("rb") as file:
                yield file
        except OSError as error:
            raise DataError(f"{self.name}: cannot be read ({error.strerror or error}).") from None

    def _rows(self, file: IO[bytes]) -> Iterator[bytes]:
        """The data rows as bytes that numpy parses; ValueError at the first one that looks wrong."""
        blank_lines = 0
        commas = len(self._header.columns) - 1
        limit = self._header.line_limit
        empty = True
        while line := file.readline(limit):
            self._digest.update(line)
            self._last_byte = line[-1:]
            if len(line) < limit and not line.strip():
                blank_lines += 1
                if blank_lines > MAX_BLANK_LINES:
                    raise ValueError("a flood of blank lines")
                continue
            # numpy takes some control characters for blanks; here they are damage.
            foreign = line.translate(None, _CSV_BYTES)
            if line.count(b",") != commas or foreign or len(line) == limit:
                raise ValueError("a malformed row")
            empty = False
            yield unquoted(line) if b'"' in line else line
        if empty:
            raise ValueError("no rows")


def read_csv(
    path: Path | str,
    params: ValidateParams,
    *,
    max_bytes: int | None = None,
    name: str | None = None,
) -> Table:
    """All of a CSV at once, for who goes to its images in any order. Raises as CsvBlocks does."""
    blocks = CsvBlocks(path, params, max_bytes=max_bytes, name=name)
    # Room that nothing is written to takes no memory.
    images = room_for((blocks.room, *blocks.shape))
    labels = np.empty(blocks.room, np.int64)
    count = 0
    for some_labels, some_images in blocks:
        end = count + len(some_labels)
        if end > blocks.room:
            raise blocks.changed_meanwhile()
        labels[count:end], images[count:end] = some_labels, some_images
        count = end
    images, labels = images[:count], labels[:count]
    classes = params.classes or int(labels.max()) + 1
    return Table(images, labels, classes, blocks.sha256, blocks.size_bytes, blocks.warnings)


def _parsed_blocks(
    rows: Iterator[bytes], header: _Header, params: ValidateParams
) -> Iterator[NDArray[np.int16]]:
    """Blocks of rows, label and pixels; ValueError or OverflowError at the first that is wrong."""
    highest = (params.classes or MAX_CLASSES) - 1
    columns = len(header.columns)
    while block := list(itertools.islice(rows, max(1, BLOCK_VALUES // columns))):
        # int16 holds what lies just outside 0–255 too, so that one look at the extremes suffices.
        values = np.loadtxt(
            block, dtype=np.int16, delimiter=",", comments=None, ndmin=2, encoding="ascii"
        )
        if values.min() < 0 or values[:, 0].max() > highest or values[:, 1:].max() > 255:
            raise ValueError("a value is out of range")
        yield values


# --- the header ---------------------------------------------------------------------------------


def _read_header(line: bytes, params: ValidateParams, name: str) -> _Header:
    """Column names and image shape. Raises DataError when pixels may be missing or permuted."""
    if kind := next((kind for start, kind in FILE_KINDS if line.startswith(start)), ""):
        hint = (
            "`cgan validate` and `data.source: file` unpack a .zip or .gz that holds a CSV; unpack "
            "others first."
            if "archive" in kind
            else f"Give a CSV whose first line is {_example(params)}."
        )
        raise DataError(f"{name}: this is {kind}, not a CSV. {hint}")
    if line.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in line:
        raise DataError(
            f"{name}: not UTF-8 text: UTF-16 (Excel's “Unicode text”) or a binary file. "
            "Save it as “CSV UTF-8”."
        )
    if len(line) >= MAX_HEADER_BYTES:
        raise DataError(
            f"{name}: the first line is longer than {MAX_HEADER_BYTES / 1e6:.0f} MB, expected a header "
            f"such as {_example(params)}. Is it a CSV?"
        )
    try:
        text = line.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise DataError(
            f"{name}: the header is not UTF-8 text. Save the file as “CSV UTF-8”."
        ) from None
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
    doubles = [column for column, count in Counter(columns).items() if count > 1]
    if doubles:
        raise DataError(
            f"{name}: column {_quote(doubles[0])} stands {columns.count(doubles[0])} times in the "
            f"header{_more_columns(len(doubles))}. Every pixel needs one column: remove the copies."
        )
    pixels = columns[1:]
    shape = _shape(len(pixels), params, name)
    _check_order(pixels, shape, name)
    return _Header(columns, shape)


def _check_label_column(columns: list[str], params: ValidateParams, name: str) -> None:
    label = params.label_column
    if columns[0] == label:
        if len(columns) == 1:
            raise DataError(
                f"{name}: the header has the column {_quote(label)} alone, no pixels. "
                f"Expected {_example(params)}."
            )
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
    if all(WHOLE_NUMBER.fullmatch(column.encode()) for column in columns) and (
        len(set(columns)) < len(columns) or columns[0] != "0"
    ):
        raise DataError(
            f"{name}: the file has no header, its first line is data. "
            f"Put a line with the column names before it: {_example(params)}."
        )
    near = next((c for c in (columns[0], columns[-1]) if _letters(c) == _letters(label)), None)
    if near is not None:
        hint = f"Is it {_quote(near)}? Write it as in `validate.label_column`, or set that to it."
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
    other = 4 - channels  # 1 or 3
    if channels * side * side != pixels and other * math.isqrt(pixels // other) ** 2 == pixels:
        raise DataError(
            f"{name}: {pixels:,} pixel columns make no square image with `validate.channels: "
            f"{channels}`, but one with {other}. Set `validate.channels: {other}` if the pixels are "
            f"{'R, G, B planes one after the other' if other == 3 else 'grey'}."
        )
    if channels * side * side != pixels:
        near = channels * max(1, round(math.sqrt(pixels / channels))) ** 2
        raise DataError(
            f"{name}: {pixels:,} pixel columns make no square image with {channels} "
            f"channel{'s' * (channels > 1)} (the nearest is {near:,}). Columns are missing or too many; "
            "if not, set `validate.height` and `validate.width` (and `validate.channels`)."
        )
    if not MIN_SIDE <= side <= MAX_SIDE:
        raise DataError(
            f"{name}: images of {side} × {side} pixels, expected sides of {MIN_SIDE} to {MAX_SIDE}."
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


def _more_columns(count: int) -> str:
    return f" (and {count - 1:,} more columns do)" if count > 1 else ""
