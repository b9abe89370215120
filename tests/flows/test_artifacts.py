"""The verdict and the links among the artifacts of a flow run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cgan.errors import CganError
from cgan.project import GATE_REPORT, RUN_REFERENCE
from flows import artifacts

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:prefect|websockets|httpx")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("reports").mkdir()


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
