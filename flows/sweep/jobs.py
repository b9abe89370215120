"""A job is one training of a sweep. A worker of Prefect's pool does it, or a process of this machine.

On the pool it is a run of the deployment `train`, created under the job's name as idempotency key: whoever
creates it again, gets the same. Here it has a checkout of that name: whoever starts it again, waits for the
process that is left of it. Prefect's client asks a server that went away again (PREFECT_CLIENT_MAX_RETRIES).
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optuna import TrialPruned
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import StateType
from prefect.exceptions import ObjectNotFound
from prefect.settings import get_current_settings
from prefect.states import Cancelling, Scheduled

from cgan import git
from cgan.errors import CganError
from cgan.tracking.store import without_credentials
from flows.dvc import StageError, read_stages, run_own
from flows.servers import fault

SWEEPS = Path(".cgan/sweeps")  # logs of jobs
STARTS = 3  # of a run whose worker was killed
POLL_S = 3.0
ALONE = "To train on this machine alone, unset PREFECT_API_URL."
ENDED_BADLY = (StateType.CRASHED, StateType.FAILED, StateType.CANCELLED)

Watch = Callable[[], None]  # called while a job runs; what it raises ends the job


class JobError(CganError):
    """A job ended without a result. Why, in words."""


@dataclass(frozen=True)
class Job:
    """`overrides`: of params.yaml; `tags`: of the MLflow run that it makes."""

    name: str
    overrides: dict[str, Any]
    tags: dict[str, str]


def _stages() -> list[str]:
    """Of a training: up to the one that measures."""
    names = [stage.name for stage in read_stages()]
    return names[: names.index("evaluate") + 1]


def train_here(base: Path, commit: str, job: Job, watch: Watch) -> None:
    """In a process that ends with this one, however this one ends; a training saves a checkpoint first."""
    asked = json.dumps([str(base), commit, job.name, job.overrides, _stages(), job.tags])
    with (base / SWEEPS / f"{job.name}.log").open("a", encoding="utf-8") as log:

        def relay(line: str) -> None:
            log.write(f"{line}\n")
            log.flush()
            watch()

        try:
            run_own(["flows.sweep.here", asked], relay)
        except StageError as error:
            raise JobError(str(error)) from None


class Pool:
    """The deployment `name` of the server. Raises CganError where there is no such thing."""

    def __init__(self, name: str) -> None:
        url = without_credentials(str(get_current_settings().api.url))
        self.client = get_client(sync_client=True, httpx_settings={"timeout": 30})
        if words := fault(url, self.client):
            raise CganError(f"{words} {ALONE}")
        try:
            self.deployment = self.client.read_deployment_by_name(f"cgan/{name}")
        except ObjectNotFound:
            raise CganError(
                f"the Prefect server at {url} has no deployment cgan/{name}. `make deploy` registers it, or "
                f"`prefect deploy --all` where `make up` did not start the server. {ALONE}"
            ) from None

    def commit(self, base: Path) -> str:
        """The commit that is deployed. Raises CganError where it is not in this clone."""
        steps = [given for step in self.deployment.pull_steps or [] for given in step.values()]
        for commit in [str((given or {}).get("commit", "")) for given in steps]:
            if commit and git.has_commit(base, commit):
                return commit
        raise CganError(
            f"the deployment cgan/{self.deployment.name} names no commit that is in this clone: `make "
            "deploy` here, or `git fetch` what was deployed."
        )

    def train(self, job: Job, watch: Watch) -> None:
        """Do a job, or wait for the run of it that a former driver began."""
        given = {"overrides": job.overrides, "stages": _stages(), "gate": False, "tags": job.tags}
        run = self.client.create_flow_run_from_deployment(
            self.deployment.id,
            parameters=given,
            name=job.name,
            idempotency_key=job.name,
            tags=["sweep"],
        )
        starts = 0 if run.state_type in ENDED_BADLY else 1  # it ended while no driver was there
        try:
            while run.state_type is not StateType.COMPLETED:
                crashed = run.state_type is StateType.CRASHED and starts < STARTS
                if crashed or not starts:
                    starts += 1  # the same run: on the same machine it goes on from its checkpoint
                    self.client.set_flow_run_state(run.id, Scheduled(), force=True)
                elif run.state_type in ENDED_BADLY:
                    raise JobError(str(run.state and (run.state.message or run.state.name)))
                watch()
                time.sleep(POLL_S)
                run = self.client.read_flow_run(run.id)
        except TrialPruned:
            self.client.set_flow_run_state(run.id, Cancelling())
            raise
        except ObjectNotFound:
            raise JobError("its flow run was deleted") from None
