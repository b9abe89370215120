"""Jobs on this machine: each a process with a checkout of its own, and without a server.

    python -m flows.sweep.here '[{"name": …}, COMMIT, PROJECT, DRIVER]'

is that process. It ends with the driver that started it, however that ends: its training writes a
checkpoint first, and goes on from there when the job is started again.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from cgan.errors import CganError
from cgan.params.editing import set_params
from cgan.project import RUN_REFERENCE
from cgan.run.follower import flush_one
from cgan.run.lifecycle import made_for
from cgan.run.records import count_waiting, folder_of
from flows.checkout import checkout, environment, share_data
from flows.dvc import NUMBERS, Repro, read_stages, run_own

if TYPE_CHECKING:  # it brings Prefect along, which costs the process two seconds
    from flows.sweep.jobs import Job, Watch

FAILED = 3  # exit code: the job's own error is the last line
SWEEPS = Path(".cgan/sweeps")  # logs of jobs


def train_here(base: Path, commit: str, job: Job, watch: Watch) -> None:
    """Do a job. What is left of a former driver's process is waited for. Raises JobError."""
    from flows.sweep.jobs import POLL_S, JobError

    log = base / SWEEPS / f"{job.name}.log"
    told = json.dumps([commit, str(base), os.getpid(), vars(job)])
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "flows.sweep.here", told],
            cwd=base,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        while process.poll() is None:
            watch()
            time.sleep(POLL_S)
    finally:
        process.terminate()
        process.wait()
    if process.returncode:
        said = log.read_text(encoding="utf-8", errors="replace").rpartition("Error: ")[2]
        ended = f"its process ended with {process.returncode}; see {log}"
        raise JobError(said.strip() if process.returncode == FAILED else ended)


def main() -> int:
    commit, project, driver, job = json.loads(sys.argv[1])
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    threading.Thread(target=_end_with, args=[driver], daemon=True).start()
    base = Path(project)
    try:
        with checkout(base, commit, job["name"]) as folder:
            os.environ.update(environment(base, folder))
            os.chdir(folder)
            set_params(job["overrides"])
            share_data(base, folder)
            _run_stages(job["tags"], job["last"])
    except CganError as error:
        _say(f"Error: {error}")
        return FAILED
    return 0


def _end_with(driver: int) -> None:
    while os.getppid() == driver:  # it may have died while we were starting
        time.sleep(0.2)
    os.kill(os.getpid(), signal.SIGTERM)


def _run_stages(tags: dict[str, str], last: str) -> None:
    """As in the flow of a pool's run. Raises CganError when one fails."""
    names = [stage.name for stage in read_stages()]
    names = names[: names.index(last) + 1]
    env = {"MLFLOW_RUN_CONTEXT": json.dumps(tags)} if tags else {}
    with contextlib.closing(Repro(names, stops={"train"}, env=env)) as repro:
        for name in names:
            began = time.monotonic()
            outcome = repro.stage(name, _say)
            # A training that DVC brings back from its cache has no MLflow run of its own.
            if name == "train" and not made_for(tags, RUN_REFERENCE):
                outcome = repro.stage(name, _say, force=True)
            _say(f"{name}: {outcome}, {time.monotonic() - began:.1f} s")
    if last == "evaluate":
        run_own(NUMBERS, _say)
    if RUN_REFERENCE.is_file():  # the driver looks in MLflow for what came of it
        folder = folder_of(json.loads(RUN_REFERENCE.read_text(encoding="utf-8"))["run_key"])
        if count_waiting(folder):
            _say(flush_one(Path.cwd(), folder))


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
