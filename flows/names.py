"""Names of flow runs: when they are due, and what is special about them. Imports no Prefect.

A run gets its name when it begins. Until then a scheduled run has one that Prefect made up, which would stay
with a cancelled slot: such runs are named ahead.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from cgan.params.sections import flatten

Api = Callable[[str, str, Any], Any]
"""Asks Prefect: method, path and content → answer."""
MOST = 200  # more than Prefect's scheduler plans ahead


def run_name(deployment: str | None, due: datetime, parameters: Mapping[str, Any]) -> str:
    """`nightly 25 Nov 02:00`; by hand `26 Nov 17:30 · refresh · train.seed=2`. Times are UTC."""
    if job := (parameters.get("tags") or {}).get("cgan.sweep.job"):
        return f"{job} {due:%d %b %H:%M}"  # its params are on the pages of the sweep
    parts = [f"{deployment} {due:%d %b %H:%M}" if deployment else f"{due:%d %b %H:%M}"]
    if parameters.get("refresh") and not deployment:  # a schedule always fetches
        parts.append("refresh")
    parts += [f"{key}={value}" for key, value in flatten(parameters.get("overrides") or {}).items()]
    if stages := parameters.get("stages"):
        parts.append(f"stages {', '.join(stages)}")
    elif parameters.get("gate") is False and not (deployment or "").startswith("train"):
        parts.append("no gate")  # `train` has none unless asked
    elif parameters.get("gate") and (deployment or "").startswith("train"):
        parts.append("gate")
    return " · ".join(parts)


def name_slots(api: Api, deployment_id: str, deployment: str) -> None:
    """Give the runs that are scheduled for a deployment the names that they will have when they begin."""
    waiting = {
        "deployments": {"id": {"any_": [deployment_id]}},
        "flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}},
        "sort": "EXPECTED_START_TIME_ASC",
        "limit": MOST,
    }
    for run in api("POST", "/flow_runs/filter", waiting):
        due = datetime.fromisoformat(run["expected_start_time"])
        name = run_name(deployment, due, run["parameters"])
        if run["auto_scheduled"] and run["name"] != name:
            api("PATCH", f"/flow_runs/{run['id']}", {"name": name})
