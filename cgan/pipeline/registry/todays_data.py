"""Are today's data like those that a version learnt from?

Today's judge learnt from today's data: it finds the drawings of spoilt data good and those of a good champion
bad. So data are measured by what is kept at a version's run: how the images of each class looked, and its
judge.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cgan.base.text import percent
from cgan.data.arrays import image_digests
from cgan.data.images import Images, joined
from cgan.models.model_file import load_tensors, save_tensors
from cgan.params.sections import GateParams
from cgan.pipeline.inputs import Inputs
from cgan.pipeline.project import JUDGE
from cgan.pipeline.registry.checks import Finding, largest
from cgan.pipeline.registry.client import GATE_FOLDER, Registry, Version
from cgan.pipeline.registry.drawings import largest_excess, largest_shift
from cgan.quality.class_shift import Moments, Shift, largest_shifts
from cgan.quality.judge import Judge, load_judge, predict
from cgan.quality.outliers import Excess, OutlierModels, Samples
from cgan.quality.proportions import joint_z

KEPT_FILE = "training_data.safetensors"
KEPT_KIND = "kept_data"  # of the file
MAX_JUDGED = 5000  # images, at most, that the version's judge sees
MAX_CLASS_LOSS = 0.25  # of a class's share of the images


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


# -- Measurements of the rows -------------------------------------------------------------------------


def shift(data: DataComparison, limits: GateParams) -> Finding | None:
    if not data.shifts:
        return None
    return largest_shift(data.shifts, limits.max_class_shift, data.class_names)


def outliers(data: DataComparison, limits: GateParams) -> Finding | None:
    if not data.outliers:
        return None
    return largest_excess(data.outliers, limits.max_outliers, "new images", data.class_names)


def class_loss(data: DataComparison, _: GateParams) -> Finding:
    """The largest part of its share of the images that a class has lost, less what chance explains. Groups
    are drawn whole, so the variance is as many times larger (Kish, Survey Sampling, 1965, 5.4)."""
    counts, before = data.counts, data.kept.looks.counts
    shares, shares_before = counts / counts.sum(), before / before.sum()
    # Of two binomial shares whose difference is 0, with the shares of both taken together.
    pooled = (counts + before) / (counts + before).sum()
    variance = pooled * (1 / counts.sum() + 1 / before.sum()) * data.group_size
    certain = shares_before - shares - joint_z(len(shares)) * variance.sqrt()
    lost = (certain / shares_before).nan_to_num(nan=0.0).tolist()
    parts = zip(data.class_names, lost, shares.tolist(), shares_before.tolist(), strict=True)
    found = [
        (
            part,
            f"class {name} has {percent(now)} of the images, {percent(then)} of {data.kept.owner}",
        )
        for name, part, now, then in parts
    ]
    return largest(found, MAX_CLASS_LOSS)
