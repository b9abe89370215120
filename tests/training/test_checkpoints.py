"""Checkpoints: which is kept, and that a damaged one is said."""

from pathlib import Path

import pytest
import torch

from cgan.base.errors import ModelError
from cgan.training.state import load_checkpoint, save_checkpoint


def test_the_newest_checkpoint_is_kept_and_found(tmp_path: Path) -> None:
    """As numbers, 10 comes after 9; what a kill left beside it is not looked at."""
    folder = tmp_path / "new"
    assert load_checkpoint(folder) is None
    for step in (2, 9, 10):
        save_checkpoint(folder, step, {"w": torch.full((3,), float(step))})
    (folder / "step-000000009.safetensors").write_bytes(b"as if the removal was killed")
    (folder / ".step-000000011.safetensors.abc.tmp").write_bytes(b"half")
    found = load_checkpoint(folder)
    assert found and found[0] == 10 and found[1]["w"].tolist() == [10.0] * 3
    newest = folder / "step-000000010.safetensors"
    newest.write_bytes(newest.read_bytes()[:-1])
    with pytest.raises(ModelError, match=newest.name):
        load_checkpoint(folder)
