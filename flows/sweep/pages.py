"""A sweep in MLflow: one parent run, and a child for each training. What they measured is read from there."""

from __future__ import annotations

import contextlib
import json
import math
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cgan.errors import TrackingError
from cgan.markdown import spaced
from cgan.params.reading import load_params
from cgan.reports.sweeps import JOB, NAME, PARENT_TAG, ROLE, STATE
from cgan.run.lifecycle import user
from cgan.store.address import (
    client_settings,
    environment_set,
    experiment_name,
    open_store,
    reason_of,
    without_credentials,
)
from cgan.store.pages import artifact
from flows.sweep.jobs import Job

if TYPE_CHECKING:
    from mlflow.entities import Run

QUIET = {"MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true"}
PATIENCE_S = 300.0  # with a store that went away: the trainings go on meanwhile
RETRY_S = 5.0
COLLAPSED = "TrainingError"  # how the reason begins with which such a run ends


def _label(job: Job) -> str:
    """`trial 3`; of a confirmation, `trial 3, seed 2` or `params.yaml, seed 2`."""
    trial = f"trial {job.tags.get('cgan.sweep.trial', '')}"
    what = "params.yaml" if job.tags[ROLE] == "present" else trial
    seed = job.tags.get("cgan.sweep.seed")
    return f"{what}, seed {seed}" if seed else what


@dataclass(frozen=True)
class Measured:
    """Of a training that was evaluated. `passport`: what its numbers depend on."""

    run_id: str
    value: float
    seconds: float
    passport: dict[str, Any]


class Pages:
    """The sweep's runs in the store at `uri`."""

    def __init__(self, uri: str, root: Path) -> None:
        self.uri = uri
        self.shown = without_credentials(uri)
        # Trainings on this machine inherit what is set here, and are to have all threads.
        settings = {k: v for k, v in client_settings().items() if k != "OMP_NUM_THREADS"}
        self._settings = environment_set(settings | QUIET)
        self._settings.__enter__()
        experiment = experiment_name(load_params().tracking.experiment)
        with self._told():
            self.client, self.experiment_id = open_store(uri, root, experiment)

    def parent(self, job: str, name: str, params: dict[str, Any]) -> str:
        """The parent run's id; made once, however often it is asked for."""
        with self._told():
            query = f"tags.`{JOB}` = '{job}' and tags.`{ROLE}` = 'parent'"
            found = self.client.search_runs([self.experiment_id], query, max_results=1)
            if found:
                run_id = str(found[0].info.run_id)
                self.client.update_run(run_id, status="RUNNING")
                return run_id
            tags = {NAME: name, JOB: job, ROLE: "parent", "mlflow.source.name": "flows.sweep"}
            if who := user():
                tags["mlflow.user"] = who
            made = self.client.create_run(self.experiment_id, tags=tags, run_name=name)
            run_id = str(made.info.run_id)
            for key, value in params.items():
                text = value if isinstance(value, str) else json.dumps(value)
                self.client.log_param(run_id, key, text[:6000])
            return run_id

    def child(self, job: Job) -> Run | None:
        """The run of a job: the one that was evaluated, or the newest, for a job that moved to another
        machine has two. None if it has made none yet."""
        runs = self.ask(
            lambda: self.client.search_runs(
                [self.experiment_id], f"tags.`{JOB}` = '{job.name}'", order_by=["start_time DESC"]
            )
        )
        evaluated = [run for run in runs if any(k.startswith("quality/") for k in run.data.metrics)]
        return next(iter([*evaluated, *runs]), None)

    def probes(self, job: Job, key: str) -> list[float]:
        """What the judge said of the drawings, from look to look; empty also while the store is away."""
        from mlflow.exceptions import MlflowException

        with contextlib.suppress(MlflowException):
            query = f"tags.`{JOB}` = '{job.name}'"
            order = ["start_time DESC"]
            for run in self.client.search_runs([self.experiment_id], query, order_by=order):
                points = self.client.get_metric_history(run.info.run_id, key)
                return [p.value for p in sorted(points, key=lambda p: p.step) if p.step > 0]
        return []

    def mark(self, job: Job, state: str) -> None:
        """How a job ended, on each run that it made; one that was left behind is ended."""
        runs = self.ask(
            lambda: self.client.search_runs(
                [self.experiment_id], f"tags.`{JOB}` = '{job.name}'", order_by=["start_time DESC"]
            )
        )
        best = self.child(job)
        for run in runs:
            own = best is not None and run.info.run_id == best.info.run_id
            self.ask(self.client.set_tag, run.info.run_id, STATE, state if own else "cut off")
            if not str(run.info.run_name).startswith(_label(job)):
                name = f"{_label(job)} · {run.info.run_name}"
                self.ask(self.client.update_run, run.info.run_id, None, name)
            if run.info.status == "RUNNING":
                self.ask(self.client.set_terminated, run.info.run_id, "KILLED")

    def publish(
        self, parent: str, folder: Path, text: str, plots: list[str], best: dict[str, float]
    ) -> None:
        """The report on the parent run: its text and plots in the description, all its files beside, and
        the best result in the columns of the table of runs."""
        for key, value in best.items():
            self.ask(self.client.log_metric, parent, key, value, None, 0)
        pictures = [f"![{name}]({artifact(parent, f'{name}.png')})" for name in plots]
        self.ask(self.client.log_artifacts, parent, str(folder))
        note = spaced("\n\n".join([text, *pictures]))
        self.ask(self.client.set_tag, parent, "mlflow.note.content", note)

    def end(self, parent: str) -> None:
        self.ask(self.client.set_terminated, parent, "FINISHED")

    def ask(self, call: Callable[..., Any], *arguments: Any) -> Any:
        """The call's answer, also of a store that comes back within PATIENCE_S."""
        from mlflow.exceptions import MlflowException

        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                return call(*arguments)
            except (MlflowException, OSError) as error:
                if time.monotonic() > deadline:
                    raise self._away(error) from None
            time.sleep(RETRY_S)

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        from mlflow.exceptions import MlflowException

        try:
            yield
        except MlflowException as error:
            raise self._away(error) from None

    def _away(self, error: Exception) -> TrackingError:
        return TrackingError(
            f"MLflow at {self.shown} cannot be used ({reason_of(error)}), and a sweep reads there what its "
            "trainings measured. Start it, then run the same command again: it goes on."
        )

    @staticmethod
    def child_tags(name: str, parent: str, job: str, role: str) -> dict[str, str]:
        return {PARENT_TAG: parent, NAME: name, JOB: job, ROLE: role}

    def collapsed(self, job: Job) -> bool:
        """Did its training end itself, because there was nothing left to hope for?"""
        run = self.child(job)
        return run is not None and run.data.tags.get("cgan.ended_by", "").startswith(COLLAPSED)

    def measured(self, job: Job, objective: str) -> Measured | str:
        """What a job that is done measured; in words, why there is nothing."""
        run = self.child(job)
        if run is None:
            return (
                f"it is done, and {self.shown} has no run of it. Do its workers use the same "
                "MLFLOW_TRACKING_URI and experiment?"
            )
        value = run.data.metrics.get(f"quality/{objective}")
        if value is None or not math.isfinite(value):
            return f"quality/{objective} of its run {run.info.run_id} is {value}"
        run_id = str(run.info.run_id)
        seconds = run.data.metrics.get("time/training_s", 0.0)
        return Measured(run_id, value, seconds, self._passport(run_id))

    def _passport(self, run_id: str) -> dict[str, Any]:
        """What its numbers depend on, from the file that `evaluate` wrote."""

        def read() -> dict[str, Any]:
            with tempfile.TemporaryDirectory() as folder:
                path = self.client.download_artifacts(run_id, "reports/evaluation.json", folder)
                return dict(json.loads(Path(path).read_text(encoding="utf-8"))["passport"])

        found: dict[str, Any] = self.ask(read)
        return found
