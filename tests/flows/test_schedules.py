"""prefect.yaml, as `prefect deploy` and the server read it."""

from __future__ import annotations

import importlib
from typing import Any

import pytest
from conftest import ROOT
from prefect.cli.deploy._triggers import DeploymentTriggerAdapter
from prefect.client.schemas.schedules import CronSchedule
from prefect.events.schemas.automations import Posture

from cgan.params.reading import read_yaml
from flows import production, servers, worker

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:prefect|websockets|httpx")
FILE = read_yaml(ROOT / "prefect.yaml")
DEPLOYMENTS = {entry["name"]: entry for entry in FILE["deployments"]}


@pytest.mark.parametrize("entry", DEPLOYMENTS.values(), ids=list(DEPLOYMENTS))
def test_a_deployment_names_a_flow_with_these_parameters(entry: dict[str, Any]) -> None:
    file, _, name = entry["entrypoint"].partition(":")
    flow = getattr(importlib.import_module(file.removesuffix(".py").replace("/", ".")), name)
    assert entry.get("parameters", {}).keys() <= flow.parameters.properties.keys()
    assert entry["work_pool"]["name"] == servers.POOL
    assert entry["tags"] == ["cgan"]
    (build,) = (s for step in FILE["build"] for s in step.values() if s["id"] == "commit")
    assert (entry["version"], build["script"].split()[:2]) == (
        "{{ commit.stdout }}",
        ["git", "describe"],
    )


def test_what_works_in_the_clone_has_one_schedule_and_params_of_the_commit() -> None:
    scheduled = {name: entry for name, entry in DEPLOYMENTS.items() if "schedules" in entry}
    assert tuple(scheduled) == production.CRONS
    for entry in scheduled.values():
        (schedule,) = entry["schedules"]
        CronSchedule(**schedule)
        (step,) = entry["pull"]
        assert step["flows.workplace.enter"]["clone"] == "{{ here.stdout }}"


def test_what_works_anywhere_gets_a_tree_and_names_whom_it_is_for() -> None:
    for name, label in {"train": "cpu", "train-cuda": "cuda"}.items():
        (step,) = DEPLOYMENTS[name]["pull"]
        assert step == {"flows.workplace.enter": {"commit": "{{ head.stdout }}"}}
        assert DEPLOYMENTS[name]["work_pool"]["work_queue_name"] == label
        assert label in worker.LABELS


def test_zombies_are_looked_for_by_heartbeats_and_any_end_counts() -> None:
    (trigger,) = DEPLOYMENTS["zombie"]["triggers"]
    event = DeploymentTriggerAdapter.validate_python(trigger)
    assert event.name == "zombie: a run whose heartbeats stopped"
    assert event.posture == Posture.Proactive
    assert event.within.total_seconds() > 15 * 60
    assert event.expect == {"prefect.flow-run.*"}


def test_a_zombie_is_buried_on_any_worker_and_not_in_the_clone_where_a_run_may_be_at_work() -> None:
    assert DEPLOYMENTS["zombie"]["pull"] == DEPLOYMENTS["train"]["pull"]
    assert "pull" not in FILE
