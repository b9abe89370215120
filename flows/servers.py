"""What production consists of on this machine: its folder, its supervisor, and Prefect's API."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from xmlrpc.client import Fault  # nosec B411: our own supervisor answers

import httpx
import psutil
from prefect.client.orchestration import get_client

from cgan import git
from cgan.errors import CganError
from cgan.files import locked, read_json, write_json, write_text
from cgan.processes import STATE, running, supervisor
from cgan.project import PRODUCTION
from cgan.reports.sites import services
from cgan.store.address import BACKEND, without_credentials
from cgan.store.server import LOOPBACK, require_free, site_of
from flows.checkout import SOURCE, run_in

POOL = "cgan"  # of Prefect, in which the workers are
PASSWORD = "PREFECT_SERVER_API_AUTH_STRING"  # that its server asks for, where `make up` was typed
CONFIGURATION = "supervisord.conf"
START_S = 120.0
STOP_S = 60  # as in supervisord.conf: a run has 20 s for a checkpoint, and Prefect some to record the end
AT_HOME = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    # The pages of Prefect's new UI ask a host of Amplitude's for settings, analytics or not.
    "PREFECT_SERVER_UI_V2_ENABLED": "false",
    "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
}
PREFECT_DATABASE = "PREFECT_SERVER_DATABASE_CONNECTION_URL"
SERVERS_ONLY = (
    BACKEND,
    PREFECT_DATABASE,
)  # a worker, and what it runs, knows no password of a database
LEFT_OUT = (*SERVERS_ONLY, "PREFECT_PROFILE")  # profiles are in your PREFECT_HOME
# The supervisor makes an absolute path of its socket's, which has 107 bytes at most: this one stays short.
HERE = "/proc/self/cwd/" if Path("/proc/self/cwd").exists() else ""


def top_folder() -> Path:
    root = Path.cwd().resolve()
    if not (root / "prefect.yaml").is_file():
        raise CganError(f"{root}: no prefect.yaml here. Run this from the project's top folder.")
    return root


@dataclass(frozen=True)
class Program:
    """What the supervisor keeps running: a program of supervisord.conf, with these options."""

    options: str
    works_on: str = ""  # a server's database, the worker's server; without a password
    host: str = LOOPBACK  # where a server listens
    port: int | None = None

    @classmethod
    def server_at(cls, host: str, port: int, database: str) -> Program:
        options = shlex.join(["--host", host, "--port", str(port)])
        return cls(options, without_credentials(database), host, port)

    @property
    def site(self) -> str:
        """Where a server is asked from this machine."""
        return site_of(self.host, self.port)


class Production:
    """The state of production of the project in `root`, on the disk and in Prefect."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.home = root / PRODUCTION

    @contextlib.contextmanager
    def one_at_a_time(self) -> Iterator[None]:
        """One `up`, `deploy` or `down` at a time."""
        with locked(self.home / "lock"):
            self.home.chmod(0o700)  # flow parameters, and logs
            yield

    def url(self, name: str) -> str:
        """Raises CganError when that server does not run."""
        if site := services(self.root).get(name):
            return site
        raise CganError(
            f"the {name} server of this project does not run. Start it: make up. For a server elsewhere: "
            "prefect deploy --all, see docs/workers.md."
        )

    def environment(self, api_url: str) -> dict[str, str]:
        """Of every process here: yours, without passwords of databases, and ours before it."""
        yours = {key: value for key, value in os.environ.items() if key not in LEFT_OUT}
        if password := os.environ.get(PASSWORD):  # who asks has to say it too
            yours.setdefault("PREFECT_API_AUTH_STRING", password)
        return {
            **yours,
            **AT_HOME,
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
            "PREFECT_HOME": str(self.home / "prefect"),
            "PREFECT_API_URL": api_url,
            "PYTHONUNBUFFERED": "1",
            SOURCE: str(self.root),
            "PREFECT_WORKER_QUERY_SECONDS": "3",  # not 10: how long a run that is asked for may wait
        }

    def supervise(self, programs: dict[str, Program], environment: dict[str, str]) -> None:
        """Start the supervisor of these programs, and not yet them.

        Raises CganError if a port is taken, or if others were started before and not ended by `make down`:
        they may run, and from cron, whose environment lacks a database's address, schedules would be gone.
        """
        asked, state = {name: asdict(each) for name, each in programs.items()}, self.home / STATE
        if state.is_file() and read_json(state) != asked:
            raise CganError(
                f"production was started with other options, servers or databases, see {state}. Give the "
                "same, or end what was started: make down."
            )
        with contextlib.suppress(OSError), supervisor(self.root) as keeper:
            keeper.getPID()
            return
        for name, program in programs.items():
            if program.port:
                require_free(program.host, program.port, f"{name.upper()}_PORT=")
        shutil.rmtree(self.home / "work", ignore_errors=True)
        git.clone_at(self.root, "HEAD", self.home / "work")
        write_json(state, asked)
        os.umask(mask := os.umask(0))  # the supervisor would have one of its own
        options = {name: each.options.replace("%", "%%") for name, each in programs.items()}
        nothing = {"prefect": "", "mlflow": "", "worker": ""}
        template = Path(__file__).with_name(CONFIGURATION).read_text(encoding="utf-8")
        filled = template.format(here=HERE, umask=mask, **nothing | options)
        write_text(self.home / CONFIGURATION, filled)
        itself = [sys.executable, "-m", "supervisor.supervisord", "-c", CONFIGURATION]
        run_in(self.home, *itself, environment=environment)

    def start(self, name: str, site: str = "") -> None:
        """Start a program if it does not run. Wait until `site` answers, else until it has lived for a while.

        Raises CganError if it ends.
        """
        deadline = time.monotonic() + START_S
        with supervisor(self.root) as keeper:
            if keeper.getProcessInfo(name)["statename"] == "BACKOFF":
                keeper.stopProcess(name)
            with contextlib.suppress(Fault):  # it runs
                keeper.startProcess(name, False)
            while (state := keeper.getProcessInfo(name)["statename"]) in ("STARTING", "RUNNING"):
                if _answers(site) if site else state == "RUNNING":
                    return
                if time.monotonic() > deadline:
                    break
                time.sleep(0.2)
            if state == "BACKOFF":
                keeper.stopProcess(name)
        log = self.home / f"{name}.log"
        words = log.read_text(encoding="utf-8", errors="replace").splitlines()[-10:]
        raise CganError("\n".join([f"{name} did not start. The end of {log}:", *words]))

    def stop(self) -> list[str]:
        """End all, and the supervisor. Returns what ran."""
        found = running(self.root)
        with contextlib.suppress(psutil.NoSuchProcess):
            # Prefect's worker kills its runs when it is told to stop. Told themselves, they end in order.
            runs = psutil.Process(found["worker"]).children() if "worker" in found else []
            for run in runs:
                run.terminate()
            psutil.wait_procs(runs, timeout=STOP_S)
        with contextlib.suppress(OSError), supervisor(self.root) as keeper:
            itself = psutil.Process(keeper.getPID())
            keeper.shutdown()  # the last in its configuration ends first
            itself.wait()
        (self.home / STATE).unlink(missing_ok=True)
        return list(found)

    def api(self, method: str, path: str, content: Any = None) -> Any:
        return ask_prefect(f"{self.url('prefect')}/api", method, path, content)

    def deployments(self) -> dict[str, dict[str, Any]]:
        return {entry["name"]: entry for entry in self.api("POST", "/deployments/filter", {})}


def ask_prefect(
    url: str, method: str, path: str, content: Any = None, timeout_s: float = 30
) -> Any:
    """What the API at `url` answers. Credentials as Prefect's own client takes them, from the environment.

    Raises CganError with the answer when it refuses, or gives none.
    """
    password = os.environ.get("PREFECT_API_AUTH_STRING") or os.environ.get(PASSWORD, "")
    key = os.environ.get("PREFECT_API_KEY", "")
    options: dict[str, Any] = {
        "json": content,
        "timeout": timeout_s,
        "auth": password.partition(":")[::2] if password else None,
        "headers": {"Authorization": f"Bearer {key}"} if key else None,
    }
    try:
        for wait_s in (0.5, 1, 2, 4, 0):
            answer = httpx.request(method, f"{url}{path}", **options)
            if answer.status_code != httpx.codes.SERVICE_UNAVAILABLE:
                break
            time.sleep(wait_s)  # its database is busy
        answer.raise_for_status()
        return answer.json() if answer.content else None
    except (httpx.HTTPStatusError, json.JSONDecodeError):
        found = f"answers {method} {path} with {answer.status_code}: {answer.text[:500]}"
    except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:
        found = f"gives no answer ({error})"
    raise CganError(f"Prefect at {without_credentials(url)} {found}")


def _answers(site: str) -> bool:
    with contextlib.suppress(httpx.TransportError):
        return httpx.get(site, timeout=2).is_success
    return False


def require_prefect() -> None:
    """Start Prefect's temporary server, if none is configured. Raises CganError where one is, and is away."""
    # Ctrl-C in a terminal goes to every process of the group, and that server has to live on for a moment to
    # record how the run ended. Blocked signals are inherited.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        with get_client(sync_client=True) as client:
            away, site = client.api_healthcheck(), without_credentials(str(client.api_url))
    except RuntimeError as late:
        raise CganError(f"starting Prefect's temporary server: {late}") from None
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    if away:
        raise CganError(
            f"Prefect's API at {site} cannot be used ({away!r}). `make up` starts a server and prints the "
            "PREFECT_API_URL to set. To run without a server, unset PREFECT_API_URL."
        )
