"""Are today's data like those that the champion learnt from? What is kept of each version to tell.

Today's judge learnt from today's data: it finds the drawings of spoilt data good and those of a good
champion bad. So the measure is what was kept when the champion was registered: how the images of each class
looked, its own judge, and what that saw in its hold-out. Noise raises no alarm: everything is taken at the
optimistic end of its interval. docs/log.md has what clean and spoilt data get.
"""

from __future__ import annotations

import hashlib
import tempfile
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist

import torch
from torch import Tensor

from cgan.errors import CganError, ModelError, percent
from cgan.model.model_file import load_tensors, save_tensors
from cgan.params.sections import GateParams
from cgan.project import JUDGE
from cgan.quality.class_shift import ENOUGH, Moments, furthest
from cgan.quality.comparison import EvaluationSet
from cgan.quality.evaluation import Inputs
from cgan.quality.judge import Judge, load_judge, look
from cgan.quality.metrics import conditional_accuracy, mean_share, wilson_interval
from cgan.registry.client import GATE_FOLDER, Registry, Version, downloaded
from cgan.registry.decision import shifted
from cgan.verdict import Check

DATA = "training_data.safetensors"
MAX_CLASS_MIX = 0.10  # part of the images that would need another class
MAX_CLASS_LOSS = 0.05  # of a class's agreement
ANOTHER_CHAMPION = (
    "bring back the previous champion (`cgan registry rollback --why …`), or delete the alias `champion` in "
    "MLflow, so that the next `cgan gate` chooses a first champion"
)
LOOKED_AT = 5000  # images, at most, that the champion's judge sees


@dataclass(frozen=True)
class Reference:
    """What was kept of a version: how the images of its CSV looked, its judge and what that saw in the
    hold-out, and the fingerprints int64 [N] of those images."""

    looks: Moments
    seen: Moments
    right: Tensor  # int64 [classes]: held-out images whose label the judge named
    fingerprints: Tensor
    judge: Judge


def keep_at_run(
    registry: Registry, version: Version, evaluation_set: EvaluationSet, inputs: Inputs
) -> None:
    """Store at the run what `reference_of` reads."""
    (images, labels), heldout = _whole(inputs), inputs.heldout
    looks = Moments.of_images(images, labels, heldout.classes)
    seen = Moments.of([evaluation_set.real.features], heldout.labels, heldout.classes)
    tensors = {
        **{f"looks.{key}": value for key, value in vars(looks).items()},
        **{f"seen.{key}": value for key, value in vars(seen).items()},
        "right": evaluation_set.agreement.confusion.diagonal().contiguous(),
        "fingerprints": fingerprints(images, labels),
    }
    with tempfile.TemporaryDirectory(prefix="cgan-") as folder:
        save_tensors(Path(folder) / DATA, "training_data", tensors, {})
        for path in (JUDGE, Path(folder) / DATA):
            registry.client.log_artifact(version.run_id, str(path), GATE_FOLDER)


def reference_of(registry: Registry, version: Version) -> Reference:
    """Raises ModelError when it is gone, damaged or of an older cgan, or the store cannot give it."""
    address = f"runs:/{version.run_id}/{GATE_FOLDER}"
    advice = f"If the store's files are lost, {ANOTHER_CHAMPION}."
    with downloaded(registry, address, advice) as folder:
        try:
            judge, _ = load_judge(folder / JUDGE.name)
            tensors, _ = load_tensors(folder / DATA, "training_data")
            looks, seen = (
                Moments(*(tensors[f"{name}.{key}"] for key in ("counts", "means", "variances")))
                for name in ("looks", "seen")
            )
            return Reference(looks, seen, tensors["right"], tensors["fingerprints"], judge)
        except (CganError, KeyError) as error:  # its advice fits a file of the project only
            reason = str(error).replace(f"{folder}/", "").split(". ")[0].rstrip(".")
            raise ModelError(f"{address}: missing or damaged ({reason}). {advice}") from None


def doubts_about(registry: Registry, champion: Version, inputs: Inputs, limits: GateParams) -> str:
    """What speaks against today's data, which are not those that the champion learnt from: nothing is "".

    Raises ModelError where that cannot be known."""
    try:
        reference = reference_of(registry, champion)
    except ModelError as error:
        raise ModelError(f"cannot tell whether the data are like the champion's: {error}") from None
    signs = [check.in_words() for check in compared(reference, inputs, limits) if not check.passed]
    return f"the images or labels are unlike the champion's ({'; '.join(signs)})" if signs else ""


def compared(reference: Reference, inputs: Inputs, limits: GateParams) -> list[Check]:
    """Today's images and labels beside the champion's, class by class.

    Images that the champion had, under the same label, are no news: the others are also looked at by
    themselves, so that few of them do not vanish among many, and its judge sees those alone."""
    images, labels = _whole(inputs)
    shape, classes, names = images.shape[1:], inputs.heldout.classes, inputs.heldout.class_names
    new = (~torch.isin(fingerprints(images, labels), reference.fingerprints)).nonzero()[:, 0]
    shifts = furthest(Moments.of_images(images, labels, classes), reference.looks, shape)
    checks = [_mix(labels.bincount(minlength=classes).double(), reference.looks.counts)]
    if len(new):
        fresh = Moments.of_images(images[new], labels[new], classes)
        new = new[torch.randperm(len(new), generator=torch.Generator().manual_seed(0))][:LOOKED_AT]
        seen = look(reference.judge, images[new])
        shifts += furthest(fresh, reference.looks, shape)
        shifts += furthest(Moments.of([seen.features], labels[new], classes), reference.seen)
        confusion = conditional_accuracy(seen.classes, labels[new], classes).confusion
        total = reference.seen.counts.long()
        checks += agreement(confusion, reference.right, total, limits.max_agreement_drop, names)
    what = "standard deviations by which a class's images differ from the champion's"
    return [shifted("class_shift", what, shifts, limits.max_class_shift, names), *checks]


def agreement(
    confusion: Tensor, right: Tensor, total: Tensor, max_drop: float, names: list[str]
) -> list[Check]:
    """How much less the champion's judge agrees with labels than with those of its own hold-out: in all, and
    in the class where it fell furthest, as a part of what it was.

    `confusion` int64 [classes, classes]: images by label and by what the judge sees. `right` of `total`,
    int64 [classes]: what it was.
    """
    # Agreed with now, of; agreed with then, of.
    counts = torch.stack([confusion.diagonal(), confusion.sum(dim=1), right, total], dim=1).tolist()
    rows = [row for row in counts if row[1] >= ENOUGH and row[3]]
    if not rows:
        return []
    now, now_between = mean_share([(row[0], row[1]) for row in rows])
    then, then_between = mean_share([(row[2], row[3]) for row in rows])
    why = (
        f"the champion's judge agrees with {percent(now)} of the new labels, but agreed with "
        f"{percent(then)} of those of its own hold-out (means over the classes)"
    )
    losses, seen_as = [0.0], []
    for label, (agreed, images, did, held) in enumerate(counts):
        if images >= ENOUGH and did:
            losses.append(1 - wilson_interval(agreed, images)[1] / wilson_interval(did, held)[0])
            if losses[-1] > MAX_CLASS_LOSS:
                others = confusion[label].scatter(0, torch.tensor(label), 0)
                part = f"{percent(int(others.max()) / images, 0)} of the {images:,} images"
                seen_as.append(f"{names[int(others.argmax())]} in {part} labelled {names[label]}")
    return [
        _at_most(
            "label_agreement",
            "labels that the champion's judge no longer agrees with, mean over classes",
            max(0.0, then_between[0] - now_between[1]),
            max_drop,
            why,
        ),
        _at_most(
            "class_agreement",
            "labels of one class that the champion's judge no longer agrees with",
            max(losses),
            MAX_CLASS_LOSS,
            f"the champion's judge sees {', '.join(seen_as[:5])}",
        ),
    ]


def fingerprints(images: Tensor, labels: Tensor) -> Tensor:
    """64 bits an image with its label: int64 [N]. Equal ones have equal ones."""
    hashes = [
        int.from_bytes(
            hashlib.blake2b(image.tobytes(), digest_size=8, salt=b"%d" % label).digest(),
            signed=True,
        )
        for image, label in zip(images.numpy(), labels.tolist(), strict=True)
    ]
    return torch.tensor(hashes, dtype=torch.int64)


def _whole(inputs: Inputs) -> tuple[Tensor, Tensor]:
    """All images and labels of the CSV."""
    parts = (inputs.training, inputs.heldout)
    return torch.cat([part.images for part in parts]), torch.cat([part.labels for part in parts])


def _mix(counts: Tensor, past: Tensor) -> Check:
    """How many images would need another class, less what chance explains: of counts [classes]."""
    shares, past_shares = counts / counts.sum(), past / past.sum()
    z = NormalDist().inv_cdf(1 - 0.05 / (2 * len(shares)))
    spread = (counts + past) / (counts + past).sum() * (1 / counts.sum() + 1 / past.sum())
    value = float(((shares - past_shares).abs() - z * spread.sqrt()).clamp(min=0).sum() / 2)
    return _at_most("class_mix", "images that would need another class", value, MAX_CLASS_MIX)


def _at_most(name: str, what: str, value: float, limit: float, why: str = "") -> Check:
    """`why` stands where the limit is passed."""
    passed = value <= limit
    return Check(name, what, value, limit, passed, at_most=True, why="" if passed else why)
