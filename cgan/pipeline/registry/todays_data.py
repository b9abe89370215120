"""Are today's data like those that a version learnt from?

Today's judge learnt from today's data: it finds the drawings of spoilt data good and those of a good champion
bad. So data are measured by what is kept at a version's run: how the images of each class looked, its judge,
and what that saw in the hold-out. They raise an alarm at the optimistic end of an interval, so that noise
raises none.
"""

from __future__ import annotations

import hashlib
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cgan.model.model_file import load_tensors, save_tensors
from cgan.pipeline.inputs import Inputs
from cgan.pipeline.registry.checks import Finding
from cgan.pipeline.registry.client import GATE_FOLDER, Registry, Version
from cgan.pipeline.registry.drawings import largest_shift
from cgan.project import JUDGE
from cgan.proportions import joint_z, mean_share, wilson_interval
from cgan.quality.class_shift import MIN_CLASS_IMAGES, Moments, Shift, largest_shifts
from cgan.quality.conditions import Conditions
from cgan.quality.judge import Judge, conditional_accuracy, load_judge, predict
from cgan.text import percent

KEPT_FILE = "training_data.safetensors"
MAX_JUDGED = 5000  # images, at most, that the version's judge sees


@dataclass(frozen=True)
class KeptData:
    """`owner`: whose data, as `the champion's`. `looks`: the moments of all images; `judge`, which named the
    label of `correct` of the `held_out` images, int64 [classes]; `digests` int64 [N]: of all images with
    their labels."""

    owner: str
    looks: Moments
    correct: Tensor
    held_out: Tensor
    digests: Tensor
    judge: Judge

    @classmethod
    def load(cls, registry: Registry, version: Version, owner: str) -> KeptData:
        """What was kept of a version. Raises ModelError when it is gone or damaged."""
        with registry.downloaded(f"runs:/{version.run_id}/{GATE_FOLDER}") as folder:
            judge, _ = load_judge(folder / JUDGE.name)
            kept, _ = load_tensors(folder / KEPT_FILE, "training_data")
        looks = Moments(kept["looks.counts"], kept["looks.means"], kept["looks.variances"])
        correct, held_out = kept["right"], kept["seen.counts"].long()
        return cls(owner, looks, correct, held_out, kept["fingerprints"], judge)


def keep_data(registry: Registry, version: Version, inputs: Inputs, conditions: Conditions) -> None:
    """Store at the version's run what `KeptData.load` reads."""
    images, labels = _all_images(inputs)
    confusion = conditions.judge_accuracy.confusion
    looks = Moments.of_images(images, labels, inputs.held_out.classes)
    tensors = {
        **{f"looks.{key}": value for key, value in vars(looks).items()},
        "right": confusion.diagonal(),
        "seen.counts": confusion.sum(dim=1),
        "fingerprints": _digests(images, labels),
    }
    with tempfile.TemporaryDirectory(prefix="cgan-") as folder:
        save_tensors(Path(folder) / KEPT_FILE, "training_data", tensors, {})
        for path in (JUDGE, Path(folder) / KEPT_FILE):
            registry.client.log_artifact(version.run_id, str(path), GATE_FOLDER)


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
    """Today's images and labels, class by class, beside those that were `kept`.

    Images that were not there under the same label are new. `shifts`: of all images, and of the new ones,
    for a few would not show among many. `counts` [classes]: of all; `group_size`: `mean_group_size`. `seen`
    int64 [classes, classes]: new images by label and by what the kept judge sees.
    """

    kept: KeptData
    class_names: list[str]
    shifts: list[Shift]
    counts: Tensor
    group_size: float
    seen: Tensor

    @classmethod
    def of(cls, kept: KeptData, inputs: Inputs) -> Comparison:
        (images, labels), names = _all_images(inputs), inputs.held_out.class_names
        shape, classes = images.shape[1:], len(names)
        shifts = largest_shifts(Moments.of_images(images, labels, classes), kept.looks, shape)
        seen = torch.zeros(classes, classes, dtype=torch.int64)
        counts = labels.bincount(minlength=classes).double()
        new = (~torch.isin(_digests(images, labels), kept.digests)).nonzero()[:, 0]
        if len(new):
            looks_of_new = Moments.of_images(images[new], labels[new], classes)
            shifts += largest_shifts(looks_of_new, kept.looks, shape)
            order = torch.randperm(len(new), generator=torch.Generator().manual_seed(0))
            judged = new[order][:MAX_JUDGED]
            predicted = predict(kept.judge, images[judged]).labels
            seen = conditional_accuracy(predicted, labels[judged], classes).confusion
        return cls(kept, names, shifts, counts, mean_group_size(inputs), seen)

    @property
    def agreements(self) -> dict[int, list[int]]:
        """With how many new images the kept judge agrees, of how many, and both in its own hold-out; by the
        label, of each class that has enough."""
        kept, seen = self.kept, self.seen
        columns = (seen.diagonal(), seen.sum(dim=1), kept.correct, kept.held_out)
        rows = enumerate(torch.stack(columns, dim=1).tolist())
        return {label: row for label, row in rows if row[1] >= MIN_CLASS_IMAGES and row[3]}


def mean_group_size(inputs: Inputs) -> float:
    """The size of an image's group, mean over the images; 1 without groups. A group is never split, so each
    part can be counted by itself."""
    groups = [part.groups for part in (inputs.train, inputs.held_out) if part.groups is not None]
    if not groups:
        return 1.0
    sizes = np.concatenate([np.unique(part, return_counts=True)[1] for part in groups])
    return float(np.square(sizes).sum() / sizes.sum())


# -- What the rows measure ------------------------------------------------------------------------------


def class_shift(data: Comparison, limit: float) -> Finding:
    return largest_shift(data.shifts, limit, data.class_names)


def class_mix(data: Comparison, _: float) -> Finding:
    """How much of its share of the images a class has lost, less what chance explains; of the class that has
    lost most. Groups are drawn whole, so the variance is as many times larger (Kish, Survey Sampling, 1965,
    5.4)."""
    counts, before = data.counts, data.kept.looks.counts
    shares, shares_before = counts / counts.sum(), before / before.sum()
    # Of two binomial shares whose difference is 0, with the shares of both taken together.
    pooled = (counts + before) / (counts + before).sum()
    variance = pooled * (1 / counts.sum() + 1 / before.sum()) * data.group_size
    certain = shares_before - shares - joint_z(len(shares)) * variance.sqrt()
    lost = (certain / shares_before).nan_to_num(nan=0.0)
    worst = int(lost.argmax())
    why = (
        f"of the images {percent(float(shares[worst]))} are of class {data.class_names[worst]}, of "
        f"{data.kept.owner} {percent(float(shares_before[worst]))}"
    )
    return Finding(max(0.0, float(lost[worst])), why=why)


def agreement(data: Comparison, _: float) -> Finding | None:
    """How much less the kept judge agrees with new labels than with those of its own hold-out."""
    if not (agreements := data.agreements):
        return None
    now, (_, most_now) = mean_share([(row[0], row[1]) for row in agreements.values()])
    before, (least_before, _) = mean_share([(row[2], row[3]) for row in agreements.values()])
    why = (
        f"{data.kept.owner} judge agrees with {percent(now)} of the new labels, but agreed with "
        f"{percent(before)} of those of its own hold-out (means over the classes)"
    )
    return Finding(max(0.0, least_before - most_now), why=why)


def class_agreement(data: Comparison, _: float) -> Finding | None:
    """Of the class in which the agreement fell most, as a fraction of what it was: by the optimistic ends of
    both intervals."""
    losses = dict[int, float]()
    for label, (agreed, images, agreed_before, images_before) in data.agreements.items():
        most_now = wilson_interval(agreed, images)[1]
        least_before = wilson_interval(agreed_before, images_before)[0]
        losses[label] = 1 - most_now / least_before if agreed_before else 0.0
    if not losses:
        return None
    worst = max(losses, key=lambda label: losses[label])
    images = int(data.seen[worst].sum())
    mistaken = data.seen[worst].scatter(0, torch.tensor(worst), 0)
    why = (
        f"{data.kept.owner} judge sees {data.class_names[int(mistaken.argmax())]} in "
        f"{percent(int(mistaken.max()) / images, 0)} of the {images:,} images labelled "
        f"{data.class_names[worst]}"
    )
    return Finding(max(0.0, losses[worst]), why=why)
