"""Watching a training: light probes of quality, and the signs that it has gone wrong.

A probe draws 1,000 images and looks at them through the judge, as `evaluate` does with ten times as
many; it changes nothing about the training. Signs that end one: the discriminator wins for good, a
class is drawn as one and the same picture, or the drawings show the class asked for by chance alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from cgan.data.dataset import Dataset
from cgan.model.networks import Generator
from cgan.model.sampling import draw
from cgan.quality.judge import Judge, look
from cgan.quality.metrics import diversity, frechet_distance

DRAWINGS = 1000
PINNED = 0.995  # of both the reals and the fakes told apart, in every record
PINNED_RECORDS = 10
LEAST_DIVERSITY = 0.25  # of what real images of the class have
CHANCE = 1.5  # times the share that chance has: no better in the second half, it learnt nothing
BAD_PROBES = 2  # in a row
WARM_UP_KIMG = 32.0  # a young generator draws one blob a class, and its discriminator knows it


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
        self._bad = 0

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

    def problem(self, probe: dict[str, float], kimg: float, total_kimg: float) -> str | None:
        """What is wrong after `kimg` of `total_kimg`, in words, once probes in a row have seen it."""
        wrong = None if kimg <= WARM_UP_KIMG else self._sign(probe, kimg / total_kimg)
        self._bad = self._bad + 1 if wrong else 0
        return wrong if self._bad >= BAD_PROBES else None

    def _sign(self, probe: dict[str, float], part: float) -> str | None:
        accuracy, worst = probe["probe/conditional_accuracy"], probe["probe/diversity_worst_class"]
        if accuracy < CHANCE / self.classes and part > 0.5:
            return (
                f"the drawings show the class asked for in {accuracy:.1%} of all cases, and chance alone "
                f"gives {1 / self.classes:.1%}"
            )
        if worst < LEAST_DIVERSITY:
            return (
                f"mode collapse: drawings of class {probe['probe/worst_class']:.0f} vary {worst:.2f} "
                f"times as much as real ones (at least {LEAST_DIVERSITY} is expected)"
            )
        return None


def discriminator_wins(accuracies: Sequence[tuple[float, float]], kimg: float) -> str | None:
    """What is wrong, in words, when the last records (reals right, fakes right) leave no doubt."""
    last = accuracies[-PINNED_RECORDS:]
    if (
        kimg <= WARM_UP_KIMG
        or len(last) < PINNED_RECORDS
        or min(min(pair) for pair in last) < PINNED
    ):
        return None
    return (
        f"the discriminator tells fakes from reals in more than {PINNED:.1%} of all cases for "
        f"{PINNED_RECORDS} records: the generator learns nothing more"
    )
