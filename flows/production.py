"""The servers of production on this machine, and what runs on them: `make up`, `make deploy`, `make down`.

    python -m flows.production up [--prefect-port 4200] [--mlflow-port 5000]
    python -m flows.production deploy [--nightly "0 2 * * *"]
    python -m flows.production down

A supervisor keeps Prefect's server and worker and MLflow's server running, on loopback or `--host`, with
their state under `.cgan/production`, unless the environment names databases. All commands may be repeated,
also when a former one was cut off. See docs/production.md.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from cgan import git
from cgan.errors import CganError
from cgan.hosts import LOOPBACK, is_loopback, require_meant
from cgan.project import home
from cgan.tracking.store import BACKEND, STORE, is_server, store_uri, without_credentials
from flows import worker
from flows.checkout import run_in
from flows.databases import is_database, is_shared, require_database, served_store, with_driver
from flows.servers import POOL, PREFECT_DATABASE, Production, Program, top_folder

PORTS = {"prefect": 4200, "mlflow": 5000}
SERVER = {
    "PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED": "events,flow_runs",
    # In memory, a server that is started again would end the run that holds the slot.
    "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
}
CRONS = ("nightly",)  # the deployments on a schedule


def databases_of(root: Path) -> tuple[str, str, str]:
    """Addresses with passwords, for environments of servers only: the database that MLflow's server serves,
    "" where a server elsewhere keeps the runs; Prefect's, "" for SQLite in its folder; and
    MLFLOW_TRACKING_URI of whoever records, "" where that is the server of `make up`.

    Raises CganError for what is no store, and for a database that cannot be used now.
    """
    prefect = with_driver(os.environ.get(PREFECT_DATABASE, "").strip(), "asyncpg")
    clients = store_uri(root) if os.environ.get(STORE, "").strip() or not is_shared() else ""
    mlflow = served_store(root) if is_shared() or not is_server(clients) else ""
    require_database(mlflow, BACKEND if is_shared() else STORE)
    require_database(prefect, PREFECT_DATABASE)
    return mlflow, prefect, "" if is_shared() and not is_server(clients) else clients


def up(
    root: Path, ports: dict[str, int], host: str = LOOPBACK, allow_remote: bool = False
) -> list[str]:
    """Start what does not run yet, and say what runs where."""
    require_meant(host, allow_remote)
    production = Production(root)
    with production.one_at_a_time():
        if not is_loopback(host) and not is_shared() and not is_server(store := store_uri(root)):
            # Runs on other machines can write to this server, but not to a folder here.
            os.environ[BACKEND] = store
        served, database, clients = databases_of(root)
        prefect = Program.server_at(host, ports["prefect"], database)
        shared = served if is_shared() or is_database(served) else ""
        mlflow = Program.server_at(host, ports["mlflow"], shared)
        own = worker.program(POOL, worker.runs_at_once() + 1, prefect.site)
        programs = {"mlflow": mlflow} if served else {}
        programs |= {"prefect": prefect, "worker": own}
        page = without_credentials(mlflow.site if served else clients)
        tracking = clients or mlflow.site
        environment = {
            # By default the API answers any page in a browser.
            "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": prefect.site,
            **({} if is_loopback(host) else {"PREFECT_SERVER_UI_API_URL": "/api"}),
            **production.environment(f"{prefect.site}/api"),
            **SERVER,
            **{STORE: tracking, "CGAN_MLFLOW_PAGE": page},
            **({BACKEND: served} if is_shared() else {}),
            **({PREFECT_DATABASE: database} if database else {}),
        }
        environment.pop("PREFECT_API_KEY", None)  # of another server
        production.supervise(programs, environment)
        if served:
            production.start("mlflow", f"{mlflow.site}/health")
        production.start("prefect", f"{prefect.site}/api/health")
        production.start("worker")
        export = f"  (export MLFLOW_TRACKING_URI={without_credentials(tracking)})"
        lines = [
            f"Prefect  {prefect.site}  (export PREFECT_API_URL={prefect.site}/api)",
            f"MLflow   {page}{export if is_shared() else ''}",
            f"worker   pool {POOL}; each run in a checkout in {home(root)}",
            f"logs     {production.home}/*.log",
        ]
        if "nightly" not in production.deployments():
            lines.append("Nothing is deployed yet: make deploy")
        return lines


def down(root: Path) -> list[str]:
    """Stop what `up` started: a run saves a checkpoint and ends as Crashed."""
    production = Production(root)
    with production.one_at_a_time():
        stopped = production.stop()
    return [f"Stopped: {', '.join(stopped)}." if stopped else "Nothing was running."]


def deploy(root: Path, crons: dict[str, str | None]) -> list[str]:
    """Register the deployments of the prefect.yaml of HEAD, for runs at that commit."""
    production = Production(root)
    with production.one_at_a_time():
        site = production.url("prefect")
        with tempfile.TemporaryDirectory(prefix="cgan-") as temporary:
            clone = Path(temporary) / "clone"
            git.clone_at(root, "HEAD", clone)
            environment = {**production.environment(f"{site}/api"), "PYTHONPATH": str(clone)}
            command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"]
            run_in(clone, *command, environment=environment)
        deployments = production.deployments()
        for name, cron in crons.items():
            if cron:
                schedule = {"schedule": {"cron": cron, "timezone": "UTC"}, "active": True}
                path = f"/deployments/{deployments[name]['id']}"
                production.api("PATCH", path, {"schedules": [schedule]})
        with contextlib.suppress(CganError):  # it is there
            limit = {"name": "gate", "limit": 1, "active": True}  # on whichever machine
            production.api("POST", "/v2/concurrency_limits/", limit)
        commit = git.git("rev-parse", "--short", "HEAD", folder=root).decode().strip()
        lines = [f"Deployed {commit}."]
        if edits := git.git("diff", "--name-only", "HEAD", folder=root).decode().splitlines():
            lines.append(f"Not deployed, because not committed: {', '.join(edits)}.")
        for name, deployment in production.deployments().items():
            for schedule in deployment["schedules"]:
                what = schedule["schedule"].get("cron") or f"{schedule['schedule']}"
                lines.append(f"{name}: {what}{' UTC' if schedule['active'] else ' UTC (paused)'}")
        return [*lines, f"{site}/deployments"]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m flows.production", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    commands = parser.add_subparsers(dest="command", required=True)
    for_up = commands.add_parser("up", help="start what does not run")
    for name, port in PORTS.items():
        for_up.add_argument(f"--{name}-port", type=int, default=port, help=f"default {port}")
    for_up.add_argument(
        "--host", default=LOOPBACK, help=f"where both servers listen; default {LOOPBACK}"
    )
    for_up.add_argument("--allow-remote", action="store_true", help="others may reach --host")
    for_deploy = commands.add_parser("deploy", help="register the deployments")
    for name in CRONS:
        for_deploy.add_argument(f"--{name}", metavar="CRON", help="instead of that in prefect.yaml")
    commands.add_parser("down", help="stop what `up` started")
    asked = parser.parse_args(arguments)
    try:
        root = top_folder()
        if asked.command == "up":
            ports = {name: getattr(asked, f"{name}_port") for name in PORTS}
            lines = up(root, ports, asked.host, asked.allow_remote)
        elif asked.command == "deploy":
            lines = deploy(root, {name: getattr(asked, name) for name in CRONS})
        else:
            lines = down(root)
    except CganError as error:
        sys.stderr.write(f"Error: {error}\n")
        return error.exit_code
    sys.stdout.write("\n".join(lines) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
