"""The programs of deploy/Procfile, in the background: `make up`, `make deploy`, `make down`.

What dies is not restarted: for that there is deploy/systemd.
"""

import contextlib
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import typer

from cgan.base import git
from cgan.base.commands import output_of, run_app
from cgan.base.errors import CganError
from cgan.base.hosts import LOOPBACK, require_free
from cgan.pipeline.project import PRODUCTION, require_project
from cgan.pipeline.tracking.store import is_server, store_uri
from flows.checkout import PROJECT_VARIABLE
from flows.children import say

DEPLOY = Path(__file__).parents[1] / "deploy"


def read_pairs(file: str, mark: str) -> dict[str, str]:
    """The lines `NAME=value` of a file in deploy/, or with another mark between."""
    lines = (DEPLOY / file).read_text(encoding="utf-8").splitlines()
    return dict(line.split(mark, 1) for line in lines if line and not line.startswith("#"))


PROGRAMS = read_pairs("Procfile", ": ")  # what the shell runs, in the order of their start
PORTS = {"MLFLOW_PORT": "5000", "PREFECT_PORT": "4200"}
STAYS_UP_S = 5.0  # after which the worker, which listens nowhere, counts as started
MAX_END_S = 60.0  # of a worker whose run saves a checkpoint
CUT_OFF = "A night is cut off: Crashed in Prefect. After `make up`, *Retry* on its page goes on."

app = typer.Typer()


@app.command()
def up() -> None:
    """Start what does not run yet, and say where each program answers."""
    root = require_project()
    folder = root / PRODUCTION
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # flow parameters, and logs
    environment, running = _environment(root), _running(root)
    for name in PROGRAMS:
        if name == "mlflow" and is_server(store_uri(root)):
            continue
        port = int(environment.get(f"{name.upper()}_PORT", 0))
        if name not in running:
            _start(folder, name, port, environment)
        say(f"{name:8} {f'http://{LOOPBACK}:{port}' if port else 'runs the flows'}")
    say(f"logs     {folder}/*.log\nexport PREFECT_API_URL={environment['PREFECT_API_URL']}")


@app.command()
def deploy() -> None:
    """Register the deployments of prefect.yaml, for runs at the commit of HEAD."""
    root = require_project()
    environment = _environment(root)
    if not _answers(int(environment["PREFECT_PORT"])):
        raise CganError(f"no server is at {environment['PREFECT_API_URL']}. Start it: make up.")
    say("Registering the deployments of prefect.yaml, some ten seconds …")
    pool = ["work-pool", "create", "cgan", "--type", "process", "--overwrite"]
    for command in (pool, ["deploy", "--all"]):
        prefect = [sys.executable, "-m", "prefect", "--no-prompt", *command]
        output_of(*prefect, folder=root, environment=environment)
    tree = git.working_tree(root)
    say(f"Deployed {tree.commit[:7]}.")
    if tree.changed:
        say(f"Runs will not have what is not committed: {', '.join(tree.changed)}.")


@app.command()
def down() -> None:
    """Stop what `up` started, the worker first: its run saves a checkpoint and ends as Crashed."""
    running = _running(require_project())
    for name, program in reversed(running.items()):
        runs = program.children(recursive=True)
        if name == "worker" and runs:
            say(CUT_OFF)
        # The worker's runs first: it would kill them before they have told the server.
        for group in (runs, [program]):
            for process in group:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.terminate()
            for process in psutil.wait_procs(group, timeout=MAX_END_S)[1]:
                process.kill()
    say(f"Stopped: {', '.join(reversed(running))}." if running else "Nothing was running.")


def _start(folder: Path, name: str, port: int, environment: dict[str, str]) -> None:
    """Start a program that outlives this process, and wait until it answers. Raises CganError with the last
    lines of its log if it ends."""
    if port:
        require_free(LOOPBACK, port, f"{name.upper()}_PORT=")
    log = folder / f"{name}.log"
    command = ["/bin/sh", "-c", f"exec {PROGRAMS[name]}"]
    with log.open("ab") as out:
        process = subprocess.Popen(
            command, env=environment, stdout=out, stderr=out, start_new_session=True
        )
    (folder / f"{name}.pid").write_bytes(str(process.pid).encode())
    stays_until = time.monotonic() + STAYS_UP_S
    while not (_answers(port) if port else time.monotonic() > stays_until):
        if process.poll() is not None:
            last = log.read_text(encoding="utf-8", errors="replace").splitlines()[-10:]
            raise CganError("\n".join([f"{name} did not start. The end of {log}:", *last]))
        time.sleep(0.1)


def _running(root: Path) -> dict[str, psutil.Process]:
    """The programs that `up` started in this project and that live."""
    found = {}
    for name in PROGRAMS:
        with contextlib.suppress(OSError, psutil.Error):  # never started, or ended
            process = psutil.Process(int((root / PRODUCTION / f"{name}.pid").read_bytes()))
            if process.environ().get(PROJECT_VARIABLE) == str(root):
                found[name] = process
    return found


def _environment(root: Path) -> dict[str, str]:
    """Variables for the programs: deploy/servers.env, the user's, addresses. What runs keeps its ports."""
    env = {**PORTS, **read_pairs("servers.env", "="), **os.environ}
    for process in _running(root).values():
        env |= {name: process.environ()[name] for name in PORTS}
    return env | {
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), env["PATH"]]),
        "PYTHONPATH": str(root),
        "PREFECT_HOME": str(root / PRODUCTION / "prefect"),
        "PREFECT_API_URL": f"http://{LOOPBACK}:{env['PREFECT_PORT']}/api",
        PROJECT_VARIABLE: str(root),
    }


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((LOOPBACK, port)) == 0


if __name__ == "__main__":
    run_app(app)
