"""What a valid CSV is: one reader for every stage.

A valid CSV has a header (the label column first, then the pixels in order) and one image a row, all
values whole numbers. The file is read once, line by line, and parsed in blocks of rows: `CsvBlocks` takes a
few MB, `read_csv` the uint8 images as well, and a line longer than the header allows is never held whole.
numpy parses a block that looks right; a block that does not is looked at value by value (`csv_faults`), to
name rows and columns.
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

from cgan.data.csv_faults import MAX_CLASSES, Faults, unquoted
from cgan.data.csv_header import MAX_HEADER_BYTES, WEB_PAGE, looks_like_web_page, read_header
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

Block = tuple[NDArray[np.int64], NDArray[np.uint8]]


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

    @property
    def shape(self) -> tuple[int, ...]:
        """(C, H, W) of an image."""
        return self.images.shape[1:]

    def __iter__(self) -> Iterator[Block]:
        step = max(1, BLOCK_VALUES // self.images[0].size)
        for start in range(0, len(self.labels), step):
            yield self.labels[start : start + step], self.images[start : start + step]


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
        self._digest = hashlib.sha256(self._first_line)
        self.warnings: tuple[str, ...] = ()

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()

    def __iter__(self) -> Iterator[Block]:
        """Raises DataError that names the row and column of the first faults, and says how many there
        are; or that the file changed while it was read."""
        faults = Faults(self._header, self.params, self.name)
        rows = 0
        with self._reading() as file:
            file.seek(len(self._first_line))
            lines = self._lines(file)
            at_once = max(1, BLOCK_VALUES // len(self._header.columns))
            while not faults.enough and (block := list(itertools.islice(lines, at_once))):
                values = self._parsed([line for _, line in block])
                if values is None:
                    faults.look_at(block, rows)
                elif not faults.count:
                    yield (
                        values[:, 0].astype(np.int64),
                        values[:, 1:].astype(np.uint8).reshape(-1, *self.shape),
                    )
                rows += len(block)
        if rows == 0:
            raise DataError(f"{self.name}: 0 rows after the header. Download or export it again.")
        if faults.count:
            raise faults.error()
        if sha256_of(self.path) != self.sha256:
            raise self.changed_meanwhile()

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

    def _lines(self, file: IO[bytes]) -> Iterator[tuple[int, bytes]]:
        """The lines with rows, and their numbers; of a line that is too long, the beginning."""
        blank_lines, limit = 0, self._header.line_limit
        number, ended = 1, True
        while piece := file.readline(limit):
            self._digest.update(piece)
            begins, ended = ended, piece.endswith(b"\n")
            if not begins:
                continue
            number += 1
            if piece.strip() or len(piece) == limit:
                yield number, piece
                continue
            blank_lines += 1
            if blank_lines > MAX_BLANK_LINES:
                raise DataError(
                    f"{self.name}, line {number}: more than {MAX_BLANK_LINES:,} blank lines. The file "
                    "is damaged: download or export it again."
                )
        if not ended:
            self.warnings = ("The last line has no line end: make sure that the file is complete.",)

    def _parsed(self, lines: list[bytes]) -> NDArray[np.int16] | None:
        """Label and pixels of these rows; None where one of them may be wrong."""
        commas, limit = len(self._header.columns) - 1, self._header.line_limit
        for line in lines:
            # numpy takes some control characters for blanks; here they are damage.
            if line.count(b",") != commas or line.translate(None, _CSV_BYTES) or len(line) == limit:
                return None
        rows = [unquoted(line) if b'"' in line else line for line in lines]
        try:
            # int16 holds what lies just outside 0–255 too, so that one look at the extremes suffices.
            values: NDArray[np.int16] = np.loadtxt(
                rows, dtype=np.int16, delimiter=",", comments=None, ndmin=2, encoding="ascii"
            )
        except (ValueError, OverflowError):
            return None
        highest = (self.params.classes or MAX_CLASSES) - 1
        right = values.min() >= 0 and values[:, 0].max() <= highest and values[:, 1:].max() <= 255
        return values if right else None


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
