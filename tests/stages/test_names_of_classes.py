"""Class names on their way: params.yaml → validation report → datasets."""

from pathlib import Path

import pytest
from conftest import write_params

from cgan.data.dataset import load_dataset
from cgan.errors import DataError
from cgan.project import CSV, HOLDOUT_DATA, TRAIN_DATA
from cgan.stages import download, preprocess, validate


def prepare(names: list[str] | None) -> list[list[str]]:
    """What both parts call their classes."""
    write_params(Path(), validate={"class_names": names})
    for stage in (download, validate, preprocess):
        stage.main()
    return [load_dataset(path).class_names for path in (TRAIN_DATA, HOLDOUT_DATA)]


def test_both_parts_know_the_names_and_there_must_be_one_a_class(project: Path) -> None:
    assert prepare(None) == 2 * [["0", "1", "2"]]
    assert prepare(["a", "b", "c"]) == 2 * [["a", "b", "c"]]
    with pytest.raises(DataError, match=rf"{CSV}: 3 classes.* has 2 names"):
        prepare(["a", "b"])
