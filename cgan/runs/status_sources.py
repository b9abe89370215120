"""What `cgan status` asks: the project's MLflow store, Prefect's API, and files. Each may be missing."""

from __future__ import annotations

import base64
import contextlib
import json
import logging
import os
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cgan.errors import CganError
from cgan.params.reading import load_params
from cgan.params.sections import Params
from cgan.project import GATE_REPORT, PRODUCTION
from cgan.registry.client import open_registry
from cgan.registry.history import GATE_FOLDER, Version
from cgan.tracking.store import (
    experiment_name,
    is_server,
    reason_of,
    store_uri,
    without_credentials,
)
from cgan.tracking.ui import LOOPBACK, site_of

REQUEST_S = 3
PREFECT_S = 1.0
POOL = "cgan"  # of Prefect, in which the workers are
TRAINING = "tags.`mlflow.source.name` = 'cgan.stages.train'"
ASKED_RUNS = 30

Json = dict[str, Any]


@dataclass
class Stored:
    """What the MLflow store says; `problem` instead when it could not be asked."""

    problem: str = "it gives no answer"
    champion: Version | None = None
    since: Json = field(default_factory=dict)  # the history's line that made it champion
    champion_run: Json = field(default_factory=dict)
    newest: Version | None = None
    report: Json = field(default_factory=dict)  # of the gate, on the newest version
    last_run: Json = field(default_factory=dict)


@dataclass
class Scheduled:
    """What Prefect's API says; `problem` instead when it could not be asked."""

    problem: str = "it gives no answer"
    runs: list[Json] = field(default_factory=list)
    following: Json = field(default_factory=dict)
    workers: list[Json] = field(default_factory=list)  # of the pool, those seen last first


def read_params(root: Path) -> tuple[Params | None, str]:
    try:
        return load_params(root / "params.yaml"), ""
    except CganError as error:
        return None, str(error)


def ask_store(params: Params | None, stored: Stored) -> None:
    model = params.gate.model if params else "cgan"
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", str(REQUEST_S))
    for talkative in ("mlflow", "alembic"):
        logging.getLogger(talkative).setLevel(logging.ERROR)
    try:
        experiment = experiment_name(params.tracking.experiment if params else "cgan")
        with open_registry(model) as registry:
            versions = registry.versions()
            stored.newest = versions[0] if versions else None
            stored.champion = next((v for v in versions if "champion" in v.aliases), None)
            if stored.champion:
                number = stored.champion.number
                moves = [move for move in registry.history() if move.target == number]
                stored.since = vars(moves[-1]) if moves else {}
                stored.champion_run = _run(registry.client.get_run(stored.champion.run_id))
            if found := registry.client.get_experiment_by_name(experiment):
                for run in registry.client.search_runs(
                    [found.experiment_id],
                    TRAINING,
                    max_results=1,
                    order_by=["attributes.start_time DESC"],
                ):
                    stored.last_run = _run(run)
            stored.problem = ""
            if stored.newest and stored.newest.verdict:
                # Without it only the reasons are missing.
                with contextlib.suppress(Exception):
                    path = registry.client.download_artifacts(
                        stored.newest.run_id, f"{GATE_FOLDER}/{GATE_REPORT.name}"
                    )
                    stored.report = json.loads(Path(path).read_text(encoding="utf-8"))
    except CganError as error:
        stored.problem = str(error)
    except Exception as error:  # whatever a store's client raises: the screen says it in words
        stored.problem = f"{type(error).__name__}: {reason_of(error)}"


def _run(run: Any) -> Json:
    return {
        "id": run.info.run_id,
        "experiment_id": run.info.experiment_id,
        "name": run.info.run_name,
        "status": run.info.status,
        "start_s": run.info.start_time / 1000,
        "metrics": dict(run.data.metrics),
        "tags": dict(run.data.tags),
    }


def ask_prefect(root: Path, scheduled: Scheduled) -> None:
    url = os.environ.get("PREFECT_API_URL", "")
    if not url:
        server = find_process(root, "prefect")
        if server is None:
            scheduled.problem = "Prefect does not run here: `make up` starts it"
            return
        url = f"{server['site']}/api"
    try:
        began = {"flow_runs": {"start_time": {"is_null_": False}}}
        scheduled.runs = _post(
            f"{url}/flow_runs/filter", {**began, "sort": "START_TIME_DESC", "limit": ASKED_RUNS}
        )
        waiting = {"flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}}}
        following = _post(
            f"{url}/flow_runs/filter",
            {**waiting, "sort": "EXPECTED_START_TIME_ASC", "limit": 1},
        )
        if following:
            scheduled.following = following[0]
            id_ = scheduled.following.get("deployment_id")
            question = {"deployments": {"id": {"any_": [id_]}}, "limit": 1}
            for deployment in _post(f"{url}/deployments/filter", question):
                scheduled.following["name"] = deployment["name"]
        with contextlib.suppress(OSError):  # no such pool: no worker was ever there
            workers = _post(f"{url}/work_pools/{POOL}/workers/filter", {})
            scheduled.workers = sorted(
                workers, key=lambda worker: str(worker.get("last_heartbeat_time")), reverse=True
            )
        scheduled.problem = ""
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = getattr(error, "reason", None) or error
        if isinstance(error, json.JSONDecodeError):
            reason = "something else answers there: PREFECT_API_URL ends in /api"
        elif getattr(error, "code", 0) == 401:
            reason = "it wants PREFECT_API_AUTH_STRING, or another"
        scheduled.problem = f"Prefect at {without_credentials(url)} gives no answer ({reason})"


def _post(url: str, question: Json) -> list[Json]:
    if not url.startswith(("http://", "https://")):  # urlopen also opens files
        raise ValueError("not an http address")
    headers = {"Content-Type": "application/json"}
    server_s = os.environ.get("PREFECT_SERVER_API_AUTH_STRING")  # where `make up` was typed
    if user := os.environ.get("PREFECT_API_AUTH_STRING") or server_s:
        headers["Authorization"] = f"Basic {base64.b64encode(user.encode()).decode()}"
    if key := os.environ.get("PREFECT_API_KEY"):
        headers["Authorization"] = f"Bearer {key}"
    request = urllib.request.Request(url, json.dumps(question).encode(), headers)
    with urllib.request.urlopen(request, timeout=PREFECT_S) as answer:  # nosec B310
        return list(json.load(answer))


def mlflow_site(root: Path) -> str:
    """The address at which a browser finds MLflow's pages now: of the team's server, or of `make up`'s.

    Empty where neither is there.
    """
    uri = ""
    with contextlib.suppress(CganError):
        uri = without_credentials(store_uri(root))
    if uri.startswith(("http://", "https://")):
        return uri
    if not is_server(uri) and (process := find_process(root, "mlflow")):
        return str(process["site"])
    return ""


def find_process(root: Path, name: str) -> Json | None:
    """What `make up` started under this name and still runs: its `pid` and `port`, a server's `site`."""
    import psutil

    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, psutil.Error):
        known = json.loads((root / PRODUCTION / f"{name}.json").read_text(encoding="utf-8"))
        process = psutil.Process(int(known["pid"]))
        alive = process.status() != psutil.STATUS_ZOMBIE
        if alive and abs(process.create_time() - float(known["started"])) < 0.01:
            return {**known, "site": site_of(known.get("host", LOOPBACK), known["port"])}
    return None


def read_newest(*paths: Path) -> Json:
    """The newest readable JSON object of these files, by its own `time`."""
    found = []
    for path in paths:
        with contextlib.suppress(OSError, ValueError, TypeError):
            found.append(dict(json.loads(path.read_text(encoding="utf-8"))))
    return max(found, key=lambda document: str(document.get("time", "")), default={})
