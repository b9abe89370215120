"""Proof of resume: a training that is killed again and again ends in the same bits as one that is not.

The children are real processes, and SIGKILL gives them no chance to tidy up. About half of the kills
wait for the temporary file of a checkpoint: the file that such a kill leaves behind proves that it
fell into the save.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import logging
import os
import random
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import torch

from cgan.data.dataset import load_dataset
from cgan.errors import ParamsError, TrackingError, TrainingError
from cgan.files import sha256_of, write_json, write_text
from cgan.model.hardware import choose_hardware
from cgan.params.reading import load_params
from cgan.params.sections import Params
from cgan.project import DISCRIMINATOR, GENERATOR, LOSSES, PACKAGE_PARENT, PREVIEWS, TRAIN_DATA
from cgan.stages.runner import progress, run_stage
from cgan.stages.train import write_outputs
from cgan.tracking.journal import project_root
from cgan.tracking.run import side_run
from cgan.training.fitting import fit
from cgan.training.loop import train

LOG_EVERY, SAVE_EVERY = 10, 20  # steps: many saves in a short training
FILES = (GENERATOR, DISCRIMINATOR, LOSSES)
CHECKPOINTS = Path("checkpoints")
RESULT = Path("result.json")
JITTER_S = 0.03  # about a step or two
SAVE_S = 0.004  # a save's temporary file lives some milliseconds

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Kill:
    """A SIGKILL `delay_s` after `step` began, or after the next save began."""

    step: int
    in_save: bool
    delay_s: float


def plan(kills: int, steps: int, seed: int) -> list[Kill]:
    """Kills over the whole training, in the order of their steps."""
    dice = random.Random(seed)
    last_save = (steps - 1) // SAVE_EVERY * SAVE_EVERY
    planned = []
    for index in range(kills):
        in_save = index % 2 == 0
        step = dice.randrange(max(1, last_save - 1 if in_save else steps - 1))
        planned.append(Kill(step, in_save, dice.random() * (SAVE_S if in_save else JITTER_S)))
    return sorted(planned, key=lambda kill: kill.step)


def verify(
    kills: int, steps: int, seed: int, say: Callable[[str], None] = lambda line: None
) -> str:
    """Train twice, the second time with kills, and return the certificate, recorded in MLflow too.

    Uses params.yaml (made shorter, with more checkpoints) and the training part of the data; leaves
    the project's outputs alone. Raises TrainingError where the two differ in a bit, and keeps both.
    """
    params = shorter(load_params(), steps)
    data_sha256 = _required(TRAIN_DATA)
    folder = project_root() / ".cgan" / "verify-resume" / uuid.uuid4().hex[:8]
    _prepare(folder / "uninterrupted", params)
    _prepare(folder / "killed", params)
    say(f"training {steps:,} steps without a kill …")
    began = time.perf_counter()
    follow = functools.partial(
        _follow, steps=range(steps), images_a_step=params.train.batch_size, say=say
    )
    with follow("without a kill") as reached:
        _live(folder / "uninterrupted", reached)
    say(f"{time.perf_counter() - began:.1f} s; now with {kills} kills …")
    hits = done = 0
    with follow("with kills") as reached:
        for kill in plan(kills, steps, seed):
            if _live(folder / "killed", reached, kill):
                break
            done += 1
            hits += any((folder / "killed" / CHECKPOINTS).glob(".*.tmp"))
        _live(folder / "killed", reached)
    left, right = (
        json.loads((folder / name / RESULT).read_text(encoding="utf-8"))
        for name in ("uninterrupted", "killed")
    )
    differing = [
        name for name in left["digests"] if left["digests"][name] != right["digests"][name]
    ]
    certificate = "\n".join(
        [
            f"Resume {'is NOT exact' if differing else 'is exact'}: {steps:,} steps of "
            f"{params.train.batch_size}, {done} SIGKILLs (seed {seed}), {hits} of them during the "
            "write of a checkpoint.",
            "",
            *_comparison(left["digests"], right["digests"]),
            "",
            f"device     {left['device']}",
            f"versions   {left['versions']}",
            f"data       {TRAIN_DATA}, sha256 {data_sha256[:16]}…",
        ]
    )
    facts = {
        "cgan.resume": "differs" if differing else "exact",
        "cgan.resume.kills": str(done),
        "cgan.resume.kills_in_a_save": str(hits),
        "cgan.resume.steps": str(steps),
        "cgan.resume.seed": str(seed),
        "cgan.device": left["device"],
        "cgan.data_sha256": data_sha256,
    }
    _record(params, folder, certificate, {**facts, "left": left, "right": right})
    if differing:
        raise TrainingError(
            f"{certificate}\n\n{', '.join(differing)}: not the same bits after the kills. Both "
            f"trainings are kept in {folder}."
        )
    shutil.rmtree(folder)
    return certificate


def shorter(params: Params, steps: int) -> Params:
    """The same training, `steps` long, with a checkpoint every SAVE_EVERY steps."""
    if steps <= SAVE_EVERY:
        raise ParamsError(
            f"--steps {steps}: expected more than {SAVE_EVERY}, the first checkpoint."
        )
    train = params.train.model_copy(
        update={
            "total_kimg": steps * params.train.batch_size / 1000,
            "log_every": LOG_EVERY,
            "save_every": SAVE_EVERY,
        }
    )
    return params.model_copy(update={"train": train})


def _required(path: Path) -> str:
    load_dataset(path)  # a missing or damaged file is told here, with what to do
    return sha256_of(path)


def _prepare(folder: Path, params: Params) -> None:
    """A folder in which a child finds its params and data where a stage finds them."""
    (folder / TRAIN_DATA).parent.mkdir(parents=True)
    (folder / TRAIN_DATA).symlink_to(TRAIN_DATA.resolve())
    write_text(folder / "params.yaml", json.dumps(params.model_dump(by_alias=True)))


@contextlib.contextmanager
def _follow(
    what: str, steps: range, images_a_step: int, say: Callable[[str], None]
) -> Iterator[Callable[[int], None]]:
    """Show the furthest step that was reached: after a kill some come again."""
    bar = progress(what, steps, images_a_step, say)
    last = next(bar)

    def reached(step: int) -> None:
        nonlocal last
        while last < step:
            last = next(bar)

    with contextlib.closing(bar):
        yield reached
        next(bar, None)


def _live(folder: Path, reached: Callable[[int], None], kill: Kill | None = None) -> bool:
    """One life of the child. → did it end by itself? Raises TrainingError where it failed."""
    search = os.pathsep.join(filter(None, [PACKAGE_PARENT, os.environ.get("PYTHONPATH")]))
    with (folder / "errors.log").open("ab") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "cgan.runs.verify_resume"],
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=errors,
            encoding="utf-8",
            env={**os.environ, "PYTHONPATH": search},
        )
    assert process.stdout
    with process, process.stdout:
        try:
            for line in process.stdout:
                if not line.strip().isdigit():
                    continue
                if kill and int(line) >= kill.step:
                    if kill.in_save:
                        _wait_for_save(folder / CHECKPOINTS, process)
                    time.sleep(kill.delay_s)
                    break
                reached(int(line))
            else:
                kill = None  # it ended before its time had come
        finally:
            if kill:
                process.kill()
    if process.returncode == 0:
        return True
    if kill and process.returncode < 0:
        return False
    lines = (
        (folder / "errors.log").read_text(encoding="utf-8", errors="replace").strip().splitlines()
    )
    raise TrainingError(
        f"a child process failed (exit code {process.returncode}): "
        f"{lines[-1] if lines else 'it said nothing'}. More is in {folder / 'errors.log'}."
    )


def _wait_for_save(folder: Path, process: subprocess.Popen[str]) -> None:
    while not any(folder.glob(".step-*.tmp")) and process.poll() is None:
        time.sleep(0.0002)


def _comparison(left: dict[str, str], right: dict[str, str]) -> list[str]:
    width = max(map(len, left))
    return [
        f"{name:<{width}}  {left[name][:32]}  {'=' if left[name] == right[name] else '≠'}  "
        f"{right[name][:32]}"
        for name in left
    ]


def _record(params: Params, folder: Path, certificate: str, facts: dict[str, Any]) -> None:
    """Into MLflow, as a run of its own. Its absence makes no proof fail."""
    write_text(folder / "resume.txt", certificate + "\n")
    write_json(folder / "resume.json", facts)
    try:
        with side_run(params, "verify-resume", "cgan.resume") as run:
            run.set_tags({name: value for name, value in facts.items() if isinstance(value, str)})
            run.log_file(folder / "resume.txt", "resume")
            run.log_file(folder / "resume.json", "resume")
    except TrackingError as error:
        log.warning("The certificate is not in MLflow: %s", error)


def child() -> None:
    """Train in the working directory, saying each step; leave digests of everything."""
    data = load_dataset(TRAIN_DATA)
    params = fit(load_params().train, data).params
    trained = train(data, params, None, CHECKPOINTS, _told)
    write_outputs(trained, {"params": params.model_dump()})
    digests = trained.digests | {str(file): sha256_of(file) for file in FILES}
    previews = "".join(f"{path.name} {sha256_of(path)}\n" for path in sorted(PREVIEWS.iterdir()))
    digests[f"{PREVIEWS}/"] = hashlib.sha256(previews.encode()).hexdigest()
    hardware = choose_hardware(params.device, params.precision)
    name = "CPU"
    if hardware.device.type == "cuda":
        name = torch.cuda.get_device_name()
    precision = str(hardware.precision).removeprefix("torch.")
    write_json(
        RESULT,
        {
            "digests": digests,
            "device": f"{name}, {precision}, {params.cpu_parts} parts",
            "versions": f"torch {torch.__version__}, safetensors {safetensors.__version__}, "
            f"Python {sys.version.split()[0]}",
        },
    )


def _told(steps: range) -> Iterator[int]:
    for step in steps:
        sys.stdout.write(f"{step}\n")
        sys.stdout.flush()
        yield step


if __name__ == "__main__":
    run_stage(child)
