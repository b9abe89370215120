"""A sweep's study in Optuna's storage: what it is of, and all that a driver has to remember."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from cgan import git
from cgan.errors import CganError
from cgan.params.reading import parse_yaml, read_yaml
from cgan.params.sections import Params, flatten
from cgan.quality.table import METRICS
from cgan.store.address import with_driver, without_credentials
from cgan.store.database import require_database
from flows.sweep.jobs import Job

STORAGE = "OPTUNA_STORAGE"
# Attributes of a trial: the params that it trains, its MLflow run, why it has no result, and at which probe
# the driver decided to stop it.
VALUES, RUN, WORDS, STOPPED = "params", "run", "words", "stopped"
CODE = ("cgan", "dvc.yaml")  # what a result depends on, beside params and data
NOT_PART = ("sweep", "gate", "reevaluate", "tracking")  # sections that change no result


@dataclass(frozen=True)
class Facts:
    """What all trainings of a sweep share, as it was when the sweep began.

    `base`: the params that differed from those of the commit. `digest`: of all that a result depends on.
    `token` is in all its names: a sweep of the same params in another storage is another sweep.
    """

    commit: str
    base: dict[str, Any]
    objective: str
    digest: str
    token: str


def facts_of(folder: Path, params: Params, commit: str) -> Facts:
    """The facts of a sweep that begins now, with the code of `commit`.

    Raises CganError where the code of the working tree is another.
    """
    changed = (
        git.git("diff", "--name-only", commit, "--", *CODE, folder=folder).decode().splitlines()
    )
    others = ("ls-files", "--others", "--exclude-standard", "--", *CODE)
    if changed := changed + git.git(*others, folder=folder).decode().splitlines():
        raise CganError(
            f"{', '.join(changed[:5])}: not as in commit {commit[:10]}, and the trainings of a sweep run the "
            "code of a commit. Commit the change (for a pool also: `make deploy`), then start the sweep."
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
    return Facts(commit, base, params.sweep.objective, digest, secrets.token_hex(3))


def result_params(params: Params) -> dict[str, Any]:
    """All that a result depends on, flat."""
    return {k: v for k, v in flatten(params).items() if k.partition(".")[0] not in NOT_PART}


def storage_address(base: Path) -> str:
    """OPTUNA_STORAGE, else a file of the project."""
    return (
        with_driver(os.environ.get(STORAGE, "").strip())
        or f"sqlite:///{base / '.cgan' / 'optuna.db'}"
    )


def open_study(base: Path, name: str, params: Params, facts: Facts) -> tuple[optuna.Study, Facts]:
    """The study `name`, made if it is new, and its facts.

    Raises CganError where the storage cannot be used, or holds a sweep of that name of something else.
    """
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    address = storage_address(base)
    require_database(address, STORAGE)
    (base / ".cgan").mkdir(exist_ok=True)
    s = params.sweep
    try:
        study = optuna.create_study(
            storage=address,
            study_name=name,
            direction="minimize" if METRICS[s.objective].better == "lower" else "maximize",
            load_if_exists=True,
        )
        if other := is_pinned(study, "digest", facts.digest, lambda a, b: a * (a != b)):
            raise CganError(
                f"the sweep `{name}` is of other params, data, code, space or objective (digest "
                f"{other[:8]}, now {facts.digest[:8]}). Bring those back to go on with it, or give this one "
                "another --name."
            )
        is_pinned(study, "facts", asdict(facts), lambda *_: "")
        facts = Facts(**study.user_attrs["facts"])
        count = len(study.get_trials(deepcopy=False))
    except CganError:
        raise
    except Exception as error:
        lines = str(error).strip().splitlines() or [""]
        raise CganError(
            f"Optuna's storage {without_credentials(address)} cannot be used ({type(error).__name__}: "
            f"{lines[0][:200]}). {STORAGE} names it, such as postgresql://HOST/DATABASE."
        ) from None
    # A sampler's dice are in no storage: with the same seed again, a second driver would repeat the first
    # throws.
    study.sampler = optuna.samplers.TPESampler(
        seed=s.seed + count,
        n_startup_trials=len(s.space) + 2,
        multivariate=True,
        constant_liar=True,  # trials that run are taken for bad ones: nobody else goes there
    )
    study.pruner = optuna.pruners.NopPruner()
    if s.prune_after_trials is not None and params.train.probes:
        study.pruner = optuna.pruners.MedianPruner(s.prune_after_trials, s.prune_after_probes)
    return study, facts


def is_pinned(study: optuna.Study, key: str, value: Any, differ: Callable[[Any, Any], str]) -> str:
    """Write an attribute of the study down if it has none of that name; else, how the two differ."""
    if key not in study.user_attrs:
        study.set_user_attr(key, value)
        return ""
    return differ(study.user_attrs[key], value)


def finished(study: optuna.Study) -> list[FrozenTrial]:
    """The trials that count as results."""
    both = [TrialState.COMPLETE, TrialState.PRUNED]
    return study.get_trials(deepcopy=False, states=both)


class Counted:
    """How often each job was begun; it outlives the driver."""

    def __init__(self, study: optuna.Study) -> None:
        self.study = study

    def __call__(self, job: Job) -> int:
        return int(self.study.user_attrs.get(f"attempts {job.name}", 1))

    def again(self, job: Job) -> int:
        count = self(job) + 1
        self.study.set_user_attr(f"attempts {job.name}", count)
        return count
