"""A version of the generator in MLflow's registry, what its tags say, and who was champion before it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

# Tags of a version: what it is, and how the gate judged it.
DIGEST, RUN_NAME = "generator.digest", "run.name"
VERDICT, SUMMARY = "gate.verdict", "gate.summary"
# Of one that became champion: since when, why, by whom; the number of the champion before; and that of the
# last champion, itself or one before, whose data a person accepted.
CHAMPION_SINCE, PROMOTION_REASON = "champion.since", "champion.why"
PROMOTED_BY, PREVIOUS_CHAMPION = "champion.who", "champion.instead_of"
ACCEPTED_DATA = "champion.anchor"  # the name in existing stores
# Of one that a rollback left: when and why.
ROLLED_BACK = "registry.rolled_back"


@dataclass(frozen=True)
class Version:
    """A model version: one trained generator."""

    number: int
    run_id: str
    tags: dict[str, str]

    @property
    def verdict(self) -> str:
        return self.tags.get(VERDICT, "not judged")

    @property
    def accepted_data(self) -> int:
        """The champion whose data a person accepted last, itself or one before it: itself, too, where an
        older cgan or somebody in MLflow made it champion."""
        number = self.tags.get(ACCEPTED_DATA, "")
        return int(number) if number.isdecimal() else self.number

    @property
    def facts(self) -> dict[str, Any]:
        """Number, run and digest, for a report."""
        return {
            "version": self.number,
            "run_id": self.run_id,
            "run_name": self.tags.get(RUN_NAME, ""),
            "digest": self.tags.get(DIGEST, ""),
        }

    @property
    def champion_line(self) -> str:
        """Since when, why and by whom it is or was champion, in a line."""
        if CHAMPION_SINCE not in self.tags:
            return f"version {self.number}, made champion by hand in MLflow"
        since, why, who = (
            self.tags[tag] for tag in (CHAMPION_SINCE, PROMOTION_REASON, PROMOTED_BY)
        )
        since = since.replace("T", " ").replace("Z", " UTC")
        return f"version {self.number}, since {since}, by {who}: {why}"


def former_champion(versions: Sequence[Version], champion: int | None) -> int | None:
    """The champion before this one, as each names the one before it, without those that were rolled back."""
    unvisited = {version.number: version for version in versions}
    number = champion
    while number in unvisited:
        version = unvisited.pop(number)  # so that two which name each other do not go on for ever
        if number != champion and ROLLED_BACK not in version.tags:
            return number
        previous = version.tags.get(PREVIOUS_CHAMPION, "")
        number = int(previous) if previous.isdecimal() else None
    return None


def version_in_words(number: int | None) -> str:
    return "none" if number is None else f"version {number}"
