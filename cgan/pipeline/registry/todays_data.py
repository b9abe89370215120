"""Are today's data like those that a version learnt from?

Today's judge learnt from today's data: it finds the drawings of spoilt data good and those of a good champion
bad. So data are measured by what is kept at a version's run: how the images of each class looked, and its
judge. They raise an alarm at the optimistic end of an interval, so that noise raises none.
"""

from __future__ import annotations

import hashlib
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cgan.base.text import percent
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
MAX_JUDGED = 5000  # images, at most, that the version's judge sees
MAX_CLASS_LOSS = 0.25  # of a class's share of the images


@dataclass(frozen=True)
class KeptData:
    """`owner`: whose data, as `the champion's`. `looks`: the moments of all images; `digests` int64 [N]: of
    all images with their labels; `models`: of what real images of each class are like, in the eyes of
    `judge`; None where an older cgan kept none."""

    owner: str
    looks: Moments
    digests: Tensor
    judge: Judge
    models: OutlierModels | None

    @classmethod
    def load(cls, registry: Registry, version: Version, owner: str) -> KeptData:
        """What was kept of a version. Raises ModelError when it is gone or damaged."""
        with registry.downloaded(f"runs:/{version.run_id}/{GATE_FOLDER}") as folder:
            judge, _ = load_judge(folder / JUDGE.name)
            kept, _ = load_tensors(folder / KEPT_FILE, "training_data")
        looks, models = (_starting_with(prefix, kept) for prefix in ("looks.", "models."))
        return cls(
            owner,
            Moments(**looks),
            kept["fingerprints"],
            judge,
            OutlierModels(**models) if models else None,
        )


def keep_data(registry: Registry, version: Version, inputs: Inputs, models: OutlierModels) -> None:
    """Store at the version's run what `KeptData.load` reads."""
    images, labels = _all_images(inputs)
    looks = Moments.of_images(images, labels, inputs.held_out.classes)
    tensors = {f"looks.{key}": value for key, value in vars(looks).items()}
    tensors |= {f"models.{key}": value for key, value in models._asdict().items()}
    tensors["fingerprints"] = _digests(images, labels)
    with tempfile.TemporaryDirectory(prefix="cgan-") as folder:
        save_tensors(Path(folder) / KEPT_FILE, "training_data", tensors, {})
        for path in (JUDGE, Path(folder) / KEPT_FILE):
            registry.client.log_artifact(version.run_id, str(path), GATE_FOLDER)


def _starting_with(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): tensors[key] for key in tensors if key.startswith(prefix)}


def _all_images(inputs: Inputs) -> tuple[Tensor, Tensor]:
    """The images and labels of the training part and the hold-out."""
    parts = (inputs.train, inputs.held_out)
    pixels, labels, _ = zip(*(part.tensors for part in parts), strict=True)
    return torch.cat(pixels), torch.cat(labels)


def _digests(images: Tensor, labels: Tensor) -> Tensor:
    """A hash of each image with its label: int64 [N]. Equal images with equal labels have equal hashes."""
    digests = [
        hashlib.blake2b(image.tobytes(), digest_size=8, salt=b"%d" % label).digest()
        for image, label in zip(images.numpy(), labels.tolist(), strict=True)
    ]
    return torch.tensor([int.from_bytes(d, signed=True) for d in digests], dtype=torch.int64)


@dataclass(frozen=True)
class Comparison:
    """Today's images and labels beside those that were `kept`.

    `shifts` and `outliers`: of the new images, those that were not there under the same label, for a few
    would not show among many; None where there are none. `counts` [classes]: of all images; `group_size`:
    `mean_group_size`.
    """

    kept: KeptData
    class_names: list[str]
    counts: Tensor
    group_size: float = 1.0
    shifts: list[Shift] | None = None
    outliers: list[Excess] | None = None

    @classmethod
    def of(cls, kept: KeptData, inputs: Inputs) -> Comparison:
        (images, labels), names = _all_images(inputs), inputs.held_out.class_names
        counts, group_size = labels.bincount(minlength=len(names)), mean_group_size(inputs)
        all_data = cls(kept, names, counts.double(), group_size)
        new = (~torch.isin(_digests(images, labels), kept.digests)).nonzero()[:, 0]
        if not len(new):
            return all_data
        looks = Moments.of_images(images[new], labels[new], len(names))
        shifts = largest_shifts(looks, kept.looks, images.shape[1:])
        outliers = []
        if kept.models:
            order = torch.randperm(len(new), generator=torch.Generator().manual_seed(0))
            judged = new[order][:MAX_JUDGED]
            features = predict(kept.judge, images[judged]).features
            samples = Samples.of(images[judged], features, labels[judged])
            outliers = kept.models.excesses(samples, group_size)
        return replace(all_data, shifts=shifts, outliers=outliers)


def mean_group_size(inputs: Inputs) -> float:
    """The size of an image's group, mean over the images; 1 without groups. A group is never split, so each
    part can be counted by itself."""
    groups = [part.groups for part in (inputs.train, inputs.held_out) if part.groups is not None]
    if not groups:
        return 1.0
    sizes = np.concatenate([np.unique(part, return_counts=True)[1] for part in groups])
    return float(np.square(sizes).sum() / sizes.sum())


# -- What the rows measure ------------------------------------------------------------------------------


def class_shift(data: Comparison, limits: GateParams) -> Finding | None:
    if data.shifts is None:
        return None
    return largest_shift(data.shifts, limits.max_class_shift, data.class_names)


def data_outliers(data: Comparison, limits: GateParams) -> Finding | None:
    if data.outliers is None:
        return None
    if data.kept.models is None:
        older = f"not compared: of {data.kept.owner} data an older cgan kept too little"
        return Finding(None, passed=True, note=f"({older})")
    return largest_excess(data.outliers, limits, "new images", data.class_names)


def class_loss(data: Comparison, _: GateParams) -> Finding:
    """How much of its share of the images a class has lost, less what chance explains; of the class that has
    lost most. Groups are drawn whole, so the variance is as many times larger (Kish, Survey Sampling, 1965,
    5.4)."""
    counts, before = data.counts, data.kept.looks.counts
    shares, shares_before = counts / counts.sum(), before / before.sum()
    # Of two binomial shares whose difference is 0, with the shares of both taken together.
    pooled = (counts + before) / (counts + before).sum()
    variance = pooled * (1 / counts.sum() + 1 / before.sum()) * data.group_size
    certain = shares_before - shares - joint_z(len(shares)) * variance.sqrt()
    lost = (certain / shares_before).nan_to_num(nan=0.0).tolist()
    words = [
        f"of the images {percent(now)} are of class {name}, of {data.kept.owner} {percent(then)}"
        for name, now, then in zip(
            data.class_names, shares.tolist(), shares_before.tolist(), strict=True
        )
    ]
    return largest(zip(lost, words, strict=True), MAX_CLASS_LOSS)
