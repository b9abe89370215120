"""Versions of a generator and who of them was champion, as data. Asks no store."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

CHAMPION, PREVIOUS, CHALLENGER = "champion", "previous", "challenger"
ALIASES = (CHAMPION, CHALLENGER, PREVIOUS)
VERDICT, SUMMARY = "gate.verdict", "gate.summary"
GATE_FOLDER = "gate"  # of the run's artifacts
# Tags of a version that is or was champion: when, why, by whom, and the number of the champion before.
SINCE, UNTIL, WHY = "champion.since", "champion.until", "champion.why"
WHO, INSTEAD_OF = "champion.who", "champion.instead_of"
ROLLED_BACK = "registry.rolled_back"
DIGEST, DATA, COMMIT = "generator.digest", "data.sha256", "git.commit"
RUN_NAME = "run.name"
# Of the registered model, on its page.
PAGE = (
    "Class-conditional generators. The alias `champion` says which one is served (`cgan draw 2024 --model "
    "champion`); the tags `champion.…` of a version say since when, until when, why and by whom it was "
    "champion (`cgan registry list`)."
)


@dataclass(frozen=True)
class Version:
    """A model version: one trained generator."""

    number: int
    run_id: str
    registered: str  # when
    tags: dict[str, str]
    aliases: tuple[str, ...]

    @property
    def verdict(self) -> str:
        return self.tags.get(VERDICT, "")

    @property
    def state(self) -> str:
        return "rolled back" if ROLLED_BACK in self.tags else self.verdict or "not judged"

    @property
    def reign(self) -> str:
        """When, why and by whom it was champion, in a line; empty where it never was."""
        tags, is_champion = self.tags, CHAMPION in self.aliases
        if SINCE not in tags or not (is_champion or UNTIL in tags):  # killed before the alias moved
            return ""
        until = "now" if is_champion else tags[UNTIL]
        return f"{tags[SINCE]} to {until}  version {self.number}: {tags[WHY]} ({tags[WHO]})"

    def for_report(self) -> dict[str, Any]:
        """The version, as the report of the gate names it."""
        tags = {"run_name": RUN_NAME, "digest": DIGEST, "data_sha256": DATA, "commit": COMMIT}
        found = {key: self.tags.get(tag, "") for key, tag in tags.items()}
        return {"version": self.number, "run_id": self.run_id, **found}


def lineage(versions: Sequence[Version], champion: int | None) -> list[int]:
    """The champions that a rollback goes back through, oldest first, the present one last.

    Each names the one before it. Those that were rolled back are passed over.
    """
    tags = {version.number: version.tags for version in versions}
    line, number = [], champion
    while number in tags:
        found = tags.pop(number)  # so that two which name each other end
        if number == champion or ROLLED_BACK not in found:
            line.append(number)
        before = found.get(INSTEAD_OF, "")
        number = int(before) if before.isdecimal() else None
    return line[::-1]


def now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def numbered(version: int | None) -> str:
    return "none" if version is None else f"version {version}"


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Rows as columns of a terminal."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  " + "  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)
