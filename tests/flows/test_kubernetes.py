"""The job template and the image for Kubernetes agree with each other and with Prefect's worker."""

from __future__ import annotations

import asyncio
import json
import re
import uuid
from typing import Any

import pytest
from conftest import ROOT
from prefect.client.schemas.objects import FlowRun
from prefect.settings import PREFECT_API_URL, temporary_settings
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


def rendered(**values: Any) -> Any:
    worker = pytest.importorskip(
        "prefect_kubernetes.worker", reason="pip install prefect-kubernetes"
    )

    async def render() -> Any:
        return await worker.KubernetesWorkerJobConfiguration.from_template_and_values(
            base_job_template=TEMPLATE, values=values
        )

    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}):  # no server is started
        configuration = asyncio.run(render())
    run = FlowRun(id=uuid.uuid4(), flow_id=uuid.uuid4(), name="train 27 Nov · train.seed=2")
    configuration.prepare_for_flow_run(run, worker_name="in the cluster")
    return configuration.job_manifest, str(run.id)


def test_what_belongs_to_the_job_does_not_stand_in_its_pod() -> None:
    """Kubernetes passes over what it does not know there."""
    job = TEMPLATE["job_configuration"]["job_manifest"]["spec"]
    of_a_job = {"backoffLimit", "parallelism", "completions", "ttlSecondsAfterFinished"}
    assert of_a_job <= job.keys()
    assert not of_a_job & job["template"]["spec"].keys()


def test_prefect_s_worker_makes_a_job_of_the_template() -> None:
    manifest, run = rendered(image="registry/cgan:1", namespace="ml", gpus=1, env={"A": "b"})
    assert manifest["metadata"]["namespace"] == "ml"
    assert manifest["metadata"]["generateName"] == "train-27-nov-train-seed-2-"
    assert manifest["spec"]["backoffLimit"] == 0, (
        "Prefect runs again what was evicted, not Kubernetes"
    )
    pod = manifest["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["image"] == "registry/cgan:1"
    assert container["args"] == ["prefect", "flow-run", "execute"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert container["envFrom"] == [{"secretRef": {"name": "cgan-env"}}]
    env = {entry["name"]: entry["value"] for entry in container["env"]}
    assert (env["A"], env["PREFECT__FLOW_RUN_ID"]) == ("b", run)
    assert env["PREFECT_FLOW_RUN_EXECUTE_SIGTERM_BEHAVIOR"] == "reschedule"
    assert "serviceAccountName" not in pod
    assert not find_placeholders(manifest)
