"""The champion beside a challenger: its generator, and what its own judge and its data say of today's data.

Today's judge learnt from today's data: it would find the drawings of spoilt data good, and the
champion's poor.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from cgan.data import csv_report
from cgan.errors import CganError, ModelError
from cgan.model.file_facts import Facts, UnreadableError
from cgan.model.model_file import load_generator
from cgan.model.networks import Generator
from cgan.model.sampling import draw
from cgan.params.sections import Params
from cgan.quality.comparison import Ground, Judged
from cgan.quality.evaluation import Inputs
from cgan.quality.judge import look
from cgan.quality.metrics import conditional_accuracy, wilson_interval
from cgan.registry.archive import fingerprints, generator_file, judge_of, kept_profile
from cgan.registry.client import Registry
from cgan.registry.history import DATA, Version

MAX_CLASS_LOSS = (
    0.5  # of a class's agreement: less comes by chance, or with a class that is hard to tell
)
IF_RIGHT = "if they are right, `cgan registry promote`, or set `gate.on_drift: note`"


@dataclass
class Champion:
    """`lost`: why it can never be compared again; else empty. `objections` block the promotion, `notes` do
    not. Signs against the data are the one or the other, as `gate.on_drift` says."""

    version: Version
    on_drift: str
    network: Generator | None = None
    lost: str = ""
    other_data: bool = False
    notes: list[str] = field(default_factory=list)
    objections: list[str] = field(default_factory=list)

    def doubt_data(self, signs: Sequence[str]) -> None:
        (self.objections if self.on_drift == "block" else self.notes).extend(signs)

    def judged(self, ground: Ground, challenger: Judged) -> Judged | None:
        """As the challenger was judged; None where it cannot be compared."""
        if self.network is None:
            return None
        found = ground.judge_drawings(draw(self.network, ground.asked, ground.seed))
        if self.other_data:
            self.doubt_data(_fallen_classes(challenger, found))
        return found

    def for_report(self) -> dict[str, Any]:
        return {**self.version.for_report(), "lost": self.lost}


def read_champion(
    registry: Registry,
    version: Version,
    inputs: Inputs,
    validation: dict[str, Any],
    params: Params,
) -> Champion:
    """Everything of the champion that the store has to give, and what speaks against today's data.

    Raises UnreadableError when the store cannot give now what it may still have.
    """
    found = Champion(version, params.gate.on_drift)
    name = f"the champion, version {version.number},"
    address = f"models:/{registry.model}/{version.number}"
    found.other_data = version.tags.get(DATA) != inputs.facts["data_sha256"]
    found.lost = "its file is gone from the store"
    try:
        with generator_file(address) as path:
            found.lost = "its file is damaged"
            network, facts = load_generator(path)
            found.lost = ""
    except UnreadableError:
        raise
    except ModelError:
        found.notes.append(
            f"{name} could not be compared, so the bars decided: {found.lost} ({address})"
        )
    else:
        ours, theirs = _kind(inputs.network), _kind(network)
        if ours != theirs:
            found.objections.append(
                f"{name} draws {theirs}, this one {ours}: they cannot be compared. "
                "If that is meant, promote it by hand with cgan registry promote"
            )
            return found
        found.network = network
        found.other_data = facts.get("data_digest") != inputs.facts["data_digest"]
    if found.other_data:
        known = _ask_about_data(found, inputs, validation, params)
        if found.network:
            found.notes.append(
                f"{name} was trained on other data; both were judged with today's judge and hold-out, of "
                f"whose {len(inputs.heldout):,} images {known} were among its training images"
                f"{'' if known == '0' else ', which favours it'}"
            )
    return found


def _ask_about_data(
    found: Champion, inputs: Inputs, validation: dict[str, Any], params: Params
) -> str:
    """How many of today's held-out images the champion was trained on, in words."""
    heldout = inputs.heldout
    try:
        drift = csv_report.distances(validation, kept_profile(found.version))
        judge, _, facts, seen_before = judge_of(found.version)
    except UnreadableError:
        raise
    except CganError as error:
        found.doubt_data(
            [f"whether the data are like the champion's is not known: {error} I{IF_RIGHT[1:]}"]
        )
        return "an unknown part"
    moved = [
        f"{key} {value:.3f}, at most {csv_report.DRIFT_LIMITS[key]:.3g} is usual"
        for key, value in drift.items()
        if value > csv_report.DRIFT_LIMITS[key]
    ]
    if moved:
        found.doubt_data(
            [
                "the data are no longer like what the champion was trained on "
                f"({'; '.join(moved)}). Look at them; {IF_RIGHT}"
            ]
        )
    named = look(judge, heldout.images).classes
    confusion = conditional_accuracy(named, heldout.labels, heldout.classes).confusion
    rows = agreement_rows(confusion, facts, params.reevaluate.max_agreement_drop)
    if whys := [row["why"] for row in rows if not row["passed"]]:
        found.doubt_data([f"{'; '.join(whys)}. Check the labels; {IF_RIGHT}"])
    return f"{int(torch.isin(fingerprints(heldout.images), seen_before).sum()):,}"


def limit_row(name: str, value: float, limit: float, why: str = "") -> dict[str, Any]:
    """A measure of drift, as reports hold it."""
    passed = value <= limit
    row = {"name": name, "value": value, "limit": limit, "passed": passed}
    return row if passed or not why else row | {"why": why}


def agreement_rows(confusion: Tensor, known: Facts, max_drop: float) -> list[dict[str, Any]]:
    """How much less the champion's judge agrees with labels than with those of its own hold-out: in all, and
    in the class where it fell furthest, as a part of what it was. Today's agreement is taken at the upper
    end of its 95 % interval, so that a few images prove nothing.

    `confusion` int64 [classes, classes]: images by label and by what the judge sees. `known`: what was
    kept of it.
    """
    right, images = confusion.diagonal().tolist(), confusion.sum(dim=1).tolist()
    before = float(known["agreement"])
    # An older version of the gate did not keep it by class.
    before_by_class = known.get("agreement_by_class", [before] * len(right))
    drop = max(0.0, before - wilson_interval(sum(right), sum(images))[1])
    losses = {
        label: max(0.0, 1 - wilson_interval(right[label], images[label])[1] / was)
        for label, was in enumerate(before_by_class)
        if images[label] and was
    }
    fallen = [label for label, loss in losses.items() if loss > MAX_CLASS_LOSS]
    seen_as = []
    for label in sorted(fallen, key=lambda label: -losses[label])[:5]:
        count, other = confusion[label].max(dim=0)
        part = f"{int(count) / images[label]:.0%}".replace("%", " %")
        seen_as.append(f"{int(other)} in {part} of the {images[label]:,} images labelled {label}")
    part = sum(right) / sum(images)
    whys = (
        f"the champion's judge agrees with {part:.1%} of the labels, and did with {before:.1%} of those of "
        "its own hold-out".replace("%", " %"),
        f"the champion's judge sees {', '.join(seen_as)}",
    )
    return [
        limit_row("label_agreement", drop, max_drop, whys[0]),
        limit_row("class_agreement", max(losses.values()), MAX_CLASS_LOSS, whys[1]),
    ]


def _fallen_classes(challenger: Judged, champion: Judged) -> list[str]:
    """The classes that the champion draws no longer, by today's judge; in a sentence, if there are any."""
    fallen = []
    for label, asked in enumerate(champion.asked_by_class):
        ours, theirs = challenger.right_by_class[label], champion.right_by_class[label]
        if asked and wilson_interval(theirs, asked)[1] < 0.5 < wilson_interval(ours, asked)[0]:
            fallen.append(
                f"{theirs / asked:.0%} of the champion's drawings of {label} show it, {ours / asked:.0%} "
                "of this one's".replace("%", " %")
            )
    if not fallen:
        return []
    return [
        f"in the eyes of today's judge, {'; '.join(fallen)}. A champion does not forget a class: check the "
        f"labels of today's data; {IF_RIGHT}"
    ]


def _kind(network: Generator) -> str:
    kind = network.architecture
    return f"{kind.classes} classes of {kind.height} × {kind.width} × {kind.channels}"
