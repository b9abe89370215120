"""Stage validate: is the CSV what the schema says? Stops with row and column if not."""

from __future__ import annotations

import logging

from cgan.data import csv_reader, csv_report
from cgan.files import read_json, write_json, write_text
from cgan.params.reading import load_params
from cgan.project import CSV, CSV_SOURCE, VALIDATION
from cgan.stages.runner import run_stage

log = logging.getLogger(__name__)


def main() -> None:
    params = load_params().validation
    if CSV_SOURCE.is_file():  # folders of pictures have names, and one shape
        source = read_json(CSV_SOURCE)
        names = source.get("class_names")
        if params.class_names and set(params.class_names) != set(names or ()):
            names = params.class_names  # the same names in another order would be the wrong ones
        params = params.model_copy(update={"class_names": names} | source.get("shape", {}))
    report = csv_report.report_on(csv_reader.read_csv(CSV, params), params, str(CSV))
    write_json(VALIDATION, report)
    write_text("reports/validation.md", csv_report.to_markdown(report, str(CSV)))
    log.info("%s is valid: %s", CSV, csv_report.summary(report))


if __name__ == "__main__":
    run_stage(main)
