"""What each preset's drawings are worth: every metric, mean and spread over seeds, next to reals.

The split, the judge and the counts are the ground's: as many drawings as images are held out. The
presets were chosen on another split of the same images; nothing was chosen on these numbers.
"""

from __future__ import annotations

import statistics

import torch
from torch import Tensor

from cgan.data.dataset import Dataset
from cgan.model.hardware import choose_hardware
from cgan.quality.judge import accuracy, look, train_judge
from cgan.quality.metrics import frechet_distance, manifold

from .ground import DRAW_SEED, Ground, all_params
from .tables import Table

PRESETS = ("fast", "default", "best")
COLUMNS = ("accuracy", "worst_class", "fid", "precision", "recall", "coverage", "gan_train")


def real_scores(ground: Ground, gan_train_kimg: float) -> dict[str, float]:
    """What as many training images get in the drawings' place."""
    order = torch.randperm(len(ground.training), generator=torch.Generator().manual_seed(DRAW_SEED))
    rows = order[: len(ground.heldout)]
    return scores(
        ground, ground.training.images[rows], ground.training.labels[rows], gan_train_kimg
    )


def table(
    ground: Ground,
    real: dict[str, float],
    runs: dict[str, list[dict[str, float]]],
    gan_train_kimg: float,
) -> Table:
    """`runs`: of each preset one dict a seed, with `seconds` and COLUMNS."""
    count = len(ground.heldout)
    made = Table(
        f"The presets on {count:,} drawings",
        ["preset", "s of training", *(name.replace("_", " ") for name in COLUMNS), "seeds"],
        note=(
            f"On {ground.about}; {len(ground.training):,} images to train on, {count:,} held out. "
            "Training: the steps, without previews, probes and tracking. Mean ± standard deviation "
            "over the seeds. *fid*: Fréchet distance in the features of a "
            f"judge that is right on {ground.floor[0]:.2%} of the held-out images; its scale is this "
            "judge's own. *gan train*: accuracy on held-out reals of a class network that saw the "
            f"drawings only ({gan_train_kimg:.0f} kimg); the real row: that saw as many reals. "
            "*real*: training images in the drawings' place."
        ),
    )
    made.add("real", "", *(f"{real[name]:.4g}" for name in COLUMNS), "")
    for name, each in runs.items():
        cells = [[run[key] for run in each] for key in ("seconds", *COLUMNS)]
        spreads = (spread(cells[0], 3), *(spread(values, 4) for values in cells[1:]))
        made.add(name, *spreads, str(len(each)))
    return made


def spread(values: list[float], digits: int) -> str:
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.fmean(values):.{digits}g} ± {deviation:.2g}"


def scores(
    ground: Ground, images: Tensor, asked: Tensor, gan_train_kimg: float
) -> dict[str, float]:
    seen = look(ground.judge, images)
    right = (seen.classes == asked).double()
    by_class = [right[asked == label].mean().item() for label in range(ground.training.classes)]
    near = manifold(ground.real.features, seen.features)
    recipe = all_params().train_judge.model_copy(update={"total_kimg": gan_train_kimg})
    hardware = choose_hardware("cpu", "auto")
    pupil = train_judge(
        Dataset(images, asked, ground.training.metadata),
        recipe,
        hardware.device,
        hardware.precision,
    )
    return {
        "accuracy": right.mean().item(),
        "worst_class": min(by_class),
        "fid": frechet_distance(ground.real.features, seen.features),
        "precision": near.precision,
        "recall": near.recall,
        "coverage": near.coverage,
        "gan_train": accuracy(pupil, ground.heldout),
    }
