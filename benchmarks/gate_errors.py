"""How often is the gate wrong? Honest generators, spoilt drawings, and data that are not what they were.

By the default limits; of the embedded digits, and of pictures that you name, which are made narrower and put
in groups. Honest are trained generators, and unseen images in the drawings' place; of equal classes and of
unequal ones. The last of them that passes draws what is spoilt. Some fifteen minutes of a core for both:

    python -m benchmarks.gate_errors [PATH HEIGHT WIDTH CHANNELS]
"""

import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import cycle
from types import SimpleNamespace
from typing import NamedTuple, cast

import numpy as np
import torch
from scipy.ndimage import rotate
from scipy.stats import binomtest
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

import cgan
from cgan.data.images import Images
from cgan.models.generative import GenerativeModel
from cgan.models.hardware import choose_hardware
from cgan.params.sections import EvaluateParams, GateParams, JudgeParams
from cgan.pipeline.inputs import Inputs
from cgan.pipeline.registry.checks import DATA_GROUP, LIMITS_GROUP, check_group
from cgan.pipeline.registry.measurements import DataComparison, DrawingMeasurements, KeptData
from cgan.quality.class_shift import Moments
from cgan.quality.conditions import Conditions
from cgan.quality.judge import train_judge
from cgan.quality.outliers import OutlierModels

from .common import sample_digits

SAMPLES = 3000  # drawings; fewer where one takes long
TRAININGS, SPLITS = 2, 4  # of equal classes, and of unequal ones
# Images of each class, where they are of unequal size, as a part of what it has.
PARTS = (1, 0.67, 0.44, 0.33, 0.27, 0.22, 0.18, 0.16, 0.13, 0.11)
MIN_IMAGES = 30
SEED = 1001
Change = Callable[[Tensor], Tensor]  # of images uint8 [N, C, H, W] of one class


def _random() -> torch.Generator:
    return torch.Generator().manual_seed(1)


def noise(images: Tensor) -> Tensor:
    return torch.randint(256, images.shape, generator=_random(), dtype=torch.uint8)


def speckled(share: float, images: Tensor) -> Tensor:
    luck = torch.rand(images.shape, generator=_random())
    return images.where(luck > share, (luck > share / 2).byte() * 255)


def covered(rows: slice, columns: slice, value: int, images: Tensor) -> Tensor:
    images = images.clone()
    images[:, :, rows, columns] = value
    return images


def turned(images: Tensor) -> Tensor:
    return torch.from_numpy(rotate(images.numpy(), 30, (2, 3), reshape=False, order=1))


def zoomed(images: Tensor) -> Tensor:
    height, width = images.shape[2:]
    middle = images[:, :, height // 10 : -(height // 10), width // 10 : -(width // 10)]
    return F.interpolate(middle.float(), (height, width), mode="bilinear").byte()


def levels(count: int, images: Tensor) -> Tensor:
    return (images // (256 // count) * (255 // (count - 1))).byte()


def repeated(times: int, images: Tensor) -> Tensor:
    """Of so many images each one, and no more."""
    return images[torch.arange(len(images)) % max(1, len(images) // times)]


def half_the_modes(images: Tensor) -> Tensor:
    """The brighter half, twice."""
    order = images.float().mean(dim=(1, 2, 3)).argsort()
    return images[order[len(order) // 2 :].repeat(2)[: len(images)]]


# A change, and the parts of all images, and of class 4, that it is made of.
CHANGES: dict[str, tuple[Change, list[float], list[float]]] = {
    "noise": (noise, [0.05], [0.1]),
    "speckled, 1 %": (partial(speckled, 0.01), [1], []),
    "speckled, 3 %": (partial(speckled, 0.03), [0.2], [0.5]),
    "inverted": (lambda x: 255 - x, [0.1, 0.03], [0.1]),
    "mirrored": (lambda x: x.flip(3), [0.2, 0.1], [0.5]),
    "upside down": (lambda x: x.flip(2), [0.2], []),
    "turned by 30°": (turned, [0.2], [0.5]),
    "moved by 1": (lambda x: x.roll(1, 3), [1], []),
    "moved by 3": (lambda x: x.roll(3, 3), [0.2], [0.5]),
    "zoomed": (zoomed, [1], []),
    "blurred": (lambda x: F.avg_pool2d(x.float(), 3, 1, 1).byte(), [1, 0.2], []),
    "thicker": (lambda x: F.max_pool2d(x.float(), 3, 1, 1).byte(), [1, 0.2], [0.5]),
    "darker by a tenth": (lambda x: (x * 0.9).byte(), [1], [1]),
    "darker by a third": (lambda x: (x * 0.67).byte(), [0.2], [0.5]),
    "gamma 1.4": (lambda x: (255 * (x / 255) ** 1.4).byte(), [1], []),
    "a white square": (partial(covered, slice(2, 6), slice(2, 6), 255), [0.2], [0.2]),
    "a frame": (lambda x: F.pad(x[:, :, 1:-1, 1:-1], (1, 1, 1, 1), value=255), [0.1], [0.2]),
    "lower half black": (partial(covered, slice(14, None), slice(None), 0), [0.1], [0.2]),
    "two greys": (partial(levels, 2), [1, 0.1], [0.3]),
    "channels in another order": (lambda x: x.roll(1, 1), [0.2], [0.5]),
    "mean of two": (lambda x: ((x.float() + x.roll(1, 0)) / 2).byte(), [0.3], [0.5]),
    "half the modes": (half_the_modes, [], [1]),
    "each ten times": (partial(repeated, 10), [1], [1]),
    "one picture": (partial(repeated, 10**9), [0.2], [1]),
    # What these become is not made of the images themselves.
    "training images": (torch.clone, [1, 0.2], [0.5]),
    "another class": (torch.clone, [1, 0.1], [0.1, 0.05]),  # a nine for a four
    "any class": (torch.clone, [0.1, 0.05, 0.02], []),
}


class Kind(NamedTuple):
    """A part of the images of a class (None: of each) that were changed."""

    change: str
    part: float
    label: int | None

    def __str__(self) -> str:
        of = "all" if self.label is None else f"class {self.label}"
        return f"{self.change}, {self.part:.0%} of {of}"

    def of(self, pixels: Tensor, labels: Tensor, training: Images) -> Tensor:
        """Images uint8 [N, C, H, W], a part of which has become this kind."""
        result = pixels.clone()
        chosen = torch.rand(len(pixels), generator=_random()) < self.part
        for label in labels.unique().tolist() if self.label is None else [self.label]:
            rows = (chosen & (labels == label)).nonzero()[:, 0]
            pool = CHANGES[self.change][0](pixels[rows])
            if self.change == "training images":
                pool = training.tensors.pixels[training.tensors.labels == label]
            elif self.change == "another class":
                pool = pixels[labels == (label + 5) % training.classes]
            elif self.change == "any class":
                others = pixels[labels != label]
                pool = others[torch.randperm(len(others), generator=_random())]
            result[rows] = pool[torch.arange(len(rows)) % len(pool)]
        return result


KINDS = [
    Kind(change, part, label)
    for change, (_, of_all, of_one) in CHANGES.items()
    for label, parts in ((None, of_all), (4, of_one))
    for part in parts
]


class Court(NamedTuple):
    """A judge, real images, and what these are like, before which drawings and data come."""

    conditions: Conditions
    models: OutlierModels

    @classmethod
    def prepare(
        cls, train: Images, held_out: Images, model: GenerativeModel, samples: int
    ) -> "Court":
        judge = train_judge(train, JudgeParams(), choose_hardware("cpu", "auto"))
        params = EvaluateParams(gan_train_kimg=0.0, samples=samples)
        conditions = Conditions.prepare(judge, train, held_out, params, [model])
        return cls(conditions, OutlierModels.fit_images(judge, train, held_out))

    def blocks(self, drawn: Tensor) -> list[str]:
        """The rows that block these drawings."""
        drawings = DrawingMeasurements.measure(drawn, self.conditions, self.models)
        return failed(LIMITS_GROUP, drawings)

    def blocks_data(self, data: Images) -> list[str]:
        """The rows that block these images, none of which was there before."""
        train, judge = self.conditions.train, self.conditions.judge
        looks = Moments.of_images(*train.tensors[:2], train.classes)
        digests = torch.zeros(0, dtype=torch.int64)
        kept = KeptData("the champion's", looks, digests, judge, self.models)
        today = SimpleNamespace(train=data, held_out=data.at([]))
        return failed(DATA_GROUP, DataComparison.measure(kept, cast(Inputs, today)))


def failed(group: str, subject: object) -> list[str]:
    return [check.name for check in check_group(group, subject, GateParams()) if not check.passed]


def unequal(data: Images) -> Images:
    counts = [round(part * count) for part, count in zip(cycle(PARTS), data.counts, strict=False)]
    rows = [
        np.flatnonzero(data.labels == label)[: max(count, MIN_IMAGES)]
        for label, count in enumerate(counts)
    ]
    return data.at(np.sort(np.concatenate(rows)))


def honest(data: Images, models: Sequence[GenerativeModel]) -> Iterator[tuple[str, Court, Tensor]]:
    """Unseen images, trained generators, and `models`, each with its drawings; of equal classes the last."""
    bundled = cgan.Generator.load().model
    for seed in range(1, SPLITS + 1):
        real, unseen = data.split(0.55, seed=seed)
        per_class = int(unseen.counts.min())
        rows = [np.flatnonzero(unseen.labels == label) for label in range(data.classes)]
        in_turn = np.stack([of_class[:per_class] for of_class in rows], axis=1).flatten()
        for about, part in (("unequal", unequal(real)), ("equal", real)):
            court = Court.prepare(*part.split(0.35, seed=seed), bundled, per_class * data.classes)
            yield f"unseen images, {about} {seed}", court, unseen.at(in_turn).tensors.pixels
    for seed in range(1, TRAININGS + 1):
        for about, part in (("unequal", unequal(data)), ("equal", data)):
            train, held_out = part.split(0.1, seed=seed)
            trained = cgan.fit(train, seed=seed, probes=0, progress=False).generator.model
            court = Court.prepare(train, held_out, trained, SAMPLES)
            for model in (trained, *models):
                drawn = model.draw(court.conditions.drawn_labels, SEED)
                yield f"{model.description}, {about} {seed}", court, drawn


def report(data: Images, *models: GenerativeModel) -> None:
    """Which honest generators the gate stops, and what it says of each kind of drawings and data."""
    stopped = []
    for name, court, drawn in honest(data, models):
        rows = court.blocks(drawn)
        stopped.append(bool(rows))
        if not rows:
            base = court, drawn
        print(f"{name}: {', '.join(rows) or 'passes'}", flush=True)
    low, high = binomtest(sum(stopped), len(stopped)).proportion_ci(method="exact")
    print(f"{sum(stopped)} of {len(stopped)} are stopped ({low:.1%} to {high:.1%}).")
    court, drawn = base
    kept, today = data.split(0.5)
    keeper = Court.prepare(*kept.split(0.1), cgan.Generator.load().model, SAMPLES)
    for label, left in ((0, 1.0), (4, 0.0), (4, 0.1), (4, 0.5)):
        luck = np.random.default_rng(1).random(len(today))
        rows = keeper.blocks_data(today.at((today.labels != label) | (luck < left)))
        print(f"data, {left:.0%} of class {label}: {', '.join(rows) or 'pass'}")
    print("\n| kind | drawings | data |\n|---|---|---|")
    alone = Counter[str]()
    for kind in KINDS:
        images = kind.of(drawn, court.conditions.drawn_labels, court.conditions.train)
        if not torch.equal(images, drawn):
            new = replace(today, pixels=kind.of(*today.tensors[:2], kept).numpy())
            blocks = court.blocks(images), keeper.blocks_data(new)
            cells = [", ".join(rows) or "passes" for rows in blocks]
            print(f"| {kind} | {' | '.join(cells)} |", flush=True)
            alone.update(rows[0] for rows in blocks if len(rows) == 1)
    print(f"\nBlocked by one row alone: {dict(alone)}\n")


def main() -> None:
    report(sample_digits(), cgan.Generator.load().model)
    if len(sys.argv) > 1:
        path, *sizes = sys.argv[1:]
        height, width, channels = map(int, sizes)
        pictures = cgan.read(path, height=height, width=width, channels=channels)
        groups = np.random.default_rng(1).integers(len(pictures) // 3, size=len(pictures))
        report(replace(pictures, pixels=pictures.pixels[:, :, :, 3:-3].copy(), groups=groups))


if __name__ == "__main__":
    main()
