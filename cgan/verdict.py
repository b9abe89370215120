"""A verdict with its reasons, checks and tables: one report as JSON, as Markdown and for a terminal."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cgan.files import write_json, write_text
from cgan.markdown import in_markdown, table
from cgan.report import Interval


def in_digits(value: float, is_share: bool) -> str:
    """A value for readers. A share has more digits than elsewhere, for 98.97 % is not 99 %."""
    return f"{100 * value:.4g} %" if is_share else f"{value:.4g}"


@dataclass(frozen=True, kw_only=True)
class Check:
    """A `value`, where known with its 95 % interval, against a `limit`, where it has one: a maximum if
    `at_most`, else a minimum. `what` is a noun phrase for what has the value, `why` a reason in place of
    "value; the limit is …". `is_share`: to be shown in percent."""

    name: str
    what: str
    value: float
    limit: float | None
    passed: bool
    at_most: bool = False
    interval: Interval | None = None
    why: str = ""
    is_share: bool = True

    def in_words(self) -> str:
        if self.why:
            return f"{self.what}: {self.why}"
        low, high = self.interval or (self.value, self.value)
        decisive = self._in_digits(high if self.at_most else low)
        found = f"between {self._interval(' and ')} (95 %)" if self.interval else decisive
        outcome = "and it is met"
        if not self.passed:
            outcome = f"and {decisive} is {'above' if self.at_most else 'below'} it"
        return f"{self.what}: {found}; the limit is {self._in_digits(self.limit or 0.0)}, {outcome}"

    def row(self) -> tuple[str, ...]:
        """The cells of the check in `table_of`."""
        expected = ""
        if self.limit is not None:
            expected = f"{'≤' if self.at_most else '≥'} {self._in_digits(self.limit)}"
        passed = "passed" if self.passed else "failed"
        return self.what, self._in_digits(self.value), self._interval(" to "), expected, passed

    def _in_digits(self, value: float) -> str:
        return in_digits(value, self.is_share)

    def _interval(self, separator: str) -> str:
        return separator.join(map(self._in_digits, self.interval or ()))


def table_of(checks: Iterable[Check]) -> str:
    """Checks as a table in Markdown."""
    heads = ("", "value", "95 % interval", "expected", "")
    return table(heads, [check.row() for check in checks], 3)


@dataclass
class Report:
    """A verdict with its reasons. `facts`: further entries of the JSON file. `sections`: tables in Markdown
    by their headings."""

    title: str
    verdict: str
    summary: str
    reasons: list[str]
    time: str
    facts: dict[str, Any] = field(default_factory=dict)
    sections: dict[str, str] = field(default_factory=dict)

    def body(self, picture: str = "") -> str:
        """All but the title, in Markdown; `picture` comes after the summary."""
        parts = [in_markdown(self.summary), picture]
        parts.append("\n".join(f"- {in_markdown(reason)}" for reason in self._other_reasons()))
        parts += [f"## {heading}\n\n{text}" for heading, text in self.sections.items()]
        return "\n\n".join(filter(None, parts)) + "\n"

    def _other_reasons(self) -> list[str]:
        """The reasons that the summary does not give already."""
        return [reason for reason in self.reasons if reason not in self.summary]

    def write(self, json_path: Path, text_path: Path) -> None:
        fields = {key: getattr(self, key) for key in ("verdict", "summary", "reasons", "time")}
        write_json(json_path, fields | self.facts)
        write_text(text_path, f"# {self.title}: {self.verdict}\n\n{self.body()}")

    def say(self, say: Callable[[str], None], source: Path | str) -> None:
        """Say the verdict and the reasons, line by line; `source`: the file that has every number."""
        say(f"{self.verdict.upper()}: {self.summary}")
        for reason in self._other_reasons():
            say(f"  - {reason}")
        say(f"  {source} has every number.")
