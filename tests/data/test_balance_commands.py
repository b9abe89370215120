"""`cgan balance`: what it writes, and what it refuses."""

import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from finished_project import finish_uneven
from uneven import NAMES

from cgan.drawing.drawings import class_folders, numbered
from cgan.errors import CganError
from cgan.files import write_json
from cgan.images import load_images
from cgan.model.model_file import load_generator, save_generator
from cgan.pipeline.data.balance import balance
from cgan.pipeline.params_file import load_params
from cgan.project import CSV, DATA_SOURCE, GENERATOR, TRAIN_DATA
from cgan.readers.album import open_source
from cgan.readers.csv_reader import read_csv


@pytest.fixture
def rare(uneven_project: Path) -> Path:
    """A finished project whose class 1, `apple`, is rare."""
    finish_uneven()
    return uneven_project


def rename(names: list[str]) -> None:
    """The classes of the project's generator."""
    network, facts = load_generator(GENERATOR)
    own = {key: facts[key] for key in ("data_digest", "params")}
    save_generator(GENERATOR, network, own | {"class_names": names})


@pytest.mark.usefixtures("rare")
def test_the_balanced_csv_is_the_data_and_drawings_and_says_which_is_which() -> None:
    said: list[str] = []
    balance(str(GENERATOR), None, 0.0, 1, "drawn/all.csv", said.append)
    params = load_params().validation
    real, found = read_csv(CSV, params), read_csv("drawn/all.csv", params)
    assert np.bincount(found.labels).tolist() == [24, 24, 24]
    assert (found.pixels[:56] == real.pixels).all() and (found.labels[:56] == real.labels).all()
    rows = pd.read_csv("drawn/all.rows.csv")
    assert [NAMES[label] for label in rows["label"]] == rows["class"].tolist()
    training = load_images(TRAIN_DATA)
    assert training.lines is not None
    assert np.flatnonzero(rows["part"] == "train").tolist() == (training.lines - 2).tolist()
    held = 56 - len(training)
    assert rows["part"][:56].value_counts()["holdout"] == held
    assert (rows["part"][56:] == "drawn").all() and rows["judge"].notna().sum() == 16
    assert "56 real images and 16 drawn" in said[0] and "reports/run.html which classes" in said[0]
    other = shutil.copy(GENERATOR, "other.safetensors")
    balance(other, None, 0.0, 1, "drawn/other.csv", said.append)
    assert said.pop().endswith("`cgan evidence` says whether they help.")

    balance(str(GENERATOR), 30, 0.0, 1, "drawn/folder", said.append)
    with open_source(Path("drawn/folder")) as (_, album):
        assert album and Counter(e.label for e in album.entries) == dict.fromkeys(NAMES, 30)
    assert len(list(Path("drawn/folder").glob("apple/drawn_*.png"))) == 18
    files = [f"own/{'deep' * (n < 2)}/{'same' if n < 2 else n}.jpg" for n in range(56)]
    digest = load_images(TRAIN_DATA).source_sha256
    of_test = ["own/test/0.jpg", "own/test/1.jpg"]  # in neither part; lines count them, too
    write_json(DATA_SOURCE, {"sha256": digest, "files": [of_test[0], *files, of_test[1]]})
    balance(str(GENERATOR), 30, 0.0, 1, "drawn/named", said.append)
    rows = pd.read_csv("drawn/named.rows.csv")
    assert rows["original"][:56].tolist() == files
    assert rows["file"][7] == f"{rows['class'][7]}/7.png"
    assert Path("drawn/named", rows["file"][7]).is_file()
    assert len(set(rows["file"])) == 90, "two pictures of one name are told apart"
    for source, out, words in (
        ("digits", "x.csv", r"draws 10 classes.*data has 3"),
        (str(GENERATOR), "x.txt", r"ends in \.csv, or a folder"),
        (str(GENERATOR), "drawn/folder", "not empty"),
    ):
        with pytest.raises(CganError, match=words):
            balance(source, None, 0.0, 1, out, said.append)
    with pytest.MonkeyPatch.context() as patch:
        fill = "cgan.pipeline.data.balance.fill_classes"
        patch.setattr(fill, lambda *given: pytest.fail(f"believed {given[4]}"))
        with pytest.raises(pytest.fail.Exception, match=r"believed 0\.99"):
            balance(str(GENERATOR), None, 0.99, 1, "drawn/sure.csv", said.append)
    rename(["=pear|A1", "-apple", "@fig/s"])
    balance(str(GENERATOR), None, 0.0, 1, "drawn/formulas", said.append)
    rows = pd.read_csv("drawn/formulas.rows.csv")
    assert {*rows["class"]} == {"'=pear|A1", "'-apple", "'@fig/s"}
    rename(["=pear|A1", "-5", "="])
    balance(str(GENERATOR), None, 0.0, 1, "drawn/paths", said.append)
    rows = pd.read_csv("drawn/paths.rows.csv")
    assert {*rows["class"]} == {"'=pear|A1", "-5", "="}, "no formulas"
    assert rows["file"].str.startswith("./").all()
    assert all(Path("drawn/paths", file).is_file() for file in rows["file"])
    for names, folders in ((["b", "a"], ["b", "a"]), (["a", ".b"], ["0", "1"])):
        assert class_folders(names) == folders, "all are found again"
    assert numbered(["b", "a"]) == "" and "none can be named a/b" in numbered(["c", "a/b"])
