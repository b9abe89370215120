"""What a sweep found: a table, Optuna's plots, and `sweep.json`, from which `cgan sweep` tells."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from cgan.markdown import spaced, table
from cgan.params.sections import Params
from cgan.quality.table import METRICS
from cgan.reports.sweeps import RESULT, Found, verdict
from cgan.store.pages import artifact
from flows.sweep.search import STATES, Results, in_words
from flows.sweep.study import PARAMS, RUN, WHY, best_of, result_params, trials_that

if TYPE_CHECKING:
    from matplotlib.figure import Figure
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
    trials = sorted(
        study.get_trials(deepcopy=False),
        key=lambda trial: (trial.state is not TrialState.COMPLETE, sign * (trial.value or 0.0)),
    )
    head = ["trial", metric.name, "training s", "params", "end"]
    text = f"{verdict(found).text}\n\n{table(head, map(_row, trials), numbers=2)}\n"
    parent = study.user_attrs["parent"]
    client.log_dict(parent, found.to_json(), RESULT)
    client.log_text(parent, study.trials_dataframe().to_csv(), "trials.csv")
    pictures = []
    for name, figure in _plots(study, metric.name):
        client.log_figure(parent, figure, name, save_kwargs={"dpi": DPI})
        pictures.append(f"![{name}]({artifact(parent, name)})")
    client.set_tag(parent, "mlflow.note.content", spaced("\n\n".join([text, *pictures])))
    if best and best.value is not None:
        client.log_metric(parent, f"quality/{found.objective}", best.value, step=0)
    client.set_terminated(parent, "FINISHED")
    return text


def _row(trial: FrozenTrial) -> list[object]:
    end = STATES.get(trial.state.name, "not finished")
    why = trial.user_attrs.get(WHY)
    return [
        trial.number,
        f"{trial.value:.4g}" if trial.state is TrialState.COMPLETE else "",
        round(trial.user_attrs.get("seconds", 0)) or "",
        in_words(trial.user_attrs.get(PARAMS, {})),
        f"{end}: {why}" if why else end,
    ]


def _plots(study: optuna.Study, objective: str) -> Iterator[tuple[str, Figure]]:
    """(name, picture) of each of Optuna's plots that the trials are enough for."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from optuna.importance import PedAnovaImportanceEvaluator
    from optuna.visualization import matplotlib as drawn

    if len(trials_that(study, TrialState.COMPLETE)) < 2:
        return
    plots: dict[str, Callable[[], Any]] = {
        "history": lambda: drawn.plot_optimization_history(study, target_name=objective),
        "importances": lambda: drawn.plot_param_importances(
            study, evaluator=PedAnovaImportanceEvaluator(), target_name=objective
        ),
        "parallel": lambda: drawn.plot_parallel_coordinate(study, target_name=objective),
        "probes": lambda: drawn.plot_intermediate_values(study),
    }
    for name, plot in plots.items():
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of an axis on which all trials have one value
                figure = plot().figure
        except (ValueError, RuntimeError):  # too few trials, or all with the same result
            continue
        figure.set_size_inches(WIDTH, HEIGHT)
        yield f"{name}.png", figure
        pyplot.close(figure)
