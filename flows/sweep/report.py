"""What a sweep found: a table, Optuna's plots, and `sweep.json`, from which `cgan sweep` tells."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from cgan.files import write_json
from cgan.markdown import spaced, table
from cgan.params.sections import Params
from cgan.quality.table import METRICS
from cgan.reports.sweeps import RESULT, Found, verdict
from cgan.store.pages import artifact
from flows.sweep.search import STATES, Results, in_words
from flows.sweep.study import PARAMS, RUN, WHY, best_of, result_params, trials_that

if TYPE_CHECKING:
    from mlflow import MlflowClient

WIDTH, HEIGHT, DPI = 8.0, 4.2, 90  # of a plot: MLflow's page is as wide as the widest picture on it


def publish(client: MlflowClient, study: optuna.Study, params: Params, confirmed: Results) -> str:
    """The report on the page of the parent run, which ends → its text, in Markdown."""
    best, metric = best_of(study), METRICS[params.sweep.objective]
    found = Found(
        name=study.study_name,
        objective=params.sweep.objective,
        commit=study.user_attrs["commit"],
        trials={state.name: len(trials_that(study, state)) for state in TrialState},
        best={
            "trial": best.number,
            "value": best.value,
            "params": best.user_attrs[PARAMS],
            "run": best.user_attrs[RUN],
        }
        if best
        else {},
        present=result_params(params),
        confirmed=confirmed,
    )
    sign = 1 if metric.better == "lower" else -1

    def rank(trial: FrozenTrial) -> tuple[bool, float]:
        has_result = trial.state is TrialState.COMPLETE and trial.value is not None
        return not has_result, sign * (trial.value or 0.0) if has_result else trial.number

    trials = sorted(study.get_trials(deepcopy=False), key=rank)
    head = ["trial", metric.name, "training s", "params", "end"]
    text = f"{verdict(found).text}\n\n{table(head, map(_row, trials), numbers=2)}\n"
    parent = study.user_attrs["parent"]
    with tempfile.TemporaryDirectory(prefix="cgan-") as name:
        folder = Path(name)
        write_json(folder / RESULT, found.to_json())
        study.trials_dataframe().to_csv(folder / "trials.csv")
        plots = _plots(folder, study, metric.name)
        client.log_artifacts(parent, name)
    pictures = [f"![{plot}]({artifact(parent, plot)})" for plot in plots]
    client.set_tag(parent, "mlflow.note.content", spaced("\n\n".join([text, *pictures])))
    if best and best.value is not None:
        client.log_metric(parent, f"quality/{found.objective}", best.value, step=0)
    client.set_terminated(parent, "FINISHED")
    return text


def _row(trial: FrozenTrial) -> list[str]:
    value = f"{trial.value:.4g}" if trial.state is TrialState.COMPLETE else ""
    seconds = trial.user_attrs.get("seconds")
    end = STATES.get(trial.state.name, "not finished")
    why = trial.user_attrs.get(WHY)
    return [
        str(trial.number),
        value,
        f"{seconds:.0f}" if seconds else "",
        in_words(trial.user_attrs.get(PARAMS, {})),
        f"{end}: {why}" if why else end,
    ]


def _plots(folder: Path, study: optuna.Study, objective: str) -> list[str]:
    """Optuna's, as PNG, where the trials are enough for them → the names of their files."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from optuna.importance import PedAnovaImportanceEvaluator
    from optuna.visualization import matplotlib as drawn

    plots: dict[str, Callable[[], Any]] = {
        "history": lambda: drawn.plot_optimization_history(study, target_name=objective),
        "importances": lambda: drawn.plot_param_importances(
            study, evaluator=PedAnovaImportanceEvaluator(), target_name=objective
        ),
        "parallel": lambda: drawn.plot_parallel_coordinate(study, target_name=objective),
        "probes": lambda: drawn.plot_intermediate_values(study),
    }
    made: list[str] = []
    if len(trials_that(study, TrialState.COMPLETE)) < 2:
        return made
    for name, plot in plots.items():
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of an axis on which all trials have one value
                figure = plot().figure
        except (ValueError, RuntimeError):  # too few trials, or all with the same result
            continue
        figure.set_size_inches(WIDTH, HEIGHT)
        figure.savefig(folder / f"{name}.png", dpi=DPI)
        pyplot.close(figure)
        made.append(f"{name}.png")
    return made
