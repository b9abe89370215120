"""What a valid CSV is: one reader for every stage.

A header (the label column first; perhaps `group` and `split`; then the pixels in order) and one image a row,
labels and pixels whole numbers. It is read once, line by line, and parsed by pandas in blocks of rows, so
that memory is that of the uint8 images and a line without an end is never held. pandas takes 2.0, 1e2 and
True for whole numbers too: a block with other signs than those of numbers, or which it refuses, is looked at
value by value, to name rows and columns.
"""

from __future__ import annotations

import io
import itertools
import os
import re
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cgan.data.csv_header import MAX_HEADER_BYTES, Header, read_header
from cgan.data.dataset import SPLITS, LabelledImages
from cgan.errors import DataError
from cgan.files import WEB_PAGE, looks_like_web_page, sha256_of
from cgan.params.sections import ValidateParams

MAX_CLASSES = 1000
BLOCK_VALUES = 1_000_000  # parsed at once
MAX_BLANK_LINES = 10_000
SHOWN = 5  # faults spelt out in a message
MAX_COUNTED = 1000  # faults counted before the search stops

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


_SIGNS = b"0123456789,\r\n \t+-"
_WHOLE_NUMBER = re.compile(rb"\+?0*\d{1,9}|-0+")
_QUOTED_NUMBER = re.compile(rb'(?<![^,\n])"([ \t]*\d+[ \t]*)"(?=[,\r\n]|$)')
_PIXELS = frozenset(str(value).encode() for value in range(256))


Line = tuple[int, bytes]  # with its number in the file
Fault = tuple[int, str]
"""The row, counted from 1, and what is wrong, in words that begin with the place."""


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
            if looks_like_web_page(file.peek(512)):
                raise DataError(WEB_PAGE)
            found = _read(file, params, sha256, size)
    except DataError as error:
        raise DataError(f"{name}: {error}") from None
    if sha256_of(path) != sha256:
        raise DataError(
            f"{name}: the file changed while it was read. Run again when nothing writes to it."
        )
    return found


def _read(file: BufferedReader, params: ValidateParams, sha256: str, size: int) -> LabelledImages:
    first_line = file.readline(MAX_HEADER_BYTES)
    header = read_header(first_line, params)
    # A value takes two bytes at least. Room that nothing is written to takes no memory.
    room = (size - len(first_line) + 1) // (2 * len(header.columns))
    images = np.empty((room, *header.shape), np.uint8)
    labels, numbers = np.empty((2, room), np.int64)
    extra: dict[str, list[str]] = {column: [] for column in header.extra}
    at_once = max(1, BLOCK_VALUES // len(header.columns))
    most = (params.classes or MAX_CLASSES) - 1
    lines = _lines(file, header.line_limit)
    faults: list[Fault] = []
    rows = 0
    # More valid rows than there is room for: the file grows while it is read.
    while (rows <= room or faults) and len(faults) < MAX_COUNTED:
        if not (block := list(itertools.islice(lines, at_once))):
            break
        start, rows = rows, rows + len(block)
        block = (
            [_without_extra(*line, header.line_limit, extra) for line in block] if extra else block
        )
        values = _parsed([line for _, line in block], header, most)
        if values is None:
            found = [
                (row, fault)
                for row, (number, line) in enumerate(block, start + 1)
                for fault in _row_faults(line, f"row {row} (line {number})", header, most)
            ]
            if not found:
                raise DataError(
                    f"between row {start + 1} and row {rows}: not valid CSV. Export it again."
                )
            number, line = block[found[0][0] - start - 1]
            if not faults and _is_scaled(line):
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
        raise _faults_error(faults, header.columns[0], params)
    file.seek(max(0, os.fstat(file.fileno()).st_size - 1))  # it may have been cut since
    ended = file.read() == b"\n"
    warning = "The last line has no line end: make sure that the file is complete."
    return LabelledImages(
        images[:rows],
        labels[:rows],
        numbers[:rows],
        params.classes or int(labels[:rows].max()) + 1,
        sha256,
        size,
        () if ended else (warning,),
        splits=_splits(extra, numbers),
        groups=_groups(extra),
    )


def _lines(file: BufferedReader, limit: int) -> Iterator[Line]:
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


def _without_extra(number: int, line: bytes, limit: int, extra: dict[str, list[str]]) -> Line:
    """The line with the label and the pixels alone; what stands between them goes into `extra`."""
    if len(line) == limit or b"," not in line:  # refused in any case
        return number, line
    label, *texts, pixels = line.split(b",", len(extra) + 1)
    for texts_of, text in zip(extra.values(), [*texts, *[b""] * len(extra)], strict=False):
        texts_of.append(text.decode("utf-8", "replace").strip(' \t"'))
    return number, b",".join((label, pixels))


def _splits(extra: dict[str, list[str]], numbers: NDArray[np.int64]) -> NDArray[np.uint8] | None:
    """Raises DataError for what is neither train, val nor test."""
    if "split" not in extra:
        return None
    places = [SPLITS.index(text) if text in SPLITS else -1 for text in extra["split"]]
    if -1 in places:
        row = places.index(-1)
        raise DataError(
            f"row {row + 1} (line {numbers[row]}), column split: {extra['split'][row][:20]!r} is none of "
            f"{', '.join(SPLITS)}."
        )
    return np.array(places, np.uint8)


def _groups(extra: dict[str, list[str]]) -> NDArray[np.int64] | None:
    if "group" not in extra:
        return None
    own = [text or f"\0{row}" for row, text in enumerate(extra["group"])]  # blank: of its own
    groups: NDArray[np.int64] = np.unique(own, return_inverse=True)[1]
    return groups


def _parsed(lines: list[bytes], header: Header, most: int) -> NDArray[np.int64] | None:
    """Label and pixels of these rows; None where one of them may be wrong."""
    commas = len(header.columns) - 1
    rows = [_unquoted(line) if b'"' in line else line for line in lines]
    if max(map(len, lines)) == header.line_limit:
        return None
    for line in rows:
        strange = line.translate(None, _SIGNS) or b"\r" in line[:-2]
        if strange or line.count(b",") != commas:
            return None
    text = io.BytesIO(b"".join(rows))
    try:
        # int64: with uint8, 256 would become 0 (pandas#55232).
        values = pd.read_csv(text, header=None, dtype=np.int64, na_filter=False).to_numpy()
    except (ValueError, OverflowError, pd.errors.ParserError):
        return None
    pixels, labels = values[:, 1:], values[:, 0]
    right = values.min() >= 0 and labels.max() <= most and pixels.max() <= 255
    return values if right and values.shape == (len(lines), commas + 1) else None


# --- what is wrong with rows ---------------------------------------------------------------------


def _unquoted(line: bytes) -> bytes:
    """The line without quotes around whole numbers; other quotes stay, for the parser to refuse."""
    return _QUOTED_NUMBER.sub(rb"\1", line)


def _faults_error(faults: list[Fault], label: str, params: ValidateParams) -> DataError:
    """One message of all, without the file's name. `label`: the first column."""
    if len(faults) == 1:
        return DataError(f"{faults[0][1]} Mend or remove this row, or download the file again.")
    first, rows = [fault for _, fault in faults[:SHOWN]], len({row for row, _ in faults})
    listed = "".join(f"\n  - {fault}" for fault in first)
    advice = "Mend or remove these rows, or download the file again."
    if all(f", column {label}: " in f and not f.endswith("blank.") for f in first):
        number = (
            "set `validate.classes` to their number and, unless they count from 0 without a gap, "
        ) * bool(params.classes)
        advice += f" If these labels are right, {number}{renumbering_advice(params)}"
    return DataError(
        f"{'at least ' * (len(faults) >= MAX_COUNTED)}{len(faults):,} faults in {rows:,} "
        f"row{'s' * (rows > 1)}{', the first of them' * (len(faults) > SHOWN)}:{listed}\n{advice}"
    )


def _row_faults(line: bytes, where: str, header: Header, highest: int) -> list[str]:
    columns = header.columns
    if len(line) == header.line_limit:
        return [f"{where}: longer than {len(line):,} bytes; a quote or line end is missing."]
    if b"\0" in line:
        return [f"{where}: a NUL byte; the file is damaged or not text."]
    fields = _unquoted(line).rstrip(b"\r\n").split(b",")
    if len(fields) != len(columns):
        quoted = "; a comma within quotes parts values too" if b'"' in line else ""
        end = "" if line.endswith(b"\n") else ", and the file ends there: it was cut off"
        number = f"{len(fields):,} value{'s' * (len(fields) != 1)}"
        return [f"{where}: {number}, expected {len(columns):,}{end}{quoted}."]
    if fields[0].strip(b' \t"').decode("utf-8", "replace") == columns[0]:
        return [f"{where}: the header again. Files joined? Remove this line."]
    values = [(columns[0], _value_fault(fields[0], highest))]
    values += [
        (column, _value_fault(field))
        for column, field in zip(columns[1:], fields[1:], strict=True)
        if field not in _PIXELS
    ]
    return [f"{where}, column {column}: {fault}" for column, fault in values if fault]


def _value_fault(field: bytes, highest: int | None = None) -> str:
    """What is wrong with a value, `` if nothing. Pixels go to 255, labels to `highest`."""
    text = field.strip(b" \t")
    if not text:
        return "blank."
    if _WHOLE_NUMBER.fullmatch(text) and int(text) <= (255 if highest is None else highest):
        return ""
    shown = text[:20].decode("utf-8", "backslashreplace") + "…" * (len(text) > 20)
    if re.fullmatch(rb"[+-]?\d+", text):
        return f"{shown} is outside {'0–255' if highest is None else f'the classes 0–{highest}'}."
    whole = re.fullmatch(rb"[+-]?\d+\.0*", text)
    hint = " (write it without decimals; pandas: `frame.astype('uint8')`)" if whole else ""
    return f"{shown!r} is not a whole number{hint}."


def _is_scaled(line: bytes) -> bool:
    """True when every pixel of the row is a number within ±1 and some are fractions."""
    try:
        values = [float(field) for field in _unquoted(line).split(b",")[1:]]
    except ValueError:
        return False
    return max(map(abs, values), default=2) <= 1 and any(value % 1 for value in values)


def renumbering_advice(params: ValidateParams) -> str:
    """How to make 0, 1, 2, … of any labels, also of names."""
    column = f"frame[{params.label_column!r}]"
    return (
        "renumber them in their order, with pandas: `frame = pandas.read_csv(old); "
        f"{column} = {column}.factorize(sort=True)[0]; frame.to_csv(new, index=False)`."
    )
