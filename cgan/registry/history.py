"""Versions of a generator and the moves of its champion, as data and as text. Asks no store."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cgan.markdown import table
from cgan.quality.table import METRICS

CHAMPION, PREVIOUS, CHALLENGER = "champion", "previous", "challenger"
ALIASES = (CHAMPION, CHALLENGER, PREVIOUS)
HISTORY = "history."
VERDICT, SUMMARY = "gate.verdict", "gate.summary"
GATE_FOLDER = "gate"  # of the run's artifacts
ROLLED_BACK = "registry.rolled_back"
DIGEST, DATA, COMMIT = "generator.digest", "data.sha256", "git.commit"
RUN_NAME = "run.name"
REEVALUATION = "reevaluation."


@dataclass(frozen=True)
class Version:
    """A model version: one trained generator."""

    number: int
    run_id: str
    created_ms: int
    tags: dict[str, str]
    aliases: tuple[str, ...]

    @property
    def verdict(self) -> str:
        return self.tags.get(VERDICT, "")

    @property
    def state(self) -> str:
        return "rolled back" if ROLLED_BACK in self.tags else self.verdict or "not judged"

    @property
    def registered(self) -> str:
        return time.strftime("%Y-%m-%d %H:%M", time.gmtime(self.created_ms / 1000))

    def for_report(self) -> dict[str, Any]:
        """The version, as the reports of the gate and of a re-evaluation name it."""
        return {
            "version": self.number,
            "run_id": self.run_id,
            "run_name": self.tags.get(RUN_NAME, ""),
            "digest": self.tags.get(DIGEST, ""),
            "data_sha256": self.tags.get(DATA, ""),
            "commit": self.tags.get(COMMIT, ""),
        }


@dataclass(frozen=True)
class Move:
    """A line of the history: who made whom champion, in whose place, when and why."""

    action: str  # promote | rollback
    source: int | None  # the champion before
    target: int
    when: str  # ISO, UTC
    why: str
    user: str = ""
    flow_run_id: str = ""
    commit: str = ""
    data_sha256: str = ""


def lineage(moves: list[Move], champion: int | None) -> list[int]:
    """The champions that a rollback goes back through, oldest first, the present one last.

    A rollback takes the last one away; a move whose alias call never came is passed over.
    """
    if champion is None:
        return []
    line: list[int] = []
    for move in _carried_out(moves, champion):
        if move.action == "rollback" and move.target in line:
            del line[len(line) - line[::-1].index(move.target) :]
            continue
        if move.source is not None and move.source not in line[-1:]:
            line.append(move.source)  # before the history began, or set by hand
        if move.target not in line[-1:]:
            line.append(move.target)
    return line if line[-1:] == [champion] else [*line, champion]


def _carried_out(moves: list[Move], champion: int) -> list[Move]:
    """Each one's target is where the next one starts, and the last one's the champion."""
    real: list[Move] = []
    wanted: int | None = champion
    for move in reversed(moves):
        if move.target == wanted:
            real.append(move)
            wanted = move.source
    return real[::-1]


def list_versions(model: str, store: str, versions: Sequence[Version], moves: list[Move]) -> str:
    """All versions and moves as text for a terminal."""
    if not versions:
        return f"`{model}` has no versions yet: `dvc repro`, then `cgan gate`."
    rows = [("version", "alias", "verdict", "registered", "run")]
    rows += [
        (
            str(version.number),
            ", ".join(version.aliases),
            version.state,
            version.registered,
            version.tags.get(RUN_NAME, version.run_id),
        )
        for version in versions
    ]
    champion = next((version.number for version in versions if CHAMPION in version.aliases), None)
    line = " → ".join(map(str, lineage(moves, champion))) or "none"
    lines = [f"Versions of `{model}` in {store}:", *_table(rows), ""]
    lines.append(f"Champions, latest last: {line}")
    for move in reversed(moves):
        flow = f", flow run {move.flow_run_id}" if move.flow_run_id else ""
        lines.append(f"  {move.when}  {move_in_words(move)} ({move.user}{flow})")
    return "\n".join(lines)


def describe_version(
    model: str, version: Version, measured: dict[str, float], real: dict[str, float]
) -> str:
    """One version as text for a terminal: what became of it, how good it is, what it was made from.

    `measured` are the metrics of its run, `real` is what real images get.
    """
    numbers: list[tuple[str, ...]] = [("", "evaluated", "at the gate", "real images", "")]
    for key, metric in METRICS.items():
        found = (measured.get(f"quality/{key}"), measured.get(f"gate/{key}"), real.get(key))
        if found[:2] != (None, None):
            cells = ["" if value is None else f"{value:.4g}" for value in found]
            numbers.append((metric.name, *cells, f"{metric.better} is better"))
    state = [
        ("aliases", ", ".join(version.aliases) or "none"),
        ("verdict", version.state),
        ("registered", version.registered),
    ]
    tags = [("run", version.run_id), *sorted(version.tags.items())]
    lines = [f"Version {version.number} of `{model}`:", *_table(state)]
    lines += ["", "Quality:", *_table(numbers), "", "Its run and tags:", *_table(tags)]
    return "\n".join(lines)


def _table(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  " + "  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]


def move_in_words(move: Move) -> str:
    """A move in a sentence."""
    words = "brought back in place of" if move.action == "rollback" else "champion in place of"
    instead = "none" if move.source is None else f"version {move.source}"
    return f"Version {move.target} is {words} {instead}: {move.why}"


def model_page(moves: list[Move], line: list[int]) -> str:
    """The registered model's page: how to draw with it, who was champion when and why."""
    rows = [
        (move.when, move.action, move.target, move.why, move.user, move.commit[:10])
        for move in reversed(moves[-50:])
    ]
    return f"""\
Class-conditional generators. The alias `champion` says which one is served.

```bash
cgan draw 2024 --model champion
cgan registry list
```

Champions so far, latest last: {" → ".join(map(str, line)) or "none"}.

{table(("when", "what", "champion", "why", "who", "commit"), rows)}
"""


def now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
