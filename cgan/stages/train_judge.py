"""Stage train_judge: the class network that metrics look through, and its hold-out accuracy."""

from functools import partial

import torch

from cgan.base.files import write_json
from cgan.base.text import percent
from cgan.data.images import load_images
from cgan.models.hardware import choose_hardware, deterministic
from cgan.pipeline.params_file import load_params
from cgan.pipeline.progress import progress
from cgan.pipeline.project import HOLDOUT_DATA, JUDGE, JUDGE_METRICS, TRAIN_DATA
from cgan.quality.judge import judge_accuracy, save_judge, train_judge
from cgan.stages.runner import log, run_stage


@deterministic()
def main() -> None:
    params = load_params()
    data, holdout = load_images(TRAIN_DATA), load_images(HOLDOUT_DATA)
    hardware = choose_hardware(params.train.device, "auto")
    log.info("Training the judge on %d images (%s) …", len(data), hardware.device)
    judge = train_judge(data, params.train_judge, hardware, partial(progress, "judge")).cpu()
    estimate = judge_accuracy(judge, holdout)
    right, (low, high) = estimate.value, estimate.interval
    facts = {"params": params.train_judge.model_dump(), "data_digest": data.digest}
    save_judge(JUDGE, judge, facts | {"torch": torch.__version__})
    numbers = {
        "accuracy": round(right, 5),
        "accuracy_low": round(low, 5),
        "accuracy_high": round(high, 5),
        "heldout_images": len(holdout),
    }
    write_json(JUDGE_METRICS, {"judge": numbers})
    share = f"{percent(right)} (95 %: {percent(low)} to {percent(high)}) of held-out images"
    log.info(f"The judge is right on {share}, mean over classes")
    needed = params.gate.min_judge_accuracy
    if right < needed:
        log.warning(
            f"Warning: the gate promotes nothing with a judge that is right on less than "
            f"{percent(needed, 0)} (`gate.min_judge_accuracy`). Look at the labels (`cgan validate`, "
            "reports/real_samples.png), add images, raise `train_judge.total_kimg`, or merge similar classes."
        )


if __name__ == "__main__":
    run_stage(main)
