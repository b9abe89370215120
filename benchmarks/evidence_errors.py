"""Errors of the verdicts of `cgan evidence` in thousands of small worlds whose truth is known.

Classes are Gaussians, classifiers know their classes' means, and a training's luck moves these. So folds
share images as they do with networks, and thousands of repetitions take minutes:

    python -m benchmarks.evidence_errors [--repetitions 300]

The same with real digits and networks: 100 images of each class, 20 of two of them, chosen anew each time.
The truth is what the same classifiers get on other images. Two minutes for each repetition, on one core:

    python -m benchmarks.evidence_errors --digits 20
"""

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import numpy as np
import torch
from numpy.typing import NDArray

from cgan.base.report import CANNOT_TELL
from cgan.data.splitting import units_of
from cgan.models.hardware import choose_hardware, deterministic
from cgan.params.presets import preset_params
from cgan.params.sections import AutoTrainParams, JudgeParams
from cgan.training.auto import resolve
from cgan.utility.effect import DRAWN, Difference, Outcome, effect
from cgan.utility.evidence import HARM, HELP, NO_DIFFERENCE, TOLERANCE, verdict_on
from cgan.utility.rounds import BASELINES, assign_folds, rounds_by_fold

from .common import digits

Values = NDArray[np.float64]
Labels = NDArray[np.int64]
DIMENSIONS = 12
CROSS_FOLDS = 5
LUCK = 0.05
PER_CLASS = 100  # digits
PER_RARE_CLASS = 20
RARE = (3, 8)
OTHERS = 9_000
JUDGE_KIMG = 10.0  # short, so that twenty repetitions take less than an hour
GENERATOR_KIMG = 60.0
WORLDS = {
    "three of 150, two of 20": [150] * 3 + [20] * 2,
    "five of 60": [60] * 5,
    "600, 60, 30": [600, 60, 30],
    "the tiles": [952, 115, 103, 85, 57, 32],
}


class World:
    """Classes with so many images, and many others to know the truth by."""

    def __init__(self, counts: list[int], random: np.random.Generator) -> None:
        self.random = random
        self.counts = counts
        self.classes = range(len(counts))
        self.means = random.normal(size=(len(counts), DIMENSIONS)) * 0.6
        self.images, self.labels = self.around(self.means, counts)
        self.others, self.theirs = self.around(self.means, [1500] * len(counts))

    def around(self, means: Values, counts: Sequence[int] | Labels) -> tuple[Values, Labels]:
        labels = np.repeat(self.classes, counts)
        return means[labels] + self.random.normal(size=(len(labels), DIMENSIONS)), labels

    def shown(self, images: Values, labels: Labels) -> Values:
        """The means of the classes."""
        return np.stack([images[labels == n].mean(axis=0) for n in self.classes])

    def learnt(self, images: Values, labels: Labels) -> Values:
        known = self.shown(images, labels)
        return known + LUCK * self.random.normal(size=known.shape)

    def filled(self, images: Values, labels: Labels, better: float) -> tuple[Values, Labels]:
        """Images and drawings around what the images show, `better` of the way from there to the truth."""
        shown = self.shown(images, labels)
        middle = shown + better * (self.means - shown)
        drawn, theirs = self.around(middle, max(self.counts) - np.bincount(labels))
        return np.concatenate([images, drawn]), np.concatenate([labels, theirs])


def taken_for(known: Values, images: Values) -> Labels:
    nearest: Labels = ((images[:, None] - known) ** 2).sum(axis=2).argmin(axis=1)
    return nearest


def once(counts: list[int], better: float, random: np.random.Generator) -> tuple[bool, str, float]:
    """Does the interval hold the truth? The verdict, and the true gain."""
    world = World(counts, random)

    def accuracy(known: Values) -> float:
        right = taken_for(known, world.others) == world.theirs
        return float(np.mean([right[world.theirs == n].mean() for n in world.classes]))

    names, seed = list(map(str, world.classes)), int(random.integers(2**31))
    fold_of = assign_folds(world.labels, np.arange(len(world.labels)), CROSS_FOLDS, seed, names)
    rounds, gains = [], []
    for fold in range(CROSS_FOLDS):
        learn, test = fold_of != fold, np.flatnonzero(fold_of == fold)
        own = world.images[learn], world.labels[learn]
        known = {name: world.learnt(*own) for name in BASELINES}
        known[DRAWN] = world.learnt(*world.filled(*own, better))
        without = np.mean([accuracy(known[name]) for name in BASELINES])
        gains.append(accuracy(known[DRAWN]) - without)
        labels = world.labels[test]
        right = {n: taken_for(each, world.images[test]) == labels for n, each in known.items()}
        rounds.append(outcome(test, labels, right))
    found = effect(rounds, BASELINES, folded=True).overall
    low, high = found.interval
    return low <= np.mean(gains) <= high, verdict_on(found), float(np.mean(gains))


def is_wrong(verdict: str, gain: float) -> bool:
    """Does the verdict say what is not so, for this true gain?"""
    if verdict == NO_DIFFERENCE:
        return abs(gain) > TOLERANCE
    return (verdict == HELP and gain <= 0) or (verdict == HARM and gain >= 0)


def outcome(rows: Labels, labels: Labels, right: dict[str, NDArray[np.bool_]]) -> Outcome:
    answers = {name: torch.tensor(each) for name, each in right.items()}
    return Outcome(torch.tensor(labels), torch.tensor(rows), answers)


def of_digits(repetition: int, folder: Path) -> tuple[Difference, float]:
    """The difference that drawings make, and the true one."""
    images = digits()[0]
    order = np.random.default_rng(repetition).permutation(len(images))
    rows = list[int]()
    for label in range(images.classes):
        count = PER_RARE_CLASS if label in RARE else PER_CLASS
        rows += np.flatnonzero(images.labels[order] == label)[:count].tolist()
    data = images.at(order[rows])
    unseen = images.at(np.delete(order, rows)[:OTHERS])

    seed = 100 * repetition
    recipe = JudgeParams(seed=seed, total_kimg=JUDGE_KIMG)
    changes = {"total_kimg": GENERATOR_KIMG, "seed": seed}
    training = resolve(AutoTrainParams.model_validate(preset_params("fast") | changes))
    hardware = choose_hardware("auto", "auto")
    fold_of = assign_folds(data.labels, units_of(data), CROSS_FOLDS, seed, data.class_names)
    rounds = rounds_by_fold(data, fold_of, training, None, seed, recipe, folder, hardware)
    outcomes = [each.outcome() for each in rounds]
    found = effect(outcomes, BASELINES, folded=True)
    truth = list[float]()
    for each in rounds:
        there = replace(each, test=unseen, units=np.arange(len(unseen))).outcome()
        truth.append(there.mean_accuracy(DRAWN) - there.mean_accuracy(found.baseline))
    return found.overall, fmean(truth)


@deterministic()
def tell_of_digits(repetitions: int) -> None:
    """A table, a row as each repetition ends, and the sums."""
    tell("repetition", "without", "with drawings", "from", "to (95 %)", "truth", "verdict")
    tell(*["---:"] * 6, "---")
    holds = 0
    for repetition in range(1, repetitions + 1):
        with tempfile.TemporaryDirectory() as folder:
            found, truth = of_digits(repetition, Path(folder))
        low, high = found.interval
        holds += low <= truth <= high
        shares = (found.without, found.with_drawings, low, high, truth)
        tell(repetition, *(f"{100 * n:.1f}" for n in shares), verdict_on(found))
    print(f"\nThe interval holds the truth in {holds}.")


def tell(*cells: object) -> None:
    print(f"| {' | '.join(map(str, cells))} |", flush=True)


def tell_of_worlds(repetitions: int) -> None:
    verdicts = (HELP, NO_DIFFERENCE, HARM, CANNOT_TELL)
    tell("classes", "true gain", "holds the truth", *verdicts, "wrong")
    tell("---", *["---:"] * 7)
    for name, counts in WORLDS.items():
        for better in (0.0, 0.5, 0.9):
            random = np.random.default_rng(1)
            worlds = [once(counts, better, random) for _ in range(repetitions)]
            held, found, gains = map(np.array, zip(*worlds, strict=True))
            shares = [held.mean(), *((found == verdict).mean() for verdict in verdicts)]
            shares.append(np.mean([is_wrong(*pair) for pair in zip(found, gains, strict=True)]))
            tell(name, f"{100 * gains.mean():+.1f}", *(f"{100 * n:.0f} %" for n in shares))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=300)
    parser.add_argument("--digits", type=int, help="so many repetitions with real digits")
    asked = parser.parse_args()
    if asked.digits:
        tell_of_digits(asked.digits)
    else:
        tell_of_worlds(asked.repetitions)
