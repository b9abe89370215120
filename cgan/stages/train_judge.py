"""Stage train_judge: the class network that metrics look through, and its hold-out accuracy."""

from __future__ import annotations

import functools
import logging
import time

import torch

from cgan.data.dataset import load_dataset
from cgan.files import write_json
from cgan.model.hardware import choose_hardware, compute_deterministically
from cgan.params.reading import load_params
from cgan.project import HOLDOUT_DATA, JUDGE, JUDGE_METRICS, TRAIN_DATA
from cgan.quality.judge import accuracy, save_judge, train_judge
from cgan.quality.metrics import wilson_interval
from cgan.stages.runner import progress, run_stage

log = logging.getLogger(__name__)


def main() -> None:
    params = load_params()
    data, holdout = load_dataset(TRAIN_DATA), load_dataset(HOLDOUT_DATA)
    hardware = choose_hardware("auto", "auto")
    compute_deterministically()
    log.info(
        "Training the judge on %s images (%s, %s) …",
        f"{len(data):,}",
        hardware.device,
        hardware.precision,
    )
    started = time.perf_counter()
    batch = min(params.train_judge.batch_size, len(data))
    bar = functools.partial(progress, "judge", images_a_step=batch)
    judge = train_judge(data, params.train_judge, hardware.device, hardware.precision, bar).cpu()
    right = accuracy(judge, holdout)
    low, high = wilson_interval(round(right * len(holdout)), len(holdout))
    save_judge(
        JUDGE,
        judge,
        {
            "params": params.train_judge.model_dump(),
            "data_digest": data.metadata["digest"],
            "torch": torch.__version__,
        },
    )
    write_json(
        JUDGE_METRICS,
        {
            "judge": {
                "accuracy": round(right, 5),
                "accuracy_low": round(low, 5),
                "accuracy_high": round(high, 5),
                "heldout_images": len(holdout),
            }
        },
    )
    log.info(
        "Judge: %.2f %% of %s held-out images right (95 %% interval %.2f–%.2f), %.0f s",
        100 * right,
        f"{len(holdout):,}",
        100 * low,
        100 * high,
        time.perf_counter() - started,
    )
    if warning := cannot_judge(right, low, high, params.gate.min_judge_accuracy):
        log.warning(warning)


def cannot_judge(accuracy: float, low: float, high: float, needed: float) -> str:
    """What to do about a judge that the gate will not believe; empty for one that it may believe."""
    if low >= needed:
        return ""
    doubt = "will" if high < needed else "may"
    return (
        f"Warning: the judge is right on {accuracy:.1%} of the held-out images ({low:.1%} to {high:.1%}), "
        f"and the gate {doubt} promote nothing below {needed:.0%} (`gate.min_judge_accuracy`). What its "
        "features say of drawings is worth less. Look at the labels (`cgan validate`, "
        "reports/real_samples.png), add images, raise `train_judge.total_kimg` or `train_judge.width`, or "
        "merge classes that look alike."
    )


if __name__ == "__main__":
    run_stage(main)
