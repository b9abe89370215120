"""Stage validate: is the data what it should be? Stops with row and column, or the file, if not."""

from cgan.base.files import write_json
from cgan.data.splitting import with_groups
from cgan.data.validation import validation
from cgan.pipeline.params_file import load_params
from cgan.pipeline.project import CSV, PICTURES, VALIDATION
from cgan.stages.raw import load_raw
from cgan.stages.runner import log, run_stage


def main() -> None:
    params = load_params()
    data = load_raw(params.validation)
    if group := params.preprocess.group:
        data = with_groups(data, group)
    name = str(PICTURES if data.files else CSV)
    report = validation(data, params.validation, name)
    write_json(VALIDATION, report.as_json())
    log.info(report.as_text())


if __name__ == "__main__":
    run_stage(main)
