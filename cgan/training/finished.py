"""A finished training's result, kept beside its checkpoints until DVC knows it.

DVC learns of a result after the stage has ended. Whatever is killed before that, DVC starts the stage
again; the stage then takes over what lies here. It does not train a second time, and there is one run.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from cgan.files import md5_of, sha256_of, write_bytes, write_json, write_text

MARK = "finished.json"
COPIES = "finished"
REFERENCE = "reference.md5"
REMOVED = ".removed-"

log = logging.getLogger(__name__)


def keep(folder: Path, outputs: Iterable[Path], facts: dict[str, Any]) -> None:
    """Copy the outputs (paths in the project) there. The mark, written last, says that all is there."""
    digests = {}
    for path in outputs:
        write_bytes(folder / COPIES / path, path.read_bytes())
        digests[str(path)] = sha256_of(folder / COPIES / path)
    write_json(folder / MARK, {"files": digests, "facts": facts})


def bring_back(folder: Path, code: str) -> dict[str, Any] | None:
    """Put the outputs where they belong and return their facts, if `code` is the facts' own.

    None when nothing is finished there. What is, and is damaged or of other code, is removed with the
    whole folder, run key included: its run has ended, a new training is a new run. Raises OSError when
    it cannot be read at present.
    """
    if not (folder / MARK).is_file():
        return None
    try:
        mark = json.loads((folder / MARK).read_text())
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
    """The stage's last act: note by which file (its hash is in dvc.lock then) DVC will know the result.

    The checkpoints go: once there is a mark, nobody goes on from them.
    """
    if "DVC_STAGE" in os.environ:
        write_text(folder / REFERENCE, md5_of(reference))
        for path in folder.glob("step-*.safetensors"):
            path.unlink()
    else:  # nobody else has to know
        remove(folder)


def remove_known(checkpoints: Path, lock: Path) -> None:
    """Remove the results that dvc.lock knows. A stage that is started all the same has to train again."""
    known: set[str] = set()
    try:
        stages = yaml.safe_load(lock.read_text())["stages"]
        known = {out["md5"] for stage in stages.values() for out in stage.get("outs", [])}
    except (OSError, KeyError, TypeError, AttributeError, yaml.YAMLError):
        pass
    for path in checkpoints.glob(f"*/{REFERENCE}"):
        if path.read_text() in known:
            remove(path.parent)
    for leftover in checkpoints.glob(f"{REMOVED}*"):
        shutil.rmtree(leftover, ignore_errors=True)


def remove(folder: Path) -> None:
    """At once: a kill in the middle must not leave checkpoints without their mark."""
    gone = folder.with_name(f"{REMOVED}{folder.name}")
    shutil.rmtree(gone, ignore_errors=True)
    folder.rename(gone)
    shutil.rmtree(gone, ignore_errors=True)
