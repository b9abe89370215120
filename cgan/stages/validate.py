"""Stage validate: is the data what it should be? Stops with row and column, or the file, if not."""

from cgan.files import write_json
from cgan.pipeline.params_file import load_params
from cgan.project import CSV, PICTURES, VALIDATION
from cgan.readers import csv_report
from cgan.stages.raw import load_raw
from cgan.stages.runner import log, run_stage


def main() -> None:
    params = load_params().validation
    data = load_raw(params)
    name = str(PICTURES if data.files else CSV)
    report = csv_report.report_on(data, params, name)
    write_json(VALIDATION, report)
    log.info("%s is valid: %s", name, csv_report.summary(report))


if __name__ == "__main__":
    run_stage(main)
