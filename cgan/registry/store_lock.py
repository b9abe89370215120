"""One writer of a registry at a time, whatever machine it is on: a lock that the MLflow store keeps.

MLflow's API has no compare-and-set, but names are unique: of two that create a registered model of one name,
one succeeds. That model is the lock, there for the second that a promotion takes. A holder that was killed
leaves it behind. Whoever has seen the same holder for LEASE_S takes the lock away, by a rename to a name that
is that holder's alone, so that of several only one does it, and nobody takes away the lock of the next.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
import uuid
from collections.abc import Iterator
from typing import TYPE_CHECKING

from cgan.errors import TrackingError

if TYPE_CHECKING:
    from mlflow import MlflowClient

LEASE_S = 60.0  # a hundred times what a promotion takes
PATIENCE_S = 300.0
WAIT_S = 0.1
HOLDER = "cgan.holder"
PAGE = "A promotion is at work. This goes with it, or a minute after it was killed."


@contextlib.contextmanager
def held(client: MlflowClient, model: str) -> Iterator[None]:
    """Hold the lock of a registered model. Raises TrackingError when it cannot be had for minutes."""
    name = f"{model}.lock"
    me = f"{socket.gethostname()} {os.getpid()} {uuid.uuid4().hex}"
    dead = _take(client, name, me)
    try:
        yield
    finally:
        # It may have been taken away from us: then it is somebody else's.
        if _holder(client, name) == me:
            _delete(client, name)
        for left in dead:
            _delete(client, left)


def _take(client: MlflowClient, name: str, me: str) -> list[str]:
    """Returns the locks of the dead that were put aside; they may go when this one is given back."""
    dead: list[str] = []
    began = since = time.monotonic()
    seen: str | None = None
    while not _create(client, name, me):
        holder = _holder(client, name)
        now = time.monotonic()
        if holder != seen:
            seen, since = holder, now
        elif holder is not None and now - since > LEASE_S:
            aside = f"{name}.{holder.split()[-1]}"
            if _rename(client, name, aside):
                dead.append(aside)
            since = now
        if now - began > PATIENCE_S:
            raise TrackingError(
                f"the registry is in use (by {seen or 'somebody'}) for {PATIENCE_S / 60:.0f} minutes. If no "
                f"promotion is at work, delete the registered model `{name}` in MLflow, and try again."
            )
        time.sleep(WAIT_S)
    return dead


def _create(client: MlflowClient, name: str, me: str) -> bool:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name, {HOLDER: me}, PAGE)
    except MlflowException as error:
        # The second where it went while the store was about to say the first.
        if error.error_code not in ("RESOURCE_ALREADY_EXISTS", "RESOURCE_DOES_NOT_EXIST"):
            raise
        return False
    return True


def _holder(client: MlflowClient, name: str) -> str | None:
    from mlflow.exceptions import MlflowException

    try:
        return str(client.get_registered_model(name).tags.get(HOLDER, "nobody"))
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None


def _rename(client: MlflowClient, name: str, aside: str) -> bool:
    from mlflow.exceptions import MlflowException

    try:
        client.rename_registered_model(name, aside)
    except MlflowException as error:
        # Another was quicker; the last where it was so while the store did it.
        others = ("RESOURCE_ALREADY_EXISTS", "RESOURCE_DOES_NOT_EXIST", "BAD_REQUEST")
        if error.error_code not in others:
            raise
        return False
    return True


def _delete(client: MlflowClient, name: str) -> None:
    from mlflow.exceptions import MlflowException

    with contextlib.suppress(MlflowException):
        client.delete_registered_model(name)
