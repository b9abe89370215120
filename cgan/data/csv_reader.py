"""What a valid CSV is: one reader for every stage, and the report on what it read.

A valid CSV has a header (the label column first, then the pixels in order) and one image a row, all
values whole numbers. The file is read once, line by line, and parsed in blocks of rows: memory is that of
the uint8 images and a few MB, and a line longer than the header allows is never held whole. The fast path
answers yes or no; on a no, a second, slower reading finds the rows and columns to name.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from cgan.errors import DataError
from cgan.files import sha256_of
from cgan.params.sections import ValidateParams

FORMAT = 1
MAX_CLASSES = 1000
MIN_SIDE, MAX_SIDE = 8, 256
MAX_HEADER_BYTES = 4_000_000
BYTES_PER_FIELD = 24  # three digits, a separator, and ample room for quotes and padding
NOISE = 0.8  # roughness above which a class is not made of pictures
SHOWN = 5  # faults spelt out in a message
COUNTED = 1000  # faults counted before the search stops
MAX_BLANK_LINES = 10_000
BLOCK = 100_000  # values that are parsed, or looked at, at once: they stay in the cache

# First bytes of what is given for a CSV by mistake.
_KINDS = (
    (b"PK\x03\x04", "a .zip archive"),
    (b"\x1f\x8b", "a .gz archive"),
    (b"BZh", "a bzip2 archive"),
    (b"\xfd7zXZ", "an xz archive"),
    (b"\x28\xb5\x2f\xfd", "a zstd archive"),
    (b"7z\xbc\xaf", "a 7-Zip archive"),
    (b"Rar!", "a RAR archive"),
    (b"\xd0\xcf\x11\xe0", "an old Excel workbook"),
    (b"PAR1", "a Parquet file"),
    (b"ARROW1", "an Arrow file"),
    (b"\x89HDF", "an HDF5 file"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"SQLite format 3", "a SQLite database"),
    (b"\x89PNG", "a PNG picture"),
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"GIF8", "a GIF picture"),
    (b"%PDF", "a PDF document"),
    (b"\x7fELF", "a program"),
    (b"{", "JSON"),
    (b"[", "JSON"),
    (b"version https://git-lfs", "a Git LFS pointer; `git lfs pull` brings the file"),
    (b"outs:", "a DVC pointer; `dvc pull` brings the file"),
)

DEFAULTS = ValidateParams(
    label_column="label",
    classes=None,
    channels=1,
    height=None,
    width=None,
    min_per_class=10,
    max_imbalance=10.0,
)
"""Those of params.yaml, for files validated where there is none."""

_QUOTED_COMMA = "; a comma within quotes parts values too"
_CSV_BYTES = b'0123456789,\r\n \t"+-'
_BYTES = frozenset(str(value).encode() for value in range(256))
_QUOTED = re.compile(rb'(?<![^,])"(\s*\d+\s*)"(?=[,\r\n]|$)')
_WHOLE = re.compile(rb"\+?0*\d{1,9}|-0+")
_DECIMAL = re.compile(rb"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


@dataclass(frozen=True)
class Table:
    """A CSV in memory.

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


def looks_like_web_page(head: bytes) -> bool:
    """True for the first bytes of an HTML or XML page, such as a log-in page saved as .csv."""
    return head.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] == b"<"


def read_csv(
    path: Path | str,
    params: ValidateParams,
    *,
    max_bytes: int | None = None,
    name: str | None = None,
) -> Table:
    """Read and check every value. `name` stands for the path in messages.

    Raises DataError that names the row and column of the first faults, and says how many there are.
    """
    path = Path(path)
    name = name or str(path)
    if not path.is_file():
        raise DataError(f"{name}: not found, or not a file. Give the path of a CSV.")
    size = path.stat().st_size
    if size == 0:
        raise DataError(f"{name}: the file is empty. Download or export it again.")
    if max_bytes is not None and size > max_bytes:
        raise DataError(
            f"{name}: {size / 1e6:,.0f} MB, expected at most {max_bytes / 1e6:,.0f} MB. "
            "Raise `data.max_megabytes` in params.yaml if the file is right."
        )
    try:
        return _read(path, params, name, size)
    except OSError as error:
        raise DataError(f"{name}: cannot be read ({error.strerror or error}).") from None


def _read(path: Path, params: ValidateParams, name: str, size: int) -> Table:
    digest = hashlib.sha256()
    last = b"\n"

    def plain_rows(file: IO[bytes], header: _Header) -> Iterator[bytes]:
        """The data rows as bytes that numpy parses; ValueError at the first one that looks wrong."""
        nonlocal last
        blank_lines = 0
        commas = len(header.columns) - 1
        limit = header.line_limit
        empty = True
        while line := file.readline(limit):
            digest.update(line)
            last = line[-1:]
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
            yield _unquoted(line) if b'"' in line else line
        if empty:
            raise ValueError("no rows")

    with path.open("rb") as file:
        if looks_like_web_page(file.peek(512)):
            raise DataError(
                f"{name}: this is a web page, not a CSV; a log-in page saved by mistake? "
                "Log in, then download the CSV itself."
            )
        first_line = file.readline(MAX_HEADER_BYTES)
        digest.update(first_line)
        header = _read_header(first_line, params, name)
        columns = len(header.columns)
        # A value takes two bytes at least. Room that nothing is written to takes no memory.
        room = (size - len(first_line) + 1) // (2 * columns)
        images = np.empty((room, columns - 1), np.uint8)
        labels = np.empty(room, np.int64)
        count = 0
        try:
            for values in _parsed(plain_rows(file, header), columns, params):
                end = count + len(values)
                if end > room:
                    raise _changed(name)
                labels[count:end], images[count:end] = values[:, 0], values[:, 1:]
                count = end
        except (ValueError, OverflowError) as error:
            raise _explain(path, header, params, name, str(error)) from None
    for array in (images, labels):
        array.resize((count, *array.shape[1:]), refcheck=False)
    if sha256_of(path) != digest.hexdigest():
        raise _changed(name)
    warnings: tuple[str, ...] = ()
    if last != b"\n":
        warnings = ("The last line has no line end: make sure that the file is complete.",)
    classes = params.classes or int(labels.max()) + 1
    return Table(
        images.reshape(-1, *header.shape), labels, classes, digest.hexdigest(), size, warnings
    )


def _parsed(
    rows: Iterator[bytes], columns: int, params: ValidateParams
) -> Iterator[NDArray[np.int16]]:
    """Blocks of rows, label and pixels; ValueError or OverflowError at the first that is wrong."""
    highest = (params.classes or MAX_CLASSES) - 1
    while block := list(itertools.islice(rows, max(1, BLOCK // columns))):
        # int16 holds what lies just outside 0–255 too, so that one look at the extremes suffices.
        values = np.loadtxt(
            block, dtype=np.int16, delimiter=",", comments=None, ndmin=2, encoding="ascii"
        )
        if values.min() < 0 or values[:, 0].max() > highest or values[:, 1:].max() > 255:
            raise ValueError("a value is out of range")
        yield values


def _changed(name: str) -> DataError:
    return DataError(
        f"{name}: the file changed while it was read. Run again when nothing writes to it."
    )


def _unquoted(line: bytes) -> bytes:
    """The line without quotes around whole numbers; other quotes stay, for the parser to refuse."""
    body = line.rstrip(b"\r\n")
    joints = body.count(b'","')
    if body[:1] == body[-1:] == b'"' and joints == body.count(b",") == body.count(b'"') / 2 - 1:
        return body[1:-1].replace(b'","', b",") + line[len(body) :]  # every value has its quotes
    return _QUOTED.sub(rb"\1", line)


# --- the header ---------------------------------------------------------------------------------


def _read_header(line: bytes, params: ValidateParams, name: str) -> _Header:
    """Column names and image shape. Raises DataError when pixels may be missing or permuted."""
    if kind := next((kind for start, kind in _KINDS if line.startswith(start)), ""):
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
            f"header{_and_more(len(doubles))}. Every pixel needs one column: remove the copies."
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
    if all(_WHOLE.fullmatch(column.encode()) for column in columns) and (
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


def _and_more(count: int) -> str:
    return f" (and {count - 1:,} more columns do)" if count > 1 else ""


# --- which rows are wrong -----------------------------------------------------------------------


def _explain(
    path: Path, header: _Header, params: ValidateParams, name: str, reason: str
) -> DataError:
    """Read again, slowly, and name the faults. `reason` is the fast path's own word, if need be."""
    highest = (params.classes or MAX_CLASSES) - 1
    labels = frozenset(str(value).encode() for value in range(highest + 1))
    columns, limit = header.columns, header.line_limit
    faults: list[str] = []
    count = rows = bad_rows = blank_lines = 0
    with path.open("rb") as file:
        file.readline(MAX_HEADER_BYTES)
        line_number = 1
        while count < COUNTED and (line := file.readline(limit)):
            line_number += 1
            if len(line) < limit and not line.strip():
                blank_lines += 1
                if blank_lines > MAX_BLANK_LINES:
                    return DataError(
                        f"{name}, line {line_number}: more than {MAX_BLANK_LINES:,} blank lines. The file "
                        "is damaged: download or export it again."
                    )
                continue
            rows += 1
            where = f"row {rows} (line {line_number})"
            found: list[str] = []
            fields = _unquoted(line).rstrip(b"\r\n").split(b",")
            if b"\0" in line:
                found.append(f"{where}: a NUL byte; the file is damaged or not text.")
            elif len(line) == limit:
                found.append(
                    f"{where}: longer than {limit:,} bytes; a quote or line end is missing."
                )
                while line and not line.endswith(b"\n"):
                    line = file.readline(limit)
            elif len(fields) != len(columns):
                quoted = b'"' in line
                end = "" if line.endswith(b"\n") else ", and the file ends there: it was cut off"
                found.append(
                    f"{where}: {len(fields):,} value{'s' * (len(fields) != 1)}, expected "
                    f"{len(columns):,}{end}{_QUOTED_COMMA * quoted}."
                )
            elif fields[0].strip(b' \t"').decode("utf-8", "replace") == columns[0]:
                found.append(f"{where}: the header again. Files joined? Remove this line.")
            elif fields[0] not in labels or not _BYTES.issuperset(fields[1:]):
                wrong = [
                    (column, field)
                    for column, field, valid in zip(
                        columns,
                        fields,
                        itertools.chain([labels], itertools.repeat(_BYTES)),
                        strict=False,
                    )
                    if field not in valid
                ]
                for column, field in wrong:
                    fault = _fault(field, highest if column == columns[0] else None)
                    if fault:
                        found.append(f"{where}, column {column}: {fault}")
                if found and not faults and _is_scaled(fields[1:]):
                    return DataError(
                        f"{name}, {where}: the pixels are fractions, already scaled to 0–1 or −1–1; "
                        "expected whole numbers from 0 to 255. Export the pixels unscaled."
                    )
            faults += found[: SHOWN - len(faults)]
            count += len(found)
            bad_rows += bool(found)
    if rows == 0:
        return DataError(f"{name}: 0 rows after the header. Download or export it again.")
    if not faults:
        return DataError(f"{name}: not a valid CSV ({reason}). Export it again.")
    if count == 1:
        return DataError(
            f"{name}, {faults[0]} Mend or remove this row, or download the file again."
        )
    many = f"at least {count:,}" if count >= COUNTED else f"{count:,}"
    listed = "\n".join(f"  - {fault}" for fault in faults)
    advice = "Mend or remove these rows, or download the file again."
    label_fault = f", column {columns[0]}: "
    if all(label_fault in fault and not fault.endswith("blank.") for fault in faults):
        number = (
            "set `validate.classes` to their number and, unless they count from 0 without a gap, "
        )
        advice += (
            f" If these labels are right, {number * bool(params.classes)}{_renumbering(params)}"
        )
    return DataError(
        f"{name}: {many} faults in {bad_rows:,} row{'s' * (bad_rows > 1)}"
        f"{', the first of them' * (count > len(faults))}:\n{listed}\n{advice}"
    )


def _fault(field: bytes, highest_label: int | None) -> str:
    """What is wrong with a value, `` if nothing. Pixels go to 255, labels to `highest_label`."""
    text = field.strip(b" \t")
    if not text:
        return "blank."
    limit = 255 if highest_label is None else highest_label
    if _WHOLE.fullmatch(text) and int(text) <= limit:
        return ""
    shown = text[:20].decode("utf-8", "backslashreplace") + "…" * (len(text) > 20)
    if re.fullmatch(rb"[+-]?\d+", text):
        if highest_label is None:
            return f"{shown} is outside 0–255."
        return f"{shown} is outside the classes 0–{highest_label}."
    if _DECIMAL.fullmatch(text):
        whole = re.fullmatch(rb"[+-]?\d+\.0*", text)
        hint = " (write it without decimals; pandas: `frame.astype('uint8')`)" if whole else ""
        if re.search(rb"[eE]", text):
            hint = " in plain digits"
        return f"{shown} is not a whole number{hint}."
    return f"{shown!r} is not a number."


def _is_scaled(fields: list[bytes]) -> bool:
    """True when every pixel of the row is a number within ±1 and some are fractions."""
    texts = [field.strip() for field in fields]
    if not all(_DECIMAL.fullmatch(text) for text in texts):
        return False
    values = [float(text) for text in texts]
    return max(map(abs, values)) <= 1 and any(value % 1 for value in values)


# --- the report ---------------------------------------------------------------------------------


def image_digests(images: NDArray[np.uint8]) -> NDArray[np.bytes_]:
    """16 bytes an image, [N]. Equal images have equal ones."""
    digests = bytearray()
    for image in images:
        digests += hashlib.blake2b(image.tobytes(), digest_size=16).digest()
    return np.frombuffer(digests, "S16")


def first_copies(images: NDArray[np.uint8]) -> NDArray[np.int64]:
    """For each image [N, …] the index of the first one that is equal to it; int64 [N]."""
    # A third of the memory of a dict of digests.
    _, firsts, kinds = np.unique(image_digests(images), return_index=True, return_inverse=True)
    found: NDArray[np.int64] = firsts[kinds]
    return found


def report_on(table: Table, params: ValidateParams, name: str) -> dict[str, Any]:
    """The validation report: plain JSON, a function of the CSV's bytes and `params` alone.

    Raises DataError when the values are valid but no training set: a class too small, a wrong scale.
    """
    images, labels = table.images, table.labels
    counts = np.bincount(labels, minlength=table.classes)
    _check_counts(counts, params, name)
    histogram = np.zeros(256, np.int64)
    ink = np.zeros(images.shape[2:], np.int64)
    darkest, brightest, roughness = [], [], []
    step = max(1, BLOCK // images[0].size)
    for start in range(0, len(images), step):
        part = images[start : start + step]
        flat = part.reshape(len(part), -1)
        histogram += np.bincount(flat.ravel(), minlength=256)
        ink += part.sum(axis=(0, 1), dtype=np.int64)
        darkest.append(flat.min(axis=1))
        brightest.append(flat.max(axis=1))
        roughness.append(_roughness(part))
    darkest_of, brightest_of = np.concatenate(darkest), np.concatenate(brightest)
    if brightest_of.max() <= 1:
        raise DataError(
            f"{name}: no pixel is above 1, expected values from 0 to 255. The pixels are already scaled "
            "to 0–1 (multiply them by 255), or all images are blank."
        )
    values = np.arange(256)
    mean = float((histogram * values).sum() / histogram.sum())
    variance = float((histogram * (values - mean) ** 2).sum() / histogram.sum())
    firsts = first_copies(images)
    copies = int((firsts != np.arange(len(firsts))).sum())
    conflicts = int((labels != labels[firsts]).sum())
    constant = int((darkest_of == brightest_of).sum())
    blank = int((brightest_of == 0).sum())

    warnings = list(table.warnings)
    ratio = float(counts.max() / counts.min())
    if ratio > params.max_imbalance:
        warnings.append(
            f"Imbalance: class {counts.argmax()} has {counts.max():,} images, class {counts.argmin()} "
            f"has {counts.min():,}, {ratio:.1f} times fewer (`validate.max_imbalance`: "
            f"{params.max_imbalance:g}). Rare classes will be drawn worse."
        )
    if copies:
        warnings.append(
            f"Duplicates: {copies:,} images repeat an earlier one; all copies of an image stay on one "
            "side of the hold-out."
        )
    if conflicts:
        warnings.append(f"Conflicting labels: {conflicts:,} images repeat one of another class.")
    if constant:
        warnings.append(
            f"Constant images: {constant:,} have one value everywhere ({blank:,} blank)."
        )
    rough = np.bincount(labels, np.concatenate(roughness), minlength=table.classes) / counts
    warnings += [
        f"Class {label}: neighbouring pixels have little to do with each other ({rough[label]:.2f}; "
        "noise has 1, digits 0.3). Noise, or pixels in a wrong order?"
        for label in np.flatnonzero(rough > NOISE)
    ]
    _, *size = images.shape
    return {
        "format": FORMAT,
        "csv": {"sha256": table.sha256, "bytes": table.size_bytes},
        "rows": len(labels),
        "classes": table.classes,
        "class_counts": [int(count) for count in counts],
        "shape": dict(zip(("channels", "height", "width"), size, strict=True)),
        "duplicates": copies,
        "conflicting_labels": conflicts,
        "blank_images": blank,
        "constant_images": constant,
        "roughness": [round(float(value), 4) for value in rough],  # by class
        "pixels": {
            "min": int(darkest_of.min()),
            "max": int(brightest_of.max()),
            "mean": round(mean, 4),
            "std": round(math.sqrt(variance), 4),
        },
        "imbalance": round(ratio, 4),
        "profile": {  # what `cgan.data.drift` compares: sums over all images
            "brightness": histogram.reshape(32, 8).sum(axis=1).tolist(),
            "rows": ink.sum(axis=1).tolist(),
            "columns": ink.sum(axis=0).tolist(),
        },
        "checks": [
            "the header has the label first, then every pixel once and in order",
            "every row has as many values as the header",
            f"labels are whole numbers from 0 to {table.classes - 1}",
            "pixels are whole numbers from 0 to 255, not scaled",
            f"every class has at least {params.min_per_class} images",
            "the file did not change while it was read",
        ],
        "warnings": warnings,
        "params": params.model_dump(),
    }


def _roughness(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """How little neighbours tell of each other, by image: 1 for noise, towards 0 for smooth ones.

    Von Neumann's ratio (Ann. Math. Stat. 12, 1941), halved: the mean squared difference of neighbours by
    twice the variance. Of rows and columns the smoother, for a pattern may run along one of them.
    """
    values = images.astype(np.float32)
    across, down = (np.square(np.diff(values, axis=axis)).mean(axis=(1, 2, 3)) for axis in (3, 2))
    ratio: NDArray[np.float32] = np.minimum(across, down) / (
        2 * values.var(axis=(1, 2, 3)) + np.float32(1e-6)
    )
    return ratio


def _check_counts(counts: NDArray[np.int64], params: ValidateParams, name: str) -> None:
    """Raises DataError when a class has no image or too few. No image is too few for any params."""
    found, missing = np.flatnonzero(counts), np.flatnonzero(counts == 0)
    if len(found) < 2:
        raise DataError(
            f"{name}: all labels are {found[0]}. A conditional generator needs at least 2 classes."
        )
    few = found[counts[found] < params.min_per_class]
    said = []
    if len(missing):
        said.append(f"no image of class {_listed(missing)}; the labels found are {_listed(found)}.")
    if len(few):
        shown = ", ".join(f"class {label} has {counts[label]:,}" for label in few[:SHOWN])
        said.append(
            f"{len(few):,} of {len(found):,} classes {'have' if len(few) > 1 else 'has'} fewer than "
            f"{params.min_per_class} images: {shown}{', …' * (len(few) > SHOWN)}."
        )
    if params.classes is None and found[-1] in few and len(few) < len(found):
        said.append(
            f"If {found[-1]} is no class but a slip, set `validate.classes` and validate again: the rows "
            "are named then."
        )
    if len(missing):
        said.append(_without_gap(found, missing, params))
    if len(few):
        least = counts[few].min()
        said.append(
            f"Add images, or lower `validate.min_per_class` to {least} in params.yaml."
            if least >= 2
            else "Add images: `validate.min_per_class` cannot be below 2."
        )
    if said:
        raise DataError(f"{name}: {' '.join(said)}")


def _without_gap(
    found: NDArray[np.int64], missing: NDArray[np.int64], params: ValidateParams
) -> str:
    """What to do about labels with a gap: they are wrong, or `validate.classes` is, or images lack."""
    renumber = f"Labels must count from 0 without a gap: {_renumbering(params)}"
    if params.classes is None:
        return renumber
    them, such = (
        ("it", "is no such class") if len(missing) == 1 else ("them", "are no such classes")
    )
    return (
        f"`validate.classes` is {params.classes}: add images of {them} or, if there {such}, set it to "
        f"{len(found)}.{f' {renumber}' * bool(missing[0] < len(found))}"
    )


def _listed(labels: NDArray[np.int64]) -> str:
    return ", ".join(map(str, labels[:SHOWN])) + ", …" * (len(labels) > SHOWN)


def _renumbering(params: ValidateParams) -> str:
    """How to make 0, 1, 2, … of any labels, also of names."""
    column = f"frame[{params.label_column!r}]"
    return (
        "renumber them in their order, with pandas: `frame = pandas.read_csv(old); "
        f"{column} = {column}.factorize(sort=True)[0]; frame.to_csv(new, index=False)`."
    )


def summary(report: dict[str, Any]) -> str:
    """The report in a few lines, for a terminal."""
    shape = report["shape"]
    counts = report["class_counts"]
    lines = [
        f"{report['rows']:,} images of {shape['height']} × {shape['width']} pixels"
        f"{' in colour' * (shape['channels'] == 3)}, {report['classes']} classes with "
        f"{min(counts):,} to {max(counts):,} images each",
        f"duplicates: {report['duplicates']:,}, constant images: {report['constant_images']:,}, "
        f"pixel mean {report['pixels']['mean']:.1f} ± {report['pixels']['std']:.1f}",
    ]
    return "\n".join(lines + [f"Warning: {warning}" for warning in report["warnings"]])


def to_markdown(report: dict[str, Any], name: str) -> str:
    """The report as a page for a reader."""
    shape = report["shape"]
    title = name.replace("\n", " ").replace("`", "'")
    facts = {
        "images": f"{report['rows']:,}",
        "image": f"{shape['height']} × {shape['width']}, {shape['channels']} channel"
        f"{'s' * (shape['channels'] > 1)}",
        "classes": str(report["classes"]),
        "duplicates": f"{report['duplicates']:,}",
        "conflicting labels": f"{report['conflicting_labels']:,}",
        "blank images": f"{report['blank_images']:,}",
        "constant images": f"{report['constant_images']:,}",
        "pixel values": f"{report['pixels']['min']} to {report['pixels']['max']}, mean "
        f"{report['pixels']['mean']:.2f}, standard deviation {report['pixels']['std']:.2f}",
        "sha256 of the CSV": f"`{report['csv']['sha256']}`",
    }
    most = max(report["class_counts"])
    lines = [f"# Validation of `{title}`", "", "| | |", "|---|---|"]
    lines += [f"| {key} | {value} |" for key, value in facts.items()]
    lines += ["", "## Images per class", "", "| class | images | |", "|---:|---:|---|"]
    lines += [
        f"| {label} | {count:,} | {'█' * max(1, round(20 * count / most))} |"
        for label, count in enumerate(report["class_counts"])
    ]
    lines += ["", "## Checks passed", ""] + [f"- {check}" for check in report["checks"]]
    lines += ["", "## Warnings", ""] + [f"- {text}" for text in report["warnings"] or ["none"]]
    return "\n".join(lines) + "\n"
