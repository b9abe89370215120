"""The champion beside a challenger: its generator, and what its own judge and its data say of today's data.

Today's judge learnt from today's data: it would find the drawings of spoilt data good, and the
champion's poor.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from cgan.data import csv_report
from cgan.errors import CganError, DataError, ModelError
from cgan.model.file_facts import Facts, UnreadableError
from cgan.model.model_file import load_generator
from cgan.model.networks import Generator
from cgan.params.sections import Params
from cgan.project import GENERATOR
from cgan.quality.evaluation import Inputs
from cgan.quality.judge import look
from cgan.quality.metrics import conditional_accuracy, wilson_interval
from cgan.registry.archive import fingerprints, generator_file, judge_of, kept_profile
from cgan.registry.client import Registry
from cgan.registry.history import DATA, Version
from cgan.verdict import Check

MAX_CLASS_LOSS = (
    0.5  # of a class's agreement: less comes by chance, or with a class that is hard to tell
)
KIND = "shape_and_classes"
WORDS = {
    KIND: "kind of image and classes",
    "class_mix": "images that would need another class",
    "pixel_values": "change of brightness, as a part of 0–255",
    "position": "distance that the ink moved, as a part of the image's side",
    "judge_features": "Fréchet distance to the training data, over its floor",
    "label_agreement": "labels that the judge no longer agrees with",
    "class_agreement": "labels of one class that the judge no longer agrees with",
}
ADVICE = (
    "If they are right, set `gate.on_drift: note` and run `cgan gate` again; another data set needs a name "
    "of its own: `gate.model`"
)


@dataclass
class Champion:
    """`network` is None where the file is gone for good or damaged. `doubts`: signs against today's data.
    `notes`: what a reader of the verdict should know."""

    version: Version
    network: Generator | None = None
    notes: list[str] = field(default_factory=list)
    doubts: list[str] = field(default_factory=list)


def read_champion(
    registry: Registry,
    version: Version,
    inputs: Inputs,
    validation: dict[str, Any],
    params: Params,
) -> Champion:
    """Everything of the champion that the store has to give, and what speaks against today's data.

    Raises UnreadableError when the store cannot give now what it may still have, and ModelError when the
    champion draws something else than today's data show.
    """
    found, lost = Champion(version), "its file is gone from the store"
    name, address = f"version {version.number}", f"models:/{registry.model}/{version.number}"
    other_data = version.tags.get(DATA) != inputs.facts["data_sha256"]
    try:
        with generator_file(address) as path:
            lost = "its file is damaged"
            found.network, facts = load_generator(path)
    except UnreadableError:
        raise
    except ModelError:
        found.notes.append(f"its predecessor, {name}, could not be compared: {lost}")
    else:
        other_data = facts.get("data_digest") != inputs.facts["data_digest"]
        ours, theirs = _kind(inputs.network), _kind(found.network)
        if other_data:
            ours += _named(inputs.facts)
            theirs += _named(facts)
        if ours != theirs:
            raise ModelError(
                f"{GENERATOR} draws {ours}; the champion of `{registry.model}`, {name}, draws {theirs}. "
                "Generators of different things cannot share a name: set `gate.model` in params.yaml to a "
                "name of its own."
            )
    if other_data:
        known = _compare_data(found, inputs, validation, params)
        if found.network:
            found.notes.append(
                f"the champion, {name}, was trained on other data; both were judged with today's judge and "
                f"hold-out, of whose {len(inputs.heldout):,} images {known} were among its training images"
            )
    return found


def _compare_data(
    found: Champion, inputs: Inputs, validation: dict[str, Any], params: Params
) -> str:
    """Adds the doubts; how many of today's held-out images the champion was trained on, in words."""
    heldout = inputs.heldout
    try:
        profile = kept_profile(found.version)
        judge, _, facts, seen_before = judge_of(found.version)
    except UnreadableError:
        raise
    except CganError as error:
        found.doubts.append(
            f"whether the data are like the champion's is not known: {error} {ADVICE}"
        )
        return "an unknown part"
    named = look(judge, heldout.images).classes
    confusion = conditional_accuracy(named, heldout.labels, heldout.classes).confusion
    moved = [check for check in drift_of_profile(validation, profile) if not check.passed]
    fallen = [
        check
        for check in agreement(confusion, facts, params.reevaluate.max_agreement_drop)
        if not check.passed
    ]
    if moved:
        signs = "; ".join(check.in_words() for check in moved)
        found.doubts.append(
            f"the data are no longer like what the champion was trained on ({signs}). Look at them. {ADVICE}"
        )
    if fallen:
        signs = "; ".join(check.why for check in fallen)
        found.doubts.append(f"{signs}. Check the labels. {ADVICE}")
    return f"{int(torch.isin(fingerprints(heldout.images), seen_before).sum()):,}"


def limit(name: str, value: float, limit: float, why: str = "") -> Check:
    """A measure of drift. `why` stands where the limit is passed."""
    passed = value <= limit
    return Check(name, WORDS[name], value, limit, passed, at_most=True, why="" if passed else why)


def drift_of_profile(found: dict[str, Any], known: dict[str, Any]) -> list[Check]:
    """The statistics of two validation reports; only the first check where they are of different kinds."""
    try:
        distances = csv_report.distances(found, known)
    except DataError as error:
        return [limit(KIND, 1.0, 0.0, str(error))]
    return [limit(name, value, csv_report.DRIFT_LIMITS[name]) for name, value in distances.items()]


def agreement(confusion: Tensor, known: Facts, max_drop: float) -> list[Check]:
    """How much less the champion's judge agrees with labels than with those of its own hold-out: in all, and
    in the class where it fell furthest, as a part of what it was. Today's agreement is taken at the upper
    end of its 95 % interval, so that a few images prove nothing.

    `confusion` int64 [classes, classes]: images by label and by what the judge sees. `known`: what was
    kept of it.
    """
    right, images = confusion.diagonal().tolist(), confusion.sum(dim=1).tolist()
    before = float(known["agreement"])
    drop = max(0.0, before - wilson_interval(sum(right), sum(images))[1])
    losses = {
        label: max(0.0, 1 - wilson_interval(right[label], images[label])[1] / was)
        for label, was in enumerate(known["agreement_by_class"])
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
        limit("label_agreement", drop, max_drop, whys[0]),
        limit("class_agreement", max(losses.values()), MAX_CLASS_LOSS, whys[1]),
    ]


def _kind(network: Generator) -> str:
    kind = network.architecture
    return f"{kind.classes} classes of {kind.height} × {kind.width} × {kind.channels}"


def _named(facts: Facts) -> str:
    names = facts.get("class_names")
    return f" ({', '.join(names)})" if names else ""
