"""The programs of deploy/Procfile, in the background: `make up`, `make deploy`, `make down`.

PREFECT_PORT and MLFLOW_PORT choose other ports than 4200 and 5000. What dies is not restarted: for that there
is deploy/systemd.
"""

import argparse
import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil

from cgan.base import git, hosts
from cgan.base.commands import output_of
from cgan.base.errors import CganError
from cgan.base.files import locked
from cgan.pipeline.project import PRODUCTION, require_project
from cgan.pipeline.tracking.store import store_uri
from flows.checkout import PROJECT_VARIABLE
from flows.repro import say

DEPLOY = Path(__file__).parents[1] / "deploy"
# What the shell runs, by name, in the order of their start.
PROGRAMS = dict(
    line.split(": ", 1) for line in (DEPLOY / "Procfile").read_text(encoding="utf-8").splitlines()
)
PORTS = {"MLFLOW_PORT": "5000", "PREFECT_PORT": "4200"}
STAYS_UP_S = 5.0  # after which the worker, which listens nowhere, counts as started
MAX_END_S = 60.0  # of a worker whose run saves a checkpoint


def up(root: Path) -> Iterator[str]:
    """Start what does not run yet. Yields a line as each program answers. Raises CganError if a port is
    taken, or a program ends."""
    folder, environment = root / PRODUCTION, _environment(root)
    with locked(folder / "lock"):
        folder.chmod(0o700)  # flow parameters, and logs
        running = _running(root)
        for name in PROGRAMS:
            if name == "mlflow" and hosts.is_server(store_uri(root)):
                continue
            port = int(environment.get(f"{name.upper()}_PORT", 0))
            if name not in running:
                _start(folder, name, port, environment)
            yield f"{name:8} {_site(port) if port else 'takes the nights'}"
    yield f"logs     {folder}/*.log"
    yield f"export PREFECT_API_URL={environment['PREFECT_API_URL']}"


def _start(folder: Path, name: str, port: int, environment: dict[str, str]) -> None:
    """Start a program that outlives this process, and wait until it answers, however long a busy machine
    takes. Raises CganError with the last lines of its log if it ends."""
    if port:
        hosts.require_free(hosts.LOOPBACK, port, f"{name.upper()}_PORT=")
    command, log = f"exec {PROGRAMS[name]}", folder / f"{name}.log"
    with log.open("ab") as out:
        process = subprocess.Popen(
            ["/bin/sh", "-c", command],
            env=environment,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
    (folder / f"{name}.pid").write_bytes(str(process.pid).encode())
    began = time.monotonic()
    while not (_answers(port) if port else time.monotonic() > began + STAYS_UP_S):
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
    """Of the programs: deploy/servers.env, the user's, and their addresses. What runs keeps its ports."""
    lines = (DEPLOY / "servers.env").read_text(encoding="utf-8").splitlines()
    settings = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    known = {**PORTS, **settings, **os.environ}
    for process in _running(root).values():
        known |= {name: process.environ()[name] for name in PORTS}
    mlflow, prefect = (_site(int(known[name])) for name in PORTS)
    uri = store_uri(root)
    return {
        **known,
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), known["PATH"]]),
        "PYTHONPATH": str(root),
        "PYTHONUNBUFFERED": "1",
        "PREFECT_HOME": str(root / PRODUCTION / "prefect"),
        "PREFECT_API_URL": f"{prefect}/api",
        "CGAN_MLFLOW_PAGE": hosts.without_credentials(uri) if hosts.is_server(uri) else mlflow,
        PROJECT_VARIABLE: str(root),
    }


def _site(port: int) -> str:
    return hosts.site_of(hosts.LOOPBACK, port)


def _answers(port: int) -> bool:
    """Does a server listen there? Ours do once they can answer."""
    with socket.socket() as probe:
        return probe.connect_ex((hosts.LOOPBACK, port)) == 0


def deploy(root: Path) -> Iterator[str]:
    """Register the deployments of prefect.yaml, for runs at the commit of HEAD."""
    environment = _environment(root)
    if not _answers(int(environment["PREFECT_PORT"])):
        raise CganError(
            f"no server answers at {environment['PREFECT_API_URL']}. Start it: make up."
        )
    prefect = (sys.executable, "-m", "prefect", "--no-prompt")
    pool = ("work-pool", "create", "cgan", "--type", "process")
    with contextlib.suppress(CganError):  # it is there: the worker makes it, too
        output_of(*prefect, *pool, folder=root, environment=environment)
    output_of(*prefect, "deploy", "--all", folder=root, environment=environment)
    tree = git.working_tree(root)
    yield f"Deployed {tree.commit[:7]}."
    if tree.changed:
        yield f"Runs will not have what is not committed: {', '.join(tree.changed)}."


def down(root: Path) -> Iterator[str]:
    """Stop what `up` started, the worker first: its run saves a checkpoint and ends as Crashed."""
    with locked(root / PRODUCTION / "lock"):
        running = _running(root)
        for process in reversed(running.values()):
            # The worker's runs first: it would kill them before they have told the server.
            for group in (process.children(recursive=True), [process]):
                for each in group:
                    with contextlib.suppress(psutil.NoSuchProcess):
                        each.terminate()
                for each in psutil.wait_procs(group, timeout=MAX_END_S)[1]:
                    each.kill()
    yield f"Stopped: {', '.join(reversed(running))}." if running else "Nothing was running."


def main(arguments: Sequence[str] | None = None) -> int:
    commands = {"up": up, "deploy": deploy, "down": down}
    parser = argparse.ArgumentParser(prog="python -m flows.production", description=__doc__)
    parser.add_argument("command", choices=commands)
    command = commands[parser.parse_args(arguments).command]
    try:
        for line in command(require_project()):
            say(line)
    except (CganError, KeyboardInterrupt) as error:
        sys.stderr.write(f"Error: {str(error) or 'interrupted; run the same command again'}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
