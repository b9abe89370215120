"""Checkpoints: which are kept, and what a training falls back to."""

import contextlib
import logging
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from cgan.model.file_facts import UnreadableError
from cgan.training.checkpoints import load_checkpoint, save_checkpoint


def save(folder: Path, *steps: int) -> None:
    for step in steps:
        save_checkpoint(folder, step, {"w": torch.full((3,), float(step))})


def loaded(folder: Path) -> int | None:
    """The step of the checkpoint that is found, which has the tensors of that step."""
    if (found := load_checkpoint(folder)) is None:
        return None
    step, tensors = found
    assert {name: tensor.tolist() for name, tensor in tensors.items()} == {"w": [step] * 3}
    return step


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_newest_two_checkpoints_are_kept_and_the_newest_is_loaded(tmp_path: Path) -> None:
    assert load_checkpoint(tmp_path / "new") is None
    save(tmp_path / "new", 2, 10, 4, 100)
    assert loaded(tmp_path / "new") == 100
    kept = ["step-000000010.safetensors", "step-000000100.safetensors"]
    assert names_in(tmp_path / "new") == kept


@pytest.mark.parametrize("flipped", [False, True])
def test_training_falls_back_to_the_previous_checkpoint(
    tmp_path: Path, flipped: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """One that is cut off, or has another bit in its last weight; any other bit: test_model_file.py."""

    def damage(path: Path) -> None:
        content = path.read_bytes()
        path.write_bytes(content[:-1] + (bytes([content[-1] ^ 1]) if flipped else b""))

    save(tmp_path, 4, 8)
    newest = tmp_path / "step-000000008.safetensors"
    damage(newest)
    with caplog.at_level(logging.WARNING):
        assert loaded(tmp_path) == 4
    assert f"{newest.name}: damaged, so it was removed" in caplog.text
    assert names_in(tmp_path) == ["step-000000004.safetensors"]
    damage(tmp_path / "step-000000004.safetensors")
    assert load_checkpoint(tmp_path) is None, "and starts anew where none is left"


@contextlib.contextmanager
def limited(resource_: int, soft: int) -> Iterator[None]:
    before = resource.getrlimit(resource_)
    resource.setrlimit(resource_, (soft, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource_, before)


def test_checkpoints_that_cannot_be_read_now_are_left_alone(tmp_path: Path) -> None:
    save(tmp_path, 4, 8)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with (tmp_path / "step-000000004.safetensors").open() as next_free:
        only_one_more = next_free.fileno() + 1  # lists the folder, and opens no model in it
    with limited(resource.RLIMIT_NOFILE, only_one_more), pytest.raises(UnreadableError) as caught:
        load_checkpoint(tmp_path)
    assert "Too many open files" in str(caught.value) and "step-000000008" in str(caught.value)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_the_leftover_of_a_killed_save_is_cleaned(tmp_path: Path) -> None:
    save(tmp_path, 4)
    (tmp_path / ".step-000000008.safetensors.abc.tmp").write_bytes(b"half")
    (tmp_path / "mlflow.json").write_text("{}")
    assert loaded(tmp_path) == 4
    assert names_in(tmp_path) == ["mlflow.json", "step-000000004.safetensors"]


def test_a_save_that_finds_no_space_leaves_the_former(tmp_path: Path) -> None:
    save(tmp_path, 4, 8)
    no_space = pytest.raises(OSError, match="File too large")
    with limited(resource.RLIMIT_FSIZE, 2000), no_space:
        save_checkpoint(tmp_path, 12, {"w": torch.zeros(10_000)})
    assert names_in(tmp_path) == ["step-000000004.safetensors", "step-000000008.safetensors"]
