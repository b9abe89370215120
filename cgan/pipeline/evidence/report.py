"""What was found of drawings, in a sentence, in reasons and in tables."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from cgan.downstream.classifiers import METHOD_NAMES, Round
from cgan.downstream.effect import Difference, Effect, Outcome, pooled
from cgan.downstream.pretrained import PRETRAINED
from cgan.markdown import table
from cgan.pipeline.registry.client import now
from cgan.quality.metrics import mean_share
from cgan.splitting import MAX_NEAR_COPIES
from cgan.text import percent
from cgan.verdict import Report

FEW_TESTED = 20  # tested images of a class
MAX_CLASSES = 60  # classes
TIMES_GUESSING = 2  # times what guessing gets
WIDE_INTERVAL = 0.2  # width of an interval
PRETRAINED_MARGIN = 0.02  # by which the pretrained network is worth a word
ADVICE = {
    "help": "Use the drawings",
    "harm": "Don't use the drawings",
    "no difference": "The drawings make no difference that these images can show",
}


@dataclass(frozen=True)
class Bar:
    """A share with its interval, and the same in words."""

    name: str
    words: str
    low: float
    value: float
    high: float


@dataclass(frozen=True)
class Table:
    """Rows in the order of `head`, and what a page draws of them."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[Any]]
    bars: Sequence[Bar]


def report_on(
    effect: Effect,
    outcomes: Sequence[Outcome],
    rounds: Sequence[Round],
    folded: bool,
    tested_on: str,
    near: tuple[int, int] = (0, 0),
) -> tuple[Report, list[Table]]:
    """The report, and its tables as a page has them. `near`: how many of the tested images look much like one
    that was learnt from, and of how many that were looked at."""
    pooled_outcome, names = pooled(outcomes), rounds[0].test.class_names
    learnt = torch.stack([round_.training.tensors.counts for round_ in rounds])
    added = torch.stack([round_.missing_labels.bincount(minlength=len(names)) for round_ in rounds])
    tables = [
        _classes(effect, names, learnt.double().mean(dim=0), added.double().mean(dim=0)),
        _methods(pooled_outcome, 1 if folded else len(rounds), names),
    ]
    pretrained = (
        pooled_outcome.mean_accuracy(PRETRAINED) if PRETRAINED in pooled_outcome.right else None
    )
    report = Report(
        title="Do drawn images help a classifier?",
        verdict=effect.overall.verdict,
        summary=_sentence(effect),
        reasons=_doubts(effect, names, folded, tested_on, pretrained, near),
        time=now(),
        facts={
            "effect": {"compared_with": effect.baseline, **_as_json(effect.overall)},
            "classes": {names[label]: _as_json(change) for label, change in effect.classes.items()},
            "rounds": {"count": len(rounds), "folds": folded},
            "tested_on": tested_on,
            "images": {
                "training": int(learnt[0].sum()),
                "drawn": int(added[0].sum()),
                "tested": effect.overall.tested,
            },
        },
        sections={each.title: table(each.head, each.rows, len(each.head) - 1) for each in tables},
    )
    return report, tables


def _sentence(effect: Effect) -> str:
    """`Don't use the drawings: with them a classifier gets 80.7 % right, without them 95.0 % (real images,
    repeated to equal counts, augmented). …`"""
    overall = effect.overall
    gain, interval = overall.in_points()
    instead = ": do that instead" if overall.verdict == "harm" else ""
    return (
        f"{ADVICE[overall.verdict]}: with them a classifier gets {percent(overall.with_drawings)} right, "
        f"without them {percent(overall.without)} ({METHOD_NAMES[effect.baseline]}{instead}). The difference "
        f"is {gain} points (95 % interval {interval}), as a mean over the classes."
    )


def _doubts(
    effect: Effect,
    names: list[str],
    folded: bool,
    tested_on: str,
    pretrained: float | None,
    near: tuple[int, int] = (0, 0),
) -> list[str]:
    """What a reader should know beside the verdict. `pretrained`: how often the pretrained network is
    right."""
    doubts = []
    best = max(effect.overall.without, effect.overall.with_drawings)
    if pretrained is not None and pretrained > best + PRETRAINED_MARGIN:
        doubts.append(
            f"Better than any of these: logistic regression on a pretrained network's features gets "
            f"{percent(pretrained)} right, without drawings."
        )
    if effect.overall.without < TIMES_GUESSING / len(names):
        doubts.append(
            "Even without drawings the classifier hardly recognises these classes (guessing gets "
            f"{percent(1 / len(names))}), so nothing can be said about drawings either. It needs more "
            "images, or larger ones (`data.height`, `data.width`)."
        )
    alike, looked = near
    if alike > max(2, MAX_NEAR_COPIES * looked):
        doubts.append(
            f"Near copies: {alike:,} of {looked:,} tested images look much like one that was learnt from. If "
            "one thing was photographed several times, every accuracy here is too good: set "
            "`preprocess.group`, which keeps such images on one side."
        )
    fewest = min(effect.classes, key=lambda label: effect.classes[label].tested)
    if (count := effect.classes[fewest].tested) < FEW_TESTED:
        more = "" if folded else " `--folds 5` tests on all images; `--test FILE` on others."
        doubts.append(
            f"Class {names[fewest]} is tested on only {count} images, so little can be said about it.{more}"
        )
    covered = (
        "The interval covers the choice of images and the seeds of generator and classifier."
        if folded
        else "The interval covers the choice of the tested images and the classifier's seed, but not the "
        "generator's."
    )
    doubts.append(f"Tested on {tested_on}: {effect.overall.tested:,} images. {covered}")
    return doubts


def _classes(effect: Effect, names: list[str], learnt: torch.Tensor, added: torch.Tensor) -> Table:
    """Those that got most drawings first."""
    rows, bars = [], []
    for label in added.argsort(descending=True, stable=True).tolist()[:MAX_CLASSES]:
        real, drawings = (round(float(counts[label])) for counts in (learnt, added))
        tested: list[Any] = [0, *"––––"]
        if change := effect.classes.get(label):
            shares = percent(change.without), percent(change.with_drawings)
            gain, interval = change.in_points()
            tested = [change.tested, *shares, interval, "–"]
            if added[label]:
                tested[-1] = _verdict(change)
                low, high = change.interval
                words = f"{gain} points (95 %: {interval})"
                bars.append(Bar(f"{names[label]} ({real} images)", words, low, change.gain, high))
        rows.append([names[label], real, drawings, *tested])
    head = ["class", "real", "drawn", "tested", "without", "with drawings"]
    head += ["difference, points (95 %)", "drawings"]
    return Table("Class by class", head, rows, bars)


def _methods(pooled_outcome: Outcome, times: int, names: list[str]) -> Table:
    """Each class counted alike; the interval is by the tested images alone, of which each was tested so many
    times."""
    counts, rows, bars = (pooled_outcome.labels.bincount() // times).tolist(), [], []
    for name in (name for name in METHOD_NAMES if name in pooled_outcome.right):
        shares = pooled_outcome.accuracies(name)
        worst, mean = min(shares, key=lambda n: shares[n]), pooled_outcome.mean_accuracy(name)
        middle, ends = mean_share([(round(shares[n] * counts[n]), counts[n]) for n in shares])
        low, high = (min(1.0, max(0.0, mean + end - middle)) for end in ends)
        interval = f"{100 * low:.1f} to {percent(high)}"
        rows.append(
            [
                METHOD_NAMES[name],
                percent(mean),
                interval,
                f"{percent(shares[worst])}, {names[worst]}",
            ]
        )
        bars.append(Bar(METHOD_NAMES[name], percent(mean), low, mean, high))
    head = [
        "",
        "right, mean over the classes",
        "95 % interval over the tested images",
        "worst class",
    ]
    return Table("What a classifier learns from", head, rows, bars)


def _verdict(change: Difference) -> str:
    """The verdict on a class: an interval that is wide says nothing, not even that there is no difference."""
    low, high = change.interval
    vague = change.verdict == "no difference" and high - low > WIDE_INTERVAL
    return "cannot tell" if vague else change.verdict


def _as_json(change: Difference) -> dict[str, Any]:
    return {**asdict(change), "verdict": change.verdict}
