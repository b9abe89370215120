"""`cgan label-errors`: the right lines of the CSV, and a page with pictures."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import numpy as np
import pytest
import yaml
from synthetic import make_images, write_csv

from cgan.errors import CganError
from cgan.files import write_bytes
from cgan.params.reading import load_params
from cgan.project import CSV
from cgan.quality.judge import silent
from cgan.reports.label_errors import find_label_errors
from cgan.stages import preprocess, validate


@pytest.mark.slow
def test_planted_errors_are_listed_by_the_lines_in_which_they_stand(project: Path) -> None:
    images, labels = make_images(per_class=40)
    images = (images % 32 + 100 * labels[:, None, None, None]).astype(np.uint8)
    wrong = [4, 41, 90]
    right = labels.copy()
    labels[wrong] = (labels[wrong] + 1) % 3
    path = write_csv(project / "digits.csv", images, labels)
    lines = path.read_text().splitlines()
    # Blank lines shift the rows after them: row 42 stands in line 45.
    text = "\n".join([*lines[:11], "", *lines[11:30], "", *lines[30:]]) + "\n"
    write_bytes(CSV, text.encode())
    params = yaml.safe_load(Path("params.yaml").read_text())
    params["train_judge"] |= {"total_kimg": 20.0, "batch_size": 32, "width": 8}
    Path("params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    validate.main()
    preprocess.main()
    said: list[str] = []
    out = Path("reports/found.csv")
    find_label_errors(load_params(), 3, out, said.append, silent)

    with out.open(newline="") as file:
        rows = {int(row["row"]): row for row in csv.DictReader(file)}
    assert {5, 42, 91} <= rows.keys() and len(rows) <= 6, rows
    assert [int(rows[n]["line"]) for n in (5, 42, 91)] == [6, 45, 94]
    for number in (5, 42, 91):
        row = rows[number]
        stands = text.splitlines()[int(row["line"]) - 1]
        assert stands.split(",")[0] == row["label"] == str(labels[number - 1])
        assert int(row["suggested"]) == right[number - 1]
    assert said[0].startswith("Training 3 judges")
    assert f"{len(rows)} of 120 labels look wrong" in said[1]

    shown = re.findall(r'alt="The image of line (\d+)"', out.with_suffix(".html").read_text())
    assert sorted(shown) == sorted(row["line"] for row in rows.values())


@pytest.mark.parametrize(
    ("out", "words"),
    [("found.txt", r"ends in \.csv"), ("found.csv", r"train\.safetensors.*dvc repro")],
)
def test_another_ending_and_a_project_without_data_are_refused(
    project: Path, out: str, words: str
) -> None:
    with pytest.raises(CganError, match=words):
        find_label_errors(load_params(), 3, Path(out), print, silent)
