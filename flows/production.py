"""The servers of production on this machine, and what runs on them: `make up`, `make deploy`, `make down`.

    python -m flows.production up [--prefect-port 4200] [--mlflow-port 5000]
    python -m flows.production deploy [--nightly "0 2 * * *"] [--weekly "0 5 * * 1"]
    python -m flows.production down

A supervisor keeps Prefect's server and worker and MLflow's server running, on loopback or `--host`, with
their state under `.cgan/production`, unless the environment names databases: that folder may be deleted when
they are down, and only the history of Prefect's runs is lost. Each run works in a checkout of the deployed
commit, never in your tree. All three commands may be repeated, also when a former one was cut off. See
docs/production.md.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import socket
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import psutil
import yaml

from cgan import git
from cgan.errors import CganError
from cgan.files import write_text
from cgan.params.reading import read_yaml
from cgan.project import home
from cgan.store.address import BACKEND, STORE, is_server, is_shared, store_uri, without_credentials
from cgan.store.server import ANYWHERE, LOOPBACK, is_loopback, require_meant
from flows import worker
from flows.checkout import run_in
from flows.databases import Databases, databases_of
from flows.names import name_slots
from flows.servers import PASSWORD, POOL, Production, Program, top_folder

PORTS = {"prefect": 4200, "mlflow": 5000}
CRONS = ("nightly", "weekly")  # the deployments on a schedule
NO_NOTICES = "none: the worker was started without CGAN_WEBHOOK_URL; export it, make down, make up"


def up(
    root: Path, ports: dict[str, int | None], host: str = LOOPBACK, allow_remote: bool = False
) -> list[str]:
    """Start what does not run yet, and say what runs where."""
    require_meant(host, allow_remote)
    production = Production(root)
    with production.one_at_a_time():
        if not is_loopback(host) and not is_shared() and not is_server(store := store_uri(root)):
            # Runs on other machines can write to this server, but not to a folder here.
            os.environ[BACKEND] = store
        databases = databases_of(root)
        programs = _programs(production, databases, ports, host)
        site = programs["prefect"].site
        mlflow_page = programs["mlflow"].site if databases.mlflow else databases.clients
        tracking = databases.clients or mlflow_page
        environment = {
            **production.environment(programs["prefect"]),
            **databases.settings,
            STORE: tracking,
            "CGAN_MLFLOW_PAGE": without_credentials(mlflow_page),
        }
        production.supervise(programs, environment)
        if databases.mlflow:
            production.start_server("mlflow", "/health")
        production.start_server("prefect", "/api/health")
        worker.start(production, POOL, environment["PREFECT_API_URL"])
        process = psutil.Process(production.running()["worker"])
        told = "CGAN_WEBHOOK_URL" in process.environ()
        export = f"  (export MLFLOW_TRACKING_URI={without_credentials(tracking)})"
        lines = [
            f"Prefect  {site}  (export PREFECT_API_URL={site}/api)",
            f"MLflow   {without_credentials(mlflow_page)}{export if is_shared() else ''}",
            f"worker   pool {POOL}; each run in a checkout in {home(root)}",
            f"notices  {'to CGAN_WEBHOOK_URL' if told else NO_NOTICES}",
            f"logs     {production.home}/*.log",
            *_who_else(programs),
        ]
        if "nightly" not in production.deployments():
            lines.append("Nothing is deployed yet: make deploy")
        return lines


def _programs(
    production: Production, databases: Databases, ports: dict[str, int | None], host: str
) -> dict[str, Program]:
    known, running = production.known(), production.running()
    programs = {}
    commands = {"prefect": ["prefect", "server", "start"]}
    if databases.mlflow:
        commands["mlflow"] = ["cgan.cli", "ui", "--allow-remote"]
    for name, command in commands.items():
        # A server comes back where its worker looks for it.
        before = known.get(name, Program([], host=host, port=PORTS[name]))
        port = (not running and ports[name]) or before.port
        command += ["--host", before.host, "--port", str(port)]
        programs[name] = Program(
            command, host=before.host, port=port, database=databases.shown(name)
        )
    # `default` is the queue of what runs on a schedule.
    own = worker.Worker(POOL, ("default", *worker.labels_here()), worker.runs_at_once() + 1)
    return {**programs, "worker": own.program(programs["prefect"].site)}


def _who_else(programs: dict[str, Program]) -> list[str]:
    """A line about machines that can reach the servers."""
    prefect = programs["prefect"]
    if is_loopback(prefect.host):
        return []
    host = socket.gethostname() if prefect.host in ANYWHERE else prefect.host
    asks = "asks for a password" if os.environ.get(PASSWORD) else "asks nobody for a password"
    return [
        f"others   can reach Prefect by http://{host}:{prefect.port}: it {asks}, and runs what it is told on "
        "the worker's machine. MLflow asks nobody for a password: docs/security.md"
    ]


def down(root: Path) -> list[str]:
    """Stop what `up` or `join` started: a run saves a checkpoint and ends as Crashed."""
    production = Production(root)
    with production.one_at_a_time():
        stopped = production.stop()
    return [f"Stopped: {', '.join(stopped)}." if stopped else "Nothing was running."]


def deploy(root: Path, crons: dict[str, str | None]) -> list[str]:
    """Register the deployments of the prefect.yaml of HEAD, for runs at that commit."""
    production = Production(root)
    with production.one_at_a_time():
        elsewhere = os.environ.get("PREFECT_API_URL")
        if elsewhere and "prefect" not in production.running():
            raise CganError(
                f"make deploy is for the servers of make up, which don't run here. For the server at "
                f"{without_credentials(elsewhere)}: prefect deploy --all, see docs/elsewhere.md."
            )
        site = production.url("prefect")
        _register(production, crons)
        _schedule(production)
        commit = git.git("rev-parse", "--short", "HEAD", folder=root).decode().strip()
        lines = [f"Deployed {commit}."]
        if edits := git.git("diff", "--name-only", "HEAD", folder=root).decode().splitlines():
            lines.append(f"Not deployed, because not committed: {', '.join(edits)}.")
        for name, deployment in production.deployments().items():
            for schedule in deployment["schedules"]:
                what = schedule["schedule"].get("cron") or f"{schedule['schedule']}"
                lines.append(f"{name}: {what}{' UTC' if schedule['active'] else ' UTC (paused)'}")
        lines.append(f"{site}/deployments")
        return lines


def _register(production: Production, crons: dict[str, str | None]) -> None:
    with tempfile.TemporaryDirectory(prefix="cgan-") as temporary:
        clone = Path(temporary) / "clone"
        git.clone_at(production.root, "HEAD", clone)
        file = read_yaml(clone / "prefect.yaml")
        for deployment in file["deployments"]:
            if cron := crons.get(deployment["name"]):
                deployment["schedules"] = [{"cron": cron, "timezone": "UTC"}]
        edited = Path(temporary) / "prefect.yaml"
        write_text(edited, yaml.safe_dump(file))
        command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"]
        command += ["--prefect-file", str(edited)]
        environment = production.environment(production.known()["prefect"])
        environment["PYTHONPATH"] = str(clone)
        run_in(clone, *command, environment=environment)
    with contextlib.suppress(CganError):  # it is there
        limit = {"name": "gate", "limit": 1, "active": True}  # on whichever machine
        production.api("POST", "/v2/concurrency_limits/", limit)


def _schedule(production: Production) -> None:
    """Plan the next runs now, by names of ours. The server would do so within a minute, by its own."""
    for name, deployment in production.deployments().items():
        if name in CRONS:
            production.api("POST", f"/deployments/{deployment['id']}/schedule", {})
            name_slots(production.api, deployment["id"], name)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m flows.production", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    commands = parser.add_subparsers(dest="command", required=True)
    for_up = commands.add_parser("up", help="start what does not run")
    for name, port in PORTS.items():
        for_up.add_argument(f"--{name}-port", type=int, help=f"default {port}")
    for_up.add_argument("--host", default=LOOPBACK, help="where both servers listen")
    for_up.add_argument("--allow-remote", action="store_true", help="others may reach --host")
    for_deploy = commands.add_parser("deploy", help="register the deployments")
    for name in CRONS:
        for_deploy.add_argument(f"--{name}", metavar="CRON", help="instead of that in prefect.yaml")
    commands.add_parser("down", help="stop what `up` started")
    asked = vars(parser.parse_args(arguments))
    try:
        root = top_folder()
        if asked["command"] == "up":
            ports = {name: asked[f"{name}_port"] for name in PORTS}
            lines = up(root, ports, asked["host"], asked["allow_remote"])
        elif asked["command"] == "deploy":
            lines = deploy(root, {name: asked[name] for name in CRONS})
        else:
            lines = down(root)
    except CganError as error:
        sys.stderr.write(f"Error: {error}\n")
        return error.exit_code
    sys.stdout.write("\n".join(lines) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
