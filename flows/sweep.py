"""Search for better params of `train` with Optuna, or say whether the present ones are better than others.

Each training is `dvc repro evaluate` in a checkout of HEAD with this params.yaml.
"""

import json
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from cgan.base import git
from cgan.base.commands import run_app
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
from flows.children import CONTEXT_VARIABLE, run_child, say

CODE_PATHS = ("cgan", "dvc.yaml")  # what a result depends on, beside params and data
LOGS = Path(".cgan/sweeps")
STUDY_TAG = "cgan.sweep"  # tag of the MLflow runs

Values = dict[str, Any]  # of params, by their dotted keys


def train_trial(
    base: Path, commit: str, key: str, study: str, number: int, values: Values
) -> float:
    """The metric `key` of a training by a commit's code, with these values in place of those of params.yaml.
    Raises CganError with the message of a stage that fails."""
    path = base / LOGS / f"{study.replace('/', '-')}-{number}.log"  # a branch may have a slash
    log = path.open("a", buffering=1, encoding="utf-8")
    with log, checkout(base, commit, base / "params.yaml") as folder:
        set_params(values, folder / "params.yaml")
        variables = environment(base, folder) | {CONTEXT_VARIABLE: json.dumps({STUDY_TAG: study})}
        relay = partial(print, file=log)
        run = partial(run_child, on_line=relay, folder=folder, variables=variables)
        run("dvc", "repro", "evaluate")
        run("cgan.stages.record", exit_codes=(0, 1))  # the result counts, also where MLflow is away
        value = Evaluation.read(folder / EVALUATION).score(key).value
    if value is None:
        raise CganError(f"{key} has no value: not asked for.")
    return value


def search(base: Path, commit: str, params: Params, trials: int) -> None:
    """Search until there are `trials` results, those of earlier calls included. The first is that of the
    present params."""
    import optuna
    from optuna.storages.journal import JournalFileBackend
    from optuna.trial import TrialState

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    key, space = params.sweep.objective, params.sweep.space
    study = optuna.create_study(
        storage=optuna.storages.JournalStorage(JournalFileBackend(str(base / ".cgan/optuna.log"))),
        sampler=optuna.samplers.TPESampler(n_startup_trials=len(space) + 2),
        study_name=_study_name(base, commit, params),
        direction="minimize" if METRICS[key].better == "lower" else "maximize",
        load_if_exists=True,
    )
    if not study.trials:
        values = flatten(params.model_dump(by_alias=True))
        study.enqueue_trial({name: values[name] for name in space if space[name].has(values[name])})

    def objective(trial: Any) -> float:
        for name, axis in space.items():
            if axis.choices:
                trial.suggest_categorical(name, axis.choices)
            else:
                whole = isinstance(axis.low, int) and isinstance(axis.high, int)
                suggest = trial.suggest_int if whole else trial.suggest_float
                suggest(name, axis.low, axis.high, log=axis.log)
        say(f"trial {trial.number}: {_as_text(trial.params)}")
        value = train_trial(base, commit, key, study.study_name, trial.number, trial.params)
        say(f"trial {trial.number}: {key} {value:.4g}")
        return value

    done = len(study.get_trials(states=(TrialState.COMPLETE,)))
    say(f"{study.study_name}: {trials} trials; {done} are done")
    if not done:  # the first may show that nothing works
        study.optimize(objective, n_trials=1)
    study.optimize(objective, n_trials=max(0, trials - max(1, done)), catch=CganError)
    best = " ".join(f"-S {name}={value}" for name, value in study.best_params.items())
    say(
        f"The best, {key} {study.best_value:.4g}, is partly luck. Train with it, and test whether it is "
        f"better than HEAD:\n  dvc exp run {best}\n  python -m flows.sweep --seeds 5"
    )


def compare_seeds(base: Path, commit: str, params: Params, count: int, against: str) -> None:
    """Train the present params, and `train` of the commit `against`, with the same new seeds; compare."""
    key = params.sweep.objective
    others = _other_params(base, params, against)
    values: dict[str, list[float]] = {against: [], "present": []}
    for role, changes in {against: others, "present": Values()}.items():
        for seed in range(params.train.seed + 1, params.train.seed + 1 + count):
            changed = changes | {"train.seed": seed}
            value = train_trial(base, commit, key, f"seeds-{role}", seed, changed)
            say(f"{role}, seed {seed}: {key} {value:.4g}")
            values[role].append(value)
    say(f"{against} has: {_as_text(others)}")
    say(verdict(key, against, values[against], values["present"]))


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
    """The values of `train` that differ in a commit. Raises CganError where there is none."""
    text = git.git("show", f"{name}:params.yaml", folder=base).decode()
    train = parse_yaml(text, f"params.yaml of {name}").get("train") or {}
    others = {
        f"train.{key}": value
        for key, value in check_params({"train": train}, f"`train` of {name}").train
        if key != "seed" and getattr(params.train, key) != value
    }
    if not others:
        raise CganError(f"{name} has the same `train`: there is nothing to compare.")
    return others


def _as_text(values: Values) -> str:
    return ", ".join(f"{key.removeprefix('train.')} {value}" for key, value in values.items())


app = typer.Typer()


@app.command()
def sweep(
    trials: Annotated[
        int, typer.Option(min=1, help="How many results to reach, earlier ones included.")
    ] = 20,
    seeds: Annotated[
        int | None,
        typer.Option(min=2, help="Do not search: compare params.yaml over so many seeds."),
    ] = None,
    against: Annotated[
        str, typer.Option(metavar="COMMIT", help="With --seeds: compare with whose `train`.")
    ] = "HEAD",
) -> None:
    """Search for better params of `train`, or compare the present ones over several seeds.

    After Ctrl-C the same command goes on after what is finished. See docs/sweeps.md.
    """
    base, params = require_project(), load_params()
    if (key := params.sweep.objective) not in METRICS:
        raise CganError(f"sweep.objective: {key!r} is none of {', '.join(METRICS)}.")
    tree = git.working_tree(base)
    if changed := [path for path in tree.changed if path.split("/")[0] in CODE_PATHS]:
        raise CganError(f"{listed(changed)}: changed since HEAD, whose code is trained. Commit.")
    (base / LOGS).mkdir(parents=True, exist_ok=True)
    if seeds:
        compare_seeds(base, tree.commit, params, seeds, against)
    else:
        search(base, tree.commit, params, trials)


if __name__ == "__main__":
    run_app(app)
