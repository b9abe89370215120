"""What is wrong with the rows of a CSV: which of them, and which columns."""

from __future__ import annotations

import re

from cgan.data.csv_header import Header
from cgan.errors import DataError
from cgan.params.sections import ValidateParams

MAX_CLASSES = 1000
SHOWN = 5  # faults spelt out in a message
MAX_COUNTED = 1000  # faults counted before the search stops

_WHOLE_NUMBER = re.compile(rb"\+?0*\d{1,9}|-0+")
_QUOTED_NUMBER = re.compile(rb'(?<![^,])"(\s*\d+\s*)"(?=[,\r\n]|$)')
_PIXELS = frozenset(str(value).encode() for value in range(256))


def unquoted(line: bytes) -> bytes:
    """The line without quotes around whole numbers; other quotes stay, for the parser to refuse."""
    return _QUOTED_NUMBER.sub(rb"\1", line)


class Faults:
    """What is wrong with the rows of a CSV: counted, the first few in words."""

    def __init__(self, header: Header, params: ValidateParams, name: str) -> None:
        self._header, self._params, self._name = header, params, name
        self._highest = (params.classes or MAX_CLASSES) - 1
        self._first: list[str] = []
        self.count = self._bad_rows = 0

    @property
    def enough(self) -> bool:
        return self.count >= MAX_COUNTED

    def look_at(self, lines: list[tuple[int, bytes]], rows_before: int) -> None:
        """`lines` with their numbers. Raises DataError where all of the file has the same fault."""
        before = self.count
        for row, (number, line) in enumerate(lines, start=rows_before + 1):
            where = f"row {row} (line {number})"
            if found := self._row_faults(line, where):
                self._first += [f"{where}{fault}" for fault in found[: SHOWN - len(self._first)]]
                self.count += len(found)
                self._bad_rows += 1
        if self.count == before:  # refused by numpy alone
            raise DataError(
                f"{self._name}, between row {rows_before + 1} and row {rows_before + len(lines)}: not "
                "valid CSV. Export it again."
            )

    def error(self) -> DataError:
        if self.count == 1:
            return DataError(
                f"{self._name}, {self._first[0]} Mend or remove this row, or download the file again."
            )
        many = f"at least {self.count:,}" if self.enough else f"{self.count:,}"
        listed = "\n".join(f"  - {fault}" for fault in self._first)
        advice = "Mend or remove these rows, or download the file again."
        label_fault = f", column {self._header.columns[0]}: "
        if all(label_fault in fault and not fault.endswith("blank.") for fault in self._first):
            number = (
                "set `validate.classes` to their number and, unless they count from 0 without a gap, "
            ) * bool(self._params.classes)
            advice += f" If these labels are right, {number}{renumbering_advice(self._params)}"
        return DataError(
            f"{self._name}: {many} faults in {self._bad_rows:,} row{'s' * (self._bad_rows > 1)}"
            f"{', the first of them' * (self.count > len(self._first))}:\n{listed}\n{advice}"
        )

    def _row_faults(self, line: bytes, where: str) -> list[str]:
        """What is wrong with a row, as the end of a sentence that begins with its number."""
        columns = self._header.columns
        if len(line) == self._header.line_limit:
            return [f": longer than {len(line):,} bytes; a quote or line end is missing."]
        if b"\0" in line:
            return [": a NUL byte; the file is damaged or not text."]
        fields = unquoted(line).rstrip(b"\r\n").split(b",")
        if len(fields) != len(columns):
            quoted = "; a comma within quotes parts values too" if b'"' in line else ""
            end = "" if line.endswith(b"\n") else ", and the file ends there: it was cut off"
            return [
                f": {len(fields):,} value{'s' * (len(fields) != 1)}, expected {len(columns):,}{end}{quoted}."
            ]
        if fields[0].strip(b' \t"').decode("utf-8", "replace") == columns[0]:
            return [": the header again. Files joined? Remove this line."]
        values = [(columns[0], _value_fault(fields[0], self._highest))]
        values += [
            (column, _value_fault(field))
            for column, field in zip(columns[1:], fields[1:], strict=True)
            if field not in _PIXELS
        ]
        found = [f", column {column}: {fault}" for column, fault in values if fault]
        if found and not self.count and _is_scaled(fields[1:]):
            raise DataError(
                f"{self._name}, {where}: the pixels are fractions, already scaled to 0–1 or −1–1; "
                "expected whole numbers from 0 to 255. Export the pixels unscaled."
            )
        return found


def _value_fault(field: bytes, highest_label: int | None = None) -> str:
    """What is wrong with a value, `` if nothing. Pixels go to 255, labels to `highest_label`."""
    text = field.strip(b" \t")
    if not text:
        return "blank."
    limit = 255 if highest_label is None else highest_label
    if _WHOLE_NUMBER.fullmatch(text) and int(text) <= limit:
        return ""
    shown = text[:20].decode("utf-8", "backslashreplace") + "…" * (len(text) > 20)
    if re.fullmatch(rb"[+-]?\d+", text):
        if highest_label is None:
            return f"{shown} is outside 0–255."
        return f"{shown} is outside the classes 0–{highest_label}."
    whole = re.fullmatch(rb"[+-]?\d+\.0*", text)
    hint = " (write it without decimals; pandas: `frame.astype('uint8')`)" if whole else ""
    return f"{shown!r} is not a whole number{hint}."


def _is_scaled(fields: list[bytes]) -> bool:
    """True when every pixel of the row is a number within ±1 and some are fractions."""
    try:
        values = [float(field) for field in fields]
    except ValueError:
        return False
    return max(map(abs, values)) <= 1 and any(value % 1 for value in values)


def renumbering_advice(params: ValidateParams) -> str:
    """How to make 0, 1, 2, … of any labels, also of names."""
    column = f"frame[{params.label_column!r}]"
    return (
        "renumber them in their order, with pandas: `frame = pandas.read_csv(old); "
        f"{column} = {column}.factorize(sort=True)[0]; frame.to_csv(new, index=False)`."
    )
