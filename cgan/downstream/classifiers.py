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
from cgan.downstream.sets import repeated_rows
from cgan.images import Images
from cgan.model.hardware import Hardware
from cgan.params.sections import JudgeParams
from cgan.quality.judge import (
    BATCH_SIZE,
    Judge,
    Progress,
    load_judge,
    predict,
    save_judge,
    silent,
    train_judge,
)


@dataclass(frozen=True)
class Method:
    """How a classifier is trained, on augmented images. `description`: in words; `fill`: with what all
    classes are filled up to equal counts; `balanced`: is the loss?"""

    description: str
    fill: Literal["", "repeated", "drawn"] = ""
    balanced: bool = False


METHODS = {
    "augmented": Method("real images, augmented"),
    "balanced_loss": Method("augmented, with a class-balanced loss", balanced=True),
    "repeated": Method("oversampled to equal counts, augmented", "repeated"),
    DRAWN: Method("filled up with drawings, augmented", "drawn"),
}
LOGIT_ADJUSTED = "logit_adjusted"
METHOD_NAMES = {name: method.description for name, method in METHODS.items()} | {
    LOGIT_ADJUSTED: "augmented, with logits adjusted afterwards",
    PRETRAINED: "logistic regression on a pretrained network's features",
}
BASELINES = ("augmented", LOGIT_ADJUSTED, "balanced_loss", "repeated")


@dataclass(frozen=True)
class Round:
    """Trains classifiers on `training`, and keeps each in `folder`: after a kill those that are there are not
    trained again. `missing_labels` int64 [M]: of the images that would fill up the classes; `draw_missing`
    draws them, uint8 [M, C, H, W]. `units` int64 [N]: images of `test` with equal units belong together."""

    name: str
    training: Images
    missing_labels: Tensor
    draw_missing: Callable[[], Tensor]
    recipe: JudgeParams
    folder: Path
    hardware: Hardware
    test: Images
    units: Tensor

    def outcome(self, progress: Progress = silent) -> Outcome:
        """Train the classifiers that are not trained yet, and test all."""
        right, labels = {}, self.test.tensors.labels
        for number, name in enumerate(METHODS, start=1):
            bar = partial(progress, f"{self.name}, classifier {number} of {len(METHODS)}")
            logits = predict(self.classifier(name, bar), self.test.tensors.pixels).logits
            right[name] = logits.argmax(dim=1) == labels
            if name == "augmented":
                predicted = adjusted_logits(logits, self.training.tensors.labels).argmax(dim=1)
                right[LOGIT_ADJUSTED] = predicted == labels
        return Outcome(labels, self.units, right)

    def classifier(self, name: str, progress: Progress) -> Judge:
        path = self.folder / f"{name}.safetensors"
        if not path.is_file():
            method, hardware = METHODS[name], self.hardware
            data = self._data(method)
            trained = train_judge(
                data,
                self.recipe,
                hardware.device,
                hardware.precision,
                partial(progress, images_a_step=min(BATCH_SIZE, len(data))),
                class_weights=balanced_weights(data) if method.balanced else None,
            )
            save_judge(path, trained, {"method": name})
        return load_judge(path)[0].to(self.hardware.device)

    def _data(self, method: Method) -> Images:
        pixels, labels, _ = self.training.tensors
        if not method.fill:
            return self.training
        if method.fill == "drawn":
            more = self.draw_missing()
        else:
            more = pixels[repeated_rows(labels, self.missing_labels, self.recipe.seed)]
        return Images(
            torch.cat([pixels, more]),
            torch.cat([labels, self.missing_labels]),
            self.training.class_names,
        )


def adjusted_logits(logits: Tensor, labels: Tensor) -> Tensor:
    """Logits [N, classes] less the logarithm of how frequent each class was in the training `labels`, so that
    rare classes are not overlooked: no training (Menon et al., arXiv:2007.07314, post hoc, τ = 1)."""
    frequency = torch.bincount(labels, minlength=logits.shape[1]).clamp(min=1) / len(labels)
    return logits - frequency.log()


def balanced_weights(data: Images) -> Tensor:
    """The weight of each class in the loss, float32 [classes], of mean 1: by the effective number of its
    images (Cui et al., arXiv:1901.05555, β = 1 - 1/N)."""
    counts = data.tensors.counts.double()
    beta = 1 - 1 / len(data)
    weights = torch.where(counts > 0, (1 - beta) / (1 - beta ** counts.clamp(min=1)), 0.0)
    return (weights / weights[counts > 0].mean()).float()
