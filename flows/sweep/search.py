"""The search: Optuna proposes, trainings answer in MLflow; and the confirmation of the best with fresh seeds.

A trial is RUNNING in Optuna's storage from before its training begins until its result is written down, and
its job's name follows from its number. So a new driver knows which trainings to start again, or to find.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import optuna
from mlflow.exceptions import MlflowException
from optuna import TrialPruned
from optuna.trial import FrozenTrial, Trial, TrialState

from cgan.errors import CganError
from cgan.files import read_json
from cgan.params.sections import Params
from cgan.quality.intervals import passports_differ
from cgan.quality.table import METRICS
from cgan.reports.sweeps import JOB, NAME, PARENT_TAG, ROLE
from flows.sweep.jobs import Job, JobError, Train, Watch
from flows.sweep.study import in_words, suggest, trained, trials_that

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

GIVE_UP_AFTER = 3  # failures in a row: the next would fail too
LOOK_EVERY_S = 5.0  # at the probes of a training
WHY = "why"  # attribute of a trial that has no result of its own
STATES = {"COMPLETE": "complete", "PRUNED": "stopped early", "FAIL": "failed"}

# role → the objective with each seed; empty where a training failed
Results = dict[str, list[float]]


class EndedError(BaseException):
    """The sweep cannot go on. Optuna leaves the trial as it is, and the next driver takes it up."""


@dataclass
class Sweep:
    """What drives the trainings of one study.

    `experiment`: the id of MLflow's. `base`: overrides that all trainings share.
    """

    study: optuna.Study
    params: Params
    client: MlflowClient
    experiment: str
    base: dict[str, Any]
    train: Train
    failures: int = 0  # in a row
    ended: Exception | None = None

    def __post_init__(self) -> None:
        self.objective = self.params.sweep.objective

    def search(self, wanted: int, parallel: int) -> None:
        """Go on until there are `wanted` results. Raises CganError where nothing but failures comes.

        The first trial runs alone: it makes the data and the judge, which are the same for all.
        """
        counted = (TrialState.COMPLETE, TrialState.PRUNED)
        while (missing := wanted - len(trials_that(self.study, *counted))) > 0:
            number, at_a_time = (1, 1) if missing == wanted else (missing, parallel)
            with self._until_it_ends():
                self.study.optimize(
                    self._try,
                    n_trials=number,
                    n_jobs=at_a_time,
                    catch=JobError,
                    callbacks=[self._tell],
                    show_progress_bar=sys.stderr.isatty() and number > 1,
                )

    @contextlib.contextmanager
    def _until_it_ends(self) -> Iterator[None]:
        """Raises what ended the sweep, in whichever thread that was."""
        with contextlib.suppress(EndedError):
            yield
        if self.ended:
            raise self.ended

    def _try(self, trial: Trial) -> float:
        suggest(trial, self.params)
        values = trained(trial)
        say(f"trial {trial.number}: {in_words(values)}")
        job = self._job(f"trial-{trial.number}", "trial", values)
        try:
            for other in trials_that(self.study, TrialState.COMPLETE):
                if trained(other) == values:  # its training would be the same, byte by byte
                    raise TrialPruned(f"the params of trial {other.number}")
            return self._measure(job, self._pruning(trial, job))
        except (JobError, TrialPruned) as error:
            trial.set_user_attr(WHY, str(error))
            raise

    def _job(self, word: str, role: str, values: dict[str, Any]) -> Job:
        # A sweep of the same params in another storage is another sweep: it has another parent.
        parent: str = self.study.user_attrs["parent"]
        name = f"{self.study.study_name}-{parent[:6]}-{word}"
        tags = {PARENT_TAG: parent, NAME: self.study.study_name, JOB: name, ROLE: role}
        return Job(name, {**self.base, **values}, tags)

    def _runs(self, job: Job) -> list[Run]:
        """MLflow's runs of a job; first the one that was evaluated, else the newest. A job that moved to
        another machine has two."""
        query, order = f"tags.`{JOB}` = '{job.name}'", ["start_time DESC"]
        runs = self.client.search_runs([self.experiment], query, order_by=order)
        return sorted(runs, key=lambda run: f"quality/{self.objective}" not in run.data.metrics)

    def _measure(self, job: Job, watch: Watch) -> float:
        """Do a job → the objective. Raises JobError; TrialPruned for one that was stopped, or that stopped
        itself because it was hopeless."""
        if self.ended:
            raise EndedError
        try:
            try:
                self.train(job, watch)
            except JobError as error:
                for run in self._runs(job)[:1]:
                    if run.data.tags.get("cgan.ended_by", "").startswith("TrainingError"):
                        raise TrialPruned(str(error)) from None
                raise
            return self._result(self._runs(job))
        except (CganError, MlflowException, httpx.HTTPError) as error:
            self.ended = error
            raise EndedError from None

    def _result(self, runs: list[Run]) -> float:
        """Raises JobError where there is no number, or none to be compared with the first trial's."""
        if not runs:
            raise JobError(
                "MLflow has no run of it. Do its workers use the same store and experiment?"
            )
        run_id, metrics = runs[0].info.run_id, runs[0].data.metrics
        value = float(metrics.get(f"quality/{self.objective}", math.nan))
        if not math.isfinite(value):
            raise JobError(f"quality/{self.objective} of its run {run_id} is {value}")
        with tempfile.TemporaryDirectory() as folder:
            file = self.client.download_artifacts(run_id, "reports/evaluation.json", folder)
            context = read_json(Path(file))["passport"]
        if "passport" not in self.study.user_attrs:
            self.study.set_user_attr("passport", context)
        first = self.study.user_attrs["passport"]
        if differs := passports_differ({"passport": first}, {"passport": context}):
            told = ", ".join(f"{key} {a} and {b}" for key, (a, b) in differs.items())
            raise JobError(f"it was measured otherwise than the first trial: {told}")
        return value

    def _pruning(self, trial: Trial, job: Job) -> Watch:
        """What reports the probes of a training to Optuna, and stops one that is not worth going on."""
        key = "conditional_accuracy" if "accuracy" in self.objective else "fid_judge"
        # Reported values go the way of the objective: an accuracy rises where a distance falls.
        sign = 1.0 if METRICS[key].better == METRICS[self.objective].better else -1.0
        count = self.params.train.probes
        reported = len(self.study.trials[trial.number].intermediate_values)  # to a former driver
        looked = 0.0

        def watch() -> None:
            nonlocal reported, looked
            if time.monotonic() < looked + LOOK_EVERY_S:
                return
            looked = time.monotonic()
            for run in self._runs(job)[:1]:
                points = self.client.get_metric_history(run.info.run_id, f"probe/{key}")
                probes = sorted((p for p in points if p.step > 0), key=lambda p: p.step)
                # By number and not by step: trainings of another length or batch have others.
                for probe in probes[reported:]:
                    reported += 1
                    trial.report(sign * probe.value, reported)
            if 0 < reported < count and trial.should_prune():
                raise TrialPruned(f"after probe {reported} of {count}, worse than the median")

        return watch

    def _tell(self, study: optuna.Study, trial: FrozenTrial) -> None:
        told, why = STATES[trial.state.name], trial.user_attrs.get(WHY, "")
        if trial.state is TrialState.COMPLETE:
            told = f"{METRICS[self.objective].name} {trial.value:.4g}"
        say(f"trial {trial.number}: {told}{f' ({why})' if why else ''}")
        self.failures = self.failures + 1 if trial.state is TrialState.FAIL else 0
        if self.failures >= GIVE_UP_AFTER:
            study.stop()
            self.ended = CganError(
                f"{self.failures} trials in a row failed; the last: {why}\nCorrect that, then run the same "
                "command again: it goes on."
            )

    def confirm(self, best: FrozenTrial, parallel: int) -> Results:
        """Is the best trial better, or was it lucky? It and the params of today with fresh seeds.

        The value by which it won is not used: the best of many is so by its luck too.
        """
        values = {"best": trained(best), "present": {}}
        first = self.params.train.seed + 1
        seeds = range(first, first + self.params.sweep.seeds)

        def train(role: str, seed: int) -> float | None:
            word = f"{f'trial-{best.number}' if role == 'best' else role}-seed-{seed}"
            job = self._job(word, role, {**values[role], "train.seed": seed})
            if job.name not in self.study.user_attrs:
                say(word)
                try:
                    self.study.set_user_attr(job.name, self._measure(job, lambda: None))
                except (JobError, TrialPruned) as error:
                    say(f"{word}: failed: {error}. The same command tries it again.")
                    return None
            value: float = self.study.user_attrs[job.name]
            say(f"{word}: {value:.4g}")
            return value

        with self._until_it_ends(), ThreadPoolExecutor(parallel) as threads:
            pairs = itertools.product(values, seeds)
            measured = list(threads.map(lambda pair: train(*pair), pairs))
        numbers = [value for value in measured if value is not None]
        if len(numbers) < len(measured):
            return {}
        return {"best": numbers[: len(seeds)], "present": numbers[len(seeds) :]}


def say(line: str) -> None:
    """On a terminal in place of Optuna's progress bar, which is drawn again below it."""
    clear = "\r\033[K" if sys.stderr.isatty() and sys.stdout.isatty() else ""
    sys.stdout.write(f"{clear}{line}\n")
    sys.stdout.flush()
