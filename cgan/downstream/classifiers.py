"""The classifiers of a round, what each learns from, and how often it is right. All have the judge's network,
recipe and number of steps."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from cgan.downstream.effect import DRAWN, Outcome
from cgan.downstream.pretrained import PRETRAINED
from cgan.downstream.sets import repeated
from cgan.images import Images
from cgan.model.hardware import Hardware
from cgan.params.sections import JudgeParams
from cgan.quality.judge import Judge, Progress, load_judge, predict, save_judge, silent, train_judge

MIXED = 0.2  # of both parameters of mixup's beta distribution (Zhang et al., arXiv:1710.09412)


@dataclass(frozen=True)
class Method:
    """`what` it is in words. `filled`: what fills up the classes."""

    what: str
    filled: Literal["", "repeated", "drawn"] = ""
    augment: bool = True
    balanced: bool = False
    mixup: float = 0.0


METHODS = {
    "real": Method("real images as they are", augment=False),
    "augmented": Method("real images, augmented"),
    "balanced_loss": Method("augmented, with a class-balanced loss", balanced=True),
    "repeated": Method("oversampled to equal counts, augmented", "repeated"),
    "mixup": Method("oversampled, augmented, with mixup", "repeated", mixup=MIXED),
    DRAWN: Method("filled up with drawings, augmented", "drawn"),
}
LOGIT_ADJUSTED = "logit_adjusted"
METHOD_NAMES = {name: method.what for name, method in METHODS.items()} | {
    LOGIT_ADJUSTED: "augmented, with logits adjusted afterwards",
    PRETRAINED: "logistic regression on a pretrained network's features",
}
BASELINES = ("real", "augmented", LOGIT_ADJUSTED, "balanced_loss", "repeated", "mixup")

Drawn = Callable[[Judge], Tensor]
"""A drawing of each label that lacks, uint8 [M, C, H, W], given a judge that has seen the training images
alone."""


@dataclass(frozen=True)
class Round:
    """Trains classifiers on `training`, and keeps each in `folder`: after a kill those that are there are not
    trained again. `units` int64 [N]: equal ones of the images to test on belong together."""

    name: str
    training: Images
    lacking: Tensor  # the label of each image that the classes lack
    drawn: Drawn
    recipe: JudgeParams
    folder: Path
    hardware: Hardware
    test: Images
    units: Tensor

    def outcome(self, progress: Progress = silent) -> Outcome:
        """Train what is not trained yet, and ask."""
        right, labels = {}, self.test.tensors.labels
        for number, name in enumerate(METHODS, start=1):
            bar = partial(progress, f"{self.name}, classifier {number} of {len(METHODS)}")
            logits = predict(self.classifier(name, bar), self.test.tensors.pixels).logits
            right[name] = logits.argmax(dim=1) == labels
            if name == "augmented":
                likeliest = adjusted(logits, self.training.tensors.labels).argmax(dim=1)
                right[LOGIT_ADJUSTED] = likeliest == labels
        return Outcome(labels, self.units, right)

    def classifier(self, name: str, progress: Progress) -> Judge:
        path = self.folder / f"{name}.safetensors"
        if not path.is_file():
            method, where = METHODS[name], (self.hardware.device, self.hardware.precision)
            data = self._data(method)
            trained = train_judge(
                *(data, self.recipe, *where),
                partial(progress, images_a_step=min(self.recipe.batch_size, len(data))),
                augment=method.augment,
                class_weights=class_balanced(data) if method.balanced else None,
                mixup=method.mixup,
            )
            save_judge(path, trained, {"method": name})
        return load_judge(path)[0].to(self.hardware.device)

    def _data(self, method: Method) -> Images:
        data, lacking = self.training, self.lacking
        if not method.filled:
            return data
        if method.filled == "drawn":
            more = self.drawn(self.classifier("augmented", partial(silent, "")))
        else:
            more = data.tensors.pixels[repeated(data.tensors.labels, lacking, self.recipe.seed)]
        images, labels = (
            torch.cat([data.tensors.pixels, more]),
            torch.cat([data.tensors.labels, lacking]),
        )
        return Images(images, labels, data.class_names)


def adjusted(logits: Tensor, labels: Tensor) -> Tensor:
    """Logits [N, classes] less the logarithm of how frequent each class was in the training `labels`, so that
    rare classes are not overlooked: no training (Menon et al., arXiv:2007.07314, post hoc, τ = 1)."""
    frequency = torch.bincount(labels, minlength=logits.shape[1]).clamp(min=1) / len(labels)
    return logits - frequency.log()


def class_balanced(data: Images) -> Tensor:
    """The weight of each class in the loss, float32 [classes], of mean 1: by the effective number of its
    images (Cui et al., arXiv:1901.05555, β = 1 - 1/N)."""
    counts = data.tensors.counts.double()
    beta = 1 - 1 / len(data)
    weights = torch.where(counts > 0, (1 - beta) / (1 - beta ** counts.clamp(min=1)), 0.0)
    return (weights / weights[counts > 0].mean()).float()
