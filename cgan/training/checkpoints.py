"""Checkpoints of a training. If the newest is damaged, the one before is loaded.

A checkpoint is one file, written atomically, so it is whole and all of one step.
"""

import logging
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from cgan.errors import ModelError
from cgan.model.file_facts import UnreadableError
from cgan.model.model_file import load_tensors, save_tensors

KEEP = 2  # the newest, and the one before in case the newest is damaged

log = logging.getLogger(__name__)


def save_checkpoint(folder: Path, step: int, tensors: Mapping[str, Tensor]) -> None:
    """Write the checkpoint of a step, and remove all but the newest KEEP."""
    path = folder / f"step-{step:09d}.safetensors"
    save_tensors(path, "checkpoint", tensors, {"step": step})
    for old in _newest_first(folder)[KEEP:]:
        old.unlink()


def load_checkpoint(folder: Path) -> tuple[int, dict[str, Tensor]] | None:
    """The newest good checkpoint as (step, tensors), or None. Damaged ones are removed.

    Raises UnreadableError, and removes nothing, when the machine cannot read one at present.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for leftover in folder.glob(".*.tmp"):  # a save that was killed
        leftover.unlink()
    for path in _newest_first(folder):
        try:
            tensors, facts = load_tensors(path, "checkpoint")
            return int(facts["step"]), tensors
        except UnreadableError:
            raise
        except ModelError:
            log.warning("%s: damaged, so it was removed, and the one before it is used.", path)
            path.unlink(missing_ok=True)
    return None


def _newest_first(folder: Path) -> list[Path]:
    """Raises OSError if the folder cannot be read (a glob would just find nothing)."""
    return sorted((p for p in folder.iterdir() if p.match("step-*.safetensors")), reverse=True)
