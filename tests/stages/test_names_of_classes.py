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


def prepare(names: list[str] | None) -> dict[str, object]:
    """What the training states of its data, in the model file and in the fingerprint."""
    params = yaml.safe_load(Path("params.yaml").read_text())
    params["validate"]["class_names"] = names
    Path("params.yaml").write_text(yaml.safe_dump(params))
    for stage in (download, validate, preprocess):
        stage.main()
    hardware = Hardware(torch.device("cpu"), torch.float32)
    data = load_dataset(TRAIN_DATA)
    stated: dict[str, object] = train.result_facts(filled(load_params().train), data, hardware)[
        "data"
    ]
    return stated


def test_names_make_another_result_of_the_same_images_and_there_must_be_one_a_class(
    project: Path,
) -> None:
    unnamed = prepare(None)
    assert "class_names" not in unnamed
    for path in (TRAIN_DATA, HOLDOUT_DATA):
        assert b"class_names" not in path.read_bytes()
    assert load_dataset(TRAIN_DATA).class_names == ["0", "1", "2"]
    assert prepare(["a", "b", "c"]) == unnamed | {"class_names": ["a", "b", "c"]}
    assert load_dataset(TRAIN_DATA).class_names == ["a", "b", "c"]
    with pytest.raises(DataError, match=rf"{CSV}: 3 classes.* has 2 names"):
        prepare(["a", "b"])
