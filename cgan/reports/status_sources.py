"""What Prefect's API says, to `cgan status` too, and where the servers are. Each may be missing."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cgan.errors import CganError
from cgan.files import read_json
from cgan.project import PRODUCTION
from cgan.store.address import is_server, store_uri, without_credentials
from cgan.store.server import site_of

PREFECT_S = 1.0
POOL = "cgan"  # of Prefect, in which the workers are
PASSWORD = "PREFECT_SERVER_API_AUTH_STRING"  # that its server asks for, where `make up` was typed
ASKED_RUNS = 30

Json = dict[str, Any]


def line(*parts: object) -> str:
    """The parts that are not empty, apart."""
    return " · ".join(str(part) for part in parts if part)


def when(moment: float | str) -> str:
    """`25 Nov 02:10 UTC (5 h ago)`, of seconds or ISO text; nothing of nothing."""
    if not moment:
        return ""
    seconds = datetime.fromisoformat(moment).timestamp() if isinstance(moment, str) else moment
    away = abs(time.time() - seconds)
    units = ((86400, "days"), (3600, "h"), (60, "min"))
    length, unit = next((each for each in units if away >= 2 * each[0]), (1, "s"))
    words = f"{away / length:.0f} {unit}"
    relative = f"{words} ago" if seconds <= time.time() else f"in {words}"
    return f"{datetime.fromtimestamp(seconds, UTC):%d %b %H:%M} UTC ({relative})"


def prefect(root: Path) -> Iterator[str]:
    """The last scheduled run, the next one, whether the pool is paused, its workers."""
    url = os.environ.get("PREFECT_API_URL") or services(root).get("prefect", "")
    if not url:
        yield "Prefect does not run here: `make up` starts it"
        return
    url = url.rstrip("/") if "/api" in url else f"{url.rstrip('/')}/api"
    began = {"start_time": {"is_null_": False}}
    runs = _filter(url, "flow_runs", began, sort="START_TIME_DESC", limit=ASKED_RUNS)
    # One that was cancelled before it began tells nothing: another was on.
    for run in [run for run in runs if run.get("run_count", 1)][:1]:
        state = run["state"]
        yield line(run["name"], state["name"], when(run["start_time"]))
        if state["type"] != "COMPLETED" and state.get("message"):
            yield state["message"][:160]
    waits = {"state": {"type": {"any_": ["SCHEDULED"]}}}
    following = _filter(url, "flow_runs", waits, sort="EXPECTED_START_TIME_ASC", limit=1)
    for run in following:
        deployment = {"id": {"any_": [run["deployment_id"]]}}
        names = [known["name"] for known in _filter(url, "deployments", deployment)]
        yield line(f"next: {', '.join(names)}", when(run["expected_start_time"]))
    if not following:
        yield "nothing is scheduled: `make deploy`"
    pools = _filter(url, "work_pools", {"name": {"any_": [POOL]}})
    if any(pool["is_paused"] for pool in pools):
        resume = f"PREFECT_API_URL={without_credentials(url)} prefect work-pool resume {POOL}"
        yield f"the pool is paused, no run starts: `{resume}`"
    for worker in _filter(url, f"work_pools/{POOL}/workers", {}) if pools else ():
        seen = when(worker["last_heartbeat_time"])
        yield line(f"worker {worker['name']}", worker["status"].lower(), seen)


def _filter(url: str, what: str, wanted: Json, **more: object) -> list[Json]:
    """Prefect's objects of this kind."""
    question = {what.rpartition("/")[2]: wanted, **more}
    return list(ask_prefect(url, "POST", f"/{what}/filter", question, PREFECT_S))


def ask_prefect(
    url: str, method: str, path: str, content: Any = None, timeout_s: float = 30
) -> Any:
    """What the API at `url` answers. Credentials as Prefect's own client takes them, from the environment.

    Raises CganError with the answer when it refuses, or gives none.
    """
    import httpx

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


def mlflow_site(root: Path) -> str:
    """The address at which a browser finds MLflow's pages now: of the team's server, or of `make up`'s.

    Empty where neither is there.
    """
    with contextlib.suppress(CganError):
        uri = without_credentials(store_uri(root))
        if is_server(uri):
            return uri if uri.startswith("http") else ""
    return services(root).get("mlflow", "")


def services(root: Path) -> dict[str, str]:
    """What the supervisor of `make up` keeps running: a server's address, a worker's process."""
    from cgan import processes

    found = {}
    for name, pid in processes.running(root).items():
        known = read_json(root / PRODUCTION / processes.STATE)[name]
        port = known["port"]
        found[name] = site_of(known["host"], port) if port else f"process {pid}"
    return found
