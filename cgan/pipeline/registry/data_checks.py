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
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from cgan.errors import CganError, ModelError
from cgan.model.model_file import load_tensors, save_tensors
from cgan.params.sections import GateParams
from cgan.pipeline.inputs import Inputs
from cgan.pipeline.registry.client import GATE_FOLDER, Registry, downloaded
from cgan.pipeline.registry.decision import shift_finding
from cgan.pipeline.registry.version import Version
from cgan.project import JUDGE
from cgan.proportions import mean_share, wilson_interval
from cgan.quality.class_shift import MIN_CLASS_IMAGES, Moments, largest_shifts
from cgan.quality.conditions import Conditions
from cgan.quality.judge import Judge, load_judge, predict
from cgan.quality.metrics import conditional_accuracy
from cgan.text import percent
from cgan.verdict import Check

KEPT_FILE = "training_data.safetensors"
CHAMPION_ADVICE = (
    "bring back the previous champion (`cgan registry rollback --why …`), or delete the alias `champion` in "
    "MLflow, so that the next `cgan gate` chooses a first champion"
)
MAX_CLASS_LOSS = 0.25  # of a class's share of the images
MAX_CLASS_AGREEMENT_DROP = 0.05  # of a class's agreement with labels; good data lose none
MAX_JUDGED = 5000  # images, at most, that the version's judge sees


@dataclass(frozen=True)
class KeptData:
    """`looks`: the moments of all images' looks; `judge`, which named the label of `correct` of the
    `held_out` images, int64 [classes]; `labelled_image_digests` int64 [N]: of all images and labels."""

    looks: Moments
    correct: Tensor
    held_out: Tensor
    labelled_image_digests: Tensor
    judge: Judge

    @classmethod
    def load(cls, registry: Registry, version: Version) -> KeptData:
        """What was kept of a version. Raises ModelError when it is gone, damaged or of an older cgan, or
        the store cannot give it."""
        uri = f"runs:/{version.run_id}/{GATE_FOLDER}"
        advice = f"If the store's files are lost, {CHAMPION_ADVICE}."
        with downloaded(registry, uri, advice) as folder:
            try:
                judge, _ = load_judge(folder / JUDGE.name)
                tensors, _ = load_tensors(folder / KEPT_FILE, "training_data")
                moments = (tensors[f"looks.{key}"] for key in ("counts", "means", "variances"))
                return cls(
                    looks=Moments(*moments),
                    correct=tensors["right"],
                    held_out=tensors["seen.counts"].long(),
                    labelled_image_digests=tensors["fingerprints"],
                    judge=judge,
                )
            except (CganError, KeyError) as error:  # its advice fits a file of the project only
                reason = str(error).replace(f"{folder}/", "").split(". ")[0].rstrip(".")
                raise ModelError(f"{uri}: missing or damaged ({reason}). {advice}") from None


def keep_data(registry: Registry, version: Version, inputs: Inputs, conditions: Conditions) -> None:
    """Store at the version's run what `KeptData.load` reads."""
    images, labels = all_images(inputs)
    confusion = conditions.judge_accuracy.confusion
    looks = Moments.of_images(images, labels, inputs.held_out.classes)
    tensors = {
        **{f"looks.{key}": value for key, value in vars(looks).items()},
        "right": confusion.diagonal(),
        "seen.counts": confusion.sum(dim=1),
        "fingerprints": labelled_image_digests(images, labels),
    }
    with tempfile.TemporaryDirectory(prefix="cgan-") as folder:
        save_tensors(Path(folder) / KEPT_FILE, "training_data", tensors, {})
        for path in (JUDGE, Path(folder) / KEPT_FILE):
            registry.client.log_artifact(version.run_id, str(path), GATE_FOLDER)


def labelled_image_digests(images: Tensor, labels: Tensor) -> Tensor:
    """A hash of each image with its label: int64 [N]. Equal images with equal labels have equal hashes."""
    pairs = zip(images.numpy(), labels.tolist(), strict=True)
    digests = (
        hashlib.blake2b(image.tobytes(), digest_size=8, salt=b"%d" % label).digest()
        for image, label in pairs
    )
    return torch.tensor([int.from_bytes(d, signed=True) for d in digests], dtype=torch.int64)


def all_images(inputs: Inputs) -> tuple[Tensor, Tensor]:
    """The images and labels of the training part and the hold-out."""
    parts = (inputs.train, inputs.held_out)
    pixels, labels, _ = zip(*(part.tensors for part in parts), strict=True)
    return torch.cat(pixels), torch.cat(labels)


# -- The checks --------------------------------------------------------------------------------------


def data_checks(
    kept: KeptData, inputs: Inputs, limits: GateParams, owner: str = "the champion's"
) -> list[Check]:
    """Today's images and labels, class by class, beside those of the version that `owner` names.

    Images that it did not have under the same label are new. They are also checked by themselves, since a few
    would not show among many; and its judge sees only these."""
    images, labels = all_images(inputs)
    shape, classes, names = images.shape[1:], inputs.held_out.classes, inputs.held_out.class_names
    is_new = ~torch.isin(labelled_image_digests(images, labels), kept.labelled_image_digests)
    new = is_new.nonzero()[:, 0]
    shifts = largest_shifts(Moments.of_images(images, labels, classes), kept.looks, shape)
    counts = labels.bincount(minlength=classes).double()
    checks = [class_mix_check(counts, kept.looks.counts, names, mean_group_size(inputs), owner)]
    if len(new):
        looks_of_new = Moments.of_images(images[new], labels[new], classes)
        shifts += largest_shifts(looks_of_new, kept.looks, shape)
        order = torch.randperm(len(new), generator=torch.Generator().manual_seed(0))
        judged = new[order][:MAX_JUDGED]
        seen = predict(kept.judge, images[judged]).labels
        confusion = conditional_accuracy(seen, labels[judged], classes).confusion
        checks += agreement_checks(confusion, kept, limits.max_agreement_drop, names, owner)
    largest = shift_finding(shifts, limits.max_class_shift, names)
    what = f"standard deviations by which a class's images differ from {owner}"
    shift = _check("class_shift", what, largest.value, limits.max_class_shift, largest.why, False)
    return [shift, *checks]


def _check(
    name: str, what: str, value: float, limit: float, why: str, is_share: bool = True
) -> Check:
    """Of a value that an interval has been taken from already."""
    passed = value <= limit
    return Check(
        name=name,
        what=what,
        value=value,
        limit=limit,
        passed=passed,
        at_most=True,
        why="" if passed else why,
        is_share=is_share,
    )


def mean_group_size(inputs: Inputs) -> float:
    """The size of an image's group, mean over the images; 1 without groups. A group is never split, so each
    part can be counted by itself."""
    groups = [part.groups for part in (inputs.train, inputs.held_out) if part.groups is not None]
    if not groups:
        return 1.0
    sizes = np.concatenate([np.unique(part, return_counts=True)[1] for part in groups])
    return float(np.square(sizes).sum() / sizes.sum())


class _Agreement(NamedTuple):
    """How many `images` of class `label` a judge agrees with, today and `before`, in its own hold-out."""

    label: int
    agreed: int
    images: int
    agreed_before: int
    images_before: int

    @property
    def loss(self) -> float:
        """The share of the agreement that is surely lost: by the optimistic ends of both intervals."""
        most_now = wilson_interval(self.agreed, self.images)[1]
        least_before = wilson_interval(self.agreed_before, self.images_before)[0]
        return 1 - most_now / least_before if self.agreed_before else 0.0


def agreement_checks(
    confusion: Tensor, kept: KeptData, max_drop: float, names: list[str], owner: str
) -> list[Check]:
    """How much less a version's judge agrees with labels than with those of its own hold-out: in all, and in
    the class where it fell most, as a fraction of what it was. `confusion` int64 [classes, classes]: images
    by label and by what the judge sees."""
    columns = (confusion.diagonal(), confusion.sum(dim=1), kept.correct, kept.held_out)
    rows = torch.stack(columns, dim=1).tolist()
    classes = [_Agreement(label, *row) for label, row in enumerate(rows)]
    compared = [each for each in classes if each.images >= MIN_CLASS_IMAGES and each.images_before]
    if not compared:
        return []
    now, (_, most_now) = mean_share([(each.agreed, each.images) for each in compared])
    before, (least_before, _) = mean_share(
        [(each.agreed_before, each.images_before) for each in compared]
    )
    worst = max(compared, key=lambda each: each.loss)
    mistaken = confusion[worst.label].scatter(0, torch.tensor(worst.label), 0)
    return [
        _check(
            "label_agreement",
            f"labels that {owner} judge no longer agrees with, mean over classes",
            max(0.0, least_before - most_now),
            max_drop,
            f"{owner} judge agrees with {percent(now)} of the new labels, but agreed with {percent(before)} "
            "of those of its own hold-out (means over the classes)",
        ),
        _check(
            "class_agreement",
            f"labels of one class that {owner} judge no longer agrees with",
            max(0.0, worst.loss),
            MAX_CLASS_AGREEMENT_DROP,
            f"{owner} judge sees {names[int(mistaken.argmax())]} in "
            f"{percent(int(mistaken.max()) / worst.images, 0)} of the {worst.images:,} images labelled "
            f"{names[worst.label]}",
        ),
    ]


def class_mix_check(
    counts: Tensor, before: Tensor, names: list[str], group_size: float, owner: str
) -> Check:
    """How much of its share of the images a class has lost, less what chance explains; of the class that has
    lost most. `counts` [classes]: of today's images. `group_size`: images in a group. Groups are drawn whole,
    so the variance is as many times larger (Kish, Survey Sampling, 1965, 5.4)."""
    shares, shares_before = counts / counts.sum(), before / before.sum()
    # Of two binomial shares whose difference is 0, with the shares of both taken together.
    pooled = (counts + before) / (counts + before).sum()
    variance = pooled * (1 / counts.sum() + 1 / before.sum()) * group_size
    z = NormalDist().inv_cdf(1 - 0.05 / (2 * len(shares)))  # 95 % for all classes (Bonferroni)
    lost = ((shares_before - shares - z * variance.sqrt()) / shares_before).nan_to_num(nan=0.0)
    worst = int(lost.argmax())
    return _check(
        "class_mix",
        f"share of a class, of {owner}, that is lost beyond chance",
        max(0.0, float(lost[worst])),
        MAX_CLASS_LOSS,
        f"of the images {percent(float(shares[worst]))} are of class {names[worst]}, of {owner} "
        f"{percent(float(shares_before[worst]))}",
    )
