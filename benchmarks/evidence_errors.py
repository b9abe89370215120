"""How often is the verdict of `cgan evidence` wrong? Thousands of small worlds whose truth is known.

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
from functools import partial
from pathlib import Path
from statistics import fmean

import numpy as np
import torch
from numpy.typing import NDArray

import cgan
from cgan.base.report import CANNOT_TELL
from cgan.data.splitting import units_of
from cgan.models.hardware import choose_hardware, compute_deterministically
from cgan.params.sections import JudgeParams
from cgan.quality.judge import predict, silent
from cgan.utility.effect import (
    DRAWN,
    HARM,
    HELP,
    NO_DIFFERENCE,
    TOLERANCE,
    Difference,
    Outcome,
    effect,
)
from cgan.utility.rounds import BASELINES, rounds_by_fold
from cgan.utility.sets import assign_folds

from .evaluation_set import as_dataset, csv_file, preset

Values, Labels = NDArray[np.float64], NDArray[np.int64]
DIMENSIONS, FOLDS, LUCK = 12, 5, 0.05
PER_CLASS, PER_RARE_CLASS, RARE, OTHERS = 100, 20, (3, 8), 9_000  # digits
JUDGE_KIMG, GENERATOR_KIMG = 10.0, 60.0  # short, so that twenty repetitions take less than an hour
WORLDS = {
    "three of 150, two of 20": [150] * 3 + [20] * 2,
    "five of 60": [60] * 5,
    "600, 60, 30": [600, 60, 30],
    "the tiles": [952, 115, 103, 85, 57, 32],
}


class World:
    """Classes with so many images, and many others to know the truth by."""

    def __init__(self, counts: list[int], random: np.random.Generator) -> None:
        self.random, self.counts, self.classes = random, counts, range(len(counts))
        self.means = random.normal(size=(len(counts), DIMENSIONS)) * 0.6
        self.images, self.labels = self.around(self.means, counts)
        self.others, self.theirs = self.around(self.means, [1500] * len(counts))

    def around(self, means: Values, counts: Sequence[int]) -> tuple[Values, Labels]:
        labels = np.repeat(self.classes, counts)
        return means[labels] + self.random.normal(size=(len(labels), DIMENSIONS)), labels

    def shown(self, images: Values, labels: Labels) -> Values:
        """The means of the classes."""
        return np.stack([images[labels == n].mean(axis=0) for n in self.classes])

    def learnt(self, images: Values, labels: Labels) -> Values:
        known = self.shown(images, labels)
        return known + LUCK * self.random.normal(size=known.shape)

    def filled(self, images: Values, labels: Labels, better: float) -> tuple[Values, Labels]:
        """With drawings around what the images show, `better` of the way from there to the truth."""
        shown = self.shown(images, labels)
        middle = shown + better * (self.means - shown)
        drawn, theirs = self.around(middle, max(self.counts) - np.bincount(labels))
        return np.concatenate([images, drawn]), np.concatenate([labels, theirs])


def taken_for(known: Values, images: Values) -> Labels:
    return ((images[:, None] - known) ** 2).sum(axis=2).argmin(axis=1)


def once(counts: list[int], better: float, random: np.random.Generator) -> tuple[bool, str, float]:
    """Does the interval hold the truth? The verdict, and the true gain."""
    world = World(counts, random)

    def accuracy(known: Values) -> float:
        right = taken_for(known, world.others) == world.theirs
        return float(np.mean([right[world.theirs == n].mean() for n in world.classes]))

    names, seed = list(map(str, world.classes)), int(random.integers(2**31))
    fold_of = assign_folds(world.labels, np.arange(len(world.labels)), FOLDS, seed, names)
    rounds, gains = [], []
    for fold in range(FOLDS):
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
    return low <= np.mean(gains) <= high, found.verdict, float(np.mean(gains))


def is_wrong(verdict: str, gain: float) -> bool:
    """Does the verdict say what is not so, for this true gain?"""
    return {
        HELP: gain <= 0,
        HARM: gain >= 0,
        NO_DIFFERENCE: abs(gain) > TOLERANCE,
        CANNOT_TELL: False,
    }[verdict]


def outcome(rows: Labels, labels: Labels, right: dict[str, NDArray[np.bool_]]) -> Outcome:
    answers = {name: torch.tensor(each) for name, each in right.items()}
    return Outcome(torch.tensor(labels), torch.tensor(rows), answers)


def verdict_of(gain: float, per_class: int, random: np.random.Generator) -> str:
    """Of one experiment with this true gain: ten classes, all images tested once, 90 % right without
    drawings. Images differ in how easy they are, rounds by half a point."""
    labels = np.repeat(np.arange(10), per_class)
    fold_of = np.arange(len(labels)) % FOLDS
    ease, rounds = random.random(len(labels)), []
    for fold in range(FOLDS):
        rows = np.flatnonzero(fold_of == fold)
        # An image is as easy for both, but for a tenth of its ease.
        rates = {"repeated": 0.9, DRAWN: 0.9 + gain + 0.005 * random.normal()}
        right = {
            name: 0.9 * ease[rows] + 0.1 * random.random(len(rows)) < rate
            for name, rate in rates.items()
        }
        rounds.append(outcome(rows, labels[rows], right))
    return effect(rounds, ["repeated"], folded=True).overall.verdict


def smallest_gain(per_class: int, repetitions: int, random: np.random.Generator) -> float:
    """That is found in eight of ten."""
    low, high = 0.0, 0.1
    for _ in range(6):
        middle = (low + high) / 2
        verdicts = [verdict_of(middle, per_class, random) for _ in range(repetitions)]
        low, high = (low, middle) if verdicts.count(HELP) >= 0.8 * repetitions else (middle, high)
    return high


def of_digits(repetition: int, folder: Path) -> tuple[Difference, float, Difference]:
    """The difference that drawings make, the true one, and that between classifiers which learnt alike."""
    images = cgan.read(csv_file()[0])
    order = np.random.default_rng(repetition).permutation(len(images.labels))
    labels, rows = images.labels[order], list[int]()
    for label in range(10):
        count = PER_RARE_CLASS if label in RARE else PER_CLASS
        rows += np.flatnonzero(labels == label)[:count].tolist()
    chosen, others = order[rows], np.delete(order, rows)[:OTHERS]
    data = as_dataset(images.pixels[chosen], images.labels[chosen], 10)
    unseen = as_dataset(images.pixels[others], images.labels[others], 10)

    seed = 100 * repetition
    recipe = JudgeParams(seed=seed, total_kimg=JUDGE_KIMG)
    training = preset("fast", total_kimg=GENERATOR_KIMG, seed=seed)
    hardware = choose_hardware("auto", "auto")
    fold_of = assign_folds(data.labels, units_of(data), FOLDS, seed, data.class_names)
    rounds = rounds_by_fold(data, fold_of, training, recipe, None, seed, folder, hardware)
    outcomes = [each.outcome() for each in rounds]
    found = effect(outcomes, BASELINES, folded=True)
    truth, alike = list[float](), list[Outcome]()
    for each, here in zip(rounds, outcomes, strict=True):
        there = replace(each, test=unseen, units=torch.arange(len(unseen))).outcome()
        truth.append(there.mean_accuracy(DRAWN) - there.mean_accuracy(found.baseline))
        recipe = each.recipe.model_copy(update={"seed": each.recipe.seed + 50})
        again = replace(each, recipe=recipe, folder=each.folder / "again")
        second = predict(
            again.classifier("repeated", partial(silent, "again")), each.test.tensors.pixels
        )
        both = {"repeated": here.right["repeated"], DRAWN: second.labels == here.labels}
        alike.append(replace(here, right=both))
    return found.overall, fmean(truth), effect(alike, ["repeated"], folded=True).overall


def tell_of_digits(repetitions: int) -> None:
    """A table, a row as each repetition ends, and the sums."""
    compute_deterministically()
    tell("repetition", "without", "with drawings", "from", "to (95 %)", "truth", "verdict", "alike")
    tell(*["---:"] * 6, "---", "---")
    holds = equal = 0
    for repetition in range(1, repetitions + 1):
        with tempfile.TemporaryDirectory() as folder:
            found, truth, alike = of_digits(repetition, Path(folder))
        low, high = found.interval
        holds += low <= truth <= high
        equal += alike.verdict not in (HELP, HARM)
        shares = (found.without, found.with_drawings, low, high, truth)
        tell(repetition, *(f"{100 * n:.1f}" for n in shares), found.verdict, alike.verdict)
    print(f"\nThe interval holds the truth in {holds}; equals do not differ in {equal}.")


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
    print()
    tell("images a class", "smallest gain found in 8 of 10", "true gain", *verdicts)
    tell(*["---:"] * 7)
    for per_class in (20, 50, 100, 500, 5000):
        smallest = smallest_gain(per_class, repetitions // 3, np.random.default_rng(2))
        for gain in (0.0, -1.01 * TOLERANCE, 1.01 * TOLERANCE):
            random = np.random.default_rng(3)
            found = [verdict_of(gain, per_class, random) for _ in range(repetitions)]
            shares = [f"{100 * found.count(verdict) / repetitions:.0f} %" for verdict in verdicts]
            tell(per_class, f"{100 * smallest:.1f} points", f"{100 * gain:+.2f}", *shares)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=300)
    parser.add_argument("--digits", type=int, help="so many repetitions with real digits")
    asked = parser.parse_args()
    if asked.digits:
        tell_of_digits(asked.digits)
    else:
        tell_of_worlds(asked.repetitions)
