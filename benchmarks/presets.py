"""What each preset's drawings are worth: every metric, mean and spread over seeds, next to reals.

The split, the judge and the counts are the ground's: as many drawings as images are held out. The
presets were chosen on another split of the same images; nothing was chosen on these numbers.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from cgan.dataset import Dataset
from cgan.hardware import choose_hardware
from cgan.judge import accuracy, look, train_judge
from cgan.metrics import frechet_distance, manifold
from cgan.sampling import draw
from cgan.training import train

from .ground import DRAW_SEED, Ground, all_params, preset
from .tables import Result, Table

PRESETS = ("fast", "default", "best")
GAN_TRAIN_KIMG = 120.0
COLUMNS = ("accuracy", "worst_class", "fid", "precision", "recall", "coverage", "gan_train")


def measure(
    ground: Ground, seeds: tuple[int, ...], say: Callable[[str], None], kimg: float | None = None
) -> Result:
    """`kimg` shortens every training: a trial of the benchmark itself."""
    changes = {} if kimg is None else {"total_kimg": kimg}
    count = len(ground.heldout)
    table = Table(
        f"The presets on {count:,} drawings: mean ± spread over {len(seeds)} seeds",
        ["preset", "s of training", *(name.replace("_", " ") for name in COLUMNS)],
        note=(
            f"On {ground.about}; {len(ground.training):,} images to train on, {count:,} held out. "
            "Training: whole `train()` calls on the wall clock, without previews, probes and "
            "tracking. Spread: standard deviation. *fid*: Fréchet distance in the features of a "
            f"judge that is right on {ground.floor[0]:.2%} of the held-out images; its scale is this "
            "judge's own. *gan train*: accuracy on held-out reals of a class network that saw the "
            f"drawings only ({GAN_TRAIN_KIMG:.0f} kimg); the real row: that saw as many reals. "
            "*real*: training images in the drawings' place."
        ),
    )
    figures: dict[str, Any] = {}
    order = torch.randperm(len(ground.training), generator=torch.Generator().manual_seed(DRAW_SEED))
    rows = order[:count]
    real = scores(ground, ground.training.images[rows], ground.training.labels[rows])
    table.add("real", "", *(f"{real[name]:.4g}" for name in COLUMNS))
    say(str(real))
    for name in PRESETS:
        runs = [one(ground, name, seed, changes) for seed in seeds]
        figures[name] = runs
        for run in runs:
            say(f"{name} {run}")
        cells = [[run[key] for run in runs] for key in ("seconds", *COLUMNS)]
        table.add(name, spread(cells[0], 3), *(spread(values, 4) for values in cells[1:]))
    return Result([table], figures={"real": real, "presets": figures})


def spread(values: list[float], digits: int) -> str:
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.fmean(values):.{digits}g} ± {deviation:.2g}"


def one(ground: Ground, name: str, seed: int, changes: dict[str, Any]) -> dict[str, float]:
    params = preset(name, device="cpu", seed=seed, previews=0, probes=0, **changes)
    trained = train(ground.training, params)
    asked = ground.asked
    drawn = draw(trained.generator, asked, DRAW_SEED)
    return {"seed": seed, "seconds": trained.wall_time_s, **scores(ground, drawn, asked)}


def scores(ground: Ground, images: Tensor, asked: Tensor) -> dict[str, float]:
    seen = look(ground.judge, images)
    right = (seen.classes == asked).double()
    by_class = [right[asked == label].mean().item() for label in range(ground.training.classes)]
    near = manifold(ground.real.features, seen.features)
    recipe = all_params().train_judge.model_copy(update={"total_kimg": GAN_TRAIN_KIMG})
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
