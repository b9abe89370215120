"""Jobs on this machine: each a process with a checkout of its own, and without a server.

    python -m flows.sweep.here '{"name": …, "commit": …}'

is that process. It ends with the driver that started it, however that ends: its training writes a
checkpoint first, and goes on from there when the job is started again.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cgan.errors import CganError
from cgan.params.editing import set_params
from cgan.project import RUN_REFERENCE
from cgan.run.follower import flush_one
from cgan.run.lifecycle import made_for
from cgan.run.records import count_waiting, folder_of
from flows.checkout import checkout, environment, share_data, sole_holder
from flows.dvc import choose, read_stages, repro_stage
from flows.sweep.jobs import Job, Seen, State, was_killed

FAILED = 3  # exit code: the job's own error is the last line
SWEEPS = Path(".cgan/sweeps")  # logs of jobs


class Here:
    """This machine."""

    def __init__(self, base: Path, commit: str) -> None:
        self.base, self.commit = base, commit
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, job: Job, attempt: int) -> None:
        """A former driver's process has ended with it, or is about to: the new one waits for it."""
        log = self._log(job)
        log.parent.mkdir(parents=True, exist_ok=True)
        told = json.dumps(
            asdict(job) | {"commit": self.commit, "base": str(self.base), "driver": os.getpid()}
        )
        with log.open("ab") as output:
            self._processes[job.name] = subprocess.Popen(
                [sys.executable, "-m", "flows.sweep.here", told],
                cwd=self.base,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def look(self, job: Job) -> Seen:
        code = self._processes[job.name].poll()
        if code is None:
            return Seen(State.RUNNING)
        if code == 0:
            return Seen(State.DONE)
        lines = self._log(job).read_text(encoding="utf-8", errors="replace").rsplit("Error: ", 1)
        words = lines[1].strip() if code == FAILED and len(lines) > 1 else f"ended with {code}"
        return Seen(State.FAILED if code == FAILED else State.GONE, words)

    def stop(self, job: Job) -> None:
        if process := self._processes.get(job.name):
            process.terminate()
            process.wait()
        with sole_holder(self.base, job.name):  # a former driver's process may still be ending
            pass

    def _log(self, job: Job) -> Path:
        return self.base / SWEEPS / f"{job.name}.log"


def do(job: Job) -> None:
    """All stages of a job, in the working directory. Raises CganError when one fails."""
    env = {"MLFLOW_RUN_CONTEXT": json.dumps(job.tags)} if job.tags else {}
    for stage in choose(read_stages(), job.stages):
        began = time.monotonic()
        outcome = repro_stage(stage.name, _say, env=env)
        # A training that DVC brings back from its cache has no MLflow run of its own.
        if stage.name == "train" and not made_for(job.tags, RUN_REFERENCE):
            outcome = repro_stage(stage.name, _say, force=True, env=env)
        _say(f"{stage.name}: {outcome}, {time.monotonic() - began:.1f} s")
    if RUN_REFERENCE.is_file():  # the driver looks in MLflow for what came of it
        folder = folder_of(json.loads(RUN_REFERENCE.read_text(encoding="utf-8"))["run_key"])
        if count_waiting(folder):
            _say(flush_one(Path.cwd(), folder))


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _end_with(driver: int) -> None:
    def watch() -> None:
        while os.getppid() == driver:
            time.sleep(0.2)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


def main() -> int:
    told: dict[str, Any] = json.loads(sys.argv[1])
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    _end_with(told.pop("driver"))  # not our parent: it may have died while we were starting
    base, commit = Path(told.pop("base")), told.pop("commit")
    job = Job(**told)
    try:
        with checkout(base, commit, job.name) as folder:
            os.environ.update(environment(base, folder))
            os.chdir(folder)
            set_params(job.overrides)
            share_data(base, folder)
            do(job)
    except CganError as error:
        _say(f"Error: {error}")
        return 137 if was_killed(str(error)) else FAILED
    return 0


if __name__ == "__main__":
    sys.exit(main())
