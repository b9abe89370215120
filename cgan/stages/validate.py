"""Stage validate: is the CSV what the schema says? Stops with row and column if not."""

from __future__ import annotations

import logging

from cgan import schema
from cgan.files import write_json, write_text
from cgan.params import load_params
from cgan.stages import run_stage

CSV = "data/raw/train.csv"

log = logging.getLogger(__name__)


def main() -> None:
    params = load_params().validation
    report = schema.report_on(schema.read_csv(CSV, params), params, CSV)
    write_json("reports/validation.json", report)
    write_text("reports/validation.md", schema.to_markdown(report, CSV))
    log.info("%s is valid: %s", CSV, schema.summary(report))


if __name__ == "__main__":
    run_stage(main)
