"""A generator judged: one evaluation, for the stage `evaluate` and for `cgan gate`.

The gate judges the first of the stage's sets of drawings (equal latents, classes and counts), with the
same judge and hold-out. The stage measures every metric; the gate takes the four that it decides by,
with replicates (`quality.comparison`).
"""

from __future__ import annotations

import functools
import statistics
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cgan.data.dataset import Dataset, image_digests, load_dataset
from cgan.errors import DataError, ModelError
from cgan.metric import METRICS, Report
from cgan.model.file_facts import Facts
from cgan.model.hardware import choose_hardware
from cgan.model.model_file import load_generator
from cgan.model.networks import Generator
from cgan.model.sampling import draw
from cgan.params.sections import EvaluateParams, JudgeParams
from cgan.project import GENERATOR, HOLDOUT_DATA, JUDGE, TRAIN_DATA
from cgan.quality.comparison import Ground
from cgan.quality.intervals import replicated, share
from cgan.quality.judge import (
    LOOK_AT,
    Judge,
    Progress,
    accuracy,
    load_judge,
    look,
    silent,
    train_judge,
)
from cgan.quality.likeness import MAX_SHIFT, Copies, copies, different
from cgan.quality.metrics import (
    NEIGHBOURS,
    Accuracy,
    conditional_accuracy,
    diversity,
    frechet_distance,
    kernel_distance,
    manifold,
)

COPIES_SAMPLE = 2000
LEAST_PER_CLASS = 100  # drawings: of less than 35, all right would not show that 90 % are


@dataclass(frozen=True)
class Inputs:
    """What the stages left in the project: generator, judge and both parts of the data, of one origin."""

    network: Generator
    facts: Facts
    judge: Judge
    judge_facts: Facts
    training: Dataset
    heldout: Dataset

    @classmethod
    def load(cls) -> Inputs:
        """Raises DataError or ModelError for a file that is absent, damaged or of another training."""
        network, facts = load_generator(GENERATOR)
        judge, judge_facts = load_judge(JUDGE)
        training, heldout = load_dataset(TRAIN_DATA), load_dataset(HOLDOUT_DATA)
        found = cls(network, facts, judge, judge_facts, training, heldout)
        require_one_origin(found)
        return found

    @property
    def judge_digest(self) -> str:
        return str(self.judge_facts["digest"])


def ground_of(inputs: Inputs, params: EvaluateParams, progress: Progress = silent) -> Ground:
    """The conditions under which the gate compares generators; those of the stage evaluate."""
    asked = classes_asked(inputs.training.classes, params)
    order, _ = shuffled(inputs.training, inputs.heldout, params.seed)
    real = inputs.training.images[order[: min(len(asked), len(order))]]
    bar = functools.partial(progress, "judging real images", images_a_step=LOOK_AT)
    floor = look(inputs.judge, real, progress=bar).features
    seen = look(inputs.judge, inputs.heldout.images)
    return Ground(inputs.judge, seen, inputs.heldout.labels, floor, asked, params.seed, progress)


def passport(inputs: Inputs, params: EvaluateParams) -> dict[str, Any]:
    """What every number depends on, whoever measured it. Two generators' numbers can be compared if
    all of this but `generator_digest` is equal."""
    return {
        "extractor": "judge, 128 features after ReLU",
        "extractor_digest": inputs.judge_digest,
        "reference": "held-out part of the CSV",
        "reference_digest": inputs.heldout.metadata["digest"],
        "reference_images": len(inputs.heldout),
        "drawn_images": (drawn := len(classes_asked(inputs.training.classes, params))),
        "distance_images": min(drawn, len(inputs.training)),
        "copies_moved_by": MAX_SHIFT,
        "seed": params.seed,
        "generator_digest": inputs.facts["digest"],
        "torch": torch.__version__,
    }


def classes_asked(classes: int, params: EvaluateParams) -> Tensor:
    """The class of each drawing, int64 [N]: in turn; more than `samples` where there are many classes."""
    return torch.arange(max(params.samples, LEAST_PER_CLASS * classes)) % classes


def judge_generator(inputs: Inputs, params: EvaluateParams, progress: Progress = silent) -> Report:
    """The report on the trained generator, its measurement context included."""
    device = choose_hardware("auto", "float32").device
    inputs.network.to(device)
    inputs.judge.to(device)
    asked = classes_asked(inputs.training.classes, params)
    draws = [
        draw(inputs.network, asked, params.seed + n, device)
        for n in progress("drawing", range(params.draws), len(asked))
    ]
    report = Measured(inputs, params, draws, progress).report()
    if "class_names" in inputs.training.metadata:
        report["class_names"] = inputs.training.class_names
    own = {"draws": params.draws, "neighbours": NEIGHBOURS}
    return {**report, "passport": passport(inputs, params) | own}


def require_one_origin(inputs: Inputs) -> None:
    """Were generator, judge and hold-out made from this training part, and from one split?

    If not, every number is of something else, and none of them shows it.
    """
    training, heldout, judge = inputs.training, inputs.heldout, inputs.judge
    digest = training.metadata["digest"]
    again = "Run `dvc repro`, or restore all with `dvc checkout`."
    for path, facts in ((GENERATOR, inputs.facts), (JUDGE, inputs.judge_facts)):
        if facts.get("data_digest") != digest:
            raise ModelError(
                f"{path}: learnt from other data than {TRAIN_DATA} holds: expected the digest "
                f"{digest[:12]}, found {str(facts.get('data_digest', 'none'))[:12]}. {again}"
            )
    origins = [str(part.metadata.get("csv_sha256"))[:12] for part in (training, heldout)]
    if origins[0] != origins[1]:
        raise DataError(
            f"{HOLDOUT_DATA}: made from another CSV than {TRAIN_DATA}: expected sha256 {origins[0]}, "
            f"found {origins[1]}. {again}"
        )
    ours, made = _kind_of(training), inputs.network.architecture
    for path, kind in (
        (HOLDOUT_DATA, _kind_of(heldout)),
        (GENERATOR, (made.classes, made.channels, made.height, made.width)),
        (JUDGE, (judge.facts["classes"], judge.facts["channels"], *ours[2:])),
    ):
        if kind != ours:
            raise DataError(
                f"{path}: made for another kind of image than {TRAIN_DATA} holds: expected (classes, "
                f"channels, height, width) {ours}, found {kind}. {again}"
            )
    held, trained = (image_digests(part.images.numpy()) for part in (heldout, training))
    if known := int(np.isin(held, trained).sum()):
        raise DataError(
            f"{HOLDOUT_DATA}: {known:,} of its {len(heldout):,} images are in {TRAIN_DATA} too, expected "
            "none: the two are of different splits (`preprocess.seed`, `preprocess.holdout_fraction`). "
            "Make both again: `dvc repro --force preprocess`, then `dvc repro`."
        )


def _kind_of(data: Dataset) -> tuple[int, ...]:
    return (data.classes, *data.images.shape[1:])


def shuffled(training: Dataset, heldout: Dataset, seed: int) -> tuple[Tensor, Tensor]:
    """Indices of both parts in random order. A CSV can be sorted by class: a part of it is picked from
    all of it."""
    random = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(training), generator=random)
    return order, torch.randperm(len(heldout), generator=random)


def near_copies(
    drawn: Tensor, asked: Tensor, training: Dataset, heldout: Dataset, seed: int
) -> Copies:
    """How near the first drawings come to training images, beside as many held-out ones."""
    rows = shuffled(training, heldout, seed)[1][:COPIES_SAMPLE]
    some = Dataset(heldout.images[rows], heldout.labels[rows], heldout.metadata)
    return copies(drawn[:COPIES_SAMPLE], asked[:COPIES_SAMPLE], some, training)


Entry = dict[str, Any]


class Measured:
    """Drawings (uint8 [N, C, H, W] each, of `classes_asked`) through the judge, beside real images.

    A method named by a metric's key returns the metric's entry in the report: `value`, and where there are
    such, `floor` (what real images get), `interval_95` and details.

    Distances compare as many drawings as the floor has training images; precision, recall, density
    and coverage take equal counts on both sides.
    """

    def __init__(
        self,
        inputs: Inputs,
        params: EvaluateParams,
        draws: list[Tensor],
        progress: Progress = silent,
    ) -> None:
        training, heldout, judge = inputs.training, inputs.heldout, inputs.judge
        self.inputs, self.params, self.draws, self.progress = inputs, params, draws, progress
        self.asked = classes_asked(training.classes, params)
        count = min(len(self.asked), len(training))
        self.equal = min(len(heldout), count)
        if self.equal <= NEIGHBOURS:
            raise DataError(
                f"the hold-out has {len(heldout)} images and the training part {len(training)}; precision "
                f"and recall need more than {NEIGHBOURS}. Raise `preprocess.holdout_fraction`, or add images."
            )
        order, self.mixed = shuffled(training, heldout, params.seed)
        self.real = look(judge, heldout.images)
        self.floor = look(judge, training.images[order[:count]]).features
        self.seen = [
            look(judge, draws[n]) for n in progress("judging", range(len(draws)), len(self.asked))
        ]
        self.drawn = self.seen[0].features[:count]

    def report(self) -> Report:
        found = {key: getattr(self, key)() for key in METRICS}
        classes, heldout = self.inputs.training.classes, self.inputs.heldout
        return {key: entry for key, entry in found.items() if entry} | {
            "diversity": {
                "by_class": diversity(self.seen[0].features, self.asked, classes),
                "floor_by_class": diversity(self.real.features, heldout.labels, classes),
            },
            "different": dict(zip(("by_class", "floor_by_class"), self._different, strict=True)),
            "confusion": self._judged.confusion.tolist(),
        }

    def conditional_accuracy(self) -> Entry:
        judged = self._judged
        return {
            "value": judged.overall,
            "interval_95": list(judged.interval),
            "floor": self._real_accuracy,
            "by_class": judged.by_class,
        }

    def worst_class_accuracy(self) -> Entry:
        """Without an interval: it is the smallest of many, and that of a single class would lie too low."""
        return {"value": min(each for each in self._judged.by_class if each is not None)}

    def fid_judge(self) -> Entry:
        real, heldout = self.real, self.inputs.heldout
        ground = Ground(
            self.inputs.judge, real, heldout.labels, self.floor, self.asked, self.params.seed
        )
        replicates = ground.distance(self.drawn, "drawn").replicates
        differences = [round(each, 5) for each in (replicates - replicates.mean()).tolist()]
        found = [frechet_distance(real.features, s.features[: len(self.drawn)]) for s in self.seen]
        value = statistics.fmean(found)
        return {
            "value": value,
            "interval_95": list(replicated(value, differences).interval),
            "deviation": statistics.stdev(found) if len(found) > 1 else 0.0,
            "replicates": differences,
            "floor": frechet_distance(real.features, self.floor),
            "by_class": self._by_class(frechet_distance),
        }

    def kid_judge(self) -> Entry:
        distance = functools.partial(kernel_distance, seed=self.params.seed)
        value, deviation = distance(self.real.features, self.drawn)
        return {
            "value": value,
            "deviation": deviation,
            "floor": distance(self.real.features, self.floor)[0],
            "by_class": self._by_class(lambda real, drawn: distance(real, drawn)[0]),
        }

    def precision(self) -> Entry:
        return self._manifold("precision")

    def recall(self) -> Entry:
        return self._manifold("recall")

    def coverage(self) -> Entry:
        return self._manifold("coverage")

    def density(self) -> Entry:
        value, floor = (each["density"] for each in self._manifolds)
        return {"value": value, "floor": floor}

    def gan_train_accuracy(self) -> Entry | None:
        kimg = self.params.gan_train_kimg
        if kimg == 0:
            return None
        value = gan_train(self.draws[0], self.asked, self.inputs, kimg, self.progress)
        interval = list(share(value, len(self.inputs.heldout)))
        return {"value": value, "interval_95": interval, "floor": self._real_accuracy}

    def different_drawings(self) -> Entry | None:
        """Of the class that has fewest."""
        pairs = zip(*self._different, strict=True)
        known = [(drawn, real) for drawn, real in pairs if drawn is not None and real is not None]
        return dict(zip(("value", "floor"), min(known), strict=True)) if known else None

    def copies(self) -> Entry:
        inputs = self.inputs
        near = near_copies(
            self.draws[0], self.asked, inputs.training, inputs.heldout, self.params.seed
        )
        return {
            "value": near.closer,
            "interval_95": list(share(near.closer, min(COPIES_SAMPLE, len(self.asked)))),
            "floor": 0.01,  # by its definition
            "drawn_nearest_median": near.drawn_median,
            "heldout_nearest_median": near.heldout_median,
        }

    @cached_property
    def _judged(self) -> Accuracy:
        seen = torch.cat([each.classes for each in self.seen])
        asked = self.asked.repeat(len(self.seen))
        return conditional_accuracy(seen, asked, self.inputs.training.classes)

    @cached_property
    def _real_accuracy(self) -> float:
        return (self.real.classes == self.inputs.heldout.labels).double().mean().item()

    @cached_property
    def _different(self) -> tuple[list[float | None], list[float | None]]:
        return different(self.draws[0], self.asked, self.inputs.training)

    @cached_property
    def _manifolds(self) -> tuple[dict[str, float], dict[str, float]]:
        """Of the drawings, and of training images."""
        real = self.real.features[self.mixed[: self.equal]]
        drawn, floor = self.seen[0].features[: self.equal], self.floor[: self.equal]
        return asdict(manifold(real, drawn)), asdict(manifold(real, floor))

    def _manifold(self, name: str) -> Entry:
        value, floor = (each[name] for each in self._manifolds)
        return {"value": value, "interval_95": list(share(value, self.equal)), "floor": floor}

    def _by_class(self, distance: Callable[[Tensor, Tensor], float]) -> list[float | None]:
        """None for a class with a single image, which has no spread."""
        asked, labels = self.asked[: len(self.drawn)], self.inputs.heldout.labels
        pairs = [
            (self.real.features[labels == label], self.drawn[asked == label])
            for label in range(self.inputs.training.classes)
        ]
        return [distance(*pair) if min(map(len, pair)) > 1 else None for pair in pairs]


def gan_train(
    drawn: Tensor, asked: Tensor, inputs: Inputs, kimg: float | None, progress: Progress = silent
) -> float:
    """Hold-out accuracy of a fresh class network that saw drawings only.

    It is trained as the judge was, seed included, for `kimg` or as long: so what the judge itself, which
    saw reals, gets on the hold-out is what this can be at best.
    """
    try:
        recipe = JudgeParams(**inputs.judge_facts["params"])
    except (KeyError, TypeError, ValueError):
        raise ModelError(
            f"{JUDGE}: its recipe is not one of this cgan's, so no second judge can be trained by it. "
            "Make it again: `dvc repro --force train_judge`; or leave GAN-train out: "
            "`evaluate.gan_train_kimg: 0.0`."
        ) from None
    if kimg is not None:
        recipe = recipe.model_copy(update={"total_kimg": kimg})
    hardware = choose_hardware("auto", "auto")
    data = Dataset(drawn, asked, inputs.training.metadata)
    bar = functools.partial(
        progress, "GAN-train, on drawings", images_a_step=min(recipe.batch_size, len(data))
    )
    pupil = train_judge(data, recipe, hardware.device, hardware.precision, bar)
    return accuracy(pupil, inputs.heldout)
