"""prefect.yaml, as `prefect deploy` and the server read it; and the automation in the docs."""

from __future__ import annotations

import importlib
import re
from typing import Any

import pytest
import yaml
from conftest import ROOT
from prefect.automations import Automation
from prefect.client.schemas.schedules import CronSchedule
from prefect.events.actions import ChangeFlowRunState
from prefect.events.schemas.automations import EventTrigger, Posture

from cgan.params.reading import read_yaml
from flows import production
from flows.servers import POOL

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
DEPLOYMENTS = {entry["name"]: entry for entry in read_yaml(ROOT / "prefect.yaml")["deployments"]}


@pytest.mark.parametrize("entry", DEPLOYMENTS.values(), ids=list(DEPLOYMENTS))
def test_a_deployment_names_a_flow_with_these_parameters(entry: dict[str, Any]) -> None:
    file, _, name = entry["entrypoint"].partition(":")
    flow = getattr(importlib.import_module(file.removesuffix(".py").replace("/", ".")), name)
    assert entry.get("parameters", {}).keys() <= flow.parameters.properties.keys()
    assert entry["pull"] == [{"flows.checkout.enter": {"commit": "{{ head.stdout }}"}}]
    assert (entry["work_pool"]["name"], entry["tags"]) == (POOL, ["cgan"])


def test_what_is_scheduled_has_one_schedule_and_one_run_at_a_time() -> None:
    scheduled = {name: entry for name, entry in DEPLOYMENTS.items() if "schedules" in entry}
    assert tuple(scheduled) == production.CRONS
    for entry in scheduled.values():
        (schedule,) = entry["schedules"]
        CronSchedule(**schedule)
        assert entry["concurrency_limit"] == {"limit": 1, "collision_strategy": "CANCEL_NEW"}


def test_the_automation_in_the_docs_marks_a_run_whose_heartbeats_stopped() -> None:
    page = (ROOT / "docs/production.md").read_text()
    (written,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    automation = Automation.model_validate(yaml.safe_load(written))
    trigger = automation.trigger
    assert isinstance(trigger, EventTrigger) and trigger.posture is Posture.Proactive
    assert trigger.within.total_seconds() > 15 * 60 and trigger.expect == {"prefect.flow-run.*"}
    (action,) = automation.actions
    assert isinstance(action, ChangeFlowRunState) and not action.force, "an end stays as it was"
