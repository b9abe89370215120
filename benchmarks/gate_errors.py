"""How often is the gate wrong? Honest generators, and drawings that were spoilt on purpose.

By the limits of params.yaml, without a champion. Digits are the embedded sample; honest generators are
trained on it, or on classes of unequal size. The package's generator draws what is spoilt. Of other pictures,
which you name, unseen ones stand in for the drawings of a perfect generator. Half an hour on two cores:

    python -m benchmarks.gate_errors [--generators 12]
    python -m benchmarks.gate_errors --pictures PATH --size HEIGHT WIDTH [--channels 3]
"""

import argparse
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

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
from cgan.params.sections import TrainChoices
from cgan.pipeline.registry.checks import LIMITS_GROUP
from cgan.pipeline.registry.drawings import Drawings
from cgan.pipeline.registry.rows import check_group
from cgan.quality.conditions import Conditions
from cgan.quality.judge import train_judge
from cgan.quality.outliers import OutlierModels
from cgan.training.auto import choose
from cgan.training.loop import train

from .evaluation_set import DRAW_SEED, EvaluationSet, all_params

SAMPLES = 3000  # drawings of digits
UNEQUAL = (450, 300, 200, 150, 120, 100, 80, 70, 60, 50)  # training images of each class
Change = Callable[[Tensor], Tensor]  # of images uint8 [N, C, H, W] of one class


def noise(images: Tensor) -> Tensor:
    return torch.randint(256, images.shape, generator=_random(), dtype=torch.uint8)


def speckled(share: float) -> Change:
    def change(images: Tensor) -> Tensor:
        luck = torch.rand(images.shape, generator=_random())
        return images.where(luck > share, (luck > share / 2).byte() * 255)

    return change


def with_square(images: Tensor) -> Tensor:
    images = images.clone()
    images[:, :, 2:6, 2:6] = 255
    return images


def framed(images: Tensor) -> Tensor:
    return F.pad(images[:, :, 1:-1, 1:-1], (1, 1, 1, 1), value=255)


def turned(images: Tensor) -> Tensor:
    return torch.from_numpy(rotate(images.numpy(), 30, (2, 3), reshape=False, order=1))


def zoomed(images: Tensor) -> Tensor:
    height, width = images.shape[2:]
    middle = images[:, :, height // 10 : -(height // 10), width // 10 : -(width // 10)]
    return F.interpolate(middle.float(), (height, width), mode="bilinear").byte()


def levels(count: int) -> Change:
    return lambda images: (images // (256 // count) * (255 // (count - 1))).byte()


def occluded(images: Tensor) -> Tensor:
    images = images.clone()
    images[:, :, images.shape[2] // 2 :] = 0
    return images


def blurred(images: Tensor) -> Tensor:
    return F.avg_pool2d(images.float(), 3, 1, 1).byte()


def thicker(images: Tensor) -> Tensor:
    return F.max_pool2d(images.float(), 3, 1, 1).byte()


def mean_of_two(images: Tensor) -> Tensor:
    return ((images.float() + images.roll(1, 0)) / 2).byte()


def repeated(times: int) -> Change:
    """Of so many images each one, and no more."""
    return lambda images: images[torch.arange(len(images)) % max(1, len(images) // times)]


def half_the_modes(images: Tensor) -> Tensor:
    """The brighter half, twice."""
    order = images.float().mean(dim=(1, 2, 3)).argsort()
    return images[order[len(order) // 2 :].repeat(2)[: len(images)]]


CHANGES: dict[str, Change] = {
    "noise": noise,
    "speckled, 1 %": speckled(0.01),
    "speckled, 3 %": speckled(0.03),
    "inverted": lambda images: 255 - images,
    "mirrored": lambda images: images.flip(3),
    "upside down": lambda images: images.flip(2),
    "turned by 30°": turned,
    "moved by 1": lambda images: images.roll(1, 3),
    "moved by 3": lambda images: images.roll(3, 3),
    "zoomed": zoomed,
    "blurred": blurred,
    "thicker": thicker,
    "darker by a tenth": lambda images: (images * 0.9).byte(),
    "darker by a third": lambda images: (images * 0.67).byte(),
    "a white square": with_square,
    "a frame": framed,
    "lower half black": occluded,
    "two greys": levels(2),
    "four greys": levels(4),
    "channels in another order": lambda images: images.roll(1, 1),
    "mean of two": mean_of_two,
    "half the modes": half_the_modes,
    "each ten times": repeated(10),
    "one picture": repeated(10**9),
}
COPIES, OTHER = "training images", "another class"  # for which a change needs more than the images


class Kind(NamedTuple):
    """A part of the images of a class (None: of each) that were changed."""

    change: str
    part: float
    label: int | None = None

    def __str__(self) -> str:
        of = "all" if self.label is None else f"class {self.label}"
        return f"{self.change}, {self.part:.0%} of {of}"


EVERYWHERE = (
    *(("speckled, 1 %", 1), ("moved by 1", 1), ("zoomed", 1), ("blurred", 1), ("thicker", 1)),
    *(("darker by a tenth", 1), ("two greys", 1), ("each ten times", 1), (COPIES, 1), (OTHER, 1)),
    *(("noise", 0.05), ("inverted", 0.1), ("mirrored", 0.2), ("upside down", 0.2)),
    *(("turned by 30°", 0.2), ("moved by 3", 0.2), ("speckled, 3 %", 0.2), ("thicker", 0.2)),
    *(("blurred", 0.2), ("darker by a third", 0.2), ("a white square", 0.2), ("a frame", 0.1)),
    *(("lower half black", 0.1), ("two greys", 0.1), ("mean of two", 0.3), (COPIES, 0.2)),
    *((OTHER, 0.1), ("one picture", 0.2)),
)
IN_ONE_CLASS = (
    *(("noise", 0.1), ("inverted", 0.1), ("mirrored", 0.5), ("turned by 30°", 0.5)),
    *(("moved by 3", 0.5), ("darker by a tenth", 1), ("darker by a third", 0.5)),
    *(("speckled, 3 %", 0.5), ("a white square", 0.2), ("a frame", 0.2), ("two greys", 0.3)),
    *(("mean of two", 0.5), ("half the modes", 1), ("each ten times", 1), ("one picture", 1)),
    *((COPIES, 0.5), (OTHER, 0.1), ("thicker", 0.5), ("lower half black", 0.2)),
)
KINDS = [Kind(*kind) for kind in EVERYWHERE] + [Kind(*kind, 4) for kind in IN_ONE_CLASS]
IN_COLOUR = [Kind("channels in another order", 0.2), Kind("channels in another order", 0.5, 4)]


def _random() -> torch.Generator:
    return torch.Generator().manual_seed(1)


def spoilt(kind: Kind, drawn: Tensor, labels: Tensor, training: Images) -> Tensor:
    """Drawings uint8 [N, C, H, W], a part of which has become this kind."""
    result, chosen = drawn.clone(), torch.rand(len(drawn), generator=_random()) < kind.part
    for label in labels.unique().tolist():
        rows = (chosen & (labels == label)).nonzero()[:, 0]
        if not len(rows) or kind.label not in (None, label):
            continue
        if kind.change == COPIES:
            pool = training.tensors.pixels[training.tensors.labels == label]
        elif kind.change == OTHER:
            pool = drawn[labels == (label + 5) % training.classes]  # a nine for a four
        else:
            pool = CHANGES[kind.change](drawn[rows])
        result[rows] = pool[torch.arange(len(rows)) % len(pool)]
    return result


@dataclass(frozen=True)
class Court:
    """Before which drawings come: a judge, real images, and what these are like."""

    conditions: Conditions
    models: OutlierModels

    @classmethod
    def of(
        cls,
        train_part: Images,
        held_out: Images,
        models: Sequence[GenerativeModel],
        samples: int = SAMPLES,
    ) -> "Court":
        params = all_params()
        judge = train_judge(train_part, params.train_judge, choose_hardware("cpu", "auto"))
        asked = params.evaluate.model_copy(update={"gan_train_kimg": 0.0, "samples": samples})
        conditions = Conditions.of(judge, train_part, held_out, asked, models)
        return cls(conditions, OutlierModels.fit_images(judge, train_part, held_out))

    def failed(self, drawn: Tensor) -> list[str]:
        """The rows that block these drawings."""
        drawings = Drawings.measure(drawn, self.conditions, self.models)
        checks = check_group(LIMITS_GROUP, drawings, all_params().gate)
        return [check.name for check in checks if not check.passed]

    def table(self, drawn: Tensor, kinds: Sequence[Kind]) -> None:
        """What blocks each kind of these drawings, and what each row blocks alone."""
        alone, missed, conditions = Counter[str](), 0, self.conditions
        for kind in kinds:
            images = spoilt(kind, drawn, conditions.drawn_labels, conditions.train)
            failed = self.failed(images)
            print(f"| {kind} | {', '.join(failed) or 'passes'} |", flush=True)
            missed += not failed
            alone.update(failed if len(failed) == 1 else ())
        print(f"\n{missed} of {len(kinds)} kinds pass. Blocked by one row alone: {dict(alone)}\n")


def told_of_honest(found: Sequence[Sequence[str]]) -> None:
    stopped = sum(map(bool, found))
    low, high = binomtest(stopped, len(found)).proportion_ci(method="exact")
    print(f"{stopped} of {len(found)} are stopped ({low:.1%} to {high:.1%}, Clopper-Pearson).\n")


def trained(data: Images, seed: int) -> GenerativeModel:
    values = all_params().train.model_dump() | {"seed": seed}
    return train(data, choose(TrainChoices.model_validate(values), data).params).generator


def of_digits(generators: int) -> None:
    """Trainings in turn on all images, and on UNEQUAL ones; then all kinds."""
    common, found = EvaluationSet.prepare(sample=True), list[list[str]]()
    whole, labels = common.training, common.training.labels
    rows = [np.flatnonzero(labels == label)[:count] for label, count in enumerate(UNEQUAL)]
    sets = (whole, whole.at(np.sort(np.concatenate(rows))))
    bundled = cgan.Generator.load().model
    courts = [Court.of(data, common.heldout, [bundled]) for data in sets]
    for number in range(generators):
        court = courts[number % 2]
        model = trained(sets[number % 2], seed=number // 2 + 1)
        found.append(court.failed(model.draw(court.conditions.drawn_labels, DRAW_SEED)))
        print(f"generator {number + 1}: {', '.join(found[-1]) or 'passes'}", flush=True)
    if found:
        told_of_honest(found)
    court = courts[0]
    court.table(bundled.draw(court.conditions.drawn_labels, DRAW_SEED), KINDS)


def of_pictures(data: Images, splits: int = 8) -> None:
    """Of at least 200 images a class, made narrower and put in groups. In each split more than half stand in
    for a perfect generator's drawings; in the last one these are spoilt."""
    groups = np.random.default_rng(1).integers(len(data) // 3, size=len(data))
    data, found = (
        replace(data, pixels=data.pixels[:, :, :, 3:-3].copy(), groups=groups),
        list[list[str]](),
    )
    for seed in range(1, splits + 1):
        real, unseen = data.split(0.55, seed=seed)
        court = Court.of(*real.split(0.35, seed=seed), [cgan.Generator.load().model], samples=100)
        pixels, labels, _ = unseen.tensors
        rows = [(labels == label).nonzero()[:, 0] for label in range(data.classes)]
        asked = enumerate(court.conditions.drawn_labels.tolist())
        drawn = pixels[torch.stack([rows[label][n // data.classes] for n, label in asked])]
        found.append(court.failed(drawn))
        print(f"split {seed}: {', '.join(found[-1]) or 'passes'}", flush=True)
    told_of_honest(found)
    court.table(drawn, [*KINDS, *IN_COLOUR] if data.shape[0] == 3 else KINDS)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--generators", type=int, default=12)
    parser.add_argument("--pictures", type=Path)
    parser.add_argument("--size", type=int, nargs=2, default=(28, 28))
    parser.add_argument("--channels", type=int, default=1)
    given = parser.parse_args()
    if given.pictures:
        height, width = given.size
        of_pictures(cgan.read(given.pictures, height=height, width=width, channels=given.channels))
    else:
        of_digits(given.generators)


if __name__ == "__main__":
    main()
