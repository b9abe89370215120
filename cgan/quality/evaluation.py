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
from cgan.errors import DataError, ModelError
from cgan.model.file_facts import Facts
from cgan.model.hardware import choose_hardware
from cgan.model.model_file import load_generator
from cgan.model.networks import Generator
from cgan.model.sampling import draw
from cgan.params.sections import EvaluateParams, JudgeParams
from cgan.project import GENERATOR, HOLDOUT_DATA, JUDGE, TRAIN_DATA
from cgan.quality.comparison import Ground
from cgan.quality.judge import (
    LOOK_AT,
    Judge,
    Progress,
    Verdict,
    accuracy,
    load_judge,
    look,
    silent,
    train_judge,
)
from cgan.quality.likeness import MAX_SHIFT, Copies, copies, different
from cgan.quality.metrics import (
    NEIGHBOURS,
    Manifold,
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
        require_one_origin(network, facts, judge, judge_facts, training, heldout)
        return cls(network, facts, judge, judge_facts, training, heldout)

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


def judge_generator(
    inputs: Inputs, params: EvaluateParams, progress: Progress = silent
) -> dict[str, Any]:
    """The report on the trained generator, passport included."""
    device = choose_hardware("auto", "float32").device
    inputs.network.to(device)
    inputs.judge.to(device)
    asked = classes_asked(inputs.training.classes, params)
    draws = [
        draw(inputs.network, asked, params.seed + n, device)
        for n in progress("drawing", range(params.draws), len(asked))
    ]
    report = evaluate(inputs.judge, inputs.training, inputs.heldout, draws, asked, params, progress)
    if params.gan_train_kimg != 0:
        report["gan_train"] = {
            "value": gan_train(draws[0], asked, inputs, params.gan_train_kimg, progress),
            "floor": report["conditional_accuracy"]["floor"],
        }
    if "class_names" in inputs.training.metadata:
        report["class_names"] = inputs.training.class_names
    own = {"draws": params.draws, "neighbours": NEIGHBOURS}
    return {**report, "passport": passport(inputs, params) | own}


def require_one_origin(
    network: Generator,
    generator_facts: Facts,
    judge: Judge,
    judge_facts: Facts,
    training: Dataset,
    heldout: Dataset,
) -> None:
    """Were generator, judge and hold-out made from this training part, and from one split?

    If not, every number is of something else, and none of them shows it. `cgan gate` asks this too.
    Raises DataError or ModelError.
    """
    digest = training.metadata["digest"]
    again = "Run `dvc repro`, or restore all with `dvc checkout`."
    if generator_facts.get("data_digest") != digest:
        raise ModelError(
            f"{GENERATOR}: trained on other data than {TRAIN_DATA} holds: expected the digest "
            f"{digest[:12]}, found {_short(generator_facts)}. {again}"
        )
    if judge_facts.get("data_digest") != digest:
        raise ModelError(
            f"{JUDGE}: learnt from other data than {TRAIN_DATA} holds: expected the digest "
            f"{digest[:12]}, found {_short(judge_facts)}. {again}"
        )
    origins = [str(part.metadata.get("csv_sha256"))[:12] for part in (training, heldout)]
    if origins[0] != origins[1]:
        raise DataError(
            f"{HOLDOUT_DATA}: made from another CSV than {TRAIN_DATA}: expected sha256 {origins[0]}, "
            f"found {origins[1]}. {again}"
        )
    ours, made = _kind_of(training), network.architecture
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
    known = int(np.isin(held, trained).sum())
    if known:
        raise DataError(
            f"{HOLDOUT_DATA}: {known:,} of its {len(heldout):,} images are in {TRAIN_DATA} too, expected "
            "none: the two are of different splits (`preprocess.seed`, `preprocess.holdout_fraction`). "
            "Make both again: `dvc repro --force preprocess`, then `dvc repro`."
        )


def _short(facts: Facts) -> str:
    return str(facts.get("data_digest", "none"))[:12]


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


def evaluate(
    judge: Judge,
    training: Dataset,
    heldout: Dataset,
    draws: list[Tensor],
    asked: Tensor,
    params: EvaluateParams,
    progress: Progress = silent,
) -> dict[str, Any]:
    """All metrics of the drawings (uint8 [N, C, H, W] each, of the classes `asked`), with floors.

    Distances compare as many drawings as the floor has training images; precision, recall, density
    and coverage take equal counts on both sides.
    """
    classes, count = training.classes, min(len(asked), len(training))
    equal = min(len(heldout), count)
    if equal <= NEIGHBOURS:
        raise DataError(
            f"the hold-out has {len(heldout)} images and the training part {len(training)}; precision "
            f"and recall need more than {NEIGHBOURS}. Raise `preprocess.holdout_fraction`, or add images."
        )
    order, mixed = shuffled(training, heldout, params.seed)
    real, floor = look(judge, heldout.images), look(judge, training.images[order[:count]])
    seen = [look(judge, draws[n]) for n in progress("judging", range(len(draws)), len(asked))]

    judged = conditional_accuracy(
        torch.cat([v.classes for v in seen]), asked.repeat(len(seen)), classes
    )
    ground = Ground(judge, real, heldout.labels, floor.features, asked, params.seed)
    replicates = ground.distance(seen[0].features[:count], "drawn").replicates
    replicates -= replicates.mean()
    fids = [frechet_distance(real.features, v.features[:count]) for v in seen]
    kid, kid_deviation = kernel_distance(real.features, seen[0].features[:count], params.seed)
    kid_floor, _ = kernel_distance(real.features, floor.features, params.seed)
    near = near_copies(draws[0], asked, training, heldout, params.seed)
    numbers, numbers_real = different(draws[0], asked, training)
    spread = diversity(seen[0].features, asked, classes)
    spread_real = diversity(real.features, heldout.labels, classes)
    some_real = real.features[mixed[:equal]]
    drawn_manifold = manifold(some_real, seen[0].features[:equal])
    floor_manifold = manifold(some_real, floor.features[:equal])
    report: dict[str, Any] = {
        "conditional_accuracy": {
            "value": judged.overall,
            "interval_95": list(judged.interval),
            "floor": (real.classes == heldout.labels).double().mean().item(),
            "by_class": judged.by_class,
        },
        "fid_judge": {
            "value": statistics.fmean(fids),
            "deviation": statistics.stdev(fids) if len(fids) > 1 else 0.0,
            "replicates": [round(each, 5) for each in replicates.tolist()],
            "floor": frechet_distance(real.features, floor.features),
            "by_class": by_class(
                frechet_distance, real, heldout.labels, seen[0], asked, classes, count
            ),
        },
        "kid_judge": {
            "value": kid,
            "deviation": kid_deviation,
            "floor": kid_floor,
            "by_class": by_class(
                lambda a, b: kernel_distance(a, b, params.seed)[0],
                real,
                heldout.labels,
                seen[0],
                asked,
                classes,
                count,
            ),
        },
        "manifold": {"value": vars_of(drawn_manifold), "floor": vars_of(floor_manifold)},
        "diversity": {"by_class": spread, "floor_by_class": spread_real},
        "different": {"by_class": numbers, "floor_by_class": numbers_real},
        "copies": {
            "drawn_nearest_median": near.drawn_median,
            "heldout_nearest_median": near.heldout_median,
            "closer_than_1_percent_of_heldout": near.closer,
        },
        "confusion": judged.confusion.tolist(),
    }
    return report


def by_class(
    distance: Any,
    real: Verdict,
    real_labels: Tensor,
    drawn: Verdict,
    asked: Tensor,
    classes: int,
    count: int,
) -> list[float | None]:
    """A distance for each class; None for a class with a single image, which has no spread."""
    pairs = [
        (real.features[real_labels == label], drawn.features[:count][asked[:count] == label])
        for label in range(classes)
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


def vars_of(value: Manifold) -> dict[str, float]:
    return {name: getattr(value, name) for name in ("precision", "recall", "density", "coverage")}
