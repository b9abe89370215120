"""Stage evaluate: the drawings against held-out reals, with what real images score."""

from cgan.files import write_json
from cgan.model.hardware import compute_deterministically
from cgan.pipeline.inputs import Inputs
from cgan.pipeline.params_file import load_params
from cgan.pipeline.progress import progress
from cgan.project import DVC_METRICS, EVALUATION, METRICS_FILE
from cgan.quality.evaluate import evaluate
from cgan.quality.table import leading_values, metric_values, quality_line
from cgan.stages.runner import log, run_stage


def main() -> None:
    compute_deterministically()
    params = load_params()
    inputs = Inputs.load(params.train.device)
    evaluation = evaluate(
        inputs.model,
        inputs.train,
        inputs.held_out,
        judge=inputs.judge,
        test=inputs.test,
        params=params.evaluate,
        progress=progress,
    )
    evaluation.write(EVALUATION)
    write_json(METRICS_FILE, {"quality": metric_values(evaluation)})
    write_json(DVC_METRICS, leading_values(evaluation))
    log.info(quality_line(evaluation))


if __name__ == "__main__":
    run_stage(main)
