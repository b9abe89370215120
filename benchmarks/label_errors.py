"""How well are wrong labels found? Some labels of the sample are flipped, and both ways look for them.

`python -m benchmarks.label_errors`, after `dvc repro`; some minutes. *In-sample*: what a run's page shows,
one judge that has seen nine rows in ten with their labels. *Out-of-fold*: what `cgan label-errors` does.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from cgan.data.csv_reader import read_csv
from cgan.data.csv_report import validated_params
from cgan.data.dataset import Dataset, split
from cgan.files import read_json
from cgan.model.hardware import choose_hardware, compute_deterministically
from cgan.params.reading import load_params
from cgan.project import CSV, VALIDATION
from cgan.quality.judge import look, train_judge
from cgan.quality.label_errors import Suspects, calibrated, doubtful_labels, label_errors
from cgan.quality.out_of_fold import out_of_fold, part_of
from cgan.stages.runner import progress

FLIPPED = 0.01
FOLDS = 5
SEEDS = (1, 2)


def main() -> None:
    params = load_params()
    compute_deterministically()
    hardware = choose_hardware("auto", "auto")
    table = read_csv(CSV, validated_params(read_json(VALIDATION), str(VALIDATION)))
    print("| seed | way | flagged | of them flipped | flipped found | of the first 50 |")
    print("|---|---|---|---|---|---|")
    for seed in SEEDS:
        labels, flipped = flip(table.labels, table.classes, seed)
        data = Dataset(
            torch.from_numpy(table.images), torch.from_numpy(labels), {"classes": table.classes}
        )
        training, _ = split(table.images, labels, 0.1, seed)
        judge = train_judge(
            part_of(data, training), params.train_judge, hardware.device, hardware.precision
        )
        inside = look(judge, data.images).logits.double().softmax(dim=1).numpy()
        outside = out_of_fold(data, params.train_judge, FOLDS, hardware, progress)
        ways = {
            "in-sample": doubtful_labels(inside, labels),
            "out-of-fold, another class": doubtful_labels(outside, labels),
            "out-of-fold, confident": label_errors(outside, labels),
            "out-of-fold, calibrated and confident": label_errors(
                calibrated(outside, labels), labels
            ),
        }
        for way, found in ways.items():
            print(f"| {seed} | {way} | {in_words(found, flipped)} |")


def flip(
    labels: NDArray[np.int64], classes: int, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Labels of which a part is wrong, and the rows that are."""
    random = np.random.default_rng(seed)
    rows = np.sort(random.choice(len(labels), round(FLIPPED * len(labels)), replace=False))
    wrong = labels.copy()
    wrong[rows] = (labels[rows] + random.integers(1, classes, len(rows))) % classes
    return wrong, rows


def in_words(found: Suspects, flipped: NDArray[np.int64]) -> str:
    right = np.isin(found.rows, flipped)
    first = right[: len(flipped)].sum()
    precision = f"{right.mean():.0%}" if len(found) else "–"
    return f"{len(found)} | {precision} | {right.sum() / len(flipped):.0%} | {first}"


if __name__ == "__main__":
    main()
