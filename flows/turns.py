"""Whether a run may go on, by its state and those of other runs in Prefect's server.

Prefect's own limit of a deployment is a lease of five minutes, and ends a run that cannot renew it in time,
as while its server is away; so the limit here is a look at which runs are Running.
"""

import contextlib
from collections.abc import Iterator
from datetime import UTC, datetime

import httpx
from prefect import get_run_logger, runtime
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
    FlowRunFilterTags,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.client.schemas.sorting import FlowRunSort
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError
from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings
from prefect.states import Running

from cgan.errors import CganError

NIGHT_TAG = "night"  # a tag of deployments in prefect.yaml: only one of their runs works at a time
WORKING = FlowRunFilterState(
    type=FlowRunFilterStateType(any_=[StateType.RUNNING, StateType.CANCELLING])
)


def older_nightly_run() -> str:
    """The name of the run with NIGHT_TAG that began before this one and still works; empty where there is
    none, where this run has no such tag, and where the server does not answer."""
    if NIGHT_TAG in runtime.flow_run.tags:
        nights = FlowRunFilter(tags=FlowRunFilterTags(all_=[NIGHT_TAG]), state=WORKING)
        by_age = FlowRunSort.START_TIME_ASC
        with _quick_client() as client:
            this = client.read_flow_run(runtime.flow_run.id)
            # The first may have begun after this one, for the server may have marked this one as Crashed.
            for first in client.read_flow_runs(flow_run_filter=nights, sort=by_age, limit=1):
                if _start(first) < _start(this):
                    return first.name
    return ""


def check_own_run() -> None:
    """Set this run to Running again if it was marked as Crashed, because its heartbeats did not arrive while
    the server was away. Raises CganError if an older night still works."""
    if not runtime.flow_run.tags:  # of no deployment
        return
    with _quick_client() as client:
        flow_run = client.read_flow_run(runtime.flow_run.id)
        if flow_run.state and flow_run.state.is_crashed():
            get_run_logger().warning("Marked as Crashed, but alive: it is Running again.")
            client.set_flow_run_state(flow_run.id, Running(message="It was alive."), force=True)
    if name := older_nightly_run():
        raise CganError(f"`{name}` began before and is still running. This one ends.")


def _start(run: FlowRun) -> tuple[datetime, str]:
    """When a run began, as the server sorts; of two that began at once, only one is the older."""
    began = run.start_time or run.expected_start_time
    return began or datetime.max.replace(tzinfo=UTC), str(run.id)


@contextlib.contextmanager
def _quick_client() -> Iterator[SyncPrefectClient]:
    """A client that tries once. Where the server does not answer, or has this run no more, the `with` block
    ends without an error."""
    away = contextlib.suppress(
        httpx.TransportError, PrefectHTTPStatusError, ObjectNotFound, RuntimeError
    )
    once = temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0})
    with away, once, get_client(sync_client=True) as client:
        yield client
