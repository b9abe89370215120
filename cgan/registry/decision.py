"""May this generator be served, and are today's data like the champion's? Numbers in, checks and reasons out;
no store, no files.

Limits are checked at the pessimistic end of the number's 95 % interval, so that none passes by luck:
shares by Wilson's interval (the bootstrap gives "all right" no width), distances and coverage by the
bootstrap of `quality.comparison`. Against the champion, a difference counts when its interval is
clear of what nobody would notice. Data raise an alarm at the optimistic end, so that noise raises none:
docs/log.md has what clean and spoilt data get.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from statistics import NormalDist
from typing import NamedTuple

import torch
from torch import Tensor

from cgan.errors import listed, percent
from cgan.metric import METRICS
from cgan.params.sections import GateParams
from cgan.quality.class_shift import ENOUGH, Shift
from cgan.quality.comparison import Estimate, Judged
from cgan.quality.intervals import clearly_short, falls_short, student
from cgan.quality.likeness import Copies
from cgan.quality.metrics import Accuracy, mean_share, wilson_interval
from cgan.quality.outliers import SHOWN, Excess
from cgan.verdict import Check, Interval, shown

# In one of these a challenger has to be clearly better: how near drawings come to real images, and how many
# of the real images they come near. Drawings that are spoilt raise neither.
GAINS = ("fid_judge", "coverage")
# By which a challenger is set beside the champion, and how much less nobody would notice: half a drawing of
# a hundred, two of a class, two real images without a drawing near them. Seeds differ by that, too.
COMPARED = {
    "fid_judge": 0.0,
    "conditional_accuracy": 0.005,
    "worst_class_accuracy": 0.02,
    "coverage": 0.02,
}

AT_MOST = ("copies", "fid_over_floor")
BARS = {
    "conditional_accuracy": "drawings that show the class asked for, mean over classes",
    "worst_class_accuracy": "drawings of class {}, the worst, that show it",
    "copies": "drawings closer to a training image than real images are, even if turned, zoomed or slanted",
    "class_copies": "drawings of class {} that are such copies",
    "judge_accuracy": "held-out images that the judge classifies correctly, mean over classes",
    "fid_over_floor": "Fréchet distance above that of real images",
    "coverage_of_floor": "coverage, as a fraction of that of real images",
    "diversity": "diversity of class {}, the least diverse, as a fraction of that of real images",
}
MAX_CLASS_MIX = 0.05  # part of the images that would need another class
MAX_CLASS_LOSS = 0.05  # of a class's agreement


def decide(checks: Sequence[Check], praise: Sequence[str] = ()) -> tuple[str, list[str]]:
    """`passed` and what speaks for it, or `blocked` and all that speaks against it."""
    if failed := [check.in_words() for check in checks if not check.passed]:
        return "blocked", failed
    return "passed", [*praise, "every limit is met, even at the pessimistic end of its interval"]


def bars(
    limits: GateParams,
    judged: Judged,
    copies: Copies,
    judge: Accuracy,
    diversity: Sequence[Estimate | None],
    names: Sequence[str],
) -> list[Check]:
    """Each limit, at the pessimistic end of the interval.

    `judge`: how often the judge names a held-out label. `diversity`: of each class; `names` of the classes.
    """
    accuracy = judged.accuracy
    most_copies = copies.real + limits.max_copies_over_floor
    copied = _share(int(copies.closer.sum()), len(copies.closer))
    hits, asked = accuracy.confusion.diagonal(), accuracy.confusion.sum(dim=1)
    checks = [
        _bar("conditional_accuracy", accuracy, limits.min_conditional_accuracy),
        _of_worst(hits, asked, limits.min_worst_class_accuracy, names),
        _bar("copies", copied, most_copies),
        _copies_by_class(copies, most_copies, names),
        _bar("judge_accuracy", judge, limits.min_judge_accuracy),
        _bar("fid_over_floor", judged.fid_over_real, limits.max_fid_over_floor),
        _bar("coverage_of_floor", judged.coverage_of_real, limits.min_coverage_of_floor),
    ]
    if known := [(each.interval, n, each) for n, each in enumerate(diversity) if each]:
        _, label, least = min(known, key=lambda three: three[:2])
        limit = limits.min_worst_class_diversity
        checks.append(_bar("diversity", least, limit, names[label]))
    return checks


def _bar(name: str, measured: Accuracy | Estimate | Share, limit: float, whose: str = "") -> Check:
    at_most, (low, high) = name in AT_MOST, measured.interval
    if not at_most:
        low = max(low, 0.0)  # the bootstrap can go below what a share can be
    passed = high <= limit if at_most else low >= limit
    what = BARS[name].format(whose)
    return Check(name, what, measured.value, limit, passed, at_most, (low, high))


def _of_worst(right: Tensor, total: Tensor, limit: float, names: Sequence[str]) -> Check:
    """The accuracy of the class that has the smallest part right, of counts int64 [classes]: what chance
    explains among so many classes speaks against none (`falls_short`)."""
    name, short = "worst_class_accuracy", falls_short(right, total, limit)
    # There may be more classes than drawings.
    worst = int(((right / total).nan_to_num(nan=2.0) - 2 * short.double()).argmin())
    share = _share(int(right[worst]), int(total[worst]))
    what = BARS[name].format(names[worst])
    passed = not bool(short.any())
    if passed and share.interval[0] < limit:
        what += f" (chance explains as much of one of {len(names)} classes)"
    return Check(name, what, share.value, limit, passed, interval=share.interval)


def _copies_by_class(copies: Copies, limit: float, names: Sequence[str]) -> Check:
    """Few drawings of a class are compared, and classes differ: what counts is clearly above the limit."""
    total = copies.labels.bincount(minlength=len(names))
    copied = copies.labels[copies.closer].bincount(minlength=len(names))
    over = clearly_short(total - copied, total, 1 - limit)
    most = int(((copied / total).nan_to_num(nan=-1.0) + 2 * over.double()).argmax())
    share = _share(int(copied[most]), int(total[most]))
    many = f"{copied[most]} of {total[most]}; the limit is {percent(limit)}, and chance does not explain more"
    what, passed = BARS["class_copies"].format(names[most]), not bool(over.any())
    why = "" if passed else many
    return Check("class_copies", what, share.value, limit, passed, True, share.interval, why)


class Share(NamedTuple):
    value: float
    interval: Interval


def _share(count: int, total: int) -> Share:
    return Share(count / total, wilson_interval(count, total))


def shifted(
    name: str, what: str, shifts: Iterable[Shift], limit: float, names: Sequence[str]
) -> Check:
    """No class may be further off than `limit` standard deviations; `names` are those of the classes."""
    by_class = {shift.label: shift for shift in sorted(shifts, key=lambda shift: shift.deviations)}
    ranked = sorted(by_class.values(), key=lambda shift: -shift.deviations)
    far = [
        f"class {names[shift.label]} is {shift.words} ({shift.deviations:.1f} standard deviations)"
        for shift in ranked
        if shift.deviations > limit
    ]
    return _at_most(name, what, ranked[0].deviations, limit, f"{listed(far, 3)}; at most {limit:g}")


def unlike_real(found: Sequence[Excess], limit: float, names: Sequence[str]) -> Check:
    """Of no class may more than the share `limit` of the drawings lie outside what real images do, beyond
    what these and chance explain; `found`: those that exceed most first."""
    far = [
        f"{percent(each.share)} of the drawings of "
        f"{'all classes' if each.label is None else f'class {names[each.label]}'} look like no training "
        f"image of theirs, {SHOWN[each.kind]} (of real images {percent(each.real)})"
        for each in found
        if each.low > limit
    ]
    what = "drawings of a class that look like no real image of it, beyond what chance explains"
    value = max(0.0, found[0].low) if found else 0.0
    return _at_most(
        "outliers", what, value, limit, f"{listed(far, 3)}; at most {percent(limit)} more may"
    )


def compare(
    challenger: Judged, champion: Judged, against_champion: str
) -> tuple[list[Check], list[str]]:
    """The difference of each metric, judged with the same replicates; and in words what is clearly better.

    Nothing may be clearly worse, by more than COMPARED tolerates; `against_champion` "better" asks for
    one of GAINS. The intervals are at 95 % for all metrics together (Bonferroni).
    """
    checks, praise, gained = [], [], False
    for name, less in COMPARED.items():
        metric, ours, theirs = METRICS[name], challenger.metrics[name], champion.metrics[name]
        difference, lower = ours - theirs, metric.better == "lower"
        low, high = _between(difference, len(COMPARED))
        better, worse = (high < 0, low > less) if lower else (low > 0, high < -less)
        words = "better than" if better else "worse than" if worse else "not clearly different from"
        mine, its, change, least, most = (
            shown(name, value) for value in (ours.value, theirs.value, difference.value, low, high)
        )
        what = f"{metric.name} {mine}, {words} the champion's {its}"
        why = f"difference {change}; between {least} and {most} (95 % for all metrics)"
        check = Check(name, what, difference.value, None, not worse, lower, (low, high), why)
        checks.append(check)
        if better:
            praise.append(check.in_words())
            gained = gained or name in GAINS
    either = " or ".join(METRICS[name].name for name in GAINS)
    if against_champion == "better" and not gained:
        for row, check in enumerate(checks):
            if check.name in GAINS and check.passed:
                why = f"{check.why}; {either} has to be better by more than noise explains"
                checks[row] = replace(check, passed=False, why=why)
    return checks, praise


def _between(estimate: Estimate, many: int) -> Interval:
    """Its interval, at 95 % for so many together."""
    replicates = estimate.replicates
    reach = student(len(replicates) - 1, many=many) * float(replicates.std())
    return estimate.value - reach, estimate.value + reach


def as_diverse(
    challenger: Sequence[Estimate | None],
    champion: Sequence[Estimate | None],
    least: float,
    names: Sequence[str],
) -> list[Check]:
    """No class may clearly have less than the part `least` of the champion's diversity."""
    both = zip(names, challenger, champion, strict=False)
    classes = [(name, ours, its) for name, ours, its in both if ours and its]
    checks = []
    for name, ours, its in classes:
        part = ours / its
        low, high = _between(part, len(classes))
        what = f"diversity of class {name}, as a fraction of the champion's"
        check = Check(
            "diversity_of_champion", what, part.value, least, high >= least, False, (low, high)
        )
        checks.append(check)
    return sorted(checks, key=lambda check: (check.passed, check.value))[:1]


# -- Today's data beside the champion's ----------------------------------------------------------------


def agreement(
    confusion: Tensor,
    right: Tensor,
    total: Tensor,
    max_drop: float,
    names: list[str],
    whose: str = "the champion's",
) -> list[Check]:
    """How much less a champion's judge agrees with labels than with those of its own hold-out: in all, and
    in the class where it fell furthest, as a part of what it was.

    `confusion` int64 [classes, classes]: images by label and by what the judge sees. `right` of `total`,
    int64 [classes]: what it was.
    """
    counts = confusion.sum(dim=1)
    rows = [
        *zip(
            *(column.tolist() for column in (confusion.diagonal(), counts, right, total)),
            strict=True,
        )
    ]
    many = [row for row in rows if row[1] >= ENOUGH and row[3]]
    if not many:
        return []
    now, now_between = mean_share([row[:2] for row in many])
    then, then_between = mean_share([row[2:] for row in many])
    why = (
        f"{whose} judge agrees with {percent(now)} of the new labels, but agreed with "
        f"{percent(then)} of those of its own hold-out (means over the classes)"
    )
    losses, seen_as = [0.0], []
    for label, (agreed, images, did, held) in enumerate(rows):
        if images >= ENOUGH and did:
            losses.append(1 - wilson_interval(agreed, images)[1] / wilson_interval(did, held)[0])
            if losses[-1] > MAX_CLASS_LOSS:
                others = confusion[label].scatter(0, torch.tensor(label), 0)
                part = f"{percent(int(others.max()) / images, 0)} of the {images:,} images"
                seen_as.append(f"{names[int(others.argmax())]} in {part} labelled {names[label]}")
    what = f"labels that {whose} judge no longer agrees with, mean over classes"
    fallen = max(0.0, then_between[0] - now_between[1])
    of_one = f"labels of one class that {whose} judge no longer agrees with"
    sees = f"{whose} judge sees {', '.join(seen_as[:5])}"
    return [
        _at_most("label_agreement", what, fallen, max_drop, why),
        _at_most("class_agreement", of_one, max(losses), MAX_CLASS_LOSS, sees),
    ]


def mix(counts: Tensor, past: Tensor, together: float = 1.0) -> Check:
    """How many images would need another class, less what chance explains: of counts [classes]. `together`:
    how many images a group has, for as many fewer things were chosen (Kish, Survey Sampling, 1965, 5.4)."""
    shares, past_shares = counts / counts.sum(), past / past.sum()
    z = NormalDist().inv_cdf(1 - 0.05 / (2 * len(shares)))
    spread = (
        (counts + past) / (counts + past).sum() * (1 / counts.sum() + 1 / past.sum()) * together
    )
    value = float(((shares - past_shares).abs() - z * spread.sqrt()).clamp(min=0).sum() / 2)
    return _at_most("class_mix", "images that would need another class", value, MAX_CLASS_MIX)


def _at_most(name: str, what: str, value: float, limit: float, why: str = "") -> Check:
    """`why` stands where the limit is passed."""
    passed = value <= limit
    return Check(name, what, value, limit, passed, at_most=True, why="" if passed else why)
