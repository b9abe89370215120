"""What is wrong with the rows of a CSV: which of them, and which columns."""

from __future__ import annotations

import re

from cgan.data.csv_header import Header
from cgan.errors import DataError
from cgan.params.sections import ValidateParams

MAX_CLASSES = 1000
SHOWN = 5  # faults spelt out in a message
MAX_COUNTED = 1000  # faults counted before the search stops

Fault = tuple[int, str]
"""The row, counted from 1, and what is wrong, in words that begin with the place."""

_WHOLE_NUMBER = re.compile(rb"\+?0*\d{1,9}|-0+")
_QUOTED_NUMBER = re.compile(rb'(?<![^,])"(\s*\d+\s*)"(?=[,\r\n]|$)')
_PIXELS = frozenset(str(value).encode() for value in range(256))


def unquoted(line: bytes) -> bytes:
    """The line without quotes around whole numbers; other quotes stay, for the parser to refuse."""
    return _QUOTED_NUMBER.sub(rb"\1", line)


def highest_label(params: ValidateParams) -> int:
    return (params.classes or MAX_CLASSES) - 1


def find_faults(
    lines: list[tuple[int, bytes]], rows_before: int, header: Header, params: ValidateParams
) -> list[Fault]:
    """All that is wrong with these lines, which stand with their numbers and of which numpy refuses one."""
    return [
        (row, fault)
        for row, (number, line) in enumerate(lines, start=rows_before + 1)
        for fault in _row_faults(line, f"row {row} (line {number})", header, highest_label(params))
    ]


def faults_error(faults: list[Fault], label: str, params: ValidateParams) -> DataError:
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
    fields = unquoted(line).rstrip(b"\r\n").split(b",")
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


def is_scaled(line: bytes) -> bool:
    """True when every pixel of the row is a number within ±1 and some are fractions."""
    try:
        values = [float(field) for field in unquoted(line).split(b",")[1:]]
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
