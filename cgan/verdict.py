"""A verdict with its reasons, checks and tables: one report as JSON, as Markdown and for a terminal."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cgan.files import write_json, write_text
from cgan.markdown import in_markdown, table

Interval = tuple[float, float]
NO_SHARES = (
    "membership_auc",
    "fid_judge",
    "fid_over_floor",
    "class_shift",
    "drawn_shift",
)  # checks of other numbers


def shown(name: str, value: float) -> str:
    """A value of the check `name` for readers: a share with more digits than elsewhere, for 98.97 % is not
    99 %."""
    return f"{value:.4g}" if name in NO_SHARES else f"{100 * value:.4g} %"


@dataclass(frozen=True)
class Check:
    """`value`, where known with its 95 % interval, against `limit`, where it has one; `what` and `why` are
    plain words."""

    name: str
    what: str
    value: float
    limit: float | None
    passed: bool
    at_most: bool = False
    interval: Interval | None = None
    why: str = ""

    def in_words(self) -> str:
        if self.why:
            return f"{self.what}: {self.why}"
        limit = self.limit or 0.0
        low, high = self.interval or (self.value, self.value)
        decisive = self.shown(high if self.at_most else low)
        found = f"between {self._between(' and ')} (95 %)" if self.interval else decisive
        side = "above" if self.at_most else "below"
        where = f"the limit is {self.shown(limit)}"
        if not self.passed:
            return f"{self.what}: {found}; {where}, and {decisive} is {side} it"
        return f"{self.what}: {found}; {where}, and it is kept"

    def shown(self, value: float) -> str:
        return shown(self.name, value)

    def _between(self, between: str = " to ") -> str:
        return between.join(map(self.shown, self.interval or ()))

    def row(self) -> tuple[str, ...]:
        limit = f"{'≤' if self.at_most else '≥'} {self.shown(self.limit or 0.0)}"
        expected = "" if self.limit is None else limit
        passed = "passed" if self.passed else "failed"
        return self.what, self.shown(self.value), self._between(), expected, passed


def table_of(checks: Iterable[Check]) -> str:
    """Checks as a table in Markdown."""
    heads = ("", "value", "95 % interval", "expected", "")
    return table(heads, [check.row() for check in checks], 3)


@dataclass
class Report:
    """`facts`: what the JSON file has besides. `sections`: tables in Markdown by their headings."""

    title: str
    verdict: str
    summary: str
    reasons: list[str]
    time: str
    facts: dict[str, Any] = field(default_factory=dict)
    sections: dict[str, str] = field(default_factory=dict)

    def body(self, picture: str = "") -> str:
        """All but the title, in Markdown."""
        parts = [in_markdown(self.summary), picture]
        parts.append("\n".join(f"- {in_markdown(reason)}" for reason in self._more()))
        parts += [f"## {heading}\n\n{text}" for heading, text in self.sections.items()]
        return "\n\n".join(filter(None, parts)) + "\n"

    def _more(self) -> list[str]:
        """The reasons that the summary does not give already."""
        return [reason for reason in self.reasons if reason not in self.summary]

    def write(self, json_path: Path, text_path: Path) -> None:
        fields = {key: getattr(self, key) for key in ("verdict", "summary", "reasons", "time")}
        write_json(json_path, fields | self.facts)
        write_text(text_path, f"# {self.title}: {self.verdict}\n\n{self.body()}")

    def say(self, say: Callable[[str], None], source: Path | str) -> None:
        """For a terminal."""
        say(f"{self.verdict.upper()}: {self.summary}")
        for reason in self._more():
            say(f"  - {reason}")
        say(f"  {source} has every number.")
