"""Fixtures for all tests, and the helpers of tests/world: tests import both from here."""

import gc
from collections.abc import Iterator

import pytest
import torch
from world.browser import *  # noqa: F403 (tests import it from here; so below)
from world.door import *  # noqa: F403
from world.images import *  # noqa: F403
from world.kaggle import *  # noqa: F403
from world.project import *  # noqa: F403
from world.service import *  # noqa: F403
from world.store import *  # noqa: F403
from world.training import *  # noqa: F403

# While modules are imported there is no garbage: looking for it takes a fifth of the time.
gc.disable()

pytest_plugins = ["toy"]  # its fixtures

# Files that start early: else one process would be at them when the others are done.
LONGEST = ["limits", "production", "benchmarks", "evidence"]  # of slow tests; then of quick ones
LONGEST += ["pipeline", "local_score_run", "reading", "checkout", "resume", "play"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """One file first makes the finished project; others that need it come behind the longest ones."""
    needing = {item.path for item in items if "finished" in getattr(item, "fixturenames", ())}
    first = min(needing, default=None)

    def rank(item: pytest.Item) -> tuple[bool, bool, bool]:
        needs, stem = item.path in needing, item.path.stem.removeprefix("test_")
        return item.path != first, needs or stem not in LONGEST, not needs

    items.sort(key=rank)


@pytest.fixture(scope="session", autouse=True)
def short_intervals() -> Iterator[None]:
    """Trainings in tests have ten steps: a record every other one, a checkpoint every fourth."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cgan.training.batches.CHUNK_STEPS", 2)
        for name, steps in (("LOG_EVERY", 2), ("SAVE_EVERY", 4), ("PREVIEW_COUNT", 2)):
            patch.setattr(f"cgan.training.loop.{name}", steps)
        yield


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """An untrained network has the same weights whatever tests ran before in this process."""
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def no_store_of_another_test(monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow writes the address that it was given last into the environment, for its children."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
