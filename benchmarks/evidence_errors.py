"""How often is the verdict of `cgan evidence` wrong? Thousands of small worlds whose truth is known.

Classes are Gaussians, classifiers know their classes' means, and a training's luck moves these. So folds
share images as they do with networks, and thousands of repetitions take minutes:

    python benchmarks/evidence_errors.py [--repetitions 300]
"""

from __future__ import annotations

import argparse
from collections import Counter

import numpy as np
import torch
from numpy.typing import NDArray

from cgan.evidence.classifiers import COST_NOTHING
from cgan.evidence.effect import DRAWN, Outcome, effect
from cgan.evidence.sets import folds

Values = NDArray[np.float64]
DIMENSIONS, FOLDS, LUCK = 12, 5, 0.05
WORLDS = {
    "three of 150, two of 20": [150] * 3 + [20] * 2,
    "five of 60": [60] * 5,
    "600, 60, 30": [600, 60, 30],
    "the tiles": [952, 115, 103, 85, 57, 32],
}


class World:
    """Classes with so many images, and many others to know the truth by."""

    def __init__(self, counts: list[int], random: np.random.Generator) -> None:
        self.random, self.counts = random, counts
        self.means = random.normal(size=(len(counts), DIMENSIONS)) * 0.6
        self.images, self.labels = self.images_of(counts)
        self.others, self.theirs = self.images_of([1500] * len(counts))

    def images_of(self, counts: list[int]) -> tuple[Values, NDArray[np.int64]]:
        labels = np.repeat(np.arange(len(counts)), counts)
        return self.random.normal(size=(len(labels), DIMENSIONS)) + self.means[labels], labels

    def learnt(self, images: Values, labels: NDArray[np.int64]) -> Values:
        known = np.stack([images[labels == n].mean(axis=0) for n in range(len(self.counts))])
        return known + LUCK * self.random.normal(size=known.shape)

    def filled(
        self, images: Values, labels: NDArray[np.int64], better: float
    ) -> tuple[Values, NDArray[np.int64]]:
        """With drawings around what the images show, `better` of the way from there to the truth."""
        lacking = np.repeat(np.arange(len(self.counts)), max(self.counts) - np.bincount(labels))
        shown = np.stack([images[labels == n].mean(axis=0) for n in range(len(self.counts))])
        middle = shown + better * (self.means - shown)
        drawn = middle[lacking] + self.random.normal(size=(len(lacking), DIMENSIONS))
        return np.concatenate([images, drawn]), np.concatenate([labels, lacking])


def taken_for(known: Values, images: Values) -> NDArray[np.int64]:
    return ((images[:, None] - known) ** 2).sum(axis=2).argmin(axis=1)


def accuracy(known: Values, images: Values, labels: NDArray[np.int64]) -> float:
    right = taken_for(known, images) == labels
    return float(np.mean([right[labels == n].mean() for n in np.unique(labels)]))


def once(counts: list[int], better: float, random: np.random.Generator) -> tuple[bool, str, float]:
    """Does the interval hold the truth? The verdict, and the true gain."""
    world = World(counts, random)
    names = [str(n) for n in range(len(counts))]
    seed = int(random.integers(2**31))
    fold_of = folds(world.labels, np.arange(len(world.labels)), FOLDS, seed, names)
    rounds, gains = [], []
    for fold in range(FOLDS):
        learn, test = fold_of != fold, np.flatnonzero(fold_of == fold)
        own = world.images[learn], world.labels[learn]
        known = {name: world.learnt(*own) for name in COST_NOTHING}
        known[DRAWN] = world.learnt(*world.filled(*own, better))
        true = {name: accuracy(each, world.others, world.theirs) for name, each in known.items()}
        gains.append(true[DRAWN] - np.mean([true[name] for name in COST_NOTHING]))
        labels = world.labels[test]
        right = {
            n: torch.tensor(taken_for(each, world.images[test]) == labels)
            for n, each in known.items()
        }
        rows = torch.tensor(test)
        rounds.append(Outcome(rows, torch.tensor(labels), rows, right))
    found = effect(rounds, COST_NOTHING, folded=True).overall
    low, high = found.interval
    return low <= np.mean(gains) <= high, found.verdict, float(np.mean(gains))


def smallest_gain(per_class: int, repetitions: int, random: np.random.Generator) -> float:
    """That is found in eight of ten: ten classes, all images tested once, 90 % right without drawings. Images
    differ in how easy they are, rounds by half a point."""
    labels = np.repeat(np.arange(10), per_class)
    fold_of = np.arange(len(labels)) % FOLDS

    def is_found(gain: float) -> bool:
        ease, rounds = random.random(len(labels)), []
        for fold in range(FOLDS):
            rows = np.flatnonzero(fold_of == fold)
            # An image is as easy for both, but for a tenth of its ease.
            rates = {"repeated": 0.9, DRAWN: 0.9 + gain + 0.005 * random.normal()}
            right = {
                name: torch.tensor(0.9 * ease[rows] + 0.1 * random.random(len(rows)) < rate)
                for name, rate in rates.items()
            }
            where = torch.tensor(rows)
            rounds.append(Outcome(where, torch.tensor(labels[rows]), where, right))
        return effect(rounds, ["repeated"], folded=True).overall.verdict == "help"

    low, high = 0.0, 0.1
    for _ in range(6):
        middle = (low + high) / 2
        found = np.mean([is_found(middle) for _ in range(repetitions)])
        low, high = (low, middle) if found >= 0.8 else (middle, high)
    return high


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=300)
    repetitions = parser.parse_args().repetitions
    print("| classes | true gain | holds the truth | help | no difference | harm |")
    print("|---|---:|---:|---:|---:|---:|")
    for name, counts in WORLDS.items():
        for better in (0.0, 0.5, 0.9):
            random = np.random.default_rng(1)
            found = [once(counts, better, random) for _ in range(repetitions)]
            verdicts = Counter(verdict for _, verdict, _ in found)
            shares = [np.mean([held for held, _, _ in found])] + [
                verdicts[each] / repetitions for each in ("help", "no difference", "harm")
            ]
            gain = 100 * np.mean([gain for _, _, gain in found])
            print(
                f"| {name} | {gain:+.1f} | "
                + " | ".join(f"{100 * each:.0f} %" for each in shares)
                + " |"
            )

    print("\n| images a class | smallest gain found in 8 of 10 |\n|---:|---:|")
    for per_class in (20, 50, 100, 500):
        gain = smallest_gain(per_class, repetitions // 3, np.random.default_rng(2))
        print(f"| {per_class} | {100 * gain:.1f} points |")


if __name__ == "__main__":
    main()
