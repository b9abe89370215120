"""What is wrong with a file that is no valid CSV: its kind, or the rows and columns to fix."""

from __future__ import annotations

import itertools
import re
from typing import IO

from cgan.errors import DataError
from cgan.params.sections import ValidateParams
from cgan.project import DVC_PULL

MAX_CLASSES = 1000
MAX_BLANK_LINES = 10_000
SHOWN = 5  # faults spelt out in a message
MAX_COUNTED = 1000  # faults counted before the search stops

# First bytes of what is given for a CSV by mistake.
FILE_KINDS = (
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
    (b"outs:", f"a DVC pointer; {DVC_PULL} brings the file"),
)

WEB_PAGE = (
    "this is a web page, not a CSV; a log-in page saved by mistake? Log in, then download the file "
    "itself."
)
WHOLE_NUMBER = re.compile(rb"\+?0*\d{1,9}|-0+")
_DECIMAL = re.compile(rb"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_QUOTED_NUMBER = re.compile(rb'(?<![^,])"(\s*\d+\s*)"(?=[,\r\n]|$)')
_PIXELS = frozenset(str(value).encode() for value in range(256))


def looks_like_web_page(head: bytes) -> bool:
    """True for the first bytes of an HTML or XML page, such as a log-in page saved as .csv."""
    return head.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] == b"<"


def unquoted(line: bytes) -> bytes:
    """The line without quotes around whole numbers; other quotes stay, for the parser to refuse."""
    body = line.rstrip(b"\r\n")
    joints = body.count(b'","')
    if body[:1] == body[-1:] == b'"' and joints == body.count(b",") == body.count(b'"') / 2 - 1:
        return body[1:-1].replace(b'","', b",") + line[len(body) :]  # every value has its quotes
    return _QUOTED_NUMBER.sub(rb"\1", line)


def explain_faults(
    file: IO[bytes],
    columns: list[str],
    line_limit: int,
    params: ValidateParams,
    name: str,
    reason: str,
) -> DataError:
    """Read the rows after the header again, slowly, and name their faults.

    `reason` is the fast path's own word, for a fault that is not found here.
    """
    highest = (params.classes or MAX_CLASSES) - 1
    labels = frozenset(str(value).encode() for value in range(highest + 1))
    faults: list[str] = []
    count = rows = bad_rows = blank_lines = 0
    line_number = 1
    while count < MAX_COUNTED and (line := file.readline(line_limit)):
        line_number += 1
        if len(line) < line_limit and not line.strip():
            blank_lines += 1
            if blank_lines > MAX_BLANK_LINES:
                return DataError(
                    f"{name}, line {line_number}: more than {MAX_BLANK_LINES:,} blank lines. The file "
                    "is damaged: download or export it again."
                )
            continue
        rows += 1
        where = f"row {rows} (line {line_number})"
        fields = unquoted(line).rstrip(b"\r\n").split(b",")
        if len(line) == line_limit:
            found = [f": longer than {line_limit:,} bytes; a quote or line end is missing."]
            while line and not line.endswith(b"\n"):
                line = file.readline(line_limit)
        else:
            found = _row_faults(line, fields, columns, labels)
            if found and not faults and len(fields) == len(columns) and _is_scaled(fields[1:]):
                return DataError(
                    f"{name}, {where}: the pixels are fractions, already scaled to 0–1 or −1–1; "
                    "expected whole numbers from 0 to 255. Export the pixels unscaled."
                )
        faults += [f"{where}{fault}" for fault in found[: SHOWN - len(faults)]]
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
    many = f"at least {count:,}" if count >= MAX_COUNTED else f"{count:,}"
    listed = "\n".join(f"  - {fault}" for fault in faults)
    advice = "Mend or remove these rows, or download the file again."
    label_fault = f", column {columns[0]}: "
    if all(label_fault in fault and not fault.endswith("blank.") for fault in faults):
        number = (
            "set `validate.classes` to their number and, unless they count from 0 without a gap, "
        )
        advice += f" If these labels are right, {number * bool(params.classes)}{renumbering_advice(params)}"
    return DataError(
        f"{name}: {many} faults in {bad_rows:,} row{'s' * (bad_rows > 1)}"
        f"{', the first of them' * (count > len(faults))}:\n{listed}\n{advice}"
    )


def _row_faults(
    line: bytes, fields: list[bytes], columns: list[str], labels: frozenset[bytes]
) -> list[str]:
    """What is wrong with a row, as the end of a sentence that begins with its number."""
    if b"\0" in line:
        return [": a NUL byte; the file is damaged or not text."]
    if len(fields) != len(columns):
        quoted = "; a comma within quotes parts values too" if b'"' in line else ""
        end = "" if line.endswith(b"\n") else ", and the file ends there: it was cut off"
        return [
            f": {len(fields):,} value{'s' * (len(fields) != 1)}, expected {len(columns):,}{end}{quoted}."
        ]
    if fields[0].strip(b' \t"').decode("utf-8", "replace") == columns[0]:
        return [": the header again. Files joined? Remove this line."]
    if fields[0] in labels and _PIXELS.issuperset(fields[1:]):
        return []
    limits = itertools.chain([len(labels) - 1], itertools.repeat(None))
    return [
        f", column {column}: {fault}"
        for column, field, highest_label in zip(columns, fields, limits, strict=False)
        if (fault := _value_fault(field, highest_label))
    ]


def _value_fault(field: bytes, highest_label: int | None) -> str:
    """What is wrong with a value, `` if nothing. Pixels go to 255, labels to `highest_label`."""
    text = field.strip(b" \t")
    if not text:
        return "blank."
    limit = 255 if highest_label is None else highest_label
    if WHOLE_NUMBER.fullmatch(text) and int(text) <= limit:
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


def renumbering_advice(params: ValidateParams) -> str:
    """How to make 0, 1, 2, … of any labels, also of names."""
    column = f"frame[{params.label_column!r}]"
    return (
        "renumber them in their order, with pandas: `frame = pandas.read_csv(old); "
        f"{column} = {column}.factorize(sort=True)[0]; frame.to_csv(new, index=False)`."
    )
