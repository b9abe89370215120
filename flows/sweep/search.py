"""The search: Optuna proposes, trainings answer in MLflow; and the confirmation of the best with fresh seeds.

A trial is RUNNING in Optuna's storage from before its training begins until its result is written down, and
its job's name follows from its number. So a new driver knows which trainings to start again, or to find.
"""

from __future__ import annotations

import contextlib
import json
import math
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import optuna
from mlflow.exceptions import MlflowException
from optuna import TrialPruned
from optuna.trial import FrozenTrial, Trial, TrialState

from cgan.errors import CganError
from cgan.params.sections import Params
from cgan.quality.intervals import passports_differ
from cgan.quality.table import METRICS
from cgan.reports.sweeps import JOB, NAME, PARENT_TAG, ROLE, STATE
from flows.sweep.jobs import Job, JobError, Train, Watch
from flows.sweep.study import PARAMS, RUN, WHY, short, suggest, trials_that

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

GIVE_UP_AFTER = 3  # failures in a row: the next would fail too
LOOK_EVERY_S = 5.0  # at the probes of a training
# What a training's own judge says of its drawings, and in which direction it is better.
ACCURACY, DISTANCE = ("probe/conditional_accuracy", "higher"), ("probe/fid_judge", "lower")
BY_ACCURACY = ("conditional_accuracy", "worst_class_accuracy", "gan_train_accuracy")
STATES = {"COMPLETE": "complete", "PRUNED": "stopped early", "FAIL": "failed"}

Results = dict[str, dict[str, float | None]]  # role → seed → the objective, None where it failed


class EndedError(BaseException):
    """The sweep cannot go on. Optuna leaves the trial as it is, and the next driver takes it up."""


class Sweep:
    """What drives the trainings of one study. `experiment`: the id of MLflow's."""

    def __init__(
        self,
        study: optuna.Study,
        params: Params,
        client: MlflowClient,
        experiment: str,
        train: Train,
    ) -> None:
        self.study, self.params, self.train = study, params, train
        self.client, self.experiment = client, experiment
        self.objective = params.sweep.objective
        self.base: dict[str, Any] = study.user_attrs["base"]
        self.parent: str = study.user_attrs["parent"]
        self.failures = 0  # in a row
        self.ended: Exception | None = None

    def lay_ground(self) -> None:
        """What all trainings need, once: without it, each of the first would make the data and the judge."""
        if "ground" not in self.study.user_attrs:
            say("data and judge")
            try:
                self.train(Job(self._name("ground"), self.base, {}, "train_judge"), lambda: None)
            except JobError as error:
                raise CganError(f"the stages before the training: {error}") from None
            self.study.set_user_attr("ground", True)

    def search(self, wanted: int, parallel: int) -> None:
        """Go on until there are `wanted` results. Raises CganError where nothing but failures comes."""
        counted = (TrialState.COMPLETE, TrialState.PRUNED)
        while (missing := wanted - len(trials_that(self.study, *counted))) > 0:
            with contextlib.suppress(EndedError):
                self.study.optimize(
                    self._try,
                    n_trials=missing,
                    n_jobs=parallel,
                    catch=JobError,
                    callbacks=[self._tell],
                    show_progress_bar=sys.stderr.isatty(),
                )
            if self.ended:
                raise self.ended

    def _try(self, trial: Trial) -> float:
        values = suggest(trial, self.params)
        trial.set_user_attr(PARAMS, values)
        for other in trials_that(self.study, TrialState.COMPLETE):
            if other.user_attrs[PARAMS] == values and other.value is not None:
                trial.set_user_attr(RUN, other.user_attrs[RUN])
                trial.set_user_attr(WHY, f"the params of trial {other.number}")
                return other.value  # its training would be the same, byte by byte
        say(f"trial {trial.number}: {in_words(values)}")
        job = self._job(f"trial-{trial.number}", "trial", values, trial=trial.number)
        try:
            run = self._measure(job, self._pruning(trial, job))
        except (JobError, TrialPruned) as error:
            trial.set_user_attr(WHY, str(error))
            raise
        trial.set_user_attr(RUN, run.info.run_id)
        trial.set_user_attr("seconds", run.data.metrics.get("time/training_s", 0.0))
        return self._value(run)

    def _name(self, word: str) -> str:
        """With a part of the parent's id: a sweep of the same params in another storage is another sweep."""
        return f"{self.study.study_name}-{self.parent[:6]}-{word}"

    def _job(self, word: str, role: str, values: dict[str, Any], **more: int) -> Job:
        name = self._name(word)
        tags = {PARENT_TAG: self.parent, NAME: self.study.study_name, JOB: name, ROLE: role}
        tags |= {f"cgan.sweep.{key}": str(value) for key, value in more.items()}
        return Job(name, {**self.base, **values}, tags)

    def _runs(self, job: Job) -> list[Run]:
        """MLflow's runs of a job; first the one that was evaluated, else the newest. A job that moved to
        another machine has two."""
        query, order = f"tags.`{JOB}` = '{job.name}'", ["start_time DESC"]
        runs = self.client.search_runs([self.experiment], query, order_by=order)
        return sorted(runs, key=lambda run: f"quality/{self.objective}" not in run.data.metrics)

    def _value(self, run: Run) -> float:
        return float(run.data.metrics.get(f"quality/{self.objective}", math.nan))

    def _measure(self, job: Job, watch: Watch) -> Run:
        """Do a job → its run in MLflow, which has the result. Raises JobError; TrialPruned for one that was
        stopped, or that stopped itself because it was hopeless."""
        if self.ended:
            raise EndedError
        failed: Exception | None = None
        try:
            try:
                self.train(job, watch)
            except (JobError, TrialPruned) as error:
                failed = error
            runs = self._runs(job)
            ended_by = runs[0].data.tags.get("cgan.ended_by", "") if runs else ""
            if isinstance(failed, JobError) and ended_by.startswith("TrainingError"):
                failed = TrialPruned(str(failed))
            failed = failed or self._fault(runs)
            state = "failed" if isinstance(failed, JobError) else "pruned" if failed else "complete"
            for number, run in enumerate(runs):
                self.client.set_tag(run.info.run_id, STATE, "cut off" if number else state)
                if run.info.status == "RUNNING":  # it was left behind
                    self.client.set_terminated(run.info.run_id, "KILLED")
        except (CganError, MlflowException, httpx.HTTPError) as error:
            self.ended = error
            raise EndedError from None
        if failed:
            raise failed
        return runs[0]

    def _fault(self, runs: list[Run]) -> JobError | None:
        """Why the runs of a job that is done have no result."""
        if not runs:
            return JobError(
                "MLflow has no run of it. Do its workers use the same store and experiment?"
            )
        run_id = runs[0].info.run_id
        if not math.isfinite(value := self._value(runs[0])):
            return JobError(f"quality/{self.objective} of its run {run_id} is {value}")
        with tempfile.TemporaryDirectory() as folder:
            file = self.client.download_artifacts(run_id, "reports/evaluation.json", folder)
            report = {"passport": json.loads(Path(file).read_text(encoding="utf-8"))["passport"]}
        if "passport" not in self.study.user_attrs:
            self.study.set_user_attr("passport", report["passport"])
        first = {"passport": self.study.user_attrs["passport"]}
        if differs := passports_differ(first, report):
            told = ", ".join(f"{key} {a} and {b}" for key, (a, b) in differs.items())
            return JobError(f"it was measured by another ruler than the first trial: {told}")
        return None

    def _pruning(self, trial: Trial, job: Job) -> Watch:
        """What reports the probes of a training to Optuna, and stops one that is not worth going on."""
        key, better = ACCURACY if self.objective in BY_ACCURACY else DISTANCE
        # Reported values go the way of the objective: an accuracy rises where a distance falls.
        sign = 1.0 if better == METRICS[self.objective].better else -1.0
        count, looked = self.params.train.probes, time.monotonic()
        reported = len(self.study.trials[trial.number].intermediate_values)  # to a former driver

        def watch() -> None:
            nonlocal reported, looked
            if time.monotonic() - looked < LOOK_EVERY_S:
                return
            looked = time.monotonic()
            for run in self._runs(job)[:1]:
                points = self.client.get_metric_history(run.info.run_id, key)
                probes = sorted((p for p in points if p.step > 0), key=lambda p: p.step)
                # By number and not by step: trainings of another length or batch have others.
                for number, probe in enumerate(probes[reported:], reported + 1):
                    trial.report(sign * probe.value, number)
                reported = len(probes)
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
                f"{self.failures} trials in a row failed; the last: {why}\nMend that, then run the same "
                "command again: it goes on."
            )

    def confirm(self, best: FrozenTrial, parallel: int) -> Results:
        """Is the best trial better, or was it lucky? It and the params of today with fresh seeds.

        The value by which it won is not used: the best of many is so by its luck too.
        """
        both = {"best": best.user_attrs[PARAMS], "present": {}}
        first = self.params.train.seed + 1
        seeds = range(first, first + self.params.sweep.seeds)
        with ThreadPoolExecutor(parallel) as threads:
            found = {
                role: {
                    str(seed): threads.submit(self._confirm, role, values, seed, best.number)
                    for seed in seeds
                }
                for role, values in both.items()
            }
        if self.ended:
            raise self.ended
        return {
            role: {seed: done.result() for seed, done in each.items()}
            for role, each in found.items()
        }

    def _confirm(self, role: str, values: dict[str, Any], seed: int, trial: int) -> float | None:
        word = f"trial-{trial}" if role == "best" else role
        own = {**values, "train.seed": seed}
        job = self._job(f"{word}-seed-{seed}", role, own, trial=trial, seed=seed)
        known: float | None = self.study.user_attrs.get(job.name)
        if known is not None:
            return known
        say(f"{word}, seed {seed}")
        try:
            value = self._value(self._measure(job, lambda: None))
        except (JobError, TrialPruned) as error:
            say(f"{word}, seed {seed}: failed: {error}")
            return None
        self.study.set_user_attr(job.name, value)
        say(f"{word}, seed {seed}: {value:.4g}")
        return value


def in_words(values: dict[str, Any]) -> str:
    return ", ".join(f"{short(key)} {value}" for key, value in values.items())


def say(line: str) -> None:
    """On a terminal in place of Optuna's progress bar, which is drawn again below it."""
    clear = "\r\033[K" if sys.stderr.isatty() and sys.stdout.isatty() else ""
    sys.stdout.write(f"{clear}{line}\n")
    sys.stdout.flush()
