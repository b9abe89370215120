"""What production consists of on this machine: its processes, its folder, and Prefect's API."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import psutil

from cgan.errors import CganError
from cgan.files import write_json
from cgan.processes import find_process, started_at
from cgan.project import PRODUCTION, SCHEDULED_WORK
from cgan.store.address import BACKEND, without_credentials
from cgan.store.server import LOOPBACK, is_loopback, site_of

POOL = "cgan"  # of the process worker
LEASES = "prefect.server.concurrency.lease_storage.filesystem"
START_S = 120.0
STOP_S = 60.0  # a run has 20 s for a checkpoint, and Prefect some to record the end
AT_HOME = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    # The pages of Prefect's new UI ask a host of Amplitude's for settings, analytics or not.
    "PREFECT_SERVER_UI_V2_ENABLED": "false",
    "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
}
# Yours may lead to another server: these are ours to set.
FOREIGN = ("PREFECT_API_URL", "PREFECT_API_KEY", "PREFECT_PROFILE", "PREFECT_HOME", "DVC_ROOT")
# The servers' only: a worker, and what it runs, knows no password of a database.
PREFECT_DATABASE = "PREFECT_SERVER_DATABASE_CONNECTION_URL"
PASSWORD = "PREFECT_SERVER_API_AUTH_STRING"  # that Prefect's server asks for
FORMER_NAME = "PREFECT_API_DATABASE_CONNECTION_URL"  # Prefect's own for it, until version 3
SERVERS_ONLY = (BACKEND, PREFECT_DATABASE, FORMER_NAME)


def top_folder() -> Path:
    root = Path.cwd().resolve()
    if not (root / "prefect.yaml").is_file():
        raise CganError(f"{root}: no prefect.yaml here. Run this from the project's top folder.")
    return root


@dataclass(frozen=True)
class Process:
    """A process that we started. Its start time tells it from a later one with the same number."""

    pid: int
    started: float
    port: int | None
    host: str = LOOPBACK  # on which it listens
    database: str = ""  # of a server, unless it is its own sqlite file; without a password

    @property
    def site(self) -> str:
        """Where it is asked from this machine."""
        return site_of(self.host, self.port)

    def find(self) -> psutil.Process | None:
        return find_process(self.pid, self.started)

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
        self.home = root / PRODUCTION
        self.work = root / SCHEDULED_WORK

    @contextlib.contextmanager
    def one_at_a_time(self) -> Iterator[None]:
        """One `up`, `deploy`, `join` or `down` at a time."""
        self.home.mkdir(parents=True, exist_ok=True)
        self.home.chmod(0o700)  # flow parameters, and logs
        with (self.home / "lock").open("w", encoding="utf-8") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    # Processes

    def known(self, name: str) -> Process | None:
        """What an earlier `up` started under this name, alive or not."""
        try:
            return Process(**json.loads((self.home / f"{name}.json").read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None

    def running(self, name: str) -> Process | None:
        known = self.known(name)
        return known if known and known.find() else None

    def url(self, name: str) -> str:
        """Raises CganError when that server does not run."""
        if not (process := self.running(name)):
            raise CganError(f"the {name} server of this project does not run. Start it: make up.")
        return process.site

    def environment(self, prefect: Process) -> dict[str, str]:
        """Of every process here; `prefect`: the server, running or to be."""
        left_out = FOREIGN + SERVERS_ONLY
        kept = {key: value for key, value in os.environ.items() if key not in left_out}
        if password := os.environ.get(PASSWORD):  # who asks has to say it too
            kept.setdefault("PREFECT_API_AUTH_STRING", password)
        return {
            # By default the API answers any page in a browser.
            "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": prefect.site,
            **({} if is_loopback(prefect.host) else {"PREFECT_SERVER_UI_API_URL": "/api"}),
            **kept,
            **AT_HOME,
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
            "PREFECT_HOME": str(self.home / "prefect"),
            "PREFECT_API_URL": f"{prefect.site}/api",
            "PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED": "events,flow_runs",
            # In memory, a server that is started again would end the run that holds the slot.
            "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": LEASES,
            "PYTHONUNBUFFERED": "1",
        }

    def start(
        self,
        name: str,
        command: list[str],
        environment: dict[str, str],
        place: Process | None = None,
    ) -> None:
        """Start a process; `place`: where a server listens, and its database."""
        place = place or Process(0, 0, None)
        self.stop(name)
        if place.port:
            _refuse_taken_port(name, place.host, place.port)
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
        started = started_at(psutil.Process(process.pid))
        process.returncode = 0  # it outlives us: nobody is to be warned of that
        known = replace(place, pid=process.pid, started=started)
        write_json(self.home / f"{name}.json", asdict(known))

    def wait_for(self, name: str, path: str) -> None:
        """Until a server answers. Raises CganError with its last words if it ends before."""
        deadline = time.monotonic() + START_S
        while process := self.running(name):
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(f"{process.site}{path}", timeout=2).is_success:
                    return
            if time.monotonic() > deadline:
                raise CganError(f"the {name} server does not answer; see {self.home / name}.log.")
            time.sleep(0.2)
        log = self.home / f"{name}.log"
        last = "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-10:])
        raise CganError(f"the {name} server ended while it started. The end of {log}:\n{last}")

    def stop(self, name: str) -> bool:
        """End a process that we started, or what it left behind. False if nothing runs."""
        known = self.known(name)
        found = [process] if known and (process := known.find()) else []
        end_family(found or (known.leftovers() if known else []))
        (self.home / f"{name}.json").unlink(missing_ok=True)
        return bool(found)

    # Prefect

    def api(self, method: str, path: str, content: Any = None) -> Any:
        return ask_prefect(f"{self.url('prefect')}/api", method, path, content)

    def deployments(self) -> dict[str, dict[str, Any]]:
        return {entry["name"]: entry for entry in self.api("POST", "/deployments/filter", {})}

    @property
    def has_pool(self) -> bool:
        return bool(
            self.api("POST", "/work_pools/filter", {"work_pools": {"name": {"any_": [POOL]}}})
        )


def ask_prefect(url: str, method: str, path: str, content: Any = None) -> Any:
    """What the API at `url` answers. Credentials as Prefect's own client takes them, from the environment.

    Raises CganError with the answer when it refuses, or gives none.
    """
    password = os.environ.get("PREFECT_API_AUTH_STRING") or os.environ.get(PASSWORD, "")
    user = password.partition(":")[::2]
    key = os.environ.get("PREFECT_API_KEY", "")
    for wait_s in (0.5, 1, 2, 4, 0):
        try:
            answer = httpx.request(
                method,
                f"{url}{path}",
                json=content,
                timeout=30,
                auth=user if any(user) else None,
                headers={"Authorization": f"Bearer {key}"} if key else None,
            )
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise CganError(
                f"Prefect at {without_credentials(url)} gives no answer ({error})."
            ) from None
        if answer.status_code != httpx.codes.SERVICE_UNAVAILABLE:
            break
        time.sleep(wait_s)  # its database is busy
    try:
        return answer.raise_for_status().json() if answer.content else None
    except (httpx.HTTPStatusError, ValueError):
        raise CganError(
            f"Prefect at {without_credentials(url)} answers {method} {path} with {answer.status_code}: "
            f"{answer.text[:500]}"
        ) from None


def fault(url: str, client: Any) -> str | None:
    """Why Prefect's own client cannot use the API at `url`, in its words; None where it can."""
    try:
        client.request("POST", "/work_pools/filter", json={"limit": 1}).raise_for_status().json()
    except httpx.HTTPStatusError as error:
        said = f"{error.response.status_code} {error.response.reason_phrase}"
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        said = f"{type(error).__name__}: {error}"[:300]
    else:
        return None
    return (
        f"Prefect's API at {without_credentials(url)} cannot be used ({said}). `make up` starts a server and "
        "prints the PREFECT_API_URL to set."
    )


def end_temporary_server_with_us() -> None:
    """A flow that dies by SIGKILL cannot end Prefect's temporary server. What does it then waits for the
    end of a pipe that only we hold."""
    from prefect.server.api.server import SubprocessASGIServer

    if server := SubprocessASGIServer().server_process:
        heard, _ = os.pipe()
        command = ["sh", "-c", 'read -r _; kill "$0" 2> /dev/null', str(server.pid)]
        quiet = subprocess.DEVNULL
        waiting = subprocess.Popen(
            command, stdin=heard, stdout=quiet, stderr=quiet, start_new_session=True
        )
        waiting.returncode = 0  # it outlives us: nobody is to be warned of that
        os.close(heard)


def _refuse_taken_port(name: str, host: str, port: int) -> None:
    family, kind, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    with socket.socket(family, kind) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
        except OSError as error:
            variable = f"{name.upper()}_PORT"
            raise CganError(
                f"port {port} for the {name} server cannot be had ({error.strerror}): another "
                f"program listens there. End that, or take another: make up {variable}={port + 1}."
            ) from None


def end_family(processes: list[psutil.Process]) -> None:
    """SIGTERM, and SIGKILL to what is still there after STOP_S, children included."""
    family = list(processes)
    with contextlib.suppress(psutil.NoSuchProcess):
        for process in processes:
            family += process.children(recursive=True)
            process.terminate()
    for rest in psutil.wait_procs(family, timeout=STOP_S)[1]:
        with contextlib.suppress(psutil.NoSuchProcess):
            rest.kill()
