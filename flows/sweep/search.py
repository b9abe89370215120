"""The search: Optuna proposes params, trainings answer, and all that is known of it is in Optuna's storage.

A trial is RUNNING in the storage from before its training begins until its result is written down, and its
job's name follows from its number. So a new driver knows which trainings to start again, or to find.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.trial import Trial, TrialState

from cgan.errors import CganError
from cgan.params.sections import Params
from cgan.quality.intervals import passports_differ
from cgan.quality.table import METRICS
from flows.sweep import space
from flows.sweep.jobs import Job, Place, Seen, State, work
from flows.sweep.pages import Pages
from flows.sweep.study import RUN, STOPPED, VALUES, WORDS, Counted, Facts, finished, is_pinned

GIVE_UP_AFTER = 3  # failures in a row: the next would fail too
LOOK_EVERY_S = 5.0  # at the probes of a training
# What a training's own judge says of its drawings, and whether less of it is better.
ACCURACY, DISTANCE = ("probe/conditional_accuracy", "higher"), ("probe/fid_judge", "lower")
BY_ACCURACY = ("conditional_accuracy", "worst_class_accuracy", "gan_train_accuracy")

Say = Callable[[str], None]


@dataclass
class Driver:
    """What drives the trainings of one study. `parent` is MLflow's run of the sweep."""

    study: optuna.Study
    params: Params
    facts: Facts
    place: Place
    pages: Pages
    parent: str
    say: Say


@dataclass
class Search(Driver):
    """The trials."""

    def __post_init__(self) -> None:
        self.distributions = space.distributions(self.params)
        self.probe, better = ACCURACY if self.facts.objective in BY_ACCURACY else DISTANCE
        # Reported values go the way of the objective: an accuracy rises where a distance falls.
        self.sign = 1.0 if better == METRICS[self.facts.objective].better else -1.0
        self._trials: dict[str, Trial] = {}
        self._looked: dict[str, float] = {}
        self._failures = 0

    def run(self, wanted: int, parallel: int) -> None:
        """Go on until there are `wanted` results. Raises CganError where nothing but failures comes."""
        if not self.study.get_trials(deepcopy=False):
            # The first trial is what params.yaml holds, as far as the space has it.
            self.study.enqueue_trial(space.present(self.params))
        while True:
            jobs = self._upcoming(wanted)
            work(self.place, jobs, parallel, Counted(self.study), self._watch, self._ended)
            if len(finished(self.study)) >= wanted:  # one of the last may have failed
                break

    def _upcoming(self, wanted: int) -> Iterator[Job]:
        for frozen in self.study.get_trials(deepcopy=False, states=[TrialState.RUNNING]):
            job = self._job(Trial(self.study, frozen._trial_id))
            if STOPPED in frozen.user_attrs:
                self.place.stop(job)
                self._ended(job, Seen(State.GONE))
                continue
            self.say(f"trial {frozen.number}: taken up again")
            yield job
        while len(finished(self.study)) + len(self._trials) < wanted:
            trial = self.study.ask()
            job = self._job(trial)
            same = [
                t for t in finished(self.study) if t.user_attrs[VALUES] == trial.user_attrs[VALUES]
            ]
            if same and same[0].state is TrialState.COMPLETE:
                self._as_before(trial, same[0])
                continue
            self.say(f"trial {trial.number}: {_in_words(trial.user_attrs[VALUES])}")
            yield job

    def _job(self, trial: Trial) -> Job:
        """What a trial trains. What was suggested before a kill stays; what is missing is suggested now."""
        suggested = {key: trial._suggest(key, each) for key, each in self.distributions.items()}
        values = space.rounded(self.params, suggested)
        trial.set_user_attr(VALUES, values)
        job = self._job_of(trial.number, values)
        self._trials[job.name] = trial
        return job

    def _job_of(self, number: int, values: dict[str, Any]) -> Job:
        name = self._name(number)
        tags = self.pages.child_tags(self.study.study_name, self.parent, name, "trial")
        return Job(name, {**self.facts.base, **values}, {**tags, "cgan.sweep.trial": str(number)})

    def _name(self, number: int) -> str:
        return f"{self.study.study_name}-{self.facts.token}-trial-{number}"

    def _as_before(self, trial: Trial, same: optuna.trial.FrozenTrial) -> None:
        """The same params, so the same bytes: nothing is to be learnt from training them again."""
        del self._trials[self._name(trial.number)]
        trial.set_user_attr(WORDS, f"the params of trial {same.number}")
        trial.set_user_attr(RUN, same.user_attrs[RUN])
        self.study.tell(trial.number, same.value)
        self.say(f"trial {trial.number}: the params of trial {same.number}, so its result")

    def _watch(self, job: Job) -> bool:
        """Report the probes of a training to Optuna; is it worth going on?"""
        now = time.monotonic()
        if now - self._looked.get(job.name, now - LOOK_EVERY_S) < LOOK_EVERY_S:
            return True
        self._looked[job.name] = now
        trial = self._trials[job.name]
        count = self._report(job, trial)
        if not count or count >= self.params.train.probes or not trial.should_prune():
            return True
        trial.set_user_attr(STOPPED, count)
        return False

    def _report(self, job: Job, trial: Trial) -> int:
        """By number and not by step: trainings of another length or batch have others."""
        values = self.pages.probes(job, self.probe)
        known = self.study.trials[trial.number].intermediate_values
        for number, value in enumerate(values, 1):
            if number not in known:
                trial.report(self.sign * value, number)
        return len(values)

    def _ended(self, job: Job, seen: Seen) -> None:
        trial = self._trials.pop(job.name)
        stopped = self.study.trials[trial.number].user_attrs.get(STOPPED)
        if stopped is not None:
            told = f"after probe {stopped} of {self.params.train.probes}, worse than the median"
            self._tell(job, trial, TrialState.PRUNED, "pruned", told)
        elif seen.state is State.DONE:
            self._measured(job, trial)
        elif self.pages.collapsed(job):
            self._report(job, trial)
            self._tell(job, trial, TrialState.PRUNED, "collapsed", seen.words)
        else:
            self._tell(job, trial, TrialState.FAIL, "failed", seen.words)

    def _measured(self, job: Job, trial: Trial) -> None:
        self._report(job, trial)
        measured = self.pages.measured(job, self.facts.objective)
        if isinstance(measured, str):
            self._tell(job, trial, TrialState.FAIL, "failed", measured)
            return
        if other := is_pinned(self.study, "passport", measured.passport, _differ):
            told = f"it was measured by another ruler than the first trial: {other}"
            self._tell(job, trial, TrialState.FAIL, "failed", told)
            return
        trial.set_user_attr(RUN, measured.run_id)
        trial.set_user_attr("seconds", measured.seconds)
        told = f"{METRICS[self.facts.objective].name} {measured.value:.4g}"
        self._tell(job, trial, TrialState.COMPLETE, "complete", told, measured.value)

    def _tell(
        self,
        job: Job,
        trial: Trial,
        state: TrialState,
        tag: str,
        words: str,
        value: float | None = None,
    ) -> None:
        if state is not TrialState.COMPLETE:
            trial.set_user_attr(WORDS, words)
        self.pages.mark(job, tag)
        self.study.tell(trial.number, value, state)
        self.say(f"trial {trial.number}: {'' if value is not None else f'{tag}: '}{words}")
        self._failures = self._failures + 1 if state is TrialState.FAIL else 0
        if self._failures >= GIVE_UP_AFTER:
            raise CganError(
                f"{GIVE_UP_AFTER} trials in a row failed; the last: {words}\nMend that, then run the same "
                "command again: it goes on."
            )


def _differ(first: dict[str, Any], other: dict[str, Any]) -> str:
    found = passports_differ({"passport": first}, {"passport": other})
    return ", ".join(f"{key} {a} and {b}" for key, (a, b) in found.items())


def _in_words(values: dict[str, Any]) -> str:
    return ", ".join(f"{key.removeprefix('train.')} {value}" for key, value in values.items())
