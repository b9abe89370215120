"""Checkpoints: which are kept, and what a training falls back to."""

import logging
import resource
from pathlib import Path

import pytest
import torch

from cgan.model.file_facts import UnreadableError
from cgan.training.checkpoints import load_checkpoint, save_checkpoint

OLDER, NEWER = "step-000000004.safetensors", "step-000000010.safetensors"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """With the checkpoints of steps 4 and 10; older ones and an unfinished one have gone."""
    folder = tmp_path / "new"
    assert load_checkpoint(folder) is None
    for step in (2, 10, 3, 4):
        save_checkpoint(folder, step, {"w": torch.full((3,), float(step))})
    (folder / f".{NEWER}.abc.tmp").write_bytes(b"of a save that was killed")
    (folder / "mlflow.json").write_text("{}")
    assert loaded(folder) == 10
    (folder / "mlflow.json").unlink()  # which is not a leftover
    assert names_in(folder) == [OLDER, NEWER]
    return folder


def loaded(folder: Path) -> int | None:
    """The step of the checkpoint that is found, which has the tensors of that step."""
    if (found := load_checkpoint(folder)) is None:
        return None
    step, tensors = found
    assert {name: tensor.tolist() for name, tensor in tensors.items()} == {"w": [step] * 3}
    return step


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_training_falls_back_to_the_previous_checkpoint(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """From one that is cut off; any flipped bit: test_model_file.py."""

    def damage(path: Path) -> None:
        path.write_bytes(path.read_bytes()[:-1])

    damage(folder / NEWER)
    with caplog.at_level(logging.WARNING):
        assert loaded(folder) == 4
    assert f"{NEWER}: damaged, so it was removed" in caplog.text
    assert names_in(folder) == [OLDER]
    damage(folder / OLDER)
    assert load_checkpoint(folder) is None, "and starts anew where none is left"


def test_checkpoints_that_cannot_be_read_now_are_left_alone(folder: Path) -> None:
    with (folder / OLDER).open() as next_free:
        only_one_more = next_free.fileno() + 1  # lists the folder, and opens no model in it
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (only_one_more, before[1]))
    try:
        with pytest.raises(UnreadableError) as caught:
            load_checkpoint(folder)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert "Too many open files" in str(caught.value) and NEWER in str(caught.value)
    assert loaded(folder) == 10 and names_in(folder) == [OLDER, NEWER]
