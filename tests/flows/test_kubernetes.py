"""The job template and the image for Kubernetes agree with each other."""

from __future__ import annotations

import json
import re

import pytest
from conftest import ROOT
from prefect.utilities.templating import find_placeholders

FOLDER = ROOT / "deploy/kubernetes"
TEMPLATE = json.loads((FOLDER / "base-job-template.json").read_text())
IMAGE = (FOLDER / "Containerfile").read_text()
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def test_each_variable_is_used_and_each_placeholder_is_a_variable() -> None:
    """Prefect passes over others without a word."""
    used = {found.name for found in find_placeholders(TEMPLATE["job_configuration"])}
    assert used == set(TEMPLATE["variables"]["properties"])


def test_the_pod_s_user_and_home_are_those_of_the_image() -> None:
    pod = TEMPLATE["job_configuration"]["job_manifest"]["spec"]["template"]["spec"]
    user = pod["securityContext"]["runAsUser"]
    assert f"USER {user}:{user}\n" in IMAGE
    assert f"useradd --uid {user} " in IMAGE
    (home,) = re.findall(r"HOME=(\S+)", IMAGE)
    assert pod["containers"][0]["volumeMounts"][0]["mountPath"] == f"{home}/.ssh"
    assert pod["volumes"][0]["secret"]["defaultMode"] == 0o440, "ssh takes no key that all can read"


def test_what_belongs_to_the_job_does_not_stand_in_its_pod() -> None:
    """Kubernetes passes over what it does not know there."""
    job = TEMPLATE["job_configuration"]["job_manifest"]["spec"]
    of_a_job = {"backoffLimit", "parallelism", "completions", "ttlSecondsAfterFinished"}
    assert of_a_job <= job.keys()
    assert not of_a_job & job["template"]["spec"].keys()
