"""Stage preprocess: the images → training part, stratified hold-out and test set; a contact sheet."""

from dataclasses import replace
from typing import Any

from cgan import project
from cgan.data import csv_report
from cgan.data.contact_sheet import contact_sheet
from cgan.data.dataset import save_dataset
from cgan.data.parts import divide
from cgan.data.sources import load_raw
from cgan.errors import DataError
from cgan.files import read_json, replacing
from cgan.params.reading import load_params
from cgan.project import CSV, PICTURES, REAL_SAMPLES, VALIDATION
from cgan.stages.runner import log, run_stage


def main() -> None:
    params = load_params().preprocess
    report = read_json(VALIDATION)
    # As it was validated, so that both stages read it alike.
    validated = csv_report.validated_params(report, str(VALIDATION))
    data = load_raw(validated)
    if data.sha256 != report.get("csv", {}).get("sha256"):
        raise DataError(
            f"{PICTURES if data.files else CSV}: changed since {VALIDATION} was written. Run `dvc repro`, "
            "which validates it again."
        )
    facts: dict[str, Any] = {"classes": data.classes, "csv_sha256": data.sha256}
    if names := validated.class_names:
        facts["class_names"] = names
    names = names or [str(label) for label in range(data.classes)]
    (train, holdout, test), groups, notes = divide(data, names, params)
    for line in notes:
        log.warning(line)
    sheet = contact_sheet(data.images, data.labels, train, names, params.seed)
    with replacing(REAL_SAMPLES) as temporary:
        sheet.save(temporary, format="PNG")
    parts = [replace(data, groups=groups).at(rows) for rows in (train, holdout, test)]
    del data  # to write a part takes its memory once more
    paths = project.TRAIN_DATA, project.HOLDOUT_DATA, project.TEST_DATA
    for path, part, told in zip(paths, parts, ([], notes, []), strict=True):
        metadata = facts | {"part": path.stem} | ({"notes": told} if told else {})
        save_dataset(path, part.images, part.labels, part.lines, metadata, part.groups)
    beside = f", {len(test):,} to test on" * bool(len(test))
    log.info(f"{len(train):,} images for training, {len(holdout):,} held out{beside}")


if __name__ == "__main__":
    run_stage(main)
