"""`cgan balance` and `cgan evidence`: what they write, and what they refuse."""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT
from finished_project import finish
from recording import RecordingTracker
from synthetic import make_images, write_csv

from cgan.data.album import find
from cgan.data.csv_reader import read_csv
from cgan.data.dataset import load_dataset, save_dataset
from cgan.drawing.drawings import write_folder
from cgan.drawing.generator import Generator
from cgan.errors import CganError
from cgan.files import write_json
from cgan.page.run_page import run_page
from cgan.params.reading import load_params
from cgan.project import (
    CSV,
    CSV_SOURCE,
    EVIDENCE,
    EVIDENCE_PAGE,
    EVIDENCE_TEXT,
    GATE_REPORT,
    GENERATOR,
    RUN_PAGE,
    TEST_DATA,
    TRAIN_DATA,
)
from cgan.quality.judge import silent
from cgan.reports import balance as command
from cgan.reports.balance import balance, find_evidence


@pytest.fixture
def rare(project: Path) -> Path:
    """A finished project; its class 2 has 12 images, the others 24."""
    images, labels = make_images(per_class=24)
    kept = np.delete(np.arange(72), np.flatnonzero(labels == 2)[12:])
    finish(write_csv(project / "inbox/digits.csv", images[kept], labels[kept]))
    return project


@pytest.mark.usefixtures("rare")
def test_the_balanced_csv_is_the_data_and_drawings_and_says_which_is_which() -> None:
    said: list[str] = []
    balance(str(GENERATOR), None, 0.0, 1, "drawn/all.csv", said.append)
    params = load_params().validation
    real, found = read_csv(CSV, params), read_csv("drawn/all.csv", params)
    assert np.bincount(found.labels).tolist() == [24, 24, 24]
    assert (found.images[:60] == real.images).all() and (found.labels[:60] == real.labels).all()
    rows = pd.read_csv("drawn/all.rows.csv")
    assert rows["part"].value_counts().to_dict() == {"train": 45, "holdout": 15, "drawn": 12}
    assert (rows["part"][60:] == "drawn").all() and rows["judge"].notna().sum() == 12
    assert "60 real images and 12 drawn" in said[0]

    balance(str(GENERATOR), 30, 0.0, 1, "drawn/folder", said.append)
    with find(Path("drawn/folder")) as (_, album):
        assert album and Counter(album.labels.values()) == {"0": 30, "1": 30, "2": 30}
    assert len(list(Path("drawn/folder").glob("2/drawn_*.png"))) == 18
    files = [f"own/{'deep' * (n < 2)}/{'same' if n < 2 else n}.jpg" for n in range(60)]
    digest = load_dataset(TRAIN_DATA).metadata["csv_sha256"]
    write_json(CSV_SOURCE, {"sha256": digest, "files": files})
    balance(str(GENERATOR), 30, 0.0, 1, "drawn/named", said.append)
    rows = pd.read_csv("drawn/named.rows.csv")
    assert rows["original"][:60].tolist() == files and (rows["class"] == rows["label"]).all()
    assert (
        rows["file"][7] == f"{rows['label'][7]}/7.png"
        and Path("drawn/named", rows["file"][7]).is_file()
    )
    assert len(set(rows["file"])) == 90, "two pictures of one name are told apart"
    for source, out, words in (
        ("digits", "x.csv", r"draws 10 classes.*data has 3"),
        (str(GENERATOR), "x.txt", r"ends in \.csv, or a folder"),
        (str(GENERATOR), "drawn/folder", "not empty"),
    ):
        with pytest.raises(CganError, match=words):
            balance(source, None, 0.0, 1, out, said.append)
    digest = Generator.load(GENERATOR).facts["digest"]
    for path, report in (
        (EVIDENCE, {"generator_digest": digest, "verdict": "harm", "summary": "80 against 95 %"}),
        (GATE_REPORT, {"challenger": {"digest": digest}, "verdict": "blocked", "summary": "dark"}),
    ):
        write_json(path, report)
        with pytest.raises(CganError, match=rf"{report['summary']}.*--anyway"):
            balance(str(GENERATOR), None, 0.0, 1, "drawn/more.csv", said.append)
        balance(str(GENERATOR), None, 0.0, 1, "drawn/more.csv", said.append, anyway=True)
        write_json(path, report | {"generator_digest": "another", "challenger": {}})
    balance(str(GENERATOR), None, 0.0, 1, "drawn/more.csv", said.append)
    for names, folders in ((["b", "a"], ["b", "a"]), (["a", ".b"], ["0", "1"])):
        assert command._folders(names) == folders, "all are found again"


@pytest.mark.usefixtures("rare")
def test_the_evidence_is_a_report_a_fold_of_the_page_and_on_the_runs_page_in_mlflow(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tracker = RecordingTracker()

    @contextlib.contextmanager
    def reopen() -> Iterator[RecordingTracker]:
        yield tracker

    monkeypatch.setattr(command, "reopen", reopen)
    RUN_PAGE.write_text(run_page(load_params(), ROOT / ".cgan"), encoding="utf-8")
    own, others = read_csv(CSV, load_params().validation), make_images(per_class=30, seed=9)
    images = np.concatenate([own.images, others[0]])
    more = write_csv(Path("more.csv"), images, np.concatenate([own.labels, others[1]]))
    said: list[str] = []
    find_evidence(load_params(), None, 0.0, 2, more, said.append, silent)
    report = json.loads(EVIDENCE.read_text())
    # The training part of `more` is left out; the hold-out may be tested on.
    assert report["images"] == {"training": 45, "drawn": 9, "tested": 90 + 15}
    assert {row["augmented"] for row in report["effects"]} == {True, False}
    assert "45 images are in the training part too" in said[0] and "Training 12" in said[1]
    page = EVIDENCE_PAGE.read_text()
    assert page.count('id="helps"') == 1 and report["summary"] in page
    assert (
        page.index('id="helps"') < page.index('id="metrics"')
        and "helps" not in RUN_PAGE.read_text()
    )
    assert [name for _, name in tracker.files] == ["evidence.json", "evidence.md", "evidence.html"]
    # A folder lacks classes: its pictures are of those that its names say.
    write_folder(Path("more"), others[0][:, 0], (f"{n % 2 + 1}/{n}.png" for n in range(90)))
    find_evidence(load_params(), None, 0.0, 2, Path("more"), said.append, silent)
    rows = [row.split(" | ")[0::3] for row in EVIDENCE_TEXT.read_text().splitlines()[-3:]]
    assert rows == [["| 2", "45"], ["| 0", "0"], ["| 1", "45"]]
    Path("more/1").rename("more/one")
    with pytest.raises(CganError, match=r"folder 'one' is none of the project's classes.*0, 1, 2"):
        find_evidence(load_params(), None, 0.0, 2, Path("more"), said.append, silent)
    known = load_dataset(TRAIN_DATA)
    few = write_csv(Path("few.csv"), known.images.numpy(), known.labels.numpy())
    with pytest.raises(CganError, match=r"few\.csv: no image that the training part has not"):
        find_evidence(load_params(), None, 0.0, 2, few, said.append, silent)
    facts = {key: known.metadata[key] for key in ("classes", "csv_sha256")} | {"part": "test"}
    save_dataset(TEST_DATA, *others, np.arange(90), facts)
    find_evidence(load_params(), None, 0.0, 2, None, said.append, silent)
    report = json.loads(EVIDENCE.read_text())
    assert report["tested_on"] == "test set" and report["images"]["tested"] == 90
