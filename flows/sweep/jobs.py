"""A job is one training of a sweep; and how it is done on the workers of Prefect's pool.

There it is a run of the deployment `train`, created under the job's name as idempotency key: whoever creates
it again, gets the same. Prefect's client asks a server that went away again (PREFECT_CLIENT_MAX_RETRIES).
"""

from __future__ import annotations

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
from cgan.store.address import without_credentials
from flows.dvc import read_stages
from flows.servers import fault

STARTS = 3  # of a run whose worker was killed
POLL_S = 1.0
ALONE = "To train on this machine alone, unset PREFECT_API_URL."
ENDED_BADLY = (StateType.CRASHED, StateType.FAILED, StateType.CANCELLED)

Watch = Callable[[], None]  # called while a job runs; what it raises ends the job


class JobError(Exception):
    """A job ended without a result. Why, in words."""


@dataclass(frozen=True)
class Job:
    """`name` is its checkout's or flow run's name too: whoever starts it again, finds what is left of it.

    `tags` are those of the MLflow run that it makes; `last`: the stage that it ends with.
    """

    name: str
    overrides: dict[str, Any]
    tags: dict[str, str]
    last: str = "evaluate"


Train = Callable[[Job, Watch], None]  # does a job; raises JobError


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
        for step in self.deployment.pull_steps or []:
            for details in step.values():
                commit = str((details or {}).get("commit", ""))
                if commit and git.has_commit(base, commit):
                    return commit
        raise CganError(
            f"the deployment cgan/{self.deployment.name} names no commit that is in this clone: `make "
            "deploy` here, or `git fetch` what was deployed."
        )

    def train(self, job: Job, watch: Watch) -> None:
        """Do a job, or wait for the run of it that a former driver began. Raises JobError."""
        stages = [stage.name for stage in read_stages()]
        parameters = {
            "overrides": job.overrides,
            "stages": stages[: stages.index(job.last) + 1],
            "gate": False,
            "tags": job.tags,
        }
        run = self.client.create_flow_run_from_deployment(
            self.deployment.id,
            parameters=parameters,
            name=job.name,
            idempotency_key=job.name,
            tags=["sweep"],
        )
        try:
            if run.state_type in ENDED_BADLY:  # while no driver was there
                self.client.set_flow_run_state(run.id, Scheduled(), force=True)
            self._wait(run.id, watch)
        except TrialPruned:
            self.client.set_flow_run_state(run.id, Cancelling())
            raise
        except ObjectNotFound:
            raise JobError("its flow run was deleted") from None

    def _wait(self, run_id: Any, watch: Watch) -> None:
        starts = 1
        while (run := self.client.read_flow_run(run_id)).state_type is not StateType.COMPLETED:
            if run.state_type is StateType.CRASHED and starts < STARTS:
                starts += 1  # the same run: on the same machine it goes on from its checkpoint
                self.client.set_flow_run_state(run_id, Scheduled(), force=True)
            elif run.state_type in ENDED_BADLY:
                raise JobError(str(run.state and (run.state.message or run.state.name)))
            watch()
            time.sleep(POLL_S)
