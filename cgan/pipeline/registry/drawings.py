"""The drawings of a generator, as the gate measures them: against its limits, and beside the champion's."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cgan.evaluation import Evaluation
from cgan.pipeline.registry.checks import Finding
from cgan.proportions import wilson_interval
from cgan.quality.class_shift import Moments, Shift, largest_shifts
from cgan.quality.conditions import Conditions
from cgan.quality.intervals import Estimate, critical_t, falls_short
from cgan.quality.judge import predict
from cgan.quality.outliers import KIND_WORDS, Excess, Samples, outliers
from cgan.report import Kind, in_words
from cgan.text import listed, percent

MEAN = "(mean over classes)"


@dataclass(frozen=True)
class Drawings:
    """A generator's drawings, measured: their evaluation; of each class the column that is furthest from its
    training images (`class_shift.largest_shifts`); and the shares that look like no real image, those that
    exceed most first (`outliers.outliers`). `champion`: the evaluation of its drawings, under the same
    conditions, where there is one."""

    evaluation: Evaluation
    shifts: Sequence[Shift]
    outliers: Sequence[Excess]
    champion: Evaluation | None = None

    @classmethod
    def of(
        cls, drawings: Tensor, conditions: Conditions, champion: Evaluation | None = None
    ) -> Drawings:
        """The measurements of drawings uint8 [N, C, H, W] of the conditions' classes, by the judge and by how
        they look beside real images, whatever the judge sees."""
        shape, classes = drawings.shape[1:], conditions.train.classes
        train, held_out = conditions.train.tensors, conditions.held_out.tensors
        prediction = predict(conditions.judge, drawings)
        drawn = Samples.of(drawings, prediction.features, conditions.drawn_labels)
        real = Samples.of(train.pixels, conditions.training_features, train.labels)
        unseen = Samples.of(held_out.pixels, conditions.heldout.features, held_out.labels)
        looks, looks_of_real = (
            Moments.of([each.descriptors], each.labels, classes) for each in (drawn, real)
        )
        return cls(
            conditions.measure(drawings, prediction=prediction),
            largest_shifts(looks, looks_of_real, shape),
            outliers(drawn, real, conditions.training_labels, unseen, shape, classes),
            champion,
        )


# -- Limits ------------------------------------------------------------------------------------------


def judge_accuracy(drawings: Drawings, _: float) -> Finding:
    """It fails, too, where the judge may be no better than one that guesses."""
    evaluation = drawings.evaluation
    score, reason = evaluation.score("conditional_accuracy"), evaluation.not_measurable
    passed = False if reason else None
    return Finding(score.real or 0.0, score.real_interval, passed, MEAN, reason)


def drawing_accuracy(drawings: Drawings, _: float) -> Finding | None:
    score = drawings.evaluation.score("conditional_accuracy")
    return None if score.value is None else Finding(score.value, score.interval, note=MEAN)


def worst_class_accuracy(drawings: Drawings, limit: float) -> Finding | None:
    """Of the class with the lowest accuracy. A shortfall that chance explains among so many classes does not
    fail it (`falls_short`)."""
    evaluation = drawings.evaluation
    if evaluation.not_measurable:
        return None
    confusion = torch.tensor(evaluation.confusion)
    right, total = confusion.diagonal(), confusion.sum(dim=1)
    short = falls_short(right, total, limit)
    # There may be more classes than drawings: one without any is not the worst.
    share = (right / total).nan_to_num(nan=2.0)
    worst = int((share - 2 * short.double()).argmin())  # those that fall short come first
    hits, asked = int(right[worst]), int(total[worst])
    interval, passed = wilson_interval(hits, asked), not bool(short.any())
    note = f"class {evaluation.names[worst]}"
    if passed and interval[0] < limit:
        note += f"; chance explains as much of one of {len(total)} classes"
    return Finding(hits / asked, interval, passed, f"({note})")


def copies(drawings: Drawings, limit: float) -> Finding | None:
    """Of all drawings. Of a class few are compared, and classes differ: it fails by a share that is clearly
    above the limit."""
    evaluation = drawings.evaluation
    score = evaluation.score("copies")
    if score.value is None or score.interval is None:
        return None
    real = score.real or 0.0
    low, high = (end - real for end in score.interval)
    of_all = Finding(score.value - real, (low, high))
    counts = torch.tensor([(row.copies, row.compared) for row in evaluation.classes])
    copied, compared = counts.unbind(dim=1)
    over = falls_short(compared - copied, compared, 1 - limit - real)
    if high > limit or not over.any():
        return of_all
    worst = int((copied / compared).where(over, 0.0).argmax())
    why = (
        f"of class {evaluation.names[worst]} {copied[worst]} of {compared[worst]}, of real images "
        f"{percent(real)}; at most {percent(limit)} more may, and chance does not explain it"
    )
    return of_all._replace(passed=False, why=why)


def excess_distance(drawings: Drawings, _: float) -> Finding | None:
    score = drawings.evaluation.score("fid_judge")
    if score.value is None:
        return None
    excess = Estimate.of_score(score) - Estimate.of_real(score)
    return Finding(excess.value, excess.interval, kind="number")


def diversity(drawings: Drawings, _: float) -> Finding | None:
    """Of the class whose interval has the lowest lower end."""
    evaluation = drawings.evaluation
    measured = [
        (row.diversity_interval, row.diversity, name)
        for name, row in zip(evaluation.names, evaluation.classes, strict=True)
        if row.diversity is not None and row.diversity_interval is not None
    ]
    if not measured:
        return None
    interval, value, name = min(measured)
    return Finding(value, interval, note=f"(class {name})")


def drawn_shift(drawings: Drawings, limit: float) -> Finding:
    return largest_shift(drawings.shifts, limit, drawings.evaluation.names)


def largest_shift(shifts: Iterable[Shift], limit: float, class_names: Sequence[str]) -> Finding:
    """Of all classes; why: the three that are furthest off."""
    of_class = dict[int, Shift]()  # the largest
    for shift in sorted(shifts, key=lambda shift: shift.deviations, reverse=True):
        of_class.setdefault(shift.label, shift)
    far = [
        f"class {class_names[shift.label]} differs in {shift.words} ({shift.deviations:.1f} deviations)"
        for shift in of_class.values()
        if shift.deviations > limit
    ]
    why = f"{listed(far, 3)}; at most {limit:g}" if far else ""
    largest = max(shift.deviations for shift in of_class.values())
    return Finding(largest, why=why, kind="number")


def outlier_share(drawings: Drawings, limit: float) -> Finding:
    far = []
    for excess in drawings.outliers:
        if excess.low > limit:
            of = "all classes"
            if excess.label is not None:
                of = f"class {drawings.evaluation.names[excess.label]}"
            far.append(
                f"{percent(excess.share)} of the drawings of {of} look like no training image of theirs, "
                f"{KIND_WORDS[excess.kind]} (of real images {percent(excess.real)})"
            )
    why = f"{listed(far, 3)}; at most {percent(limit)} more may" if far else ""
    return Finding(max([0.0, *(excess.low for excess in drawings.outliers)]), why=why)


# -- Beside the champion -----------------------------------------------------------------------------


def distance_change(drawings: Drawings, against: str) -> Finding | None:
    return _change(drawings, "fid_judge", tolerated=0.0, against=against)


def accuracy_change(drawings: Drawings, _: None) -> Finding | None:
    """Half a drawing of a hundred nobody would notice, and two seeds differ by as much."""
    return _change(drawings, "conditional_accuracy", tolerated=0.005)


def _change(
    drawings: Drawings, key: str, tolerated: float, against: str = "not_worse"
) -> Finding | None:
    """Of a metric, from the champion's value. It may not be clearly worse, by more than `tolerated`;
    "better" asks for a better one. The interval is at 95 % for both metrics together (Bonferroni)."""
    if drawings.champion is None or drawings.evaluation.not_measurable:
        return None
    score = drawings.evaluation.score(key)
    new, old = map(Estimate.of_score, (score, drawings.champion.score(key)))
    change = new - old
    freedom, deviation = len(change.replicates) - 1, float(change.replicates.std())
    reach = critical_t(freedom, comparisons=2) * deviation
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
