"""Are these data like those that the champion learnt from, in the eyes of its own judge and profile?

Today's judge learnt from today's data: it would find the drawings of spoilt data good, and the
champion's poor.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from cgan.data import drift
from cgan.errors import DataError, ModelError
from cgan.model.file_facts import Facts
from cgan.params.sections import Params
from cgan.quality.evaluation import Inputs
from cgan.quality.judge import look
from cgan.quality.metrics import conditional_accuracy, wilson_interval
from cgan.registry.archive import fingerprints, kept_of
from cgan.registry.client import Registry
from cgan.registry.history import Version
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


def about_other_data(
    registry: Registry,
    champion: Version,
    inputs: Inputs,
    validation: dict[str, Any],
    params: Params,
) -> tuple[list[str], list[str]]:
    """What speaks against today's data, and what a reader should know of a champion of other data."""
    heldout, doubts, known = inputs.heldout, list[str](), "an unknown part"
    try:
        kept = kept_of(registry, champion)
    except ModelError as error:
        if params.gate.on_drift == "block":
            raise ModelError(
                f"whether the data are like the champion's is not known: {error} Or set `gate.on_drift: "
                "note`, if you know that they are right."
            ) from None
        known = f"an unknown part ({error})"
    else:
        moved = drift_of_profile(validation, kept.profile)
        if signs := "; ".join(check.in_words() for check in moved if not check.passed):
            doubts.append(
                "the data are no longer like what the champion was trained on "
                f"({signs}). Look at them. {ADVICE}"
            )
        named = look(kept.judge, heldout.images).classes
        confusion = conditional_accuracy(named, heldout.labels, heldout.classes).confusion
        fallen = agreement(confusion, kept.facts, params.reevaluate.max_agreement_drop)
        if signs := "; ".join(check.why for check in fallen if not check.passed):
            doubts.append(f"{signs}. Check the labels. {ADVICE}")
        known = f"{int(torch.isin(fingerprints(heldout.images), kept.fingerprints).sum()):,}"
    return doubts, [
        f"the champion, version {champion.number}, was trained on other data; both were judged with today's "
        f"judge and hold-out, of whose {len(heldout):,} images {known} were among its training images"
    ]


def limit(name: str, value: float, limit: float, why: str = "") -> Check:
    """A measure of drift. `why` stands where the limit is passed."""
    passed = value <= limit
    return Check(name, WORDS[name], value, limit, passed, at_most=True, why="" if passed else why)


def drift_of_profile(found: dict[str, Any], known: dict[str, Any]) -> list[Check]:
    """The statistics of two validation reports; only the first check where they are of different kinds."""
    try:
        distances = drift.distances(found, known)
    except DataError as error:
        return [limit(KIND, 1.0, 0.0, str(error))]
    return [limit(name, value, drift.DRIFT_LIMITS[name]) for name, value in distances.items()]


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
    whys = (
        f"the champion's judge agrees with {sum(right) / sum(images):.1%} of the labels, and did with "
        f"{before:.1%} of those of its own hold-out".replace("%", " %"),
        f"the champion's judge sees {', '.join(seen_as)}",
    )
    return [
        limit("label_agreement", drop, max_drop, whys[0]),
        limit("class_agreement", max(losses.values()), MAX_CLASS_LOSS, whys[1]),
    ]
