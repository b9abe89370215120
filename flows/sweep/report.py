"""What was found: a verdict, tables, Optuna's plots, and `sweep.json`, from which `cgan sweep` tells."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable
from functools import partial
from statistics import fmean, stdev
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState
from rich.console import Console
from rich.markdown import Markdown

from cgan.markdown import spaced, table
from cgan.quality.intervals import difference_of_means
from cgan.quality.table import METRICS
from cgan.registry.history import now
from cgan.reports.sweeps import BETTER, RESULT
from cgan.tracking.pages import artifact
from cgan.verdict import Report
from flows.sweep.search import STATES, WHY, Results, Sweep, say
from flows.sweep.study import best_of, in_words, result_params, trained, trials_that

SIZE = (8.0, 4.2)  # of a plot, in inches: MLflow's page is as wide as the widest picture on it
SAVE = {"dpi": 90, "bbox_inches": "tight"}  # with all of the params' names


def publish(sweep: Sweep, confirmed: Results | None) -> None:
    """The report on a sweep."""
    study, key = sweep.study, sweep.objective
    best, metric, present = best_of(study), METRICS[key], result_params(sweep.params)
    counts = {word: len(trials_that(study, TrialState[state])) for state, word in STATES.items()}
    done = ", ".join(f"{count} {word}" for word, count in counts.items() if count)
    is_better, why = verdict(key, best, present, confirmed)
    sign = 1 if metric.better == "lower" else -1
    trials = sorted(
        study.get_trials(deepcopy=False),
        key=lambda trial: (trial.state is not TrialState.COMPLETE, sign * (trial.value or 0.0)),
    )
    head = ["trial", metric.name, "s", "params", "end"]
    sections = {"Trials": table(head, map(_row, trials), numbers=2)}
    facts = {"best": trained(best) if best else {}, "present": present}
    word, why = BETTER if is_better else "not better", f"Sweep {study.study_name}: {done}. {why}"
    report = Report("Sweep", word, why, [], now(), facts, sections)
    sweep.client.log_text(sweep.parent, study.trials_dataframe().to_csv(), "trials.csv")
    numbers = {f"quality/{key}": best.value} if best and best.value is not None else {}
    _publish(sweep, report, numbers, *_draw(sweep))


def publish_seeds(sweep: Sweep, name: str, others: dict[str, Any], found: Results) -> None:
    """That on params.yaml with several seeds, and where `name` has other params, the `others`, on both."""
    key, present = sweep.objective, result_params(sweep.params)
    own = {each: present[each] for each in others}
    values = {k: [[metrics[k] for metrics in side] for side in found] for k in found[0][0]}
    numbers: dict[str, float] = {}
    for each, sides in values.items():
        for place, side in zip(("quality", "against"), sides, strict=False):
            numbers |= {f"{place}/{each}": fmean(side), f"{place}_sd/{each}": stdev(side)}
    metric, names = METRICS[key].name, ["params.yaml", name][: len(found)]
    word, why = "not compared", f"{metric} {_spread(values[key][0])}: {name} has the same `train`."
    if others:
        word, why = compared(key, *values[key])
        why = f"params.yaml ({in_words(own)}) against {name} ({in_words(others)}): {why}"
        change, ends = difference_of_means(*reversed(values[key]))
        for end, value in zip(("", "_low", "_high"), (change, *ends), strict=True):
            numbers[f"difference{end}/{key}"] = value
    by_seed = enumerate(zip(*values[key], strict=True), sweep.params.train.seed + 1)
    rows = [[f"{metric}, seed {seed}", *(f"{v:.4g}" for v in row)] for seed, row in by_seed]
    rows += [[METRICS[each].name, *map(_spread, sides)] for each, sides in values.items()]
    sections = {"Seeds, then means ± standard deviations": table(["", *names], rows, len(names))}
    facts = {"best": own, "present": present | others}
    _publish(sweep, Report("Seeds", word, why, [], now(), facts, sections), numbers)


def _publish(sweep: Sweep, report: Report, numbers: dict[str, float], *pictures: str) -> None:
    """On the page of the study's run, which ends, and on the terminal."""
    client, parent, text = sweep.client, sweep.parent, report.body()
    client.log_dict(parent, report.to_json(), RESULT)
    note = [text, *(f"![{name}]({artifact(parent, name)})" for name in pictures)]
    client.set_tag(parent, "mlflow.note.content", spaced("\n\n".join(note)))
    for key, value in numbers.items():
        client.log_metric(parent, key, value, step=0)
    client.set_terminated(parent, "FINISHED")
    Console(width=100).print(Markdown(text))
    say(sweep.page)


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
    word, why = compared(objective, *([each[objective] for each in side] for side in confirmed))
    return word == BETTER, f"The best, {which}, against params.yaml: {why}"


def compared(objective: str, ours: list[float], theirs: list[float]) -> tuple[str, str]:
    """Are ours better than theirs, by more than the luck of seeds explains? In a word, and with numbers."""
    metric, count = METRICS[objective], len(ours)
    change, (low, high) = difference_of_means(theirs, ours)
    word = BETTER if (change < 0) == (metric.better == "lower") else "worse"
    if low <= 0 <= high:
        word = f"no difference that {count} seeds can show"
    return word, (
        f"{word} ({metric.name} {_spread(ours)} against {_spread(theirs)} over {count} fresh seeds; "
        f"difference {change:+.4g}, 95 %: {low:+.4g} to {high:+.4g}; {metric.better} is better)."
    )


def _spread(values: list[float]) -> str:
    return f"{fmean(values):.4g} ± {stdev(values):.3g}"


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
