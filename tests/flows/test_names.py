"""The names of flow runs, of those to come too."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from flows import pipeline
from flows.names import name_slots, run_name

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:prefect|websockets|httpx")
DUE = datetime(2026, 11, 25, 2, tzinfo=UTC)


@pytest.mark.parametrize(
    ("deployment", "parameters", "name"),
    [
        (None, {}, "25 Nov 02:00"),
        (None, {"refresh": True, "gate": False}, "25 Nov 02:00 · refresh · no gate"),
        (
            None,
            {"overrides": {"train": {"lr": 0.5, "seed": 2}}, "stages": ["evaluate", "render"]},
            "25 Nov 02:00 · train.lr=0.5 · train.seed=2 · stages evaluate, render",
        ),
        ("nightly", {"refresh": True}, "nightly 25 Nov 02:00"),
        ("nightly", {"overrides": {"train.seed": 2}}, "nightly 25 Nov 02:00 · train.seed=2"),
        ("train", {"gate": False}, "train 25 Nov 02:00"),
        ("train-cuda", {"gate": True}, "train-cuda 25 Nov 02:00 · gate"),
    ],
)
def test_a_run_is_named_by_its_time_and_what_is_special(
    deployment: str | None, parameters: dict[str, Any], name: str
) -> None:
    assert run_name(deployment, DUE, parameters) == name


def test_slots_are_named_ahead_and_runs_by_hand_keep_theirs() -> None:
    slot = {"name": "private-bustard", "auto_scheduled": True, "parameters": {"refresh": True}}
    runs = [
        {**slot, "id": "a", "expected_start_time": "2026-11-25T02:00:00Z"},
        {**slot, "id": "b", "expected_start_time": "2026-11-26T02:00:00+00:00"},
        {**slot, "id": "named", "expected_start_time": "2026-11-27T02:00:00Z"},
        {**slot, "id": "mine", "expected_start_time": "2026-11-27T09:00:00Z"},
    ]
    runs[2]["name"] = "nightly 27 Nov 02:00"
    runs[3]["auto_scheduled"] = False
    given: dict[str, str] = {}

    def api(method: str, path: str, content: Any) -> Any:
        if method == "POST":
            assert path == "/flow_runs/filter"
            assert content["deployments"] == {"id": {"any_": ["d"]}}
            return runs
        given[path] = content["name"]
        return None

    name_slots(api, "d", "nightly")
    assert given == {
        "/flow_runs/a": "nightly 25 Nov 02:00",
        "/flow_runs/b": "nightly 26 Nov 02:00",
    }


def test_a_server_that_is_away_leaves_slots_without_names_and_the_run_goes_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def away(**_: Any) -> None:
        raise httpx.ConnectError("refused")

    monkeypatch.setattr(pipeline, "get_client", away)
    monkeypatch.setattr(pipeline, "get_run_logger", logging.getLogger)
    pipeline._name_slots()  # of no deployment: nobody is asked
    assert caplog.text == ""
    monkeypatch.setenv("PREFECT__RUNTIME__DEPLOYMENT__ID", "d")
    pipeline._name_slots()
    assert (
        "The Prefect server is away (refused): the next scheduled runs have no names" in caplog.text
    )
