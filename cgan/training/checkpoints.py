"""A training's folder: its checkpoints, and then its result, until DVC knows it.

DVC learns of a result after the stage has ended. If anything is killed before that, DVC starts the stage
again; the stage then takes over the result that lies here. So it does not train twice, and there is one
run.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from torch import Tensor

from cgan.errors import ModelError
from cgan.files import md5_of, sha256_of, write_bytes, write_json, write_text
from cgan.model.file_facts import UnreadableError
from cgan.model.model_file import load_tensors, save_tensors

MARK = "finished.json"
COPIES = "finished"
REFERENCE = "reference.md5"
REMOVED = ".removed-"
KEPT_S = 14 * 24 * 3600.0

log = logging.getLogger(__name__)


class Checkpoints:
    """The checkpoints of one training, newest two kept, in a folder of their own.

    One atomic file holds everything of one step, so parts of different steps never meet. Where the
    newest file is damaged, the one before it is taken.
    """

    KEEP = 2

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        for leftover in folder.glob(".*.tmp"):  # a save that was killed
            leftover.unlink()

    def _files(self) -> list[Path]:
        """Newest first. Raises OSError if the folder cannot be read (a glob would just find nothing)."""
        found = [path for path in self.folder.iterdir() if path.match("step-*.safetensors")]
        return sorted(found, reverse=True)

    def save(self, step: int, tensors: Mapping[str, Tensor]) -> None:
        path = self.folder / f"step-{step:09d}.safetensors"
        save_tensors(path, "checkpoint", tensors, {"step": step})
        for old in self._files()[self.KEEP :]:
            old.unlink()

    def load(self) -> tuple[int, dict[str, Tensor]] | None:
        """The newest good checkpoint as (step, tensors), or None. Damaged ones are removed.

        Raises UnreadableError, and removes nothing, when the machine cannot read one at present.
        """
        for path in self._files():
            try:
                tensors, facts = load_tensors(path, "checkpoint")
            except UnreadableError:
                raise
            except ModelError as error:
                log.warning("Checkpoint left out: %s", error)
                path.unlink(missing_ok=True)
                continue
            return int(facts["step"]), tensors
        return None


# -- The finished result ----------------------------------------------------------------------------


def keep_result(folder: Path, outputs: Iterable[Path], facts: dict[str, Any]) -> None:
    """Copy the outputs (paths in the project) to `folder`. The mark is written last: then all is there."""
    digests = {}
    for path in outputs:
        write_bytes(folder / COPIES / path, path.read_bytes())
        digests[str(path)] = sha256_of(folder / COPIES / path)
    write_json(folder / MARK, {"files": digests, "facts": facts})


def take_over(folder: Path, code: str) -> dict[str, Any] | None:
    """Copy a finished result back into the project and return its facts. None if there is none to use.

    A result that is damaged, or that other code than `code` made, is removed with the whole folder, run
    key included: its run has ended, and a new training is a new run. Raises OSError when the result
    cannot be read at present.
    """
    if not (folder / MARK).is_file():
        return None
    try:
        mark = json.loads((folder / MARK).read_text(encoding="utf-8"))
        facts: dict[str, Any] = mark["facts"]
        whole = all(sha256_of(folder / COPIES / p) == d for p, d in mark["files"].items())
        if whole and facts["code"] == code:
            for path in mark["files"]:
                write_bytes(path, (folder / COPIES / path).read_bytes())
            return facts
        reason = "other code made it" if whole else "it is damaged"
    except (ValueError, KeyError, TypeError, AttributeError, FileNotFoundError):
        reason = "it is damaged"
    log.info("The finished training in %s is not taken over, for %s.", folder, reason)
    remove(folder)
    return None


def hand_over(folder: Path, reference: Path) -> None:
    """The stage's last act: note the hash of `reference`, which dvc.lock will hold once DVC knows the result.

    The checkpoints are removed: with a finished result, no training goes on from them.
    """
    if "DVC_STAGE" in os.environ:
        write_text(folder / REFERENCE, md5_of(reference))
        for path in folder.glob("step-*.safetensors"):
            path.unlink()
    else:  # DVC did not start this stage, so it will not ask for the result
        remove(folder)


def remove_known(checkpoints: Path, lock: Path) -> None:
    """Remove kept results whose hash is in dvc.lock. If the stage is started although DVC has its
    result, it must train again, not take over the old one."""
    known: set[str] = set()
    try:
        stages = yaml.safe_load(lock.read_text(encoding="utf-8"))["stages"]
        known = {out["md5"] for stage in stages.values() for out in stage.get("outs", [])}
    except (OSError, KeyError, TypeError, AttributeError, yaml.YAMLError):
        pass
    for path in checkpoints.glob(f"*/{REFERENCE}"):
        if path.read_text(encoding="utf-8") in known:
            remove(path.parent)
    for leftover in checkpoints.glob(f"{REMOVED}*"):
        shutil.rmtree(leftover, ignore_errors=True)


def remove_abandoned(folder: Path) -> None:
    """Remove what other trainings left beside `folder` when nobody has gone on with them for two weeks."""
    for other in folder.parent.glob("*/"):
        if other != folder and time.time() - other.stat().st_mtime > KEPT_S:
            remove(other)


def remove(folder: Path) -> None:
    """Remove a folder in one step: a kill in the middle must not leave checkpoints without their mark."""
    gone = folder.with_name(f"{REMOVED}{folder.name}")
    shutil.rmtree(gone, ignore_errors=True)
    folder.rename(gone)
    shutil.rmtree(gone, ignore_errors=True)
