"""The servers of production on this machine, and what runs on them: `make up`, `make deploy`, `make down`.

    python -m flows.services up [--prefect-port 4200] [--mlflow-port 5000]
    python -m flows.services deploy [--nightly "0 2 * * *"] [--weekly "0 5 * * 1"]
    python -m flows.services down

Prefect's server and worker and MLflow's server run on loopback, in sessions of their own, with all their
state under `.cgan/production`: what is there may be deleted when they are down, and all but the
history of Prefect's runs comes back. Scheduled runs work in a clone there, never in your tree. All three
commands may be repeated, also when a former one was cut off. See docs/production.md.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import yaml

from cgan.errors import CganError
from cgan.files import write_json, write_text
from cgan.params.reading import load_params, read_yaml
from cgan.tracking.delivery import store_uri, without_credentials

POOL = "cgan"  # of the process worker
LEASES = "prefect.server.concurrency.lease_storage.filesystem"
LIMIT = "cgan"  # one run at a time in the clone, whichever deployment
START_S = 120.0
STOP_S = 60.0  # a run has 20 s for a checkpoint, and Prefect some to record the end
PORTS = {"prefect": 4200, "mlflow": 5000}
CRONS = ("nightly", "weekly")  # the deployments that work in the clone, on a schedule
NO_NOTICES = "none: the worker was started without CGAN_WEBHOOK_URL; export it, make down, make up"
BURIED = "Its worker was killed, and its process is gone."
AGAIN = "It was cut off with its worker; the new worker takes it up."
ON = ["PENDING", "RUNNING", "CANCELLING"]  # states of a run that may be at work in the clone
AT_HOME = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
}
# Yours may lead to another server: these are ours to set.
FOREIGN = ("PREFECT_API_URL", "PREFECT_API_KEY", "PREFECT_PROFILE", "PREFECT_HOME", "DVC_ROOT")


@dataclass(frozen=True)
class Process:
    """A process that we started. Its start time tells it from a later one with the same number."""

    pid: int
    started: float
    port: int | None

    def find(self) -> psutil.Process | None:
        with contextlib.suppress(psutil.NoSuchProcess):
            found = psutil.Process(self.pid)
            alive = found.status() != psutil.STATUS_ZOMBIE
            if alive and abs(found.create_time() - self.started) < 0.01:
                return found
        return None

    def leftovers(self) -> list[psutil.Process]:
        """The children of a leader that was killed: a server's, that keep its port."""
        if psutil.pid_exists(self.pid):
            return []  # the number is somebody else's, and so would be the group
        return [process for process in psutil.process_iter() if _group_of(process) == self.pid]


def _group_of(process: psutil.Process) -> int | None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        return os.getpgid(process.pid)
    return None


class Production:
    """The state of production of the project in `root`, on the disk and in Prefect."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.home = root / ".cgan" / "production"
        self.work = self.home / "work"
        self.mlflow = store_uri(root)

    # Processes

    def known(self, name: str) -> Process | None:
        """What an earlier `up` started under this name, alive or not."""
        try:
            return Process(**json.loads((self.home / f"{name}.json").read_text()))
        except (OSError, ValueError, TypeError):
            return None

    def running(self, name: str) -> Process | None:
        known = self.known(name)
        return known if known and known.find() else None

    def url(self, name: str) -> str:
        """Raises CganError when that server does not run."""
        if not (process := self.running(name)):
            raise CganError(f"the {name} server of this project does not run. Start it: make up.")
        return f"http://127.0.0.1:{process.port}"

    def environment(self, prefect_port: int) -> dict[str, str]:
        kept = {key: value for key, value in os.environ.items() if key not in FOREIGN}
        return {
            **kept,
            **AT_HOME,
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
            "PREFECT_HOME": str(self.home / "prefect"),
            "PREFECT_API_URL": f"http://127.0.0.1:{prefect_port}/api",
            "PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED": "events,flow_runs",
            # In memory, a server that is started again would end the run that holds the slot.
            "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": LEASES,
            "PYTHONUNBUFFERED": "1",
        }

    def start(
        self, name: str, command: list[str], environment: dict[str, str], port: int | None = None
    ) -> None:
        self.stop(name)
        if port:
            _refuse_taken_port(name, port)
        log = self.home / f"{name}.log"
        if log.exists():
            log.replace(log.with_suffix(".log.1"))
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", *command],
                cwd=self.root,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        started = psutil.Process(process.pid).create_time()
        process.returncode = 0  # it outlives us: nobody is to be warned of that
        write_json(self.home / f"{name}.json", asdict(Process(process.pid, started, port)))

    def wait_for(self, name: str, path: str) -> None:
        """Until a server answers. Raises CganError with its last words if it ends before."""
        deadline = time.monotonic() + START_S
        while process := self.running(name):
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(f"http://127.0.0.1:{process.port}{path}", timeout=2).is_success:
                    return
            if time.monotonic() > deadline:
                raise CganError(f"the {name} server does not answer; see {self.home / name}.log.")
            time.sleep(0.2)
        log = self.home / f"{name}.log"
        last = "\n".join(log.read_text(errors="replace").splitlines()[-10:])
        raise CganError(f"the {name} server ended while it started. The end of {log}:\n{last}")

    def stop(self, name: str) -> bool:
        """End a process that we started, or what it left behind. False if nothing runs."""
        known = self.known(name)
        found = [process] if known and (process := known.find()) else []
        _end(found or (known.leftovers() if known else []))
        (self.home / f"{name}.json").unlink(missing_ok=True)
        return bool(found)

    # Prefect

    def api(self, method: str, path: str, content: Any = None) -> Any:
        user = os.environ.get("PREFECT_API_AUTH_STRING", "").partition(":")[::2]
        for wait_s in (0.5, 1, 2, 4, 0):
            answer = httpx.request(
                method,
                f"{self.url('prefect')}/api{path}",
                json=content,
                timeout=30,
                auth=user if any(user) else None,
            )
            if answer.status_code != httpx.codes.SERVICE_UNAVAILABLE:
                break
            time.sleep(wait_s)  # its database is busy
        if answer.is_error:
            raise CganError(f"Prefect refused {method} {path}: {answer.text[:500]}")
        return answer.json() if answer.content else None

    def runs_on(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.api(
            "POST",
            "/flow_runs/filter",
            {
                "flow_runs": {"state": {"type": {"any_": ON}}},
                "work_pools": {"name": {"any_": [POOL]}},
            },
        )
        return found

    def deployments(self) -> dict[str, dict[str, Any]]:
        return {entry["name"]: entry for entry in self.api("POST", "/deployments/filter", {})}

    def set_state(
        self,
        run: dict[str, Any],
        kind: str,
        name: str,
        message: str,
        details: dict[str, Any] | None = None,
    ) -> None:
        state = {"type": kind, "name": name, "message": message, "state_details": details or {}}
        path = f"/flow_runs/{run['id']}/set_state"
        self.api("POST", path, {"state": state, "force": True})

    @property
    def has_pool(self) -> bool:
        return bool(
            self.api("POST", "/work_pools/filter", {"work_pools": {"name": {"any_": [POOL]}}})
        )


def _refuse_taken_port(name: str, port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            variable = f"{name.upper()}_PORT"
            raise CganError(
                f"port {port} for the {name} server cannot be had ({error.strerror}): another "
                f"program listens there. End that, or take another: make up {variable}={port + 1}."
            ) from None


def _end(processes: list[psutil.Process]) -> None:
    """SIGTERM, and SIGKILL to what is still there after STOP_S, children included."""
    family = list(processes)
    with contextlib.suppress(psutil.NoSuchProcess):
        for process in processes:
            family += process.children(recursive=True)
            process.terminate()
    for rest in psutil.wait_procs(family, timeout=STOP_S)[1]:
        with contextlib.suppress(psutil.NoSuchProcess):
            rest.kill()


@contextlib.contextmanager
def _alone(home: Path) -> Iterator[None]:
    """One `up`, `deploy` or `down` at a time."""
    home.mkdir(parents=True, exist_ok=True)
    home.chmod(0o700)  # flow parameters, and logs
    with (home / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def up(root: Path, ports: dict[str, int | None]) -> list[str]:
    """Start what does not run yet, and say what runs where."""
    production = Production(root)
    with _alone(production.home):
        wanted = {
            # A killed server comes back where its worker looks for it.
            name: getattr(production.known(name), "port", None) or ports[name] or default
            for name, default in PORTS.items()
        }
        environment = production.environment(wanted["prefect"])
        own_mlflow = not production.mlflow.startswith(("http://", "https://"))
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
    _end([orphan for run in production.runs_on() for orphan in _engine_of(run)])
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
    with _alone(production.home):
        # Prefect's worker kills its runs when it is told to stop. Told themselves, they end in order.
        worker = production.running("worker")
        if found := worker.find() if worker else None:
            _end(found.children())
        stopped = [name for name in ("worker", "prefect", "mlflow") if production.stop(name)]
    return [f"Stopped: {', '.join(stopped)}." if stopped else "Nothing was running."]


def deploy(root: Path, crons: dict[str, str | None]) -> list[str]:
    """Bring the clone to the commit of HEAD, and register the deployments of its prefect.yaml."""
    production = Production(root)
    with _alone(production.home):
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
    """Make a relative `data.path` in the clone mean yours, so that a file put there is seen.

    A link, not an absolute path in params.yaml: DVC's hashes and git's status stay those of your tree.
    """
    path = load_params(work / "params.yaml").data.path
    tracked = _git(work, "ls-files", "--", path).splitlines()
    if Path(path).is_absolute() or path in tracked:
        return
    if tracked:
        _git(work, "update-index", "--skip-worktree", "--", *tracked)
        shutil.rmtree(work / path)
    (work / path).parent.mkdir(parents=True, exist_ok=True)
    (work / path).symlink_to(root / path)
    exclude = work / ".git" / "info" / "exclude"
    if f"/{path}" not in exclude.read_text().splitlines():
        with exclude.open("a") as file:
            file.write(f"/{path}\n")
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


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m flows.services", description=__doc__)
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
