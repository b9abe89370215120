"""Checkpoints of a training: one file, written atomically, so it is whole and all of one step."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from cgan.model.model_file import load_tensors, save_tensors


def save_checkpoint(folder: Path, step: int, tensors: Mapping[str, Tensor]) -> None:
    """Write the checkpoint of a step, and remove the one before."""
    path = folder / f"step-{step:09d}.safetensors"
    save_tensors(path, "checkpoint", tensors, {"step": step})
    for old in folder.glob("step-*.safetensors"):
        if old != path:
            old.unlink()


def load_checkpoint(folder: Path) -> tuple[int, dict[str, Tensor]] | None:
    """The newest checkpoint as (step, tensors), or None. Raises ModelError for a damaged one."""
    newest = max(folder.glob("step-*.safetensors"), default=None)
    if not newest:
        return None
    tensors, facts = load_tensors(newest, "checkpoint")
    return int(facts["step"]), tensors
