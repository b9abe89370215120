"""A sweep's study: what its trials share and search, and Optuna's storage, which remembers them."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import threading
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, Trial, TrialState

from cgan import git
from cgan.errors import CganError, ParamsError
from cgan.params.reading import check_params, is_whole, parse_yaml, read_yaml
from cgan.params.sections import Params, flatten
from cgan.quality.table import METRICS
from cgan.store.address import with_driver, without_credentials
from cgan.store.database import require_database

STORAGE = "OPTUNA_STORAGE"
# Attributes of a trial: the params that it trains, its MLflow run, why it has no result of its own.
PARAMS, RUN, WHY = "params", "run", "why"
CODE = ("cgan", "dvc.yaml")  # what a result depends on, beside params and data
NOT_PART = ("sweep", "gate", "reevaluate", "tracking")  # sections that change no result
TRIED = 2000  # combinations of values


class Storage(RDBStorage):
    """SQLite would give the same waiting trial to two threads that ask at once."""

    lock = threading.Lock()

    def set_trial_state_values(self, *arguments: Any, **named: Any) -> bool:
        with self.lock:
            return super().set_trial_state_values(*arguments, **named)


def facts_of(folder: Path, params: Params, commit: str) -> dict[str, Any]:
    """What all trainings share of a sweep that begins now, with the code of `commit`.

    `base`: the params that differ from those of the commit; `digest`: of all that a result depends on.
    Raises CganError where the code of the working tree is another.
    """
    changed = git.git("diff", "--name-only", commit, "--", *CODE, folder=folder)
    changed += git.git("ls-files", "--others", "--exclude-standard", "--", *CODE, folder=folder)
    if changed:
        raise CganError(
            f"{', '.join(changed.decode().splitlines()[:5])}: not as in commit {commit[:10]}, and the "
            "trainings of a sweep run the code of a commit. Commit the change (for a pool also: `make "
            "deploy`), then start the sweep."
        )
    text = git.git("show", f"{commit}:params.yaml", folder=folder).decode()
    committed = flatten(parse_yaml(text, f"params.yaml of {commit[:10]}"))
    here = result_params(params)
    # As written: DVC takes `6` and `6.0` for two values, and would train the best trial again.
    written = flatten(read_yaml(folder / "params.yaml"))
    base = {k: written.get(k, v) for k, v in here.items() if committed.get(k, ...) != v}
    code = [git.git("rev-parse", f"{commit}:{name}", folder=folder).decode() for name in CODE]
    searched = {key: each.model_dump() for key, each in params.sweep.space.items()}
    whole = json.dumps([here, code, searched, params.sweep.objective], sort_keys=True)
    digest = hashlib.sha256(whole.encode()).hexdigest()
    return {"commit": commit, "base": base, "digest": digest}


def result_params(params: Params) -> dict[str, Any]:
    """All that a result depends on, flat."""
    return {k: v for k, v in flatten(params).items() if k.partition(".")[0] not in NOT_PART}


def open_study(base: Path, name: str, params: Params, facts: dict[str, Any]) -> optuna.Study:
    """The study `name`, made if it is new; trials that a dead driver left wait to be asked for again.

    Its attributes are the facts. Raises CganError where the storage cannot be used, or holds a sweep of that
    name of something else.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    (base / ".cgan").mkdir(exist_ok=True)
    address = with_driver(os.environ.get(STORAGE, "").strip())
    address = address or f"sqlite:///{base / '.cgan' / 'optuna.db'}"
    require_database(address, STORAGE)
    s = params.sweep
    try:
        storage = Storage(address)
        study = optuna.create_study(
            storage=storage,
            study_name=name,
            direction="minimize" if METRICS[s.objective].better == "lower" else "maximize",
            load_if_exists=True,
        )
        for key in facts.keys() - study.user_attrs.keys():
            study.set_user_attr(key, facts[key])
        trials = study.get_trials(deepcopy=False)
    except Exception as error:  # Optuna's, SQLAlchemy's, a driver's
        first = (str(error).strip().splitlines() or [""])[0]
        raise CganError(
            f"Optuna's storage {without_credentials(address)} cannot be used ({type(error).__name__}: "
            f"{first[:200]}). {STORAGE} names it, such as postgresql://HOST/DATABASE."
        ) from None
    if (digest := study.user_attrs["digest"]) != facts["digest"]:
        raise CganError(
            f"the sweep `{name}` is of other params, data, code, space or objective (digest {digest[:8]}, "
            f"now {facts['digest'][:8]}). Bring those back to go on with it, or give this one another --name."
        )
    if not trials:
        study.enqueue_trial(present(params))
    for trial in trials:
        if trial.state is TrialState.RUNNING:  # nobody runs it: one sweep at a time
            storage.set_trial_state_values(trial._trial_id, TrialState.WAITING)
    study.sampler = optuna.samplers.TPESampler(
        seed=s.seed
        + len(trials),  # with the same one again, a second driver would repeat the first
        n_startup_trials=len(s.space) + 2,
        multivariate=True,
        constant_liar=True,  # trials that run are taken for bad ones: nobody else goes there
    )
    study.pruner = optuna.pruners.NopPruner()
    if s.prune_after_trials is not None and params.train.probes:
        study.pruner = optuna.pruners.MedianPruner(s.prune_after_trials, s.prune_after_probes)
    return study


def trials_that(study: optuna.Study, *states: TrialState) -> list[FrozenTrial]:
    return study.get_trials(deepcopy=False, states=states)


def best_of(study: optuna.Study) -> FrozenTrial | None:
    return study.best_trial if trials_that(study, TrialState.COMPLETE) else None


# -- The space ----------------------------------------------------------------------------------------


def short(key: str) -> str:
    """Optuna's name of a param: its plots have no room for `train.`"""
    return key.removeprefix("train.")


def suggest(trial: Trial, params: Params) -> dict[str, Any]:
    """A value for each param of the space, with three digits: more would make no difference."""
    found: dict[str, Any] = {}
    for key, each in params.sweep.space.items():
        low, *_, high = each.bounds()
        if each.choices is not None:
            found[key] = trial.suggest_categorical(short(key), each.choices)
        elif is_whole(key):
            step = int(each.step or 1)
            found[key] = trial.suggest_int(short(key), int(low), int(high), step=step, log=each.log)
        else:
            value = trial.suggest_float(short(key), low, high, step=each.step, log=each.log)
            found[key] = float(f"{value:.3g}")
    return found


def present(params: Params) -> dict[str, Any]:
    """What params.yaml holds now, by Optuna's names, where the space has that value."""
    now = params.train.model_dump()
    found = {}
    for key, each in params.sweep.space.items():
        value, bounds = now[short(key)], each.bounds()
        is_number = each.choices is None and not isinstance(value, str)  # it may be `auto`
        if value in bounds or (is_number and bounds[0] <= value <= bounds[-1]):
            found[short(key)] = value
    return found


def check_combinations(params: Params) -> None:
    """Raise ParamsError for ends and choices that do not go together, such as a batch of odd size.

    Of very many combinations only the first are tried; what is wrong with others is a trial's own error.
    """
    document = params.model_dump(by_alias=True)
    bounds = [each.bounds() for each in params.sweep.space.values()]
    for values in itertools.islice(itertools.product(*bounds), TRIED):
        named = dict(zip(params.sweep.space, values, strict=True))
        train = document["train"] | {short(key): value for key, value in named.items()}
        try:
            check_params({**document, "train": train}, "sweep.space")
        except ParamsError as error:
            told = ", ".join(f"{key} = {value}" for key, value in named.items())
            raise ParamsError(
                f"{error} Values of the space must go together in every combination; here: {told}."
            ) from None
