"""What judges think of images that they have not seen: each fold is judged by one trained on the others."""

from __future__ import annotations

import functools

import numpy as np
import torch

from cgan.data.dataset import Dataset, first_copies, image_digests
from cgan.errors import DataError
from cgan.model.hardware import Hardware
from cgan.params.sections import JudgeParams
from cgan.quality.judge import Progress, look, silent, train_judge
from cgan.quality.label_errors import Probabilities, folds


def out_of_fold(
    data: Dataset, params: JudgeParams, count: int, hardware: Hardware, progress: Progress = silent
) -> Probabilities:
    """float64 [N, classes], of judges trained by `params` on the other `count` - 1 folds of `data`.

    Raises DataError where a class has too few images: some judge would never see it.
    """
    labels = data.labels.numpy()
    fold = folds(labels, count, first_copies(image_digests(data.images.numpy())), params.seed)
    for label in np.unique(labels):
        if len(np.unique(fold[labels == label])) == 1:
            raise DataError(
                f"class {label}: all its distinct images are in one of the {count} folds, so that "
                "no judge can learn it from the others. Add images of this class, or remove it."
            )
    found = np.zeros((len(labels), data.classes))
    for number in range(count):
        inside, outside = (
            torch.from_numpy(where.nonzero()[0]) for where in (fold == number, fold != number)
        )
        judge = train_judge(
            Dataset(data.images[outside], data.labels[outside], data.metadata),
            params,
            hardware.device,
            hardware.precision,
            functools.partial(
                progress,
                f"judge {number + 1} of {count}",
                images_a_step=min(params.batch_size, len(data) - len(inside)),
            ),
        )
        seen = look(judge, data.images[inside]).logits
        found[inside.numpy()] = seen.double().softmax(dim=1).numpy()
    return found
