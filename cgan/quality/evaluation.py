"""A generator judged: one evaluation, for the stage `evaluate` and for `cgan gate`.

The gate judges the first of the stage's sets of drawings (equal latents, classes and counts), with the
same judge and hold-out. The stage measures every metric; the gate takes the four that it decides by,
with replicates (`quality.comparison`).
"""

from __future__ import annotations

import functools
import statistics
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cgan.data.dataset import Dataset, image_digests, load_dataset
from cgan.errors import DataError
from cgan.metric import METRICS, Report
from cgan.model.file_facts import Facts
from cgan.model.hardware import choose_hardware
from cgan.model.model_file import load_generator
from cgan.model.networks import Generator
from cgan.model.sampling import draw
from cgan.params.sections import EvaluateParams, JudgeParams
from cgan.project import GENERATOR, HOLDOUT_DATA, JUDGE, TRAIN_DATA
from cgan.quality.comparison import EvaluationSet
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
    conditional_accuracy,
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


def evaluation_set_of(
    inputs: Inputs, params: EvaluateParams, progress: Progress = silent
) -> EvaluationSet:
    """The conditions under which the gate compares generators; those of the stage evaluate."""
    asked = classes_asked(inputs.training.classes, params)
    order, _ = shuffled(inputs.training, inputs.heldout, params.seed)
    real = inputs.training.images[order[: min(len(asked), len(order))]]
    bar = functools.partial(progress, "judging real images", images_a_step=LOOK_AT)
    floor = look(inputs.judge, real, progress=bar).features
    seen = look(inputs.judge, inputs.heldout.images)
    return EvaluationSet(
        inputs.judge, seen, inputs.heldout.labels, floor, asked, params.seed, progress
    )


def measurement_context(inputs: Inputs, params: EvaluateParams) -> dict[str, Any]:
    """What every number depends on, whoever measured it. Two generators' numbers can be compared if
    all of this but `generator_digest` is equal."""
    return {
        "extractor": "judge, 128 features after ReLU",
        "extractor_digest": inputs.judge_facts["digest"],
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
    report = measured(inputs, params, draws, progress)
    if "class_names" in inputs.training.metadata:
        report["class_names"] = inputs.training.class_names
    own = {"draws": params.draws, "neighbours": NEIGHBOURS}
    return {**report, "passport": measurement_context(inputs, params) | own}


def require_one_origin(inputs: Inputs) -> None:
    """Were generator, judge and hold-out made from this training part, and from one split?

    If not, every number is of something else, and none of them shows it.
    """
    training, heldout = inputs.training, inputs.heldout
    made, judge = inputs.network.architecture, inputs.judge.facts
    digest, ours = training.metadata["digest"][:12], _kind_of(training)
    csv, its_csv = (str(part.metadata.get("csv_sha256"))[:12] for part in (training, heldout))
    data, kind = "learnt from other data", "made for another kind of image"
    for path, what, expected, found in (
        (GENERATOR, data, digest, str(inputs.facts.get("data_digest"))[:12]),
        (JUDGE, data, digest, str(inputs.judge_facts.get("data_digest"))[:12]),
        (HOLDOUT_DATA, "made from another CSV", csv, its_csv),
        # Classes, channels, height and width.
        (HOLDOUT_DATA, kind, ours, _kind_of(heldout)),
        (GENERATOR, kind, ours, (made.classes, made.channels, made.height, made.width)),
        (JUDGE, kind, ours, (judge["classes"], judge["channels"], *ours[2:])),
    ):
        if found != expected:
            raise DataError(
                f"{path}: {what} than {TRAIN_DATA}: expected {expected}, found {found}. "
                "Run `dvc repro`, or restore all with `dvc checkout`."
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


def measured(
    inputs: Inputs, params: EvaluateParams, draws: list[Tensor], progress: Progress = silent
) -> Report:
    """Drawings (uint8 [N, C, H, W] each, of `classes_asked`) through the judge, beside real images.

    Each key of METRICS has an entry: `value`, and where there are such, `floor` (what real images get),
    `interval_95` and details; None where it was not asked for or nothing is known.

    Distances compare as many drawings as the floor has training images; precision, recall, density
    and coverage take equal counts on both sides.
    """
    training, heldout, seed = inputs.training, inputs.heldout, params.seed
    evaluation_set = evaluation_set_of(inputs, params)
    asked, real, floor, count = (
        evaluation_set.asked,
        evaluation_set.real,
        evaluation_set.floor,
        evaluation_set.distance_images,
    )
    equal = min(len(heldout), count)
    if equal <= NEIGHBOURS:
        raise DataError(
            f"the hold-out has {len(heldout)} images and the training part {len(training)}; precision "
            f"and recall need more than {NEIGHBOURS}. Raise `preprocess.holdout_fraction`, or add images."
        )
    seen = [
        look(inputs.judge, draws[n]) for n in progress("judging", range(len(draws)), len(asked))
    ]
    drawn = seen[0].features[:count]

    named = torch.cat([each.classes for each in seen])
    accuracy = conditional_accuracy(named, asked.repeat(len(seen)), training.classes)

    fid = [frechet_distance(real.features, each.features[:count]) for each in seen]
    spread = evaluation_set.distance(drawn, "drawn").replicates
    replicates = [round(each, 5) for each in (spread - spread.mean()).tolist()]
    pairs = [
        (real.features[heldout.labels == label], drawn[asked[:count] == label])
        for label in range(training.classes)
    ]
    some = real.features[shuffled(training, heldout, seed)[1][:equal]]
    of_drawn, of_real = manifold(some, drawn[:equal]), manifold(some, floor[:equal])
    near = near_copies(draws[0], asked, training, heldout, seed)
    numbers = different(draws[0], asked, training)
    counted = [pair for pair in numbers if pair]
    entries: dict[str, dict[str, Any] | None] = {
        "conditional_accuracy": {
            "value": accuracy.overall,
            "interval_95": list(accuracy.interval),
            "floor": evaluation_set.agreement.overall,
            "by_class": accuracy.by_class,
        },
        # Without an interval: it is the smallest of many, and that of a single class would lie too low.
        "worst_class_accuracy": {
            "value": min(each for each in accuracy.by_class if each is not None)
        },
        "fid_judge": {
            "value": statistics.fmean(fid),
            "interval_95": list(replicated(statistics.fmean(fid), replicates).interval),
            "deviation": statistics.stdev(fid) if len(fid) > 1 else 0.0,
            "replicates": replicates,
            "floor": frechet_distance(real.features, floor),
            # None for a class with a single image, which has no spread.
            "by_class": [frechet_distance(*p) if min(map(len, p)) > 1 else None for p in pairs],
        },
        "kid_judge": {
            "value": kernel_distance(real.features, drawn, seed),
            "floor": kernel_distance(real.features, floor, seed),
        },
        **{
            key: {"value": value, "floor": of_real[key]}
            if key == "density"
            else _share(value, of_real[key], equal)
            for key, value in of_drawn.items()
        },
        "gan_train_accuracy": None,
        # Of the class that has fewest.
        "different_drawings": dict(zip(("value", "floor"), min(counted), strict=True))
        if counted
        else None,
        # The floor of copies is .01 by their definition.
        "copies": _share(near.closer, 0.01, min(COPIES_SAMPLE, len(asked)))
        | {"heldout_nearest_median": near.heldout_median},
    }
    if params.gan_train_kimg != 0:
        value = gan_train(draws[0], asked, inputs, params.gan_train_kimg, progress)
        entries["gan_train_accuracy"] = _share(
            value, evaluation_set.agreement.overall, len(heldout)
        )
    return {key: entries[key] for key in METRICS if entries[key]} | {
        "different": {"by_class": [pair and pair[0] for pair in numbers]},
        "confusion": accuracy.confusion.tolist(),
    }


def _share(value: float, floor: float, count: int) -> dict[str, Any]:
    return {"value": value, "interval_95": list(share(value, count)), "floor": floor}


def gan_train(
    drawn: Tensor, asked: Tensor, inputs: Inputs, kimg: float | None, progress: Progress = silent
) -> float:
    """Hold-out accuracy of a fresh class network that saw drawings only.

    It is trained as the judge was, seed included, for `kimg` or as long: so what the judge itself, which
    saw reals, gets on the hold-out is what this can be at best.
    """
    recipe = JudgeParams(**inputs.judge_facts["params"])
    if kimg is not None:
        recipe = recipe.model_copy(update={"total_kimg": kimg})
    hardware = choose_hardware("auto", "auto")
    data = Dataset(drawn, asked, inputs.training.metadata)
    bar = functools.partial(
        progress, "GAN-train, on drawings", images_a_step=min(recipe.batch_size, len(data))
    )
    pupil = train_judge(data, recipe, hardware.device, hardware.precision, bar)
    return accuracy(pupil, inputs.heldout)
