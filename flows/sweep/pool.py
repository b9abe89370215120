"""Jobs on the workers of Prefect's pool: each a run of the deployment `train`.

A run is created under its job's name as idempotency key, so that a driver that does not know whether the one
before it had created the run creates it again, and gets the same.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.exceptions import ObjectNotFound
from prefect.settings import get_current_settings
from prefect.states import Cancelled, Cancelling, Scheduled

from cgan import git
from cgan.errors import CganError
from cgan.store.address import without_credentials
from flows.dvc import read_stages
from flows.servers import fault
from flows.sweep.jobs import Job, Seen, State, was_killed

PATIENCE_S = 600.0  # with a server that went away: its runs go on meanwhile
END_S = 120.0  # for a cancelled run to save a checkpoint and end
FLOW = "cgan"
ALONE = "To train on this machine alone, unset PREFECT_API_URL."


def is_configured() -> bool:
    """Does PREFECT_API_URL, or the profile, name a server?"""
    return get_current_settings().api.url is not None


class Pool:
    """The deployment `name` of the server. Raises CganError where there is no such thing."""

    def __init__(self, name: str) -> None:
        url = without_credentials(str(get_current_settings().api.url))
        self.client: SyncPrefectClient = get_client(
            sync_client=True, httpx_settings={"timeout": 30}
        )
        self._runs: dict[str, UUID] = {}
        if words := fault(url, self.client):
            raise CganError(f"{words} {ALONE}")
        try:
            self._deployment = self.client.read_deployment_by_name(f"{FLOW}/{name}")
        except ObjectNotFound:
            raise CganError(
                f"the Prefect server at {url} has no deployment {FLOW}/{name}. "
                "`make deploy` registers it, or `prefect deploy --all` where `make up` did not start the "
                f"server. {ALONE}"
            ) from None
        except httpx.HTTPStatusError as error:
            raise _refused(error) from None

    def commit(self, base: Path) -> str:
        """The commit that is deployed. Raises CganError where it is not in this clone."""
        for step in self._deployment.pull_steps or []:
            for details in step.values():
                commit = str((details or {}).get("commit", ""))
                if commit and git.has_commit(base, commit):
                    return commit
        raise CganError(
            f"the deployment {FLOW}/{self._deployment.name} names no commit that is in this clone: `make "
            "deploy` here, or `git fetch` what was deployed."
        )

    def start(self, job: Job, attempt: int) -> None:
        stages = job.stages or [stage.name for stage in read_stages()]
        parameters = {
            "overrides": job.overrides,
            "stages": stages,  # all, and named: no branch with results is published of each
            "gate": False,
            "tags": job.tags,
        }
        run: FlowRun = self._patiently(
            lambda: self.client.create_flow_run_from_deployment(
                self._deployment.id,
                parameters=parameters,
                name=job.name,
                idempotency_key=job.name,
                tags=["sweep"],
            )
        )
        self._runs[job.name] = run.id
        if run.state_type is StateType.CRASHED or (
            attempt > 1 and run.state_type is StateType.FAILED
        ):
            # The same run again: on the same machine it goes on from its checkpoint.
            self._patiently(lambda: self.client.set_flow_run_state(run.id, Scheduled(), force=True))

    def look(self, job: Job) -> Seen:
        try:
            run = self._read(job)
        except ObjectNotFound:
            return Seen(State.FAILED, "its flow run was deleted")
        state = run.state
        words = str(state.message or state.name) if state else ""
        if run.state_type is StateType.COMPLETED:
            return Seen(State.DONE)
        if run.state_type is StateType.CRASHED:
            return Seen(State.GONE, words)
        if run.state_type is StateType.CANCELLED:
            return Seen(State.FAILED, "its flow run was cancelled")
        if run.state_type is StateType.FAILED:
            return Seen(State.GONE if was_killed(words) else State.FAILED, words)
        return Seen(State.RUNNING)

    def stop(self, job: Job) -> None:
        with contextlib.suppress(ObjectNotFound):  # somebody deleted it
            self._stop(job)

    def _stop(self, job: Job) -> None:
        run = self._read(job)
        if run.state_type in (StateType.RUNNING, StateType.CANCELLING):
            wanted: Any = Cancelling()
        elif run.state and run.state.is_final():
            return
        else:
            wanted = Cancelled()
        self._patiently(lambda: self.client.set_flow_run_state(run.id, wanted, force=True))
        deadline = time.monotonic() + END_S
        while time.monotonic() < deadline:
            state = self._read(job).state
            if state and state.is_final():
                return
            time.sleep(1)

    def _read(self, job: Job) -> FlowRun:
        if job.name not in self._runs:
            self.start(job, 1)  # of a former driver: the same name, the same run
        run: FlowRun = self._patiently(lambda: self.client.read_flow_run(self._runs[job.name]))
        return run

    @staticmethod
    def _patiently(call: Callable[[], Any]) -> Any:
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                return call()
            except (httpx.TransportError, httpx.HTTPStatusError) as error:
                if isinstance(error, httpx.HTTPStatusError) and error.response.is_client_error:
                    raise _refused(error) from None
                if time.monotonic() > deadline:
                    raise CganError(
                        f"the Prefect server does not answer ({type(error).__name__}). Start it, then run "
                        "the same command again: the sweep goes on."
                    ) from None
            time.sleep(2)


def _refused(error: httpx.HTTPStatusError) -> CganError:
    answer = error.response
    return CganError(
        f"Prefect refused: {answer.status_code}, {answer.text[:300]}\n"
        "Was another version deployed? `make deploy`."
    )
