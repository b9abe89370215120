"""`cgan label-errors`: judges that have not seen a label find it wrong; its line, a page with pictures."""

import csv
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import write_params
from numpy.typing import NDArray
from synthetic import make_images, write_csv
from test_cli import run_cgan

from cgan.data.dataset import Dataset, image_digests
from cgan.errors import CganError, DataError
from cgan.files import write_bytes
from cgan.model.hardware import choose_hardware
from cgan.params.reading import load_params
from cgan.params.sections import JudgeParams
from cgan.project import CSV
from cgan.quality.judge import Judge
from cgan.quality.label_errors import doubtful_labels
from cgan.reports import label_errors as command
from cgan.reports.label_errors import find_label_errors, out_of_fold
from cgan.stages import preprocess, validate

PARAMS = JudgeParams(total_kimg=2.0, batch_size=32, peak_lr=0.2, width=8, seed=1)
CPU = choose_hardware("cpu", "float32")


def shades(per_class: int) -> tuple[torch.Tensor, NDArray[np.int64]]:
    """Dark, grey and bright images."""
    random = np.random.default_rng(0)
    labels = random.permutation(np.repeat(np.arange(3), per_class)).astype(np.int64)
    images = random.integers(0, 30, (len(labels), 1, 8, 8)) + 100 * labels[:, None, None, None]
    return torch.from_numpy(images.astype(np.uint8)), labels


def test_a_judge_sees_no_copy_of_what_it_is_asked_about_and_some_of_each_class(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    images, labels = shades(12)
    data = Dataset(images, torch.from_numpy(labels), {"classes": 3, "class_names": list("abc")})
    images[20:] = images[:16]
    seen = []

    def stand_in(data: Dataset, *_: object) -> Judge:
        seen.append(set(image_digests(data.images.numpy()).tolist()))
        return Judge(3, 1, 4).eval()

    monkeypatch.setattr(command, "train_judge", stand_in)
    out_of_fold(data, PARAMS, 4, CPU)
    assert len(set.union(*seen)) == 20 and sum(map(len, seen)) == 3 * 20
    images[labels == 2] = images[labels == 2][0].clone()
    with pytest.raises(DataError, match=r"class c: expected at least 4 distinct images.*found 1"):
        out_of_fold(data, PARAMS, 4, CPU)


def test_a_judge_sees_no_image_of_the_groups_that_it_is_asked_about(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    images, labels = shades(12)
    groups = torch.zeros(36, dtype=torch.int64)
    for label in range(3):  # five groups, of two or three images
        groups[labels == label] = label + 3 * (torch.arange(12) % 5)
    data = Dataset(images, torch.from_numpy(labels), {"classes": 3}, groups=groups)
    seen = []

    def stand_in(data: Dataset, *_: object) -> Judge:
        seen.append({*image_digests(data.images.numpy()).tolist()})
        return Judge(3, 1, 4).eval()

    monkeypatch.setattr(command, "train_judge", stand_in)
    out_of_fold(data, PARAMS, 4, CPU)
    digests = image_digests(images.numpy())
    for group in groups.unique().tolist():
        of_group = {*digests[groups.numpy() == group].tolist()}
        assert {len(learnt & of_group) for learnt in seen} == {0, len(of_group)}


def test_the_label_that_is_the_least_likely_beside_what_is_seen_comes_first() -> None:
    seen = np.array([[0.5, 0.49, 0.01], [0.6, 0.1, 0.3], [0, 0.2, 0.8]])
    found = doubtful_labels(seen, np.array([1, 1, 2]))
    assert (found.rows.tolist(), found.suggested.tolist()) == ([1, 0], [0, 0])
    assert found.confidence == pytest.approx([0.5, 0.01])
    # Of a group together: the first group is that of the most doubtful.
    sure = np.array([0.7, 0.9, 0.6, 0.8, 0.65])
    grouped = doubtful_labels(
        np.stack([sure, 1 - sure], 1), np.ones(5, np.int64), groups=np.array([4, 9, 4, 4, 9])
    )
    assert grouped.rows.tolist() == [1, 4, 3, 0, 2]


@pytest.mark.slow
def test_planted_errors_are_listed_by_the_lines_in_which_they_stand(project: Path) -> None:
    images, labels = make_images(per_class=40)
    images = (images % 32 + 100 * labels[:, None, None, None]).astype(np.uint8)
    wrong, right = [4, 41, 90], labels.copy()
    labels[wrong] = (labels[wrong] + 1) % 3
    lines = write_csv(project / "digits.csv", images, labels).read_text().splitlines()
    # Blank lines shift the rows after them: row 42 stands in line 45.
    text = "\n".join([*lines[:11], "", *lines[11:30], "", *lines[30:]]) + "\n"
    write_bytes(CSV, text.encode())
    write_params(project, train_judge={"total_kimg": 20.0, "batch_size": 32, "width": 8})
    validate.main()
    preprocess.main()
    said: list[str] = []
    out = Path("reports/found.csv")
    find_label_errors(load_params(), 3, out, said.append)

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
    assert f"{len(rows)} of 120 labels look wrong" in said[-1]

    shown = re.findall(r'alt="The image of line (\d+)"', out.with_suffix(".html").read_text())
    assert sorted(shown) == sorted(row["line"] for row in rows.values())


@pytest.mark.usefixtures("project")
def test_another_ending_and_a_project_without_data_are_refused() -> None:
    for out, words in (
        ("found.txt", r"ends in \.csv"),
        ("found.csv", r"train\.safetensors.*dvc repro"),
        ("inbox/digits.csv/found.csv", r"digits\.csv"),  # f55: said before the data are read
    ):
        with pytest.raises((CganError, OSError), match=words):
            find_label_errors(load_params(), 3, Path(out), print)


def test_without_cleanlab_the_extra_that_brings_it_is_named_before_a_judge_is_trained(
    project: Path,
) -> None:
    (project / "dvc.yaml").touch()
    (project / "cleanlab.py").write_text("raise ModuleNotFoundError(name='cleanlab')")
    path = f"{project}:{Path(__file__).parents[2]}"
    run = run_cgan("label-errors", PYTHONPATH=path)
    assert run.returncode == 1 and "pip install 'cgan[labels]'" in run.stderr, run.stderr
