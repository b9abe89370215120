"""The search: Optuna proposes params, trainings answer, and all that is known of it is in Optuna's storage.

A trial is RUNNING in the storage from before its training begins until after its result is written down, and
its job's name follows from its number. So a new driver knows which trainings to start again or to find.
"""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, Trial, TrialState

from cgan import git
from cgan.errors import CganError
from cgan.params.reading import parse_yaml
from cgan.params.sections import Params, flatten
from cgan.quality.intervals import passports_differ
from cgan.quality.table import METRICS
from flows.sweep import space
from flows.sweep.jobs import Job, Place, Seen, State, work
from flows.sweep.pages import Pages

STORAGE = "OPTUNA_STORAGE"
FACTS, ATTEMPTS, VALUES, WORDS, RUN, STOPPED = "facts", "attempts", "params", "words", "run", "stopped"
GIVE_UP_AFTER = 3  # failures, when nothing else has happened: the next would fail too
# What a training's own judge says of its drawings, and how it goes with the objective.
ACCURACY, DISTANCE = "probe/conditional_accuracy", "probe/fid_judge"
BY_ACCURACY = ("conditional_accuracy", "worst_class_accuracy", "gan_train_accuracy")
CODE = ("cgan", "dvc.yaml")  # what results depend on, beside params and data
NOT_PART = ("sweep", "gate", "reevaluate", "tracking")  # sections that change no result


def storage_address(base: Path) -> str:
    """OPTUNA_STORAGE, else a file of the project."""
    return os.environ.get(STORAGE, "").strip() or f"sqlite:///{base / '.cgan' / 'optuna.db'}"


@dataclass(frozen=True)
class Facts:
    """What all trainings of a sweep share; as it was when the sweep began."""

    commit: str
    base: dict[str, Any]  # params that differ from those of the commit
    objective: str


def facts_of(folder: Path, params: Params) -> tuple[Facts, str]:
    """The facts of a sweep that begins now, and a digest of all that its results depend on."""
    commit = git.git("rev-parse", "HEAD", folder=folder).decode().strip()
    changed = [
        name
        for name in git.git("status", "--porcelain", "--", *CODE, folder=folder).decode().splitlines()
        if name.strip()
    ]
    if changed:
        raise CganError(
            f"changed since commit {commit[:10]}: {', '.join(line[3:] for line in changed[:5])}. The trainings "
            "of a sweep run the code of a commit: commit the change, then start the sweep."
        )
    committed = parse_yaml(git.git("show", "HEAD:params.yaml", folder=folder).decode(), "params.yaml")
    then, now = flatten(committed), flatten(params)
    here = {key: value for key, value in now.items() if key.split(".")[0] not in NOT_PART}
    base = {key: value for key, value in here.items() if then.get(key, ...) != value}
    code = [git.git("rev-parse", f"HEAD:{name}", folder=folder).decode() for name in CODE]
    searched = {key: each.model_dump() for key, each in params.sweep.space.items()}
    whole = json.dumps([here, code, searched, params.sweep.objective], sort_keys=True)
    facts = Facts(commit, base, params.sweep.objective)
    return facts, hashlib.sha256(whole.encode()).hexdigest()[:8]


def open_study(base: Path, name: str, params: Params) -> optuna.Study:
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    address = storage_address(base)
    (base / ".cgan").mkdir(exist_ok=True)
    s = params.sweep
    try:
        study = optuna.create_study(
            storage=address,
            study_name=name,
            direction="minimize" if METRICS[s.objective].better == "lower" else "maximize",
            load_if_exists=True,
        )
    except Exception as error:
        shown = address.split("@")[-1]
        raise CganError(
            f"Optuna's storage {shown} cannot be used ({type(error).__name__}: "
            f"{str(error).splitlines()[0][:200]}). {STORAGE} names it."
        ) from None
    # A sampler's dice are not stored: with the same seed again, a second driver would repeat the first throws.
    study.sampler = optuna.samplers.TPESampler(
        seed=s.seed + len(study.get_trials(deepcopy=False)),
        n_startup_trials=max(5, len(s.space) + 1),
        multivariate=True,
        constant_liar=True,
    )
    study.pruner = (
        optuna.pruners.NopPruner()
        if s.prune_after_trials is None
        else optuna.pruners.MedianPruner(s.prune_after_trials, s.prune_after_probes)
    )
    return study


class Counted:
    """Attempts of jobs, in the study."""

    def __init__(self, study: optuna.Study) -> None:
        self.study = study

    def __call__(self, job: Job) -> int:
        return int(self.study.user_attrs.get(f"{ATTEMPTS} {job.name}", 1))

    def again(self, job: Job) -> int:
        count = self(job) + 1
        self.study.set_user_attr(f"{ATTEMPTS} {job.name}", count)
        return count


class Search:
    """Trials until there are `wanted`. `parent` is MLflow's run of the sweep."""

    def __init__(
        self,
        study: optuna.Study,
        params: Params,
        facts: Facts,
        place: Place,
        pages: Pages,
        parent: str,
    ) -> None:
        self.study, self.params, self.facts = study, params, facts
        self.place, self.pages, self.parent = place, pages, parent
        self.distributions = space.distributions(params)
        self._trials: dict[str, Trial] = {}
        self._failures = 0

    def run(self, wanted: int, parallel: int, say: Any) -> None:
        self.say = say
        if not self.study.get_trials(deepcopy=False):
            self._begin_with_the_present()
        work(
            self.place,
            self._upcoming(wanted),
            parallel,
            Counted(self.study),
            self._watch,
            self._ended,
        )

    def _begin_with_the_present(self) -> None:
        """The first trial is what params.yaml holds, as far as the space has it."""
        inside = space.present(self.params)
        self.study.enqueue_trial(inside, skip_if_exists=True)

    def _upcoming(self, wanted: int) -> Iterator[Job]:
        for frozen in self.study.get_trials(deepcopy=False, states=[TrialState.RUNNING]):
            yield self._job(Trial(self.study, frozen._trial_id))
        while True:
            known = [t for t in self.study.get_trials(deepcopy=False) if t.state != TrialState.WAITING]
            if len(known) >= wanted:
                return
            yield self._job(self.study.ask())

    def _job(self, trial: Trial) -> Job:
        """What a trial trains. What was suggested before a kill stays; what is missing is suggested now."""
        suggested = {key: trial._suggest(key, each) for key, each in self.distributions.items()}
        values = space.rounded(self.params, suggested)
        trial.set_user_attr(VALUES, values)
        name = f"{self.study.study_name}-trial-{trial.number}"
        tags = self.pages.child_tags(
            self.study.study_name, self.parent, name, "trial", f"trial {trial.number}"
        )
        job = Job(name, {**self.facts.base, **values}, tags)
        self._trials[name] = trial
        return job

    def _watch(self, job: Job) -> bool:
        return True

    def _ended(self, job: Job, seen: Seen) -> None:
        trial = self._trials.pop(job.name)
        if seen.state is State.DONE:
            run = self.pages.child(job)
            assert run is not None
            value = run.data.metrics[f"quality/{self.facts.objective}"]
            trial.set_user_attr(RUN, run.info.run_id)
            self.study.tell(trial.number, value)
            self.pages.mark(job, "complete")
            self.say(f"trial {trial.number}: {self.facts.objective} {value:.4g}")
        else:
            trial.set_user_attr(WORDS, seen.words)
            self.study.tell(trial.number, state=TrialState.FAIL)
            self.say(f"trial {trial.number}: failed: {seen.words}")
        self.place.tidy(job)
