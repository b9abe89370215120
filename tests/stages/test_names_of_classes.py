"""Class names on their way: params.yaml → validation report → datasets → what the training states."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml

from cgan.data.dataset import load_dataset
from cgan.errors import DataError
from cgan.model.hardware import Hardware
from cgan.params.reading import load_params
from cgan.project import CSV, HOLDOUT_DATA, TRAIN_DATA
from cgan.stages import download, preprocess, train, validate
from cgan.training.fitting import filled


def set_names(names: list[str] | None) -> None:
    params = yaml.safe_load(Path("params.yaml").read_text())
    params["validate"]["class_names"] = names
    Path("params.yaml").write_text(yaml.safe_dump(params))


def prepare(names: list[str] | None) -> None:
    set_names(names)
    for stage in (download, validate, preprocess):
        stage.main()


def stated() -> dict[str, object]:
    """What the training states of its data, in the model file and in the fingerprint."""
    params = filled(load_params().train)
    hardware = Hardware(torch.device("cpu"), torch.float32)
    facts = train.result_facts(params, load_dataset(TRAIN_DATA), hardware)
    data: dict[str, object] = facts["data"]
    return data


def test_without_names_no_file_speaks_of_them_and_names_make_another_result_of_the_same_images(
    project: Path,
) -> None:
    prepare(None)
    for path in (TRAIN_DATA, HOLDOUT_DATA):
        assert b"class_names" not in path.read_bytes()
    data = load_dataset(TRAIN_DATA)
    assert data.class_names == ["0", "1", "2"]
    unnamed = stated()
    assert "class_names" not in unnamed
    prepare(["a", "b", "c"])
    assert (
        stated() != unnamed
        and load_dataset(TRAIN_DATA).metadata["digest"] == data.metadata["digest"]
    )


def test_names_that_are_not_one_a_class_are_refused_with_both_counts(project: Path) -> None:
    set_names(["a", "b"])
    download.main()
    with pytest.raises(DataError) as error:
        validate.main()
    assert str(error.value).startswith(f"{CSV}: 3 classes, with labels from 0 to 2, and ")
    assert "has 2 names. Give one name a class" in str(error.value)
