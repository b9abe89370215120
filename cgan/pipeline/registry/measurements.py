"""What the gate measures: a generator's drawings, and today's data beside those that a version learnt from.

Today's judge learnt from today's data: it finds the drawings of spoilt data good and those of a good champion
bad. So data are measured by what is kept at a version's run: its judge, and how images of each class looked.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from cgan.data.arrays import image_digests
from cgan.data.images import Images, joined
from cgan.models.model_file import load_tensors, save_tensors
from cgan.pipeline.inputs import Inputs
from cgan.pipeline.project import JUDGE
from cgan.pipeline.registry.client import GATE_FOLDER, Registry, Version
from cgan.quality.class_shift import Moments, Shift, largest_shifts
from cgan.quality.conditions import Conditions
from cgan.quality.evaluate import measure
from cgan.quality.evaluation import Evaluation
from cgan.quality.judge import Judge, load_judge, predict
from cgan.quality.outliers import Excess, OutlierModels, Samples

KEPT_FILE = "training_data.safetensors"
KEPT_KIND = "kept_data_2"  # of the file
MAX_JUDGED = 5000  # images, at most, that the version's judge sees


@dataclass(frozen=True)
class DrawingMeasurements:
    """Measurements of a generator's drawings: their evaluation; of each class the column that is furthest
    from its training images; and the shares that are like no real image. `champion`: the evaluation of its
    drawings, under the same conditions, where there is one."""

    evaluation: Evaluation
    shifts: Sequence[Shift]
    outliers: Sequence[Excess]
    champion: Evaluation | None = None
    images: ClassVar[str] = "drawings"

    @property
    def class_names(self) -> Sequence[str]:
        return self.evaluation.names

    @classmethod
    def measure(
        cls,
        drawings: Tensor,
        conditions: Conditions,
        models: OutlierModels,
        champion: Evaluation | None = None,
        min_judge_accuracy: float = 0.9,
    ) -> DrawingMeasurements:
        """The measurements of drawings uint8 [N, C, H, W] of the conditions' classes, by the judge and by how
        they look beside real images, whatever the judge sees. `models`: of these real images."""
        pixels, real_labels, _ = conditions.train.tensors
        labels = conditions.drawn_labels
        prediction = predict(conditions.judge, drawings)
        looks = Moments.of_images(drawings, labels, conditions.classes)
        looks_of_real = Moments.of_images(pixels, real_labels, conditions.classes)
        evaluation = measure(conditions, drawings, prediction)
        return cls(
            replace(evaluation, min_judge_accuracy=min_judge_accuracy),
            largest_shifts(looks, looks_of_real, drawings.shape[1:]),
            models.excesses(Samples.measure(drawings, prediction.features, labels), drawn=True),
            champion,
        )


@dataclass(frozen=True)
class KeptData:
    """What is kept of a version's data. `owner`: whose they are, as `the champion's`. `looks`: the moments of
    all images; `digests` int64 [N]: of all images with their labels; `models`: of what real images of each
    class are like, in the eyes of `judge`."""

    owner: str
    looks: Moments
    digests: Tensor
    judge: Judge
    models: OutlierModels

    @classmethod
    def load(cls, registry: Registry, version: Version, owner: str) -> KeptData:
        """The data of a version. Raises ModelError when they are gone, damaged, or of an older cgan."""
        with registry.downloaded(f"runs:/{version.run_id}/{GATE_FOLDER}") as folder:
            judge, _ = load_judge(folder / JUDGE.name)
            kept, _ = load_tensors(folder / KEPT_FILE, KEPT_KIND)
        digests = kept.pop("digests")
        models = OutlierModels(*map(kept.pop, OutlierModels._fields))
        return cls(owner, Moments(**kept), digests, judge, models)


def keep_data(registry: Registry, version: Version, inputs: Inputs, models: OutlierModels) -> None:
    """Store at the version's run what `KeptData.load` reads."""
    images = joined(inputs.train, inputs.held_out)
    looks = Moments.of_images(*images.tensors[:2], images.classes)
    tensors = {**vars(looks), **models._asdict(), "digests": _digests(images)}
    with tempfile.TemporaryDirectory(prefix="cgan-") as folder:
        save_tensors(Path(folder) / KEPT_FILE, KEPT_KIND, tensors, {})
        for path in (JUDGE, Path(folder) / KEPT_FILE):
            registry.client.log_artifact(version.run_id, str(path), GATE_FOLDER)


def _digests(images: Images) -> Tensor:
    """A hash of each image with its label: int64 [N]. Equal images with equal labels have equal hashes."""
    first_halves = image_digests(images.pixels).view(np.int64)[::2]
    return torch.from_numpy(first_halves ^ images.labels)


@dataclass(frozen=True)
class DataComparison:
    """Today's images beside those that were `kept`.

    `shifts` and `outliers`: of the new images, those that were not there under the same label, for a few
    would not show among many; empty where there are none. `counts` float64 [classes]: of all images;
    `group_size`: `mean_group_size`.
    """

    kept: KeptData
    class_names: Sequence[str]
    counts: Tensor
    group_size: float = 1.0
    shifts: Sequence[Shift] = ()
    outliers: Sequence[Excess] = ()
    images: ClassVar[str] = "new images"

    @classmethod
    def measure(cls, kept: KeptData, inputs: Inputs) -> DataComparison:
        """The comparison of all images, of the training part and the hold-out."""
        images = joined(inputs.train, inputs.held_out)
        group_size = mean_group_size(inputs)
        new = images.at(~np.isin(_digests(images).numpy(), kept.digests.numpy()))
        shifts, outliers = list[Shift](), list[Excess]()
        if len(new):
            looks = Moments.of_images(*new.tensors[:2], images.classes)
            shifts = largest_shifts(looks, kept.looks, images.shape)
            some = np.random.default_rng(0).permutation(len(new))[:MAX_JUDGED]
            pixels, labels, _ = new.at(some).tensors
            samples = Samples.measure(pixels, predict(kept.judge, pixels).features, labels)
            outliers = kept.models.excesses(samples, group_size)
        counts = images.tensors.counts.double()
        return cls(kept, images.class_names, counts, group_size, shifts, outliers)


def mean_group_size(inputs: Inputs) -> float:
    """The size of an image's group, mean over the images; 1 without groups. A group is never split, so each
    part can be counted by itself."""
    groups = [part.groups for part in (inputs.train, inputs.held_out) if part.groups is not None]
    if not groups:
        return 1.0
    sizes = np.concatenate([np.unique(part, return_counts=True)[1] for part in groups])
    return float(np.square(sizes).sum() / sizes.sum())
