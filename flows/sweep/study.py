"""A sweep's study: what its trials share and search, and Optuna's storage, which remembers them."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import FrozenTrial, Trial, TrialState
from sqlalchemy import NullPool

from cgan import git
from cgan.errors import CganError
from cgan.params.editing import preset_names, preset_params
from cgan.params.reading import check_params, is_whole, parse_yaml, read_yaml
from cgan.params.sections import Params, flatten
from cgan.quality.table import METRICS
from flows.databases import require_database, with_driver

STORAGE = "OPTUNA_STORAGE"
CODE = ("cgan", "dvc.yaml")  # what a result depends on, beside params and data
NOT_PART = ("sweep", "gate", "tracking")  # sections that change no result
TRIED = 2000  # combinations of values


def result_params(params: Params) -> dict[str, Any]:
    """All that a result depends on, flat."""
    return {k: v for k, v in flatten(params).items() if k.partition(".")[0] not in NOT_PART}


def uncommitted_params(folder: Path, params: Params, commit: str) -> dict[str, Any]:
    """The params that differ from those of the commit: each training is given them.

    Raises CganError where the code of the working tree differs, too.
    """
    changed = git.git("diff", "--name-only", commit, "--", *CODE, folder=folder)
    changed += git.git("ls-files", "--others", "--exclude-standard", "--", *CODE, folder=folder)
    if changed:
        raise CganError(
            f"{', '.join(changed.decode().splitlines()[:5])}: not as in commit {commit[:10]}, and the "
            "trainings of a sweep run the code of a commit. Commit the change (for a pool also: `make "
            "deploy`), then start the sweep."
        )
    committed = flatten(_params_of(folder, commit))
    # As written: DVC takes `6` and `6.0` for two values, and would train the best trial again.
    written = flatten(read_yaml(folder / "params.yaml"))
    here = result_params(params).items()
    return {k: written.get(k, v) for k, v in here if committed.get(k, ...) != v}


def _params_of(folder: Path, revision: str) -> Any:
    text = git.git("show", f"{revision}:params.yaml", folder=folder).decode()
    return parse_yaml(text, f"params.yaml of {revision}")


def other_params(folder: Path, params: Params, name: str) -> dict[str, Any]:
    """What a preset or a revision has otherwise in `train`, but for the seed. Raises CganError."""
    known = preset_names()
    try:
        there = preset_params(name) if name in known else _params_of(folder, name)["train"]
    except git.GitError as error:
        raise CganError(
            f"--against {name}: no preset ({', '.join(known)}), and no commit here ({error})."
        ) from None
    others = {k: v for k, v in there.items() if k != "seed" and getattr(params.train, k, ...) != v}
    document = params.model_dump(by_alias=True)
    check_params({**document, "train": document["train"] | others}, f"`train` of {name}")
    return {f"train.{key}": value for key, value in others.items()}


def study_name(folder: Path, prefix: str, commit: str, asked: list[Any]) -> str:
    """The same for the same code and what is asked."""
    code = [git.git("rev-parse", f"{commit}:{name}", folder=folder).decode() for name in CODE]
    whole = json.dumps([code, asked], sort_keys=True, default=str)
    return f"{prefix}-{hashlib.sha256(whole.encode()).hexdigest()[:8]}"


def open_study(base: Path, name: str, params: Params) -> optuna.Study:
    """The study `name`, made if it is new; trials that a dead driver left wait to be asked for again."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    address = with_driver(os.environ.get(STORAGE, "").strip())
    require_database(address, STORAGE)
    s = params.sweep
    study = optuna.create_study(
        storage=optuna.storages.RDBStorage(
            address or f"sqlite:///{base / '.cgan' / 'optuna.db'}",
            engine_kwargs={"poolclass": NullPool},  # a connection is closed after its use
        ),
        study_name=name,
        direction="minimize" if METRICS[s.objective].better == "lower" else "maximize",
        load_if_exists=True,
    )
    trials = study.get_trials(deepcopy=False)
    if not trials:
        study.enqueue_trial(_present(params))
    for trial in trials:
        if trial.state is TrialState.RUNNING:  # nobody runs it: one sweep at a time
            study._storage.set_trial_state_values(trial._trial_id, TrialState.WAITING)
    # With the same seed again, a second driver would repeat the first. Trials that run are taken for bad
    # ones: nobody else goes there.
    study.sampler = optuna.samplers.TPESampler(
        seed=s.seed + len(trials),
        n_startup_trials=len(s.space) + 2,
        multivariate=True,
        constant_liar=True,
    )
    study.pruner = optuna.pruners.NopPruner()
    if s.prune_after_trials is not None and params.train.probes:
        study.pruner = optuna.pruners.MedianPruner(s.prune_after_trials, s.prune_after_probes)
    return study


def trials_that(study: optuna.Study, *states: TrialState) -> list[FrozenTrial]:
    return study.get_trials(deepcopy=False, states=states)


def best_of(study: optuna.Study) -> FrozenTrial | None:
    return study.best_trial if trials_that(study, TrialState.COMPLETE) else None


def space_of(params: Params) -> dict[str, BaseDistribution]:
    """What is searched, in Optuna's terms."""
    found: dict[str, BaseDistribution] = {}
    for key, each in params.sweep.space.items():
        low, *_, high = each.bounds()
        if each.choices is not None:
            found[key] = CategoricalDistribution(each.choices)
        elif is_whole(key):
            found[key] = IntDistribution(int(low), int(high), each.log, int(each.step or 1))
        else:
            found[key] = FloatDistribution(low, high, each.log, each.step)
    return found


def trained(trial: Trial | FrozenTrial) -> dict[str, Any]:
    """The params that a trial trains: with three digits, more would make no difference."""
    values = dict(trial.params)
    for key, kind in trial.distributions.items():
        if isinstance(kind, FloatDistribution):
            values[key] = float(f"{values[key]:.3g}")
    return values


def in_words(values: dict[str, Any]) -> str:
    return ", ".join(f"{key.removeprefix('train.')} {value}" for key, value in values.items())


def _present(params: Params) -> dict[str, Any]:
    """What params.yaml holds now, where the space has that value."""
    now, found = flatten(params), {}
    for key, each in params.sweep.space.items():
        value, bounds = now[key], each.bounds()
        is_number = each.choices is None and not isinstance(value, str)  # it may be `auto`
        if value in bounds or (is_number and bounds[0] <= value <= bounds[-1]):
            found[key] = value
    return found


def check_combinations(params: Params) -> None:
    """Raise ParamsError for ends and choices that do not go together, such as a batch of odd size.

    Of very many combinations only the first are tried; what is wrong with others is a trial's own error.
    """
    document = params.model_dump(by_alias=True)
    names = [key.removeprefix("train.") for key in params.sweep.space]
    bounds = [each.bounds() for each in params.sweep.space.values()]
    for values in itertools.islice(itertools.product(*bounds), TRIED):
        named = dict(zip(names, values, strict=True))
        where = f"sweep.space, of which all combinations must be possible, with {in_words(named)}"
        check_params({**document, "train": document["train"] | named}, where)
