"""The lock that a store keeps for the writers of its registry, on a real store."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cgan.errors import TrackingError
from cgan.registry import store_lock

mlflow = pytest.importorskip("mlflow")
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]


@pytest.fixture
def client(tmp_path: Path) -> Iterator[mlflow.MlflowClient]:
    yield mlflow.MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")


def names(client: mlflow.MlflowClient) -> list[str]:
    return [model.name for model in client.search_registered_models()]


def test_of_writers_at_once_each_has_the_registry_for_itself(client: mlflow.MlflowClient) -> None:
    inside, count, most = threading.Semaphore(1), 0, 0

    def write(_: int) -> None:
        nonlocal count, most
        with store_lock.held(client, "cgan"):
            most += not inside.acquire(blocking=False)
            time.sleep(0.05)
            count += 1
            inside.release()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(8)))
    assert (count, most) == (8, 0)
    assert names(client) == []


def test_the_lock_is_given_back_when_a_promotion_fails(client: mlflow.MlflowClient) -> None:
    with pytest.raises(ZeroDivisionError), store_lock.held(client, "cgan"):
        assert names(client) == ["cgan.lock"]
        raise ZeroDivisionError
    assert names(client) == []


def test_f72_the_lock_of_a_killed_one_is_taken_away_once(
    client: mlflow.MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_lock, "LEASE_S", 0.5)
    store_lock._create(client, "cgan.lock", "elsewhere 1 dead")
    inside, together = threading.Semaphore(1), 0

    def write(_: int) -> None:
        nonlocal together
        with store_lock.held(client, "cgan"):
            together += not inside.acquire(blocking=False)
            time.sleep(0.2)
            inside.release()

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(write, range(3)))
    assert together == 0
    assert names(client) == []


def test_who_took_the_lock_away_too_late_leaves_the_next_one_s(
    client: mlflow.MlflowClient,
) -> None:
    """Two saw a dead holder; the first took its lock away and has its own by now."""
    store_lock._create(client, "cgan.lock", "elsewhere 1 dead")
    assert store_lock._rename(client, "cgan.lock", "cgan.lock.dead")
    store_lock._create(client, "cgan.lock", "here 2 alive")
    assert not store_lock._rename(client, "cgan.lock", "cgan.lock.dead")
    assert store_lock._holder(client, "cgan.lock") == "here 2 alive"


def test_a_lock_that_cannot_be_had_says_what_to_delete(
    client: mlflow.MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_lock, "PATIENCE_S", 0.3)
    store_lock._create(client, "cgan.lock", "elsewhere 1 busy")
    told = pytest.raises(TrackingError, match=r"by elsewhere 1 busy.*delete .*`cgan.lock`")
    with told, store_lock.held(client, "cgan"):
        raise AssertionError("held by two")
