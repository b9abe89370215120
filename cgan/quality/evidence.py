"""Do drawings make a classifier better? The same one, trained with and without them, with paired seeds.

Real images as they are, repeated until the classes have equal counts, and filled up with drawings instead;
each without and with augmentation. So drawings are compared with what costs nothing. The classifier is the
judge's network by the judge's recipe, and every training has equally many steps.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from cgan.data.dataset import Dataset
from cgan.errors import CganError
from cgan.model.hardware import Hardware
from cgan.model.networks import GeneratorNetwork
from cgan.model.sampling import draw
from cgan.params.sections import JudgeParams
from cgan.quality.intervals import STUDENT, Interval
from cgan.quality.judge import Judge, Progress, look, silent, train_judge

SETS = ("real", "repeated", "drawn")
ROUNDS = 20  # of drawing anew what the judge did not believe
ABOUT_EQUAL = 1.25  # the largest class by the smallest: there is nothing to fill up

Right = dict[tuple[str, bool], Tensor]
"""By set and augmentation: bool [seeds, N], was the held-out image named?"""


def default_per_class(counts: Tensor) -> int:
    """As many as the largest class has, or twice that where all have about as many."""
    most = int(counts.max())
    return most if most > ABOUT_EQUAL * int(counts.min()) else 2 * most


def missing(counts: Tensor, per_class: int) -> Tensor:
    """The labels int64 [M] of what the classes lack. Raises CganError where none lacks any."""
    labels = torch.arange(len(counts)).repeat_interleave((per_class - counts).clamp(min=0))
    if not len(labels):
        raise CganError(
            f"--per-class {per_class}: every class has as many, the smallest {int(counts.min()):,}. Ask for "
            "more."
        )
    return labels


def fill(
    network: GeneratorNetwork, judge: Judge, asked: Tensor, seed: int, believed: float = 0.0
) -> tuple[Tensor, Tensor]:
    """A drawing of each label `asked`, uint8 [M, C, H, W], and how sure the judge is of the label, [M].

    One of which it is less sure than `believed` is drawn again. Raises CganError where that does not help.
    """
    device = next(network.parameters()).device
    images, sure = draw(network, asked, seed, device), torch.zeros(len(asked))
    left = torch.arange(len(asked))
    for again in range(1, ROUNDS + 1):
        seen = look(judge, images[left]).logits.softmax(dim=1)
        sure[left] = seen[torch.arange(len(left)), asked[left]]
        left = (sure < believed).nonzero()[:, 0]
        if not len(left):
            return images, sure
        images[left] = draw(network, asked[left], seed + again, device)
    labels, counts = asked[left].unique(return_counts=True)
    worst = int(counts.argmax())
    raise CganError(
        f"--believed {believed}: of class {int(labels[worst])}, {int(counts[worst]):,} drawings did not get "
        f"there in {ROUNDS} tries. Lower it, or train a better generator."
    )


def repeated(labels: Tensor, asked: Tensor, seed: int) -> Tensor:
    """For each label `asked` the index of an image of that class; each image in turn, in random order."""
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    own = {int(label): order[labels[order] == label] for label in asked.unique()}
    turns = torch.zeros_like(asked)
    for label, rows in own.items():
        where = asked == label
        turns[where] = rows[torch.arange(int(where.sum())) % len(rows)]
    return turns


def measure(
    training: Dataset,
    drawn: Dataset,
    test: Dataset,
    params: JudgeParams,
    seeds: int,
    hardware: Hardware,
    progress: Progress = silent,
) -> Right:
    """Train 6 · `seeds` classifiers and ask each about the images of `test`."""
    copies = repeated(training.labels, drawn.labels, params.seed)
    more = {
        "real": (training.images[:0], training.labels[:0]),
        "repeated": (training.images[copies], training.labels[copies]),
        "drawn": (drawn.images, drawn.labels),
    }
    found: Right = {}
    for name, (images, labels) in more.items():
        data = Dataset(
            torch.cat([training.images, images]),
            torch.cat([training.labels, labels]),
            training.metadata,
        )
        for augment in (False, True):
            rows = []
            for n in range(seeds):
                recipe = params.model_copy(update={"seed": params.seed + n})
                what = f"{name}{', augmented' * augment}, seed {n + 1} of {seeds}"
                bar = partial(progress, what, images_a_step=min(params.batch_size, len(data)))
                pupil = train_judge(
                    data, recipe, hardware.device, hardware.precision, bar, augment=augment
                )
                rows.append(look(pupil, test.images).classes == test.labels)
            found[name, augment] = torch.stack(rows)
    return found


def mean_of_classes(right: Tensor, labels: Tensor) -> Tensor:
    """The mean accuracy of the classes, float64 [seeds]: each class counts alike."""
    by_class = [right[:, labels == n].double().mean(dim=1) for n in labels.unique()]
    return torch.stack(by_class).mean(dim=0)


@dataclass(frozen=True)
class Effect:
    """Drawings beside the better of the two sets without them: the mean accuracy of the classes."""

    augmented: bool
    base: str  # real or repeated
    without: float
    with_drawings: float
    interval: Interval  # 95 %, of the difference

    @property
    def verdict(self) -> str:
        low, high = self.interval
        if low > 0:
            return "help"
        return "harm" if high < 0 else "make no difference that this data can show"


def effect(right: Right, labels: Tensor, augmented: bool) -> Effect:
    """Of two seeds at least. The interval covers their luck (Student's t of paired differences) and that of
    the held-out images (the differences' spread within each class)."""
    means = {name: mean_of_classes(right[name, augmented], labels) for name in SETS}
    base = max(SETS[:2], key=lambda name: float(means[name].mean()))
    by_seed = (means["drawn"] - means[base]).tolist()
    by_image = (right["drawn", augmented].double() - right[base, augmented].double()).mean(dim=0)
    own = [by_image[labels == label] for label in labels.unique()]
    # Few images that all go one way are no proof: as if one more had gone the other.
    spread = [max(float(each.var(correction=0)), 1 / len(each)) / len(each) for each in own]
    reach = 1.96 * math.sqrt(sum(spread)) / len(own)
    t = STUDENT[min(len(by_seed) - 1, len(STUDENT)) - 1]
    reach = math.hypot(reach, t * statistics.stdev(by_seed) / math.sqrt(len(by_seed)))
    change = statistics.fmean(by_seed)
    without, with_drawings = (float(means[name].mean()) for name in (base, "drawn"))
    return Effect(augmented, base, without, with_drawings, (change - reach, change + reach))


def in_words(effects: Sequence[Effect]) -> str:
    """`Drawn images help: …`, of the classifier with augmentation first; that is what most people train."""

    def numbers(found: Effect) -> str:
        low, high = (100 * each for each in found.interval)
        base = {"real": "the real ones alone", "repeated": "real ones repeated"}[found.base]
        return (
            f"{100 * found.with_drawings:.2f} % right, against {100 * found.without:.2f} % with {base} "
            f"(95 % interval of the difference {low:+.2f} to {high:+.2f})"
        )

    main, plain = sorted(effects, key=lambda found: not found.augmented)
    return (
        f"Drawn images {main.verdict}: with augmentation {numbers(main)}. Without augmentation they "
        f"{plain.verdict}: {numbers(plain)}."
    )
