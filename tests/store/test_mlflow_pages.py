"""What `cgan ui` shows a browser that has never been here, as far as it can be seen without one."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT

from cgan.store.address import open_store
from cgan.store.pages import COLUMNS, EXPERIMENT_TAGS, TABLE, VIEW_TAG, run_page, runs_page

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

ASK = """
import os, sys
from fastapi.testclient import TestClient
from cgan.store.app import create_app
client = TestClient(create_app(), base_url="http://127.0.0.1:5000")
print(client.get("/").text)
print("#####", client.get("/health").text, client.get("/static-files/favicon.ico").status_code)
"""


def first_page(root: Path) -> str:
    """The page at the bare address, by MLflow's own server."""
    environment = {
        "PATH": "",
        "PYTHONPATH": str(ROOT),
        "CGAN_EXPERIMENT": "mine",
        "MLFLOW_BACKEND_STORE_URI": f"sqlite:///{root / 'mlflow.db'}",
        "_MLFLOW_SERVER_FILE_STORE": f"sqlite:///{root / 'mlflow.db'}",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    done = subprocess.run(
        [sys.executable, "-c", ASK], env=environment, cwd=root, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    page, _, rest = done.stdout.partition("#####")
    assert rest.split() == ["OK", "200"], "MLflow's other addresses are as they were"
    return page


def constant(page: str, name: str) -> Any:
    found = re.search(rf"^const {name} = (.*);$", page, re.MULTILINE)
    assert found
    return json.loads(found[1])


@pytest.mark.slow
def test_the_bare_address_leads_a_new_browser_to_the_runs(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    _, experiment = open_store(uri, tmp_path, "mine")
    page = first_page(tmp_path)
    assert (
        constant(page, "START") == f"/#/experiments/{experiment}/runs?workflowType=machine_learning"
    )
    assert constant(page, "CHOICES")["mlflow.workflowType_v1"] == "machine_learning"
    assert constant(page, "TABLE") == json.loads(json.dumps(TABLE))
    assert page.index("Storage.prototype.getItem") < page.index("static-files/static/js/main")


@pytest.mark.slow
def test_an_experiment_of_before_gets_the_columns_and_keeps_its_id(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    client, experiment = open_store(uri, tmp_path, "mine")
    client.set_experiment_tag(experiment, VIEW_TAG, "{}")
    client, again = open_store(uri, tmp_path, "mine")
    assert again == experiment
    tags = client.get_experiment(experiment).tags
    assert {key: tags[key] for key in EXPERIMENT_TAGS} == EXPERIMENT_TAGS
    assert json.loads(tags[VIEW_TAG])["selectedColumns"] == list(COLUMNS)


@pytest.mark.parametrize("site", ["http://mlflow.example", "http://mlflow.example/"])
def test_addresses_lead_to_the_real_experiment_in_the_view_for_trainings(site: str) -> None:
    assert run_page(site, "3", "ab") == (
        "http://mlflow.example/#/experiments/3/runs/ab?workflowType=machine_learning"
    )
    assert runs_page(site, "3") == (
        "http://mlflow.example/#/experiments/3/runs?workflowType=machine_learning&viewStateShareKey=cgan"
    )
