"""What a sweep found: a verdict, a table, Optuna's plots, and `sweep.json`, from which `cgan sweep` tells."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from cgan.markdown import spaced, table
from cgan.quality.intervals import difference_of_means
from cgan.quality.table import METRICS
from cgan.registry.history import now
from cgan.reports.sweeps import BETTER, RESULT
from cgan.store.pages import artifact
from cgan.verdict import Report
from flows.sweep.search import STATES, WHY, Results, Sweep
from flows.sweep.study import best_of, in_words, result_params, trained, trials_that

SIZE = (8.0, 4.2)  # of a plot, in inches: MLflow's page is as wide as the widest picture on it
SAVE = {"dpi": 90, "bbox_inches": "tight"}  # with all of the params' names


def publish(sweep: Sweep, confirmed: Results | None) -> str:
    """The report on the page of the sweep's run, which ends → its text, in Markdown."""
    study, client, parent = sweep.study, sweep.client, sweep.parent
    best, metric, present = best_of(study), METRICS[sweep.objective], result_params(sweep.params)
    counts = {word: len(trials_that(study, TrialState[state])) for state, word in STATES.items()}
    done = ", ".join(f"{count} {word}" for word, count in counts.items() if count)
    is_better, why = verdict(sweep.objective, best, present, confirmed)
    sign = 1 if metric.better == "lower" else -1
    trials = sorted(
        study.get_trials(deepcopy=False),
        key=lambda trial: (trial.state is not TrialState.COMPLETE, sign * (trial.value or 0.0)),
    )
    head = ["trial", metric.name, "s", "params", "end"]
    report = Report(
        title=f"Sweep {study.study_name}",
        verdict=BETTER if is_better else "not better",
        summary=f"Sweep {study.study_name}: {done}. {why}",
        reasons=[],
        time=now(),
        facts={"best": trained(best) if best else {}, "present": present},
        sections={"Trials": table(head, map(_row, trials), numbers=2)},
    )
    text = report.body()
    client.log_dict(parent, report.to_json(), RESULT)
    client.log_text(parent, study.trials_dataframe().to_csv(), "trials.csv")
    names = _draw(sweep)
    pictures = [f"![{name}]({artifact(parent, name)})" for name in names]
    client.set_tag(parent, "mlflow.note.content", spaced("\n\n".join([text, *pictures])))
    if best and best.value is not None:
        client.log_metric(parent, f"quality/{sweep.objective}", best.value, step=0)
    client.set_terminated(parent, "FINISHED")
    return text


def verdict(
    objective: str, best: FrozenTrial | None, present: dict[str, Any], confirmed: Results | None
) -> tuple[bool, str]:
    """Is the best trial better than params.yaml, by more than the luck of seeds explains? And why."""
    if best is None:
        return False, "No trial has a result."
    metric, values = METRICS[objective], trained(best)
    which = f"trial {best.number} ({in_words(values)})"
    if values.items() <= present.items():
        return False, f"The best is what params.yaml holds: {which}."
    if not confirmed:
        return False, (
            f"The best is {which} with a {metric.name} of {best.value:.4g}. It has not been compared with "
            "params.yaml over several seeds."
        )
    ours, theirs = confirmed["best"], confirmed["present"]
    change, (low, high) = difference_of_means(theirs, ours)
    is_better = high < 0 if metric.better == "lower" else low > 0
    return is_better, (
        f"The best, {which}, is {'better' if is_better else 'not clearly better'} than params.yaml: "
        f"{metric.name} {sum(ours) / len(ours):.4g} against {sum(theirs) / len(theirs):.4g} over {len(ours)} "
        f"fresh seeds (difference {change:+.4g}, 95 %: {low:+.4g} to {high:+.4g}; {metric.better} is better)."
    )


def _row(trial: FrozenTrial) -> list[object]:
    end, why = STATES.get(trial.state.name, "not finished"), trial.user_attrs.get(WHY)
    return [
        trial.number,
        f"{trial.value:.4g}" if trial.state is TrialState.COMPLETE else "",
        round(trial.duration.total_seconds()) if trial.duration else "",
        in_words(trained(trial)),
        f"{end}: {why}" if why else end,
    ]


def _draw(sweep: Sweep) -> list[str]:
    """Those of Optuna's plots that the trials are enough for, to the sweep's run → their names there."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from optuna.importance import PedAnovaImportanceEvaluator
    from optuna.visualization import matplotlib as drawn

    evaluator = PedAnovaImportanceEvaluator()  # others need scikit-learn
    plots: dict[str, Callable[[optuna.Study], Any]] = {
        "history.png": drawn.plot_optimization_history,
        "importances.png": partial(drawn.plot_param_importances, evaluator=evaluator),
        "parallel.png": drawn.plot_parallel_coordinate,
        "probes.png": drawn.plot_intermediate_values,
    }
    names = []
    for name, plot in plots.items():
        with warnings.catch_warnings(), contextlib.suppress(ValueError, RuntimeError):
            warnings.simplefilter("ignore")  # of an axis on which all trials have one value
            figure = plot(sweep.study).figure  # raises where the trials are too few, or all alike
            figure.set_size_inches(SIZE)
            sweep.client.log_figure(sweep.parent, figure, name, save_kwargs=SAVE)
            names.append(name)
    pyplot.close("all")
    return names
