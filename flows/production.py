"""The servers of production on this machine, and what runs on them: `make up`, `make deploy`, `make down`.

    python -m flows.production up|deploy|down
    python -m flows.production run mlflow|prefect|worker

`up` starts the servers of MLflow and Prefect and a worker in the background; `run` is one of them in the
foreground, for systemd. PREFECT_PORT and MLFLOW_PORT choose other ports than 4200 and 5000.
"""

import argparse
import contextlib
import os
import socket
import sys
import time
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path

import psutil

from cgan import git, hosts
from cgan.errors import CganError
from cgan.files import locked, read_json, write_json
from cgan.pipeline.tracking.store import BACKEND_VARIABLE, STORE_VARIABLE, store_uri
from cgan.project import PRODUCTION, home, require_project
from flows.checkout import PROJECT_VARIABLE
from flows.repro import output_of, say

# Of the servers, the worker and its runs.
SETTINGS = Path(__file__).parents[1] / "deploy/servers.env"
STATE = PRODUCTION / "state.json"  # pid and port of each program, in the order of their start
WORK_POOL = "cgan"  # of prefect.yaml
# Limit 2: one more than trainings, so that a night due while another is on is cancelled, not queued.
PROGRAMS = {
    "mlflow": "cgan.cli ui --port {mlflow}",
    "prefect": "prefect server start --port {prefect}",
    "worker": f"prefect worker start --pool {WORK_POOL} --type process --limit 2 --install-policy never",
}
PORTS = {"mlflow": 5000, "prefect": 4200, "worker": 0}  # 0: it listens nowhere
STAYS_UP_S = 5.0  # after which a program without a port counts as started
MAX_END_S = 60.0  # of a worker whose run saves a checkpoint


def up(root: Path) -> Generator[str, None, None]:
    """Start what does not run yet; what runs keeps its port. Yields a line as each answers. Raises CganError
    if a port is taken, or a program ends."""
    folder = root / PRODUCTION
    with locked(folder / "lock"):
        folder.chmod(0o700)  # flow parameters, and logs
        running, ports = _running(root), _ports(root)
        for name, port in ports.items():
            if name == "mlflow" and hosts.is_server(store_uri(root)):
                continue
            if name not in running:
                running[name] = _start(root, name, ports), port
                state = {each: [process.pid, port] for each, (process, port) in running.items()}
                write_json(root / STATE, state)
            _wait(running[name][0], port, folder / f"{name}.log")
            yield f"{name:8} {_site(port) if port else f'its checkouts are in {home(root)}'}"
    yield f"logs     {folder}/*.log"
    yield f"export PREFECT_API_URL={_site(ports['prefect'])}/api"


def _running(root: Path) -> dict[str, tuple[psutil.Process, int]]:
    """Process and port of each program of this project's that `up` started and that lives."""
    found = {}
    state = read_json(root / STATE) if (root / STATE).exists() else {}
    for name, (pid, port) in state.items():
        with contextlib.suppress(psutil.Error):  # it has ended
            process = psutil.Process(pid)
            if process.environ().get(PROJECT_VARIABLE) == str(root):
                found[name] = process, port
    return found


def _ports(root: Path) -> dict[str, int]:
    """Where each program listens, in the order of their start."""
    chosen = {name: int(os.environ.get(f"{name.upper()}_PORT") or PORTS[name]) for name in PORTS}
    return chosen | {name: port for name, (_, port) in _running(root).items()}


def _start(root: Path, name: str, ports: dict[str, int]) -> psutil.Process:
    """A program in a session of its own, which outlives this process."""
    if ports[name]:
        hosts.require_free(hosts.LOOPBACK, ports[name], f"{name.upper()}_PORT=")
    log, environment = str(root / PRODUCTION / f"{name}.log"), _environment(root, ports)
    to_log = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600),
        (os.POSIX_SPAWN_DUP2, 1, 2),
    ]
    command = _command(name, ports)
    pid = os.posix_spawn(sys.executable, command, environment, file_actions=to_log, setsid=True)
    return psutil.Process(pid)


def _command(name: str, ports: dict[str, int]) -> list[str]:
    return [sys.executable, "-m", *PROGRAMS[name].format_map(ports).split()]


def _wait(process: psutil.Process, port: int, log: Path) -> None:
    """Wait until a program answers, however long a busy machine takes. Raises CganError with the last lines
    of its log if it ends."""
    while not (_answers(port) if port else time.time() > process.create_time() + STAYS_UP_S):
        ended, _ = psutil.wait_procs([process], timeout=0.2)
        if ended:
            last = log.read_text(encoding="utf-8", errors="replace").splitlines()[-10:]
            raise CganError("\n".join([f"{log.stem} did not start. The end of {log}:", *last]))


def _answers(port: int) -> bool:
    """Does a server listen there? Ours do once they can answer."""
    with socket.socket() as probe:
        return probe.connect_ex((hosts.LOOPBACK, port)) == 0


def _site(port: int) -> str:
    return hosts.site_of(hosts.LOOPBACK, port)


def _environment(root: Path, ports: dict[str, int]) -> dict[str, str]:
    """The environment of the programs: deploy/servers.env, the user's, and the addresses of one another."""
    lines = SETTINGS.read_text(encoding="utf-8").splitlines()
    settings = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    environment = settings | os.environ
    uri = store_uri(root)
    page = uri if hosts.is_server(uri) else _site(ports["mlflow"])
    if environment.get(BACKEND_VARIABLE):  # that database is MLflow's server's: runs write to it
        environment[STORE_VARIABLE] = page
    return {
        **environment,
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), environment["PATH"]]),
        "PYTHONPATH": str(root),
        "PYTHONUNBUFFERED": "1",
        "PREFECT_HOME": str(root / PRODUCTION / "prefect"),
        "PREFECT_API_URL": f"{_site(ports['prefect'])}/api",
        "CGAN_MLFLOW_PAGE": hosts.without_credentials(page),
        PROJECT_VARIABLE: str(root),
    }


def run(root: Path, name: str) -> None:
    """Become this program."""
    ports = _ports(root)
    environment = _environment(root, ports)
    os.execve(sys.executable, _command(name, ports), environment)  # nosec B606: our own program


def down(root: Path) -> Iterator[str]:
    """Stop what `up` started, the worker first: its run saves a checkpoint and ends as Crashed."""
    with locked(root / PRODUCTION / "lock"):
        running = _running(root)
        names = [name for name in reversed(PROGRAMS) if name in running]
        for name in names:
            process, _ = running[name]
            family = [process, *process.children(recursive=True)]
            for each in family:  # the worker's runs, too: it would leave them
                with contextlib.suppress(psutil.NoSuchProcess):
                    each.terminate()
            _, living = psutil.wait_procs(family, timeout=MAX_END_S)
            for each in living:
                with contextlib.suppress(psutil.Error):
                    each.kill()
        (root / STATE).unlink(missing_ok=True)
    yield f"Stopped: {', '.join(names)}." if names else "Nothing was running."


def deploy(root: Path) -> Iterator[str]:
    """Register the deployments of prefect.yaml, for runs at the commit of HEAD."""
    ports = _ports(root)
    site = _site(ports["prefect"])
    if not _answers(ports["prefect"]):
        raise CganError(
            f"no Prefect server answers at {site}. Start it: make up. For a server elsewhere: prefect "
            "deploy --all, see docs/production.md."
        )
    environment = _environment(root, ports)

    def prefect(*arguments: str) -> None:
        command = (sys.executable, "-m", "prefect", "--no-prompt", *arguments)
        output_of(*command, folder=root, environment=environment)

    with contextlib.suppress(CganError):  # it is there: the worker makes it, too
        prefect("work-pool", "create", WORK_POOL, "--type", "process")
    prefect("deploy", "--all")
    tree = git.working_tree(root)
    yield f"Deployed {tree.commit[:7]}: {site}/deployments"
    if tree.changed:
        yield f"Runs will not have what is not committed: {', '.join(tree.changed)}."


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m flows.production", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("up", "deploy", "down"):
        commands.add_parser(name)
    commands.add_parser("run").add_argument("program", choices=PROGRAMS)
    args = parser.parse_args(arguments)
    if password := os.environ.get("PREFECT_SERVER_API_AUTH_STRING"):  # clients must send it too
        os.environ.setdefault("PREFECT_API_AUTH_STRING", password)
    try:
        root = require_project()
        if args.command == "run":
            run(root, args.program)
        for line in {"up": up, "deploy": deploy, "down": down}[args.command](root):
            say(line)
    except CganError as error:
        sys.stderr.write(f"Error: {error}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("Interrupted. Run the same command again to complete it.\n")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
