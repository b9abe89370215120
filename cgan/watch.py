"""Watching a training: light probes of quality, and the signs that it has gone wrong.

A probe draws 1,000 images and looks at them through the judge, as `evaluate` does with ten times as
many; it changes nothing about the training. Signs that end one: the discriminator wins for good, or a
class is drawn as one and the same picture.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from cgan.dataset import Dataset
from cgan.judge import Judge, look
from cgan.metrics import diversity, frechet_distance
from cgan.networks import Generator
from cgan.sampling import draw

DRAWINGS = 1000
PINNED = 0.995  # of both the reals and the fakes told apart, in every record
PINNED_RECORDS = 10
LEAST_DIVERSITY = 0.25  # of what real images of the class have
COLLAPSED_PROBES = 2
WARM_UP_STEPS = 500  # a young generator draws one blob a class, and its discriminator knows it


class Watch:
    """Probes of one training. `judge` and `data` are those of the training; nothing is held out."""

    def __init__(self, judge: Judge, data: Dataset, seed: int) -> None:
        count = min(2 * DRAWINGS, len(data))
        rows = torch.randperm(len(data), generator=torch.Generator().manual_seed(seed))[:count]
        labels = data.labels[rows]
        self.judge, self.classes, self.seed = judge, data.classes, seed
        self.real = look(judge, data.images[rows]).features
        self.real_diversity = diversity(self.real, labels, data.classes)
        self.asked = torch.arange(DRAWINGS) % data.classes
        self._collapsed = 0

    def probe(self, generator: Generator) -> dict[str, float]:
        """Quality of a generator in eval mode, against training images: for trends, not to quote."""
        device = next(generator.parameters()).device
        seen = look(self.judge, draw(generator, self.asked, self.seed, device))
        spread = diversity(seen.features, self.asked, self.classes)
        relative = [
            own / max(real, 1e-9) for own, real in zip(spread, self.real_diversity, strict=True)
        ]
        return {
            "probe/conditional_accuracy": (seen.classes == self.asked).double().mean().item(),
            "probe/fid_judge": frechet_distance(self.real, seen.features),
            "probe/diversity_mean": sum(relative) / len(relative),
            "probe/diversity_worst_class": min(relative),
            "probe/worst_class": float(relative.index(min(relative))),
        }

    def collapse(self, probe: dict[str, float], step: int) -> str | None:
        """What is wrong, in words, once probes in a row have seen it."""
        worst = probe["probe/diversity_worst_class"]
        self._collapsed = (
            self._collapsed + 1 if worst < LEAST_DIVERSITY and step > WARM_UP_STEPS else 0
        )
        if self._collapsed < COLLAPSED_PROBES:
            return None
        return (
            f"mode collapse: drawings of class {probe['probe/worst_class']:.0f} vary {worst:.2f} times "
            f"as much as real ones (at least {LEAST_DIVERSITY} is expected)"
        )


def discriminator_wins(accuracies: Sequence[tuple[float, float]], step: int) -> str | None:
    """What is wrong, in words, when the last records (reals right, fakes right) leave no doubt."""
    last = accuracies[-PINNED_RECORDS:]
    if (
        step <= WARM_UP_STEPS
        or len(last) < PINNED_RECORDS
        or min(min(pair) for pair in last) < PINNED
    ):
        return None
    return (
        f"the discriminator tells fakes from reals in more than {PINNED:.1%} of all cases for "
        f"{PINNED_RECORDS} records: the generator learns nothing more"
    )
