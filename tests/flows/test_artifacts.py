"""What the artifacts of a flow run make of files that nobody would expect."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cgan.errors import CganError
from cgan.project import GATE_REPORT, JUDGE_METRICS, METRICS, RUN_REFERENCE
from flows import artifacts

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:prefect|websockets|httpx")
GOOD = {"metric": "copies", "difference": -0.02, "better": True}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("reports").mkdir()


@pytest.mark.parametrize(
    "odd",
    [
        "a text",
        None,
        {"metric": "copies"},
        {**GOOD, "difference": "much"},
        {**GOOD, "difference": None},
        {**GOOD, "better": "yes"},
        {**GOOD, "better": []},
        {"difference": 0.1, "better": None},
    ],
)
def test_a_row_of_the_gate_that_is_not_as_expected_is_left_out(odd: Any) -> None:
    good = {**GOOD, "metric": "fid_judge", "better": None}
    assert artifacts._changes([odd, good]) == {"quality.fid_judge": "-0.02 (within chance)"}


@pytest.mark.parametrize("odd", [None, "rows", {"metric": "copies"}, 3])
def test_a_comparison_that_is_no_list_shows_no_changes(odd: Any) -> None:
    assert artifacts._changes(odd) == {}


@pytest.mark.parametrize("depth", [900, 100_000])
def test_metrics_that_are_nested_too_deeply_are_left_out(depth: int) -> None:
    METRICS.write_text('{"a":' * depth + "1" + "}" * depth)
    JUDGE_METRICS.write_text('{"judge": {"accuracy": 0.98}}')
    assert artifacts._metrics()["judge.accuracy"] == 0.98


@pytest.mark.parametrize(
    "text",
    ["[" * 100_000, "[]", "{}", '{"verdict": "passed"}', '{"verdict": 3, "summary": "x"}', "{", ""],
)
def test_a_gate_report_without_a_verdict_is_an_error_in_words(text: str) -> None:
    GATE_REPORT.write_text(text)
    with pytest.raises(CganError, match="no verdict in it, though `cgan gate` ended well"):
        artifacts.read_verdict()
    GATE_REPORT.write_text(json.dumps({"verdict": "passed", "summary": "It is good."}))
    assert artifacts.read_verdict()["summary"] == "It is good."


@pytest.mark.parametrize(
    ("run", "page"),
    [
        ({"experiment_id": "7"}, "experiments/7/runs/r1"),
        ({"experiment_id": 7}, "experiments/7/runs/r1"),
        ({"experiment_id": None}, "experiments/0/runs/r1"),
        ({}, "experiments/0/runs/r1"),
        ({"experiment_id": "7/../8?"}, "experiments/7%2F..%2F8%3F/runs/r1"),
    ],
)
def test_the_link_leads_to_the_run_in_its_experiment(
    monkeypatch: pytest.MonkeyPatch, run: dict[str, Any], page: str
) -> None:
    monkeypatch.setenv("CGAN_MLFLOW_PAGE", "http://127.0.0.1:5000/")
    RUN_REFERENCE.parent.mkdir()
    RUN_REFERENCE.write_text(json.dumps({"run_id": "r1", **run}))
    link = f"http://127.0.0.1:5000/#/{page}?workflowType=machine_learning"
    assert artifacts._mlflow_link() == link
