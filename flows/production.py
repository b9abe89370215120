"""The servers of production on this machine, and what runs on them: `make up`, `make deploy`, `make down`.

    python -m flows.production up [--prefect-port 4200] [--mlflow-port 5000]
    python -m flows.production deploy
    python -m flows.production down

A supervisor keeps the servers of Prefect and MLflow and a worker running, as supervisord.conf says; their
state is under `.cgan/production`. All commands may be repeated. See docs/production.md.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from xmlrpc.client import Fault  # nosec B411: our own supervisor answers

import httpx
import psutil

from cgan import git
from cgan.errors import CganError
from cgan.files import locked, read_json, write_json
from cgan.hosts import LOOPBACK, is_loopback, require_free, require_meant, site_of
from cgan.processes import SOCKET, STATE, running, supervisor
from cgan.project import PRODUCTION, home
from cgan.tracking.store import BACKEND, STORE, is_server, store_uri, without_credentials
from flows.checkout import SOURCE, run_in

CONFIGURATION = Path(__file__).with_name("supervisord.conf")
AUTOMATION = "cgan: heartbeats stopped"  # its name in silent.yaml
PORTS = {"prefect": 4200, "mlflow": 5000}
HEALTH = {"prefect": "/api/health", "mlflow": "/health"}
PASSWORD = "PREFECT_SERVER_API_AUTH_STRING"  # that its server asks for, where `make up` was typed
CORES_OF_A_TRAINING = 2  # `train.cpu_parts` of the presets
START_S = 120.0


def up(
    root: Path, ports: dict[str, int], host: str = LOOPBACK, allow_remote: bool = False
) -> Iterator[str]:
    """Start what does not run yet. Yields a line as each answers.

    Raises CganError if a port is taken, a program ends, or production runs with other options.
    """
    require_meant(host, allow_remote)
    folder, tracking = root / PRODUCTION, store_uri(root)
    sites = {name: site_of(host, ports[name]) for name in PORTS}
    names = ["prefect", "worker"] if is_server(tracking) else ["mlflow", "prefect", "worker"]
    with locked(folder / "lock"):
        folder.chmod(0o700)  # flow parameters, and logs
        asked = {name: {"host": host, "port": ports.get(name)} for name in names}
        if not running(root):
            for name in HEALTH.keys() & asked:
                require_free(host, ports[name], f"{name.upper()}_PORT=")
            write_json(folder / STATE, asked)
            environment = _environment(root, host, ports, sites, tracking)
            itself = [sys.executable, "-m", "supervisor.supervisord", "-c", str(CONFIGURATION)]
            run_in(folder, *itself, environment=environment)
        elif read_json(folder / STATE) != asked:
            raise CganError(
                "production runs with other options, or another MLflow. Give the same, or end it: make down."
            )
        for name in names:
            _start(root, name, sites[name] + HEALTH[name] if name in HEALTH else "")
            yield f"{name:8} {sites.get(name) or f'each run in a checkout in {home(root)}'}"
    yield f"logs     {folder}/*.log"
    yield f"export PREFECT_API_URL={sites['prefect']}/api"


def _environment(
    root: Path, host: str, ports: dict[str, int], sites: dict[str, str], tracking: str
) -> dict[str, str]:
    """Of every process here: yours, and what supervisord.conf fills in."""
    yours = {key: value for key, value in os.environ.items() if key != "PREFECT_PROFILE"}
    if password := yours.get(PASSWORD):  # who asks has to say it too
        yours.setdefault("PREFECT_API_AUTH_STRING", password)
    if not is_server(tracking) and (yours.get(BACKEND) or not is_loopback(host)):
        # The database is for MLflow's server alone, or runs are on other machines: they write to the server.
        yours.setdefault(BACKEND, tracking)
        tracking = sites["mlflow"]
    if is_server(tracking):
        yours[STORE] = tracking
    return {
        **yours,
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), yours["PATH"]]),
        "PYTHONPATH": str(root),
        "PYTHONUNBUFFERED": "1",
        "PREFECT_HOME": str(root / PRODUCTION / "prefect"),
        "PREFECT_API_URL": f"{sites['prefect']}/api",
        # By default the API answers any page in a browser.
        "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": sites["prefect"],
        **({} if is_loopback(host) else {"PREFECT_SERVER_UI_API_URL": "/api"}),
        "CGAN_MLFLOW_PAGE": without_credentials(
            tracking if is_server(tracking) else sites["mlflow"]
        ),
        SOURCE: str(root),
        # A socket's path has 107 bytes at most, and the supervisor makes it absolute.
        "CGAN_SOCKET": f"/proc/self/cwd/{SOCKET}" if Path("/proc/self").exists() else SOCKET,
        "CGAN_HOST": host,
        **{f"CGAN_{name.upper()}_PORT": str(port) for name, port in ports.items()},
        # One more than trainings: a run due while another is on is cancelled, and not queued.
        "CGAN_RUNS": str(max(1, (os.cpu_count() or 1) // CORES_OF_A_TRAINING) + 1),
    }


def _start(root: Path, name: str, site: str) -> None:
    """Start a program if it does not run. Wait until `site` answers, else until it has lived for a while.

    Raises CganError if it ends.
    """
    deadline = time.monotonic() + START_S
    with supervisor(root) as keeper:
        with contextlib.suppress(Fault):  # it runs
            keeper.startProcess(name, False)
        while (state := keeper.getProcessInfo(name)["statename"]) in ("STARTING", "RUNNING"):
            if _answers(site) if site else state == "RUNNING":
                return
            if time.monotonic() > deadline:
                break
            time.sleep(0.2)
        with contextlib.suppress(Fault):  # it has ended
            keeper.stopProcess(name)
    log = root / PRODUCTION / f"{name}.log"
    words = log.read_text(encoding="utf-8", errors="replace").splitlines()[-10:]
    raise CganError("\n".join([f"{name} did not start. The end of {log}:", *words]))


def _answers(site: str) -> bool:
    with contextlib.suppress(httpx.TransportError):
        return httpx.get(site, timeout=2).is_success
    return False


def down(root: Path) -> Iterator[str]:
    """Stop what `up` started: a run saves a checkpoint and ends as Crashed."""
    with locked(root / PRODUCTION / "lock"):
        found = running(root)
        with contextlib.suppress(OSError), supervisor(root) as keeper:
            itself = psutil.Process(keeper.getPID())
            keeper.shutdown()  # the last in its configuration ends first
            itself.wait()
        (root / PRODUCTION / STATE).unlink(missing_ok=True)
    yield f"Stopped: {', '.join(found)}." if found else "Nothing was running."


def deploy(root: Path) -> Iterator[str]:
    """Register the deployments of the prefect.yaml of HEAD, for runs at that commit, and the automation."""
    with locked(root / PRODUCTION / "lock"):
        if "prefect" not in running(root):
            raise CganError(
                "Prefect's server of this project does not run. Start it: make up. For a server elsewhere: "
                "prefect deploy --all, see docs/workers.md."
            )
        place = read_json(root / PRODUCTION / STATE)["prefect"]
        site = site_of(place["host"], place["port"])
        environment = {**os.environ, "PREFECT_API_URL": f"{site}/api"}
        if password := os.environ.get(PASSWORD):
            environment.setdefault("PREFECT_API_AUTH_STRING", password)
        with tempfile.TemporaryDirectory(prefix="cgan-") as temporary:
            clone = Path(temporary) / "clone"
            git.clone_at(root, "HEAD", clone)
            environment["PYTHONPATH"] = str(clone)
            prefect = (sys.executable, "-m", "prefect", "--no-prompt")
            run_in(clone, *prefect, "deploy", "--all", environment=environment)
            automation = (*prefect, "automation")
            try:
                run_in(clone, *automation, "inspect", AUTOMATION, environment=environment)
            except CganError:
                create = ("create", "--from-file", "flows/silent.yaml")
                run_in(clone, *automation, *create, environment=environment)
    commit = git.git("rev-parse", "--short", "HEAD", folder=root).decode().strip()
    yield f"Deployed {commit}: {site}/deployments"
    if edits := git.git("diff", "--name-only", "HEAD", folder=root).decode().splitlines():
        yield f"Not deployed, because not committed: {', '.join(edits)}."


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m flows.production", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    commands = parser.add_subparsers(dest="command", required=True)
    for_up = commands.add_parser("up", help="start what does not run")
    for name, port in PORTS.items():
        for_up.add_argument(f"--{name}-port", type=int, default=port, help=f"default {port}")
    words = f"where both servers listen; default {LOOPBACK}"
    for_up.add_argument("--host", default=LOOPBACK, help=words)
    for_up.add_argument("--allow-remote", action="store_true", help="others may reach --host")
    commands.add_parser("deploy", help="register the deployments of HEAD")
    commands.add_parser("down", help="stop what `up` started")
    asked = parser.parse_args(arguments)
    try:
        root = top_folder()
        if asked.command == "up":
            ports = {name: getattr(asked, f"{name}_port") for name in PORTS}
            lines = up(root, ports, asked.host, asked.allow_remote)
        else:
            lines = deploy(root) if asked.command == "deploy" else down(root)
        for line in lines:
            sys.stdout.write(f"{line}\n")
            sys.stdout.flush()
    except CganError as error:
        sys.stderr.write(f"Error: {error}\n")
        return error.exit_code
    return 0


def top_folder() -> Path:
    root = Path.cwd().resolve()
    if not (root / "prefect.yaml").is_file():
        raise CganError(f"{root}: no prefect.yaml here. Run this from the project's top folder.")
    return root


if __name__ == "__main__":
    sys.exit(main())
