"""The servers of production on this machine, and what runs on them: `make up`, `make deploy`, `make down`.

    python -m flows.production up [--prefect-port 4200] [--mlflow-port 5000]
    python -m flows.production deploy [--nightly "0 2 * * *"] [--weekly "0 5 * * 1"]
    python -m flows.production down

Prefect's server and worker and MLflow's server run on loopback, in sessions of their own, with all their
state under `.cgan/production`: that folder may be deleted when they are down, and only the
history of Prefect's runs is lost. Scheduled runs work in a clone there, never in your tree. All three
commands may be repeated, also when a former one was cut off. See docs/production.md.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil
import yaml

from cgan.errors import CganError
from cgan.files import write_text
from cgan.params.reading import read_yaml
from cgan.tracking.store import is_server, without_credentials
from flows import workplace
from flows.names import name_slots
from flows.servers import POOL, START_S, Production, end_family

LIMIT = "cgan"  # one run at a time in the clone, whichever deployment
PORTS = {"prefect": 4200, "mlflow": 5000}
CRONS = ("nightly", "weekly")  # the deployments that work in the clone, on a schedule
NO_NOTICES = "none: the worker was started without CGAN_WEBHOOK_URL; export it, make down, make up"
BURIED = "Its worker was killed, and its process is gone."
AGAIN = "It was cut off with its worker; the new worker takes it up."


@contextlib.contextmanager
def _one_at_a_time(home: Path) -> Iterator[None]:
    """One `up`, `deploy` or `down` at a time."""
    home.mkdir(parents=True, exist_ok=True)
    home.chmod(0o700)  # flow parameters, and logs
    with (home / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def up(root: Path, ports: dict[str, int | None]) -> list[str]:
    """Start what does not run yet, and say what runs where."""
    production = Production(root)
    with _one_at_a_time(production.home):
        wanted = {
            # A killed server comes back where its worker looks for it.
            name: getattr(production.known(name), "port", None) or ports[name] or default
            for name, default in PORTS.items()
        }
        environment = production.environment(wanted["prefect"])
        own_mlflow = not is_server(production.mlflow)
        if own_mlflow and not production.running("mlflow"):
            command = ["cgan.cli", "ui", "--port", str(wanted["mlflow"])]
            production.start("mlflow", command, environment, wanted["mlflow"])
        if not production.running("prefect"):
            command = ["prefect", "server", "start", "--port", str(wanted["prefect"])]
            production.start("prefect", command, environment, wanted["prefect"])
        production.wait_for("prefect", "/api/health")
        if own_mlflow:
            production.wait_for("mlflow", "/health")
        mlflow_page = production.url("mlflow") if own_mlflow else production.mlflow
        again: list[str] = []
        if not production.running("worker"):
            again = _revive(production)
            command = ["prefect", "worker", "start", "--pool", POOL, "--type", "process"]
            command += ["--name", POOL, "--install-policy", "never"]
            its_own = {
                "PYTHONPATH": str(production.work),  # the clone's code, not the engineer's
                "MLFLOW_TRACKING_URI": production.mlflow,
                "CGAN_MLFLOW_PAGE": without_credentials(mlflow_page),
            }
            production.start("worker", command, {**environment, **its_own})
            _wait_for_worker(production)
        site = production.url("prefect")
        worker = production.running("worker")
        process = worker.find() if worker else None
        told = bool(process and process.environ().get("CGAN_WEBHOOK_URL"))
        lines = [
            f"Prefect  {site}  (export PREFECT_API_URL={site}/api)",
            f"MLflow   {without_credentials(mlflow_page)}",
            f"worker   pool {POOL}, works in {production.work}",
            f"notices  {'to CGAN_WEBHOOK_URL' if told else NO_NOTICES}",
            f"logs     {production.home}/*.log",
            *again,
        ]
        if "nightly" not in production.deployments():
            lines.append("Nothing is deployed yet: make deploy")
        return lines


def _wait_for_worker(production: Production) -> None:
    deadline = time.monotonic() + START_S
    while production.running("worker") and time.monotonic() < deadline:
        with contextlib.suppress(CganError):  # no such pool yet: the worker makes it
            for worker in production.api("POST", f"/work_pools/{POOL}/workers/filter", {}):
                if worker["status"] == "ONLINE":
                    return
        time.sleep(0.2)
    raise CganError(f"the worker did not start; see {production.home / 'worker.log'}.")


def _revive(production: Production) -> list[str]:
    """Before a worker starts: bury the runs of a killed one, and start again what was cut off.

    The latest run of a deployment that crashed in its first attempt is scheduled again: its slot is not
    lost, and DVC goes on where it was.
    """
    from flows import notices  # brings Prefect along, which costs a second or more

    lines: list[str] = []
    if not production.has_pool:
        return lines
    end_family([orphan for run in production.runs_on() for orphan in _engine_of(run)])
    for run in production.runs_on():
        production.set_state(run, "CRASHED", "Crashed", BURIED)
        lines.append(f"crashed  {run['name']}: {BURIED}")
        link = f"{production.url('prefect')}/runs/flow-run/{run['id']}"
        notices.post(notices.CRASHED, run["name"], BURIED, link)
    for deployment in production.deployments().values():
        latest = {
            "deployments": {"id": {"any_": [deployment["id"]]}},
            # A slot that the limit cancelled counts as started.
            "flow_runs": {"state": {"type": {"not_any_": ["SCHEDULED", "CANCELLED"]}}},
            "sort": "START_TIME_DESC",
            "limit": 1,
        }
        for run in production.api("POST", "/flow_runs/filter", latest):
            if run["state_type"] == "CRASHED" and run["run_count"] == 1:
                # Its own time: before slots that went by since, which the limit then cancels.
                when = {"scheduled_time": run["expected_start_time"]}
                production.set_state(run, "SCHEDULED", "AwaitingRetry", AGAIN, when)
                lines.append(f"again    {run['name']}: {AGAIN}")
    return lines


def _engine_of(run: dict[str, Any]) -> list[psutil.Process]:
    """The process of a run, if it lives: an orphan that is about to end itself."""
    with contextlib.suppress(psutil.NoSuchProcess, TypeError, ValueError):
        process = psutil.Process(int(run["infrastructure_pid"]))
        if "prefect.engine" in process.cmdline():
            return [process]
    return []


def down(root: Path) -> list[str]:
    """Stop what `up` started, the worker first: its run saves a checkpoint and ends as Crashed."""
    production = Production(root)
    with _one_at_a_time(production.home):
        # Prefect's worker kills its runs when it is told to stop. Told themselves, they end in order.
        worker = production.running("worker")
        if found := worker.find() if worker else None:
            end_family(found.children())
        stopped = [name for name in ("worker", "prefect", "mlflow") if production.stop(name)]
    return [f"Stopped: {', '.join(stopped)}." if stopped else "Nothing was running."]


def deploy(root: Path, crons: dict[str, str | None]) -> list[str]:
    """Bring the clone to the commit of HEAD, and register the deployments of its prefect.yaml."""
    production = Production(root)
    with _one_at_a_time(production.home):
        site = production.url("prefect")
        if not production.has_pool:
            raise CganError("the worker has never run. Start it: make up.")
        was_paused = production.api("GET", f"/work_pools/{POOL}")["is_paused"]
        production.api("PATCH", f"/work_pools/{POOL}", {"is_paused": True})
        try:
            if runs := production.runs_on():
                run = runs[0]
                raise CganError(
                    f"a run is at work in the clone: {run['name']}, "
                    f"{site}/runs/flow-run/{run['id']}. Wait until it ends, or cancel it there, and "
                    "deploy again. Nothing was changed."
                )
            commit = _update_clone(production)
            _register(production, crons)
            _schedule(production)
        finally:
            production.api("PATCH", f"/work_pools/{POOL}", {"is_paused": was_paused})
        lines = [f"Deployed {commit} to {production.work}."]
        if edits := _git(root, "diff", "--name-only", "HEAD").splitlines():
            lines.append(f"Not deployed, because not committed: {', '.join(edits)}.")
        for name, deployment in production.deployments().items():
            for schedule in deployment["schedules"]:
                what = schedule["schedule"].get("cron") or f"{schedule['schedule']}"
                lines.append(f"{name}: {what}{' UTC' if schedule['active'] else ' UTC (paused)'}")
        lines.append(f"{site}/deployments")
        return lines


def _run(folder: Path, *command: str, environment: dict[str, str] | None = None) -> str:
    """What a command says. Raises CganError with its complaint."""
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip())[-2000:]
        raise CganError(f"{' '.join(command)}, in {folder}, failed:\n{said}")
    return done.stdout.rstrip()


def _git(folder: Path, *arguments: str) -> str:
    return _run(folder, "git", *arguments)


def _dvc(folder: Path, *arguments: str) -> str:
    return _run(folder, sys.executable, "-m", "dvc", *arguments)


def _update_clone(production: Production) -> str:
    """Bring the clone to HEAD; returns the commit, short. What runs wrote there beside is kept."""
    root, work = production.root, production.work
    if not (work / ".git" / "HEAD").is_file():
        shutil.rmtree(work, ignore_errors=True)
        _git(root, "clone", "--quiet", "--no-checkout", str(root), str(work))
    _git(work, "fetch", "--quiet", str(root), "HEAD")
    _unshare_inbox(work)
    _git(work, "checkout", "--quiet", "--force", "--detach", "FETCH_HEAD")
    _dvc(work, "config", "--local", "cache.dir", _dvc(root, "cache", "dir"))
    _share_inbox(root, work)
    return _git(work, "rev-parse", "--short", "HEAD")


def _share_inbox(root: Path, work: Path) -> None:
    if path := workplace.share_data(root, work):
        _git(work, "config", "cgan.inbox", path)


def _unshare_inbox(work: Path) -> None:
    path = _git(work, "config", "--default", "", "cgan.inbox")
    if path and (work / path).is_symlink():
        (work / path).unlink()
        if tracked := _git(work, "ls-files", "--", path).splitlines():
            _git(work, "update-index", "--no-skip-worktree", "--", *tracked)


def _register(production: Production, crons: dict[str, str | None]) -> None:
    port = production.running("prefect")
    assert port and port.port
    environment = production.environment(port.port)
    file = read_yaml(production.work / "prefect.yaml")
    for deployment in file["deployments"]:
        if cron := crons.get(deployment["name"]):
            deployment["schedules"] = [{"cron": cron, "timezone": "UTC"}]
    edited = production.home / "prefect.yaml"
    write_text(edited, yaml.safe_dump(file))
    command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"]
    _run(production.work, *command, "--prefect-file", str(edited), environment=environment)
    # One limit for all that work in the clone; prefect.yaml knows only limits of one deployment.
    limit = {"name": LIMIT, "limit": 1, "active": True}
    with contextlib.suppress(CganError):  # it is there
        production.api("POST", "/v2/concurrency_limits/", limit)
    number = production.api("GET", f"/v2/concurrency_limits/{LIMIT}")["id"]
    for name, deployment in production.deployments().items():
        if name in crons:
            shared = {
                "global_concurrency_limit_id": number,
                "concurrency_options": {"collision_strategy": "CANCEL_NEW"},
            }
            production.api("PATCH", f"/deployments/{deployment['id']}", shared)


def _schedule(production: Production) -> None:
    """Plan the next runs now, and name them. The server would do so within a minute, and by its own names."""
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
    for_deploy = commands.add_parser("deploy", help="update the clone, register the deployments")
    for name in CRONS:
        for_deploy.add_argument(f"--{name}", metavar="CRON", help="instead of that in prefect.yaml")
    commands.add_parser("down", help="stop what `up` started")
    asked = vars(parser.parse_args(arguments))
    try:
        root = _top_folder()
        if asked["command"] == "up":
            lines = up(root, {name: asked[f"{name}_port"] for name in PORTS})
        elif asked["command"] == "deploy":
            lines = deploy(root, {name: asked[name] for name in CRONS})
        else:
            lines = down(root)
    except CganError as error:
        sys.stderr.write(f"Error: {error}\n")
        return error.exit_code
    sys.stdout.write("\n".join(lines) + "\n")
    return 0


def _top_folder() -> Path:
    root = Path.cwd().resolve()
    if not (root / "prefect.yaml").is_file():
        raise CganError(f"{root}: no prefect.yaml here. Run this from the project's top folder.")
    return root


if __name__ == "__main__":
    sys.exit(main())
