"""The search: Optuna proposes, trainings answer in MLflow; and trainings with fresh seeds, to compare params.

A trial is RUNNING in Optuna's storage from before its training begins until its result is written down, and
its job's name follows from its number. So a new driver knows which trainings to start again, or to find.
"""

from __future__ import annotations

import itertools
import math
import os
import tempfile
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optuna import TrialPruned
from optuna.trial import Trial, TrialState
from rich.console import Console
from rich.progress import Progress

from cgan import git
from cgan.errors import CganError
from cgan.files import read_json
from cgan.params.sections import Params
from cgan.quality.intervals import contexts_differ
from cgan.quality.table import METRICS
from cgan.reports.sweeps import JOB, NAME, PARENT_TAG, ROLE
from cgan.run.lifecycle import user
from cgan.store.address import (
    client_settings,
    experiment_name,
    open_store,
    store_uri,
    without_credentials,
)
from cgan.store.pages import run_page
from flows.sweep.jobs import Job, JobError, Watch, train_here
from flows.sweep.study import (
    best_of,
    in_words,
    open_study,
    result_params,
    space_of,
    study_name,
    trained,
    trials_that,
    uncommitted_params,
)

if TYPE_CHECKING:
    from mlflow.entities import Run

NOT_SET = ("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "OMP_NUM_THREADS")  # trainings here inherit the rest

GIVE_UP_AFTER = 3  # failures in a row: the next would fail too
WHY = "why"  # attribute of a trial that has no result of its own
STATES = {"COMPLETE": "complete", "PRUNED": "stopped early", "FAIL": "failed"}
CONSOLE = Console(highlight=False, markup=False, soft_wrap=True)

Results = list[list[dict[str, float]]]  # of each that is compared: the metrics with each seed


class Sweep:
    """A study and what drives its trainings: on the pool where a Prefect server is configured, else here.

    The same params, code and `question`, such as a space, are the same study, and the same run of MLflow,
    `parent`, again.
    """

    def __init__(self, base: Path, params: Params, prefix: str, question: dict[str, Any]) -> None:
        self.params, self.objective = params, params.sweep.objective
        commit = git.git("rev-parse", "HEAD", folder=base).decode().strip()
        self.train = partial(train_here, base, commit)
        self.overrides = uncommitted_params(base, params, commit)
        asked = [result_params(params), self.objective, question]
        self.study = open_study(base, study_name(base, prefix, commit, asked), params)
        # MLflow's client asks a server that went away again, for four minutes.
        os.environ.update({k: v for k, v in client_settings().items() if k not in NOT_SET})
        uri, name = store_uri(base), experiment_name(params.tracking.experiment)
        self.client, self.experiment = open_store(uri, base, name)
        if "parent" not in self.study.user_attrs:
            tags = {NAME: self.study.study_name, ROLE: "parent", "mlflow.user": user()}
            run = self.client.create_run(self.experiment, tags=tags, run_name=self.study.study_name)
            self.study.set_user_attr("parent", run.info.run_id)
            for key, value in {"objective": self.objective, **question}.items():
                self.client.log_param(run.info.run_id, key, str(value)[:6000])
        self.parent = str(self.study.user_attrs["parent"])
        self.client.update_run(self.parent, "RUNNING")
        self.page = f"run {self.study.study_name} in MLflow, which `make ui` shows"
        if uri.startswith("http"):
            self.page = run_page(without_credentials(uri), self.experiment, self.parent)

    def search(self, wanted: int, parallel: int) -> None:
        """Go on until there are `wanted` results. Raises CganError where nothing but failures comes.

        The first trial runs alone: it makes the data and the judge, which are the same for all. What else a
        training raises ends the search once the others have ended, and leaves the trial to the next driver.
        """
        ended: Exception | None = None
        running: dict[Future[float], Trial] = {}
        failures = 0  # in a row
        progress = Progress(
            console=CONSOLE,
            disable=not CONSOLE.is_terminal,
            transient=True,
            refresh_per_second=1,
            speed_estimate_period=math.inf,  # a trial takes longer than the usual 30 s
        )
        with progress, ThreadPoolExecutor(parallel) as threads:
            bar = progress.add_task("trials", total=wanted)
            while True:
                done = len(trials_that(self.study, TrialState.COMPLETE, TrialState.PRUNED))
                best = best_of(self.study)
                words = f"{done} of {wanted} trials"
                words += f", best {self.objective} {best.value:.4g}" if best else ""
                progress.update(bar, completed=done, description=words)
                if done >= wanted:
                    return
                if ended and not running:
                    raise ended
                while not ended and len(running) < min(parallel if done else 1, wanted - done):
                    trial = self.study.ask(space_of(self.params))
                    say(f"trial {trial.number}: {in_words(trained(trial))}")
                    running[threads.submit(self._objective, trial)] = trial
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    try:
                        why = self._tell(running.pop(future), future)
                    except Exception as error:  # of the store or the pool
                        ended, why = error, ""
                    failures = failures + 1 if why else 0
                    if failures >= GIVE_UP_AFTER:
                        ended = CganError(
                            f"{failures} trials in a row failed; the last: {why}\nCorrect that, then run the "
                            "same command again: it goes on."
                        )
                    if ended and running:
                        say(
                            f"The sweep cannot go on; it ends after {len(running)} trials that run."
                        )

    def _tell(self, trial: Trial, result: Future[float]) -> str:
        """Write down what came of a trial → why it failed, if it did."""
        state, value, why = TrialState.COMPLETE, None, ""
        try:
            value = result.result()
        except (JobError, TrialPruned) as error:
            state = TrialState.FAIL if isinstance(error, JobError) else TrialState.PRUNED
            why = str(error)
            trial.set_user_attr(WHY, why)
        self.study.tell(trial, value, state)
        found = f"{METRICS[self.objective].name} {value:.4g}" if value is not None else why
        say(f"trial {trial.number}: {STATES[state.name]}: {found}")
        return why if state is TrialState.FAIL else ""

    def _objective(self, trial: Trial) -> float:
        values = trained(trial)
        for other in trials_that(self.study, TrialState.COMPLETE):
            if trained(other) == values:  # its training would be the same, byte by byte
                raise TrialPruned(f"the params of trial {other.number}")
        job = self._job(f"trial-{trial.number}", values)
        return self._measure(job, self._pruning(trial, job))[self.objective]

    def _job(self, word: str, values: dict[str, Any]) -> Job:
        # A sweep of the same params in another storage is another sweep: it has another parent.
        name = f"{self.study.study_name}-{self.parent[:6]}-{word}"
        tags = {PARENT_TAG: self.parent, NAME: self.study.study_name, JOB: name, ROLE: "trial"}
        return Job(name, {**self.overrides, **values}, tags)

    def _runs(self, job: Job) -> list[Run]:
        """MLflow's runs of a job; first the one that was evaluated, else the newest. A job that moved to
        another machine has two."""
        query, order = f"tags.`{JOB}` = '{job.name}'", ["start_time DESC"]
        runs = self.client.search_runs([self.experiment], query, order_by=order)
        return sorted(runs, key=lambda run: f"quality/{self.objective}" not in run.data.metrics)

    def _measure(self, job: Job, watch: Watch) -> dict[str, float]:
        """Do a job → its metrics. Raises TrialPruned for one that was stopped, or that stopped itself
        because it was hopeless; JobError where there is no number, or none to be compared with the first's.
        """
        try:
            self.train(job, watch)
        except JobError as error:
            for run in self._runs(job)[:1]:
                if run.data.tags.get("cgan.ended_by", "").startswith("TrainingError"):
                    raise TrialPruned(str(error)) from None
            raise
        runs = self._runs(job)
        if not runs:
            raise JobError(
                "MLflow has no run of it. Do its workers use the same store and experiment?"
            )
        run_id, numbers = runs[0].info.run_id, runs[0].data.metrics
        metrics = {key: numbers[f"quality/{key}"] for key in METRICS if f"quality/{key}" in numbers}
        value = metrics.get(self.objective, math.nan)
        if not math.isfinite(value):
            raise JobError(f"quality/{self.objective} of its run {run_id} is {value}")
        with tempfile.TemporaryDirectory() as folder:
            file = self.client.download_artifacts(run_id, "reports/evaluation.json", folder)
            context = read_json(Path(file))["passport"]
        if "passport" not in self.study.user_attrs:
            self.study.set_user_attr("passport", context)
        first = self.study.user_attrs["passport"]
        if differs := contexts_differ({"passport": first}, {"passport": context}):
            words = ", ".join(f"{key} {a} and {b}" for key, (a, b) in differs.items())
            raise JobError(f"it was measured otherwise than the first trial: {words}")
        return metrics

    def _pruning(self, trial: Trial, job: Job) -> Watch:
        """What reports the probes of a training to Optuna, and stops one that is not worth going on."""
        key = "conditional_accuracy" if "accuracy" in self.objective else "fid_judge"
        # Reported values go the way of the objective: an accuracy rises where a distance falls.
        sign = 1.0 if METRICS[key].better == METRICS[self.objective].better else -1.0
        count = self.params.train.probes
        reported = len(self.study.trials[trial.number].intermediate_values)  # to a former driver

        def watch() -> None:
            nonlocal reported
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

    def train_seeds(self, roles: dict[str, dict[str, Any]]) -> Results:
        """Train params.yaml with the values of each role and `sweep.seeds` fresh seeds.

        Not with that of params.yaml, by which they may have been chosen. Raises JobError where a training
        did not come to its end.
        """
        first, seeds = self.params.train.seed + 1, self.params.sweep.seeds
        kept, failed = self.study.user_attrs, list[str]()

        def train(role: str, seed: int) -> dict[str, float]:
            job = self._job(f"{role}-seed-{seed}", {**roles[role], "train.seed": seed})
            metrics: dict[str, float] = kept.get(job.name, {})
            if not metrics:
                try:
                    metrics = self._measure(job, lambda: None)
                except (JobError, TrialPruned) as error:
                    failed.append(f"{role}, seed {seed}: failed: {error}")
                    say(failed[-1])
                    return {}
                self.study.set_user_attr(job.name, metrics)
            say(f"{role}, seed {seed}: {metrics[self.objective]:.4g}")
            return metrics

        pairs = list(itertools.product(roles, range(first, first + seeds)))
        found: list[dict[str, float]] = []
        # The very first makes the data and the judge for all.
        for part in [pairs] if "passport" in kept else [pairs[:1], pairs[1:]]:
            with ThreadPoolExecutor(self.params.sweep.parallel) as threads:
                found += threads.map(lambda pair: train(*pair), part)
            if failed:
                raise JobError(f"{failed[0]}. The same command tries it again.")
        return [found[at : at + seeds] for at in range(0, len(found), seeds)]


def say(line: str) -> None:
    CONSOLE.print(line)
