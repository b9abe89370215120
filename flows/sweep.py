"""Search for better params of `train` with Optuna, or say whether the present ones are better than others.

    python -m flows.sweep --trials 20
    python -m flows.sweep --seeds 5 [--against HEAD]

Each training is `dvc repro evaluate` in a checkout of HEAD with this params.yaml. Run the same command again
to continue a sweep. See docs/sweeps.md.
"""

import argparse
import difflib
import json
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from cgan.base import git
from cgan.base.errors import CganError
from cgan.base.files import fingerprint
from cgan.base.text import listed
from cgan.params.checks import check_params
from cgan.params.sections import Params, flatten
from cgan.pipeline.params_file import load_params, parse_yaml, set_params
from cgan.pipeline.project import EVALUATION, require_project
from cgan.quality.evaluate import METRICS
from cgan.quality.evaluation import Evaluation
from cgan.quality.intervals import difference_of_means
from flows.checkout import checkout, environment
from flows.children import CONTEXT_VARIABLE, in_session, say

CODE_PATHS = ("cgan", "dvc.yaml")  # what a result depends on, beside params and data
LOGS = Path(".cgan/sweeps")
STUDY_TAG = "cgan.sweep"  # tag of the MLflow runs

Values = dict[str, Any]  # of params, by their dotted keys


def train_trial(base: Path, commit: str, study: str, number: int, values: Values) -> float:
    """The objective's value of a training by a commit's code, with these values in place of those of
    params.yaml. Raises CganError with the message of a stage that fails."""
    path = base / LOGS / f"{study.replace('/', '-')}-{number}.log"  # a branch may have a slash
    log = path.open("a", buffering=1, encoding="utf-8")
    with log, checkout(base, commit, base / "params.yaml") as folder:
        set_params(values, folder / "params.yaml")
        variables = {**environment(base, folder), CONTEXT_VARIABLE: json.dumps({STUDY_TAG: study})}
        run = partial(
            in_session, on_line=partial(print, file=log), folder=folder, variables=variables
        )
        run("dvc", "repro", "evaluate")
        try:
            run("cgan.stages.record")
        except CganError as error:  # its result counts all the same
            say(f"{path.stem}: its run is not complete in MLflow. {error}")
        objective = load_params(folder / "params.yaml").sweep.objective
        evaluation = Evaluation.read(folder / EVALUATION)
    value = evaluation.score(objective).value
    if value is None:
        raise CganError(f"{objective} has no value: not asked for.")
    return value


def search(base: Path, commit: str, params: Params, trials: int) -> None:
    """Search until there are so many results, those of earlier calls included. The first is that of the
    present params."""
    import optuna
    from optuna.storages.journal import JournalFileBackend
    from optuna.trial import TrialState

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    key, space = params.sweep.objective, params.sweep.space
    study = optuna.create_study(
        storage=optuna.storages.JournalStorage(JournalFileBackend(str(base / ".cgan/optuna.log"))),
        study_name=_study_name(base, commit, params),
        direction="minimize" if METRICS[key].better == "lower" else "maximize",
        load_if_exists=True,
    )
    # With the same seed, a second sweep would repeat the first.
    seed = 1 + len(study.trials)
    study.sampler = optuna.samplers.TPESampler(
        seed=seed, n_startup_trials=len(space) + 2, multivariate=True
    )
    if not study.trials:
        present = flatten(params.model_dump(by_alias=True))
        study.enqueue_trial(
            {name: present[name] for name in space if space[name].has(present[name])}
        )

    def objective(trial: Any) -> float:
        values = _suggest(trial, params)
        say(f"trial {trial.number}: {_in_words(values)}")
        value = train_trial(base, commit, study.study_name, trial.number, values)
        say(f"trial {trial.number}: {key} {value:.4g}")
        return value

    done = len(study.get_trials(states=(TrialState.COMPLETE,)))
    say(f"{study.study_name}: {trials} trials; {done} are done")
    if not done:  # the first may show that nothing works
        study.optimize(objective, n_trials=1)
    study.optimize(objective, n_trials=max(0, trials - max(1, done)), catch=CganError)
    best = " ".join(f"-S {name}={value}" for name, value in _round(study.best_params).items())
    say(
        f"The best, {key} {study.best_value:.4g}, is partly luck. Train with it, and test whether it is "
        f"better than HEAD:\n  dvc exp run {best}\n  python -m flows.sweep --seeds 5"
    )


def compare_seeds(base: Path, commit: str, params: Params, count: int, name: str) -> None:
    """Train with `count` seeds by which no params were chosen, and with the `train` of another commit."""
    key = params.sweep.objective
    other_params = _other_params(base, params, name)
    values: dict[str, list[float]] = {}
    for role, changes in {name: other_params, "present": Values()}.items():
        values[role] = []
        for seed in range(params.train.seed + 1, params.train.seed + 1 + count):
            value = train_trial(base, commit, f"seeds-{role}", seed, changes | {"train.seed": seed})
            say(f"{role}, seed {seed}: {key} {value:.4g}")
            values[role].append(value)
    for role, group in values.items():
        say(f"{role}: {key} {fmean(group):.4g} ± {stdev(group):.2g} over {count} seeds")
    say(f"otherwise in {name}: {_in_words(other_params)}")
    say(verdict(key, name, values[name], values["present"]))


def verdict(key: str, name: str, others: list[float], present: list[float]) -> str:
    """Are the present params better than the others, by more than the luck of seeds?"""
    change, (low, high) = difference_of_means(others, present)
    words = f"{key} differs by {change:+.3g}"
    if change and low == high:  # of a sampler
        return f"{words}, whatever the seed. `cgan compare` says whether that is chance."
    words += f" (95 %: {low:+.3g} to {high:+.3g})"
    if low <= 0 <= high:
        return f"No difference from {name} that {len(present)} seeds can show: {words}."
    rises = METRICS[key].better == "higher"
    return f"params.yaml is {'better' if (low > 0) is rises else 'worse'} than {name}: {words}."


def _study_name(base: Path, commit: str, params: Params) -> str:
    """A name that is the same for the same code, params and objective."""
    tree = [git.git("rev-parse", f"{commit}:{name}", folder=base).decode() for name in CODE_PATHS]
    relevant = params.model_dump(exclude={"gate", "tracking"})
    return f"sweep-{fingerprint([tree, relevant])}"


def _other_params(base: Path, params: Params, name: str) -> Values:
    """The values of `train` that are otherwise in a commit. Raises CganError where there is none."""
    text = git.git("show", f"{name}:params.yaml", folder=base).decode()
    sections = parse_yaml(text, f"params.yaml of {name}") or {}
    document = {"train": sections.get("train") or {}}
    others = {
        f"train.{key}": value
        for key, value in check_params(document, f"`train` of {name}").train
        if key != "seed" and getattr(params.train, key) != value
    }
    if not others:
        raise CganError(f"{name} has the same `train`: there is nothing to compare.")
    return others


def _suggest(trial: Any, params: Params) -> Values:
    """The values that Optuna chooses for a trial, rounded as `_round` does."""
    values: Values = {}
    for key, axis in params.sweep.space.items():
        if axis.choices:
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
    tree = git.working_tree(base)
    if changed := [path for path in tree.changed if path.split("/")[0] in CODE_PATHS]:
        raise CganError(
            f"{listed(changed)}: changed since HEAD, whose code is trained. Commit that."
        )
    return tree.commit


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line. Returns the exit code: 0, 1 after a failure, 130 after Ctrl-C."""
    parser = argparse.ArgumentParser(prog="python -m flows.sweep", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add = parser.add_argument
    add("--trials", type=int, default=20, help="how many results to reach, earlier ones included")
    add("--seeds", type=int, help="do not search: compare params.yaml over so many seeds")
    add("--against", metavar="COMMIT", default="HEAD", help="with --seeds: compare whose `train`")
    args = parser.parse_args(arguments)
    if args.trials < 1 or (args.seeds is not None and args.seeds < 2):
        parser.error("expected at least --trials 1 and --seeds 2")
    try:
        base, params = require_project(), load_params()
        if (key := params.sweep.objective) not in METRICS:
            (near,) = difflib.get_close_matches(key, METRICS, n=1, cutoff=0.0)
            raise CganError(f"sweep.objective: {key!r} is no metric. Did you mean `{near}`?")
        commit = require_committed(base)
        (base / LOGS).mkdir(parents=True, exist_ok=True)
        if args.seeds:
            compare_seeds(base, commit, params, args.seeds, args.against)
        else:
            search(base, commit, params, args.trials)
    except (CganError, ModuleNotFoundError) as error:  # optuna is in the extra `sweep`
        sys.stderr.write(f"Error: {error}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("Interrupted: the same command goes on after what is finished.\n")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
