"""What holds whatever happens in which order: each record arrives once."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from conftest import MLFLOWS_OWN_WARNINGS
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from cgan.run import records
from cgan.run.delivery import RUN_KEY_TAG, Delivery
from cgan.run.records import Run, RunInfo
from cgan.store.pages import EXPERIMENT_TAGS

pytestmark = MLFLOWS_OWN_WARNINGS
LAST_STEP = 12
KEY = "k1"
INFO = RunInfo(KEY, "a run", "cgan", "http://nowhere")


class Killed(BaseException):
    """SIGKILL: nothing of ours catches it."""


class Store:
    """Of MLflow's client what the delivery calls, with the store's own rules: a metric's identity is (run,
    key, step, time, value), a file's its path. A call may be refused or be the last one."""

    def __init__(self) -> None:
        self.runs: dict[str, SimpleNamespace] = {}
        self.metrics: dict[tuple[str, str, int, int, float], None] = {}
        self.files: set[str] = set()
        self.models: list[SimpleNamespace] = []
        self.trouble: Callable[[], None] = lambda: None
        self.experiment = SimpleNamespace(
            experiment_id="1",
            name="cgan",
            artifact_location="mlflow-artifacts:/1",
            lifecycle_stage="active",
            tags=EXPERIMENT_TAGS,
        )

    def __getattribute__(self, name: str) -> Any:
        method = object.__getattribute__(self, name)
        if not callable(method) or name in ("trouble", "points"):
            return method

        def called(*args: Any, **kwargs: Any) -> Any:
            self.trouble()
            result = method(*args, **kwargs)
            self.trouble()  # the answer may be lost, too
            return result

        return called

    def get_experiment_by_name(self, name: str) -> Any:
        return self.experiment

    def search_runs(self, experiments: list[str], query: str, max_results: int) -> list[Any]:
        return [run for run in self.runs.values() if run.data.tags[RUN_KEY_TAG] in query]

    def create_run(self, experiment: str, start_time: int, tags: Any, run_name: str) -> Any:
        number = str(len(self.runs))
        data = SimpleNamespace(tags=dict(tags), params={}, metrics={})
        info = SimpleNamespace(run_id=number, status="RUNNING", end_time=None)
        self.runs[number] = SimpleNamespace(info=info, data=data, outputs=None)
        return self.runs[number]

    def get_run(self, number: str) -> Any:
        data = self.runs[number].data
        latest: dict[str, tuple[int, int, float]] = {}
        for run, key, step, time_ms, value in self.metrics:
            if run == number:
                latest[key] = max(latest.get(key, (-1, 0, 0.0)), (step, time_ms, value))
        data.metrics = {key: value for key, (_, _, value) in latest.items()}
        return self.runs[number]

    def log_batch(self, number: str, metrics: Any = (), tags: Any = (), params: Any = ()) -> None:
        for m in metrics:
            self.metrics[(number, m.key, m.step, m.timestamp, m.value)] = None
        self.runs[number].data.tags |= {tag.key: tag.value for tag in tags}

    def update_run(self, number: str, status: str) -> None:
        self.runs[number].info.status = status

    def set_terminated(self, number: str, status: str, time_ms: int) -> None:
        self.runs[number].info.status = status

    def set_tag(self, number: str, key: str, value: str) -> None:
        self.runs[number].data.tags[key] = value

    def log_artifacts(self, number: str, folder: str, where: str) -> None:
        self.files |= {path.name for path in Path(folder).iterdir()}

    def search_logged_models(self, *args: Any, **kwargs: Any) -> list[Any]:
        return list(self.models)

    def create_logged_model(self, experiment: str, *, tags: Any, **kwargs: Any) -> Any:
        self.models.append(SimpleNamespace(model_id="m", status="PENDING", tags=dict(tags)))
        return self.models[-1]

    def log_outputs(self, number: str, outputs: Any) -> None: ...

    def points(self, prefix: str) -> list[tuple[str, int]]:
        return [(key, step) for _, key, step, _, _ in self.metrics if key.startswith(prefix)]


class Deliveries(RuleBasedStateMachine):
    """A training that is killed and resumed, evaluations, followers killed, a store that is away at times."""

    @initialize()
    def begin(self) -> None:
        self.folder = Path(tempfile.mkdtemp()) / KEY
        self.model = self.folder.with_name("generator.safetensors")
        self.model.write_bytes(b"weights")
        self.store = Store()
        self.checkpoint = self.done = 0
        self.finished = False
        self.said: list[float] = []
        self.clock = 0
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr("mlflow.MlflowClient", lambda uri: self.store)
        self.patch.setattr("mlflow.pyfunc.log_model", self.log_model)
        self.patch.setattr("mlflow.set_tracking_uri", lambda uri: None)
        # The clock of a fast test would tell two evaluations the same millisecond.
        self.patch.setattr(records.time, "time_ns", self.tick)

    def tick(self) -> int:
        self.clock += 1_000_000
        return self.clock

    def log_model(self, **_: Any) -> None:
        self.store.models[-1].status = "READY"

    def opened(self, *, resume: bool) -> Run:
        return Run(self.folder, INFO, resume=resume)

    def dropped(self, tracker: Run) -> None:
        """What the kernel does for a killed process: its locks go."""
        os.close(tracker._descriptor)

    @rule(
        steps=st.integers(1, LAST_STEP), saved=st.integers(0, LAST_STEP), ending=st.integers(0, 2)
    )
    def train(self, steps: int, saved: int, ending: int) -> None:
        """From the checkpoint on, so many steps; killed then, or at a point of its end, or just after it."""
        tracker = self.opened(resume=True)
        tracker.write("start")
        last = min(LAST_STEP, self.checkpoint + steps)
        for step in range(self.checkpoint + 1, last + 1):
            tracker.log_metrics({"loss/generator": 1 / step}, step)
            if step % 4 == 0:
                tracker.log_image("preview", np.zeros((2, 2), np.uint8), step)
        self.done = max(self.done, last)
        self.checkpoint = max(self.checkpoint, min(saved, last))
        if last == LAST_STEP and ending > 0:
            tracker.log_model(self.model, LAST_STEP, {"digest": "d"})
            self.finished = True
            if ending > 1:
                tracker.write("end", status="FINISHED")
        self.dropped(tracker)

    @precondition(lambda self: self.finished)
    @rule(value=st.sampled_from([0.5, 0.6]), killed=st.booleans())
    def evaluate(self, value: float, killed: bool) -> None:
        tracker = self.opened(resume=False)
        tracker.log_metrics({"quality/fid_judge": value, "quality/recall": 0.8}, LAST_STEP)
        self.said.append(value)
        if not killed:
            tracker.write("added")
        self.dropped(tracker)

    @rule(calls=st.integers(0, 30), kill=st.booleans())
    def deliver(self, calls: int, kill: bool) -> None:
        """A follower that is killed, or whose store goes away, at one of its calls (or is not)."""
        left = iter(range(calls))

        def trouble() -> None:
            if next(left, None) is None:
                raise Killed if kill else ConnectionError("away")

        self.store.trouble = trouble
        try:
            self.send()
        except (Killed, ConnectionError):
            pass
        finally:
            self.store.trouble = lambda: None

    def send(self) -> None:
        if not (self.folder / records.RECORDS).exists():
            return
        delivery = Delivery(self.folder, INFO.tracking_uri, self.folder.parent)
        delivery.deliver()
        assert delivery.refused == 0

    def teardown(self) -> None:
        """In peace, all that was said arrives, each once."""
        if not hasattr(self, "store"):
            return
        try:
            self.send()
            assert len(self.store.runs) <= 1
            losses = self.store.points("loss/")
            assert sorted(losses) == [("loss/generator", n + 1) for n in range(self.done)]
            pictures = Counter(name.split("+timestamp")[0] for name in self.store.files)
            assert set(pictures) == {f"preview+step+{n}" for n in range(4, self.done + 1, 4)}
            assert set(pictures.values()) <= {2}, "the picture and its thumbnail"
            models = [model.status for model in self.store.models]
            assert models == ["READY"] if self.finished else set(models) <= {"READY"}
            assert len(models) <= 1
            told = [
                value for _, key, _, _, value in self.store.metrics if key == "quality/fid_judge"
            ]
            news = [v for n, v in enumerate(self.said) if n == 0 or v != self.said[n - 1]]
            assert told == news
            assert len(self.store.points("quality/recall")) == bool(self.said)
        finally:
            self.patch.undo()
            shutil.rmtree(self.folder.parent)


Deliveries.TestCase.settings = settings(
    max_examples=20, stateful_step_count=20, deadline=None, derandomize=True
)
TestEachRecordArrivesOnce = Deliveries.TestCase
