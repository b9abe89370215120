"""Search for better params of `train` with Optuna, or say whether the present ones are better than others.

    python -m flows.sweep --trials 20 [--parallel 2] [--storage URL]
    python -m flows.sweep --seeds 5 [--against HEAD]

Each training is `dvc repro evaluate` in a checkout of HEAD with this params.yaml. Run the same command again
to continue a sweep; with the same storage, another machine takes part. See docs/sweeps.md.
"""

import argparse
import contextlib
import hashlib
import importlib.util
import itertools
import json
import os
import signal
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import psutil

from cgan import git
from cgan.errors import CganError
from cgan.evaluation import METRICS, Evaluation, context_differences
from cgan.files import locked
from cgan.params.checks import check_params
from cgan.params.sections import Params, SweepChoices, flatten
from cgan.pipeline.params_file import load_params, parse_yaml, set_params
from cgan.project import EVALUATION, require_project
from cgan.quality.intervals import difference_of_means
from cgan.text import listed
from flows.checkout import checkout, environment
from flows.repro import CONTEXT_VARIABLE, has_remote, in_session, say

CODE_PATHS = ("cgan", "dvc.yaml")  # what a result depends on, beside params and data
NO_EFFECT = ("sweep", "gate", "tracking")  # sections that change no result
LOGS = Path(".cgan/sweeps")
STUDY_TAG = "cgan.sweep"  # tag of the MLflow runs

Values = dict[str, Any]  # of params, by their dotted keys


def train_trial(base: Path, commit: str, study: str, number: int, values: Values) -> Evaluation:
    """The evaluation of a training by a commit's code, with these values in place of those of params.yaml.
    Raises CganError with the message of a stage that fails."""
    path = base / LOGS / f"{study.replace('/', '-')}-{number}.log"  # a branch may have a slash
    log = path.open("a", buffering=1, encoding="utf-8")
    with log, checkout(base, commit, base / "params.yaml") as folder:
        set_params(values, folder / "params.yaml")
        variables = {**environment(base, folder), CONTEXT_VARIABLE: json.dumps({STUDY_TAG: study})}
        pull = ["--pull"] if has_remote(folder) else []  # data and judge may be there
        run = partial(
            in_session, on_line=partial(print, file=log), folder=folder, variables=variables
        )
        run("dvc", "repro", *pull, "evaluate")
        try:
            run("cgan.stages.record")
        except CganError as error:  # its result counts all the same
            say(f"{path.stem}: its run is not complete in MLflow. {error}")
        return Evaluation.read(folder / EVALUATION)


def value_of(evaluation: Evaluation, key: str) -> float:
    """The value of the metric `key`. Raises CganError where the evaluation has none."""
    value = evaluation.score(key).value
    if value is None:
        why = evaluation.not_measurable or "it was not asked for (params.yaml: `evaluate`)"
        raise CganError(f"{key} has no value: {why}.")
    return value


def search(base: Path, commit: str, params: Params, args: argparse.Namespace) -> None:
    """Search until there are `--trials` results, those of earlier calls and of other machines included."""
    import optuna
    from optuna.study import MaxTrialsCallback
    from optuna.trial import TrialState

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sweep = params.sweep
    study = _open_study(base, commit, params, args.storage)
    machine_and_folder = f"{os.uname().nodename}:{base}"
    for trial in study.get_trials(states=(TrialState.RUNNING,)):
        # One that was abandoned, for only one sweep at a time runs here.
        if trial.user_attrs.get("here") == machine_and_folder:
            study.tell(trial.number, state=TrialState.FAIL)
            study.enqueue_trial(trial.params)

    def objective(trial: Any) -> float:
        trial.set_user_attr("here", machine_and_folder)
        values = _suggest(trial, params)
        say(f"trial {trial.number}: {_in_words(values)}")
        evaluation = train_trial(base, commit, study.study_name, trial.number, values)
        first = study.user_attrs.get("measurement_context", evaluation.context)
        study.set_user_attr("measurement_context", first)
        if differs := ", ".join(context_differences(first, evaluation.context, sweep.objective)):
            raise CganError(f"it was measured differently from the first trial: {differs}")
        value = value_of(evaluation, sweep.objective)
        say(f"trial {trial.number}: {sweep.objective} {value:.4g}")
        return value

    def count(state: TrialState) -> int:
        return len(study.get_trials(deepcopy=False, states=(state,)))

    def count_missing() -> int:
        return max(0, int(args.trials) - count(TrialState.COMPLETE))

    done = count(TrialState.COMPLETE)
    say(f"{study.study_name}: {args.trials} trials, {args.parallel} at a time; {done} are done")
    optimize = partial(study.optimize, objective, callbacks=[MaxTrialsCallback(args.trials)])
    if not done:  # it makes the data and the judge for all, and may show that nothing works
        optimize(n_trials=1)
    # One at a time: of those that wait, two threads may take the same (SQLite has no locks for rows).
    optimize(n_trials=min(count_missing(), count(TrialState.WAITING)), catch=CganError)
    optimize(n_trials=count_missing(), n_jobs=args.parallel, catch=CganError)
    if missing := count_missing():
        say(
            f"{missing} of {args.trials} are missing: the same command tries as many more. {LOGS} says why."
        )
    best = " ".join(f"-S {key}={value}" for key, value in _round(study.best_params).items())
    rival, command = "HEAD", "python -m flows.sweep --seeds 5"
    if params.train.generator == "local_score":
        rival, command = "an earlier run, RUN in MLflow", "cgan compare RUN ."
    say(
        f"The best, {sweep.objective} {study.best_value:.4g}, is partly luck. Train with it, and test "
        f"whether it is better than {rival}:\n  dvc exp run {best}\n  {command}"
    )


def _open_study(base: Path, commit: str, params: Params, storage: str | None) -> Any:
    """Optuna's study of this code and these params; a new one begins with the present params."""
    import optuna

    sweep, better = params.sweep, METRICS[params.sweep.objective].better
    study = optuna.create_study(
        storage=storage_at(storage or f"sqlite:///{base / '.cgan' / 'optuna.db'}"),
        study_name=_study_name(base, commit, "sweep", params),
        direction="minimize" if better == "lower" else "maximize",
        load_if_exists=True,
    )
    # With the same seed, a second sweep would repeat the first.
    # Optuna 4 and 5 have other defaults: set, a seed means the same.
    study.sampler = optuna.samplers.TPESampler(
        seed=1 + len(study.trials),
        n_startup_trials=len(sweep.space) + 2,
        multivariate=True,
        constant_liar=True,
    )
    if not study.trials:
        present = flatten(params.model_dump(by_alias=True))
        study.enqueue_trial(
            {key: present[key] for key, axis in sweep.space.items() if axis.has(present[key])}
        )
    return study


def storage_at(url: str) -> Any:
    """Optuna's storage. It closes each connection after use: a pool would leave that to the collector."""
    from optuna.storages import RDBStorage
    from sqlalchemy.pool import NullPool

    return RDBStorage(url, engine_kwargs={"poolclass": NullPool})


def compare(base: Path, commit: str, params: Params, args: argparse.Namespace) -> None:
    """Train with seeds by which no params were chosen, and again with the `train` of `--against`.

    Raises CganError for a sampler, which no seed changes: a difference would always look certain."""
    if params.train.generator == "local_score":
        raise CganError(
            "--seeds compares trainings, and params.yaml has `train.generator: local_score`, which is not "
            "trained: every seed gives the same drawings. `cgan compare RUN .` compares this run with RUN, "
            "an earlier one in MLflow."
        )
    name, key, count = args.against or "HEAD", params.sweep.objective, args.seeds
    other_params, first = _other_params(base, params, name), params.train.seed + 1
    roles: dict[str, Values] = {"present": {}, **({name: other_params} if other_params else {})}
    say(f"{count} fresh seeds each: {', '.join(roles)}")

    def measured(role: str, seed: int) -> float:
        study = f"seeds-{_study_name(base, commit, role, params)}"
        evaluation = train_trial(base, commit, study, seed, {**roles[role], "train.seed": seed})
        value = value_of(evaluation, key)
        say(f"{role}, seed {seed}: {key} {value:.4g}")
        return value

    pairs = list(itertools.product(roles, range(first, first + count)))
    values = [measured(*pairs[0])]  # it makes the data and the judge for all
    with ThreadPoolExecutor(args.parallel) as threads:
        values += threads.map(measured, *zip(*pairs[1:], strict=True))
    present_values, other_values = values[:count], values[count:]
    for role, group in zip(roles, (present_values, other_values), strict=False):
        say(f"{role}: {key} {fmean(group):.4g} ± {stdev(group):.2g} over {count} seeds")
    if other_params:
        words = verdict(key, name, other_values, present_values)
        say(f"otherwise in {name}: {_in_words(other_params)}\n{words}")
    else:
        say(f"{name} has the same `train`: there is nothing to compare.")


def verdict(key: str, name: str, others: list[float], present: list[float]) -> str:
    """Are the present params better than the others, by more than the luck of seeds?"""
    change, (low, high) = difference_of_means(others, present)
    words = f"{key} differs by {change:+.3g}"
    if change and low == high:  # of a sampler, which `auto` chose
        return f"{words}, whatever the seed. `cgan compare` says whether that is chance."
    words += f" (95 %: {low:+.3g} to {high:+.3g})"
    if low <= 0 <= high:
        return f"No difference from {name} that {len(present)} seeds can show: {words}."
    rises = METRICS[key].better == "higher"
    return f"params.yaml is {'better' if (low > 0) is rises else 'worse'} than {name}: {words}."


def _study_name(base: Path, commit: str, prefix: str, params: Params) -> str:
    """A name that is the same for the same code, params and objective."""
    tree = [git.git("rev-parse", f"{commit}:{name}", folder=base).decode() for name in CODE_PATHS]
    relevant = {k: v for k, v in flatten(params).items() if k.partition(".")[0] not in NO_EFFECT}
    search = params.sweep.model_dump(include={"space", "objective"})
    depends_on = json.dumps([tree, relevant, search], sort_keys=True, default=str)
    return f"{prefix}-{hashlib.sha256(depends_on.encode()).hexdigest()[:8]}"


def _other_params(base: Path, params: Params, name: str) -> Values:
    try:
        text = git.git("show", f"{name}:params.yaml", folder=base).decode()
    except git.GitError as error:
        raise CganError(f"--against {name}: no commit here has a params.yaml ({error}).") from None
    sections = parse_yaml(text, f"params.yaml of {name}") or {}
    document = {"train": sections.get("train") or {}}
    of_commit, present = check_params(document, f"`train` of {name}").train, params.train
    return {
        f"train.{key}": value
        for key, value in of_commit
        if key != "seed" and getattr(present, key) != value
    }


def _suggest(trial: Any, params: Params) -> Values:
    """The values that Optuna chooses for a trial, rounded as `_round` does."""
    values: Values = {}
    for key, axis in params.sweep.space.items():
        if isinstance(axis, SweepChoices):
            values[key] = trial.suggest_categorical(key, axis.choices)
        else:
            whole = isinstance(axis.low, int) and isinstance(axis.high, int)
            suggest = trial.suggest_int if whole else trial.suggest_float
            values[key] = suggest(key, axis.low, axis.high, log=axis.log)
    return _round(values)


def _round(values: Values) -> Values:
    """Floats with three digits: more would make no difference."""
    return {k: float(f"{v:.3g}") if isinstance(v, float) else v for k, v in values.items()}


def _in_words(values: Values) -> str:
    return ", ".join(f"{key.removeprefix('train.')} {value}" for key, value in values.items())


def require_committed(base: Path) -> str:
    """HEAD, the commit whose code the trainings run. Raises CganError if the code has changed since."""
    try:
        tree = git.working_tree(base)
    except git.GitError:
        raise CganError(
            f"{base}: git finds no commit here, and a sweep trains with the code of a commit. Make one: "
            "git init; git add .; git commit -m start"
        ) from None
    if changed := [path for path in tree.changed if path.split("/")[0] in CODE_PATHS]:
        raise CganError(
            f"{listed(changed)}: changed since HEAD, and a sweep trains with the code of HEAD. Commit the "
            "change, then start the sweep."
        )
    return tree.commit


def _interrupt(kind: int, _: Any) -> None:
    """Pass Ctrl-C to all trainings, which save a checkpoint, and exit without cleaning up."""
    for child in psutil.Process().children():
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGINT)
    words = "\nInterrupted. Run the same command to continue: what is finished is kept."
    say(words, file=sys.stderr)
    os._exit(128 + kind)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line. Returns the exit code: 0, 1 after a failure; 130 after Ctrl-C."""
    parser = argparse.ArgumentParser(prog="python -m flows.sweep", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add = parser.add_argument
    add("--trials", type=int, default=20, help="how many results to reach, earlier ones included")
    add("--storage", metavar="URL", help="of Optuna's study; default: .cgan/optuna.db")
    add("--seeds", type=int, help="do not search: compare params.yaml over so many seeds")
    add("--against", metavar="COMMIT", help="with --seeds: whose `train` to compare; default: HEAD")
    add("--parallel", type=int, default=2, help="how many trainings run at a time")
    args = parser.parse_args(arguments)
    if args.trials < 1 or args.parallel < 1 or (args.seeds is not None and args.seeds < 2):
        parser.error("expected at least --trials 1, --parallel 1 and --seeds 2")
    if args.against and not args.seeds:
        parser.error("--against is for a comparison over --seeds; a search compares with nothing")
    if importlib.util.find_spec("optuna") is None:
        sys.exit("Error: a sweep needs the package optuna: `pip install -e '.[pipeline,sweep]'`.")
    for kind in (signal.SIGTERM, signal.SIGINT):
        signal.signal(kind, _interrupt)
    try:
        base = require_project()
        params = load_params()
        commit = require_committed(base)
        with locked(base / LOGS / "lock", wait=False) as is_alone:
            if not is_alone:
                raise CganError("a sweep runs in this folder. Wait until it ends, or stop it.")
            (compare if args.seeds else search)(base, commit, params, args)
    except CganError as error:
        sys.stderr.write(f"Error: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
