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
from collections.abc import Iterator
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from cgan.data.csv_faults import (
    MAX_BLANK_LINES,
    MAX_CLASSES,
    WEB_PAGE,
    explain_faults,
    looks_like_web_page,
    unquoted,
)
from cgan.data.csv_header import MAX_HEADER_BYTES, Header, read_header
from cgan.errors import DataError
from cgan.files import sha256_of
from cgan.params.sections import ValidateParams

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
    """A CSV whole: `images` uint8 [N, C, H, W]; `labels` int64 [N], all below `classes`; `sha256` of the
    file's bytes."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    classes: int
    sha256: str
    size_bytes: int
    warnings: tuple[str, ...] = ()


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
        self._header = read_header(self._first_line, params, name)
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
    images = np.empty((blocks.room, *blocks.shape), np.uint8)
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


def line_numbers(path: Path | str) -> NDArray[np.int64]:
    """The line, counted from 1, of each row of data of a valid CSV; int64 [N].

    The header is line 1. Blank lines hold no row, and a row never spans lines.
    """
    with Path(path).open("rb") as file:
        lines = (number for number, line in enumerate(file, start=1) if number > 1 and line.strip())
        return np.fromiter(lines, np.int64)


def _parsed_blocks(
    rows: Iterator[bytes], header: Header, params: ValidateParams
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
