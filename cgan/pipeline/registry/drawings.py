"""The drawings of a generator, as the gate measures them: against its limits, and beside the champion's."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from cgan.base.report import Kind, in_words
from cgan.base.text import listed, percent
from cgan.params.sections import GateParams
from cgan.pipeline.registry.checks import Finding, largest
from cgan.quality.class_shift import Moments, Shift, largest_shifts
from cgan.quality.conditions import Conditions
from cgan.quality.evaluate import measure
from cgan.quality.evaluation import Evaluation
from cgan.quality.intervals import Estimate, critical_t
from cgan.quality.judge import predict
from cgan.quality.outliers import Excess, OutlierModels, Samples, excesses


@dataclass(frozen=True)
class Drawings:
    """Measurements of a generator's drawings: their evaluation; of each class the column that is furthest
    from its training images; and the shares that are like no real image. `champion`: the evaluation of its
    drawings, under the same conditions, where there is one."""

    evaluation: Evaluation
    shifts: Sequence[Shift]
    outliers: Sequence[Excess]
    champion: Evaluation | None = None

    @classmethod
    def measure(
        cls,
        drawings: Tensor,
        conditions: Conditions,
        models: OutlierModels,
        champion: Evaluation | None = None,
    ) -> Drawings:
        """The measurements of drawings uint8 [N, C, H, W] of the conditions' classes, by the judge and by how
        they look beside real images, whatever the judge sees. `models`: of these real images."""
        pixels, real_labels, _ = conditions.train.tensors
        labels = conditions.drawn_labels
        prediction = predict(conditions.judge, drawings)
        looks = Moments.of_images(drawings, labels, conditions.classes)
        looks_of_real = Moments.of_images(pixels, real_labels, conditions.classes)
        return cls(
            measure(conditions, drawings, prediction),
            largest_shifts(looks, looks_of_real, drawings.shape[1:]),
            models.excesses(Samples.measure(drawings, prediction.features, labels)),
            champion,
        )


# -- Limits ------------------------------------------------------------------------------------------


def outliers(drawings: Drawings, limits: GateParams) -> Finding:
    names = drawings.evaluation.names
    return largest_excess(drawings.outliers, limits.max_outliers, "drawings", names)


def largest_excess(
    outliers: Iterable[Excess], limit: float, images: str, class_names: Sequence[str]
) -> Finding:
    """The largest excess, of all classes together and of each. `images`: what they are."""
    found = []
    for excess in outliers:
        of = "all classes" if excess.label is None else f"class {class_names[excess.label]}"
        words = f"{percent(excess.share)} of the {images} of {of}"
        found.append((excess.low, f"{words} (of real images {percent(excess.real)})"))
    return largest(found, limit)


def shift(drawings: Drawings, limits: GateParams) -> Finding:
    return largest_shift(drawings.shifts, limits.max_drawn_shift, drawings.evaluation.names)


def largest_shift(shifts: Iterable[Shift], limit: float, class_names: Sequence[str]) -> Finding:
    """The largest shift of a class."""
    found = [
        (off, f"class {class_names[label]} differs in {words} ({off:.1f} deviations)")
        for label, off, words in shifts
    ]
    return largest(found, limit, "number")


def accuracy(drawings: Drawings, limits: GateParams) -> Finding:
    """The mean over classes, as a part of what real images get. It fails, too, for a class that clearly falls
    short of its real images, and where the judge cannot tell."""
    evaluation = replace(drawings.evaluation, min_judge_accuracy=limits.min_judge_accuracy)
    score = evaluation.score("conditional_accuracy")
    if evaluation.judge_weakness or not score.value or not score.real or not score.interval:
        why = f"the judge cannot tell: {evaluation.judge_weakness}"
        return Finding(score.value, passed=False, why=why)
    low, high = score.interval
    of_all = Finding(
        score.value / score.real,
        (low / score.real, high / score.real),
        note=f"({percent(score.value)}, real images {percent(score.real)})",
    )
    short = evaluation.classes_short_of_real(limits.min_relative_accuracy)
    if not short:
        return of_all
    rows = ((evaluation.names[label], evaluation.classes[label]) for label in short)
    classes = [
        f"of class {name} the judge sees {percent(row.accuracy or 0)} right, of its real images "
        f"{percent(row.real_accuracy or 0)}"
        for name, row in rows
    ]
    return of_all._replace(passed=False, why=listed(classes, 3))


def copies(drawings: Drawings, limits: GateParams) -> Finding:
    classes = drawings.evaluation.classes
    counts = torch.tensor([(row.copies, row.compared) for row in classes])
    real = torch.tensor([(row.real_copies, row.real_compared) for row in classes])
    names = drawings.evaluation.names
    return largest_excess(excesses(counts, real), limits.max_copies_over_floor, "drawings", names)


def diversity(drawings: Drawings, limits: GateParams) -> Finding | None:
    """The diversity of the class that has least. Its value decides: noise is a tenth of what repeats cost."""
    measured = [
        (row.diversity, row.diversity_interval, name)
        for name, row in zip(drawings.evaluation.names, drawings.evaluation.classes, strict=True)
        if row.diversity is not None
    ]
    if not measured:
        return None
    value, interval, name = min(measured)
    passed = value >= limits.min_worst_class_diversity
    return Finding(value, interval, passed, f"(class {name})", kind="number")


def excess_distance(drawings: Drawings, _: GateParams) -> Finding | None:
    score = drawings.evaluation.score("fid_judge")
    if score.value is None:
        return None
    drawn = Estimate.restored(score.value, score.replicates)
    excess = drawn - Estimate.restored(score.real, score.real_replicates)
    return Finding(excess.value, excess.interval, kind="number")


# -- Beside the champion -----------------------------------------------------------------------------


def distance_change(drawings: Drawings, limits: GateParams) -> Finding | None:
    return _change(drawings, "fid_judge", tolerated=0.0, against=limits.against_champion)


def accuracy_change(drawings: Drawings, _: GateParams) -> Finding | None:
    """Half a drawing of a hundred nobody would notice, and two seeds differ by as much."""
    return _change(drawings, "conditional_accuracy", tolerated=0.005)


def _change(
    drawings: Drawings, key: str, tolerated: float, against: str = "not_worse"
) -> Finding | None:
    """The change of a metric from the champion's value. It may not be clearly worse, by more than
    `tolerated`; "better" asks for a better one. The interval is at 95 % for both metrics (Bonferroni)."""
    if drawings.champion is None:
        return None
    score = drawings.evaluation.score(key)
    scores = score, drawings.champion.score(key)
    new, old = (Estimate.restored(each.value, each.replicates) for each in scores)
    change = new - old
    t = critical_t(len(change.replicates) - 1, comparisons=2)
    reach = t * float(change.replicates.std())
    low, high = change.value - reach, change.value + reach
    least_gain, most_gain = (-high, -low) if score.better == "lower" else (low, high)
    is_better, is_worse = least_gain > 0, most_gain < -tolerated
    verdict = "not clearly different from"
    if is_better or is_worse:
        verdict = "better than" if is_better else "worse than"
    kind: Kind = "points" if score.kind == "share" else "difference"
    now, before = (in_words(each.value, score.kind, 2) for each in (new, old))
    by, least, most = (in_words(each, kind, 2) for each in (change.value, low, high))
    return Finding(
        change.value,
        (low, high),
        is_better if against == "better" else not is_worse,
        f"{now}, {verdict} the champion's {before}",
        f"difference {by}; between {least} and {most} (95 % for both metrics)",
        kind,
    )
