"""What judges think of images that they have not seen: each fold is judged by one trained on the others."""

from __future__ import annotations

import functools
import time
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from cgan.data.dataset import Dataset, first_copies, image_digests
from cgan.errors import DataError
from cgan.model.hardware import Hardware
from cgan.params.sections import JudgeParams
from cgan.quality.judge import Progress, look, silent, train_judge
from cgan.quality.label_errors import Probabilities, folds

TRIED_STEPS = 12  # of a training, to say how long all will take


def out_of_fold(
    data: Dataset, params: JudgeParams, count: int, hardware: Hardware, progress: Progress = silent
) -> Probabilities:
    """float64 [N, classes], of judges trained by `params` on the other `count` - 1 folds of `data`.

    Raises DataError where a class has too few images: some judge would never see it.
    """
    labels = data.labels.numpy()
    fold = folds(labels, count, first_copies(image_digests(data.images.numpy())), params.seed)
    _require_all_classes(labels, fold, count, data.classes)
    found = np.zeros((len(labels), data.classes))
    for number in range(count):
        inside = torch.from_numpy(np.flatnonzero(fold == number))
        judge = train_judge(
            part_of(data, np.flatnonzero(fold != number)),
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


def seconds_needed(data: Dataset, params: JudgeParams, count: int, hardware: Hardware) -> float:
    """How long `out_of_fold` will take, from the first steps of a training: without looking at the images."""
    batch = min(params.batch_size, len(data))
    short = params.model_copy(update={"total_kimg": TRIED_STEPS * batch / 1000})
    times: list[float] = []

    def timed(steps: range) -> Iterator[int]:
        for step in steps:
            times.append(time.perf_counter())
            yield step

    train_judge(data, short, hardware.device, hardware.precision, timed)
    usual = float(np.median(np.diff(times)))
    return usual * params.total_kimg * 1000 / batch * count


def part_of(data: Dataset, rows: NDArray[np.int64]) -> Dataset:
    chosen = torch.from_numpy(rows)
    return Dataset(data.images[chosen], data.labels[chosen], data.metadata)


def _require_all_classes(
    labels: NDArray[np.int64], fold: NDArray[np.int64], count: int, classes: int
) -> None:
    for number in range(count):
        missing = np.flatnonzero(np.bincount(labels[fold != number], minlength=classes) == 0)
        if len(missing):
            raise DataError(
                f"class {missing[0]}: all its distinct images are in one of the {count} folds, so that "
                "no judge can learn it from the others. Add images of this class, or remove it."
            )
