"""Stage evaluate: the drawings against held-out reals, with what real images score."""

from dataclasses import replace

from cgan.base.files import write_json
from cgan.models.hardware import deterministic
from cgan.pipeline.inputs import Inputs
from cgan.pipeline.params_file import load_params
from cgan.pipeline.progress import progress
from cgan.pipeline.project import EVALUATION, HEADLINE_FILE, METRICS_FILE
from cgan.quality.evaluate import evaluate
from cgan.stages.runner import log, run_stage

# What `dvc metrics diff` shows. `dvc exp show` has room for no more beside a param.
HEADLINE = ("conditional_accuracy", "fid_judge", "recall")


@deterministic()
def main() -> None:
    params = load_params()
    inputs = Inputs.load(params.train.device)
    measured = evaluate(
        inputs.model,
        inputs.train,
        inputs.held_out,
        judge=inputs.judge,
        test=inputs.test,
        progress=progress,
        **params.evaluate.model_dump(),
    )
    evaluation = replace(measured, min_judge_accuracy=params.gate.min_judge_accuracy)
    evaluation.write(EVALUATION)
    numbers = evaluation.values()
    write_json(METRICS_FILE, {"quality": numbers})
    write_json(HEADLINE_FILE, {key: numbers[key] for key in HEADLINE if key in numbers})
    log.info(evaluation.report().sentence)


if __name__ == "__main__":
    run_stage(main)
