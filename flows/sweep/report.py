"""What a sweep found: a table, Optuna's plots, and `sweep.json`, from which `cgan sweep` tells."""

from __future__ import annotations

import base64
import contextlib
import csv
import io
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import optuna
from optuna.trial import FrozenTrial, TrialState

from cgan.files import write_bytes, write_json, write_text
from cgan.params.sections import Params
from cgan.quality.table import METRICS
from cgan.reports.sweeps import RESULT, Found, verdict
from flows.sweep.confirm import Results
from flows.sweep.study import RUN, VALUES, WORDS, Facts, result_params

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Of a plot: MLflow's page is as wide as the widest picture on it.
DPI, WIDTH, HEIGHT, IN_A_ROW = 90, 8.0, 4.2, 3
PLOTS = {
    "history": "The objective, trial by trial, and the best so far.",
    "importances": "How much of the objective's spread each param explains (PED-ANOVA).",
    "slices": "The objective over each param.",
    "parallel": "Each trial as a line through its params.",
    "probes": "What the training's own judge said, from look to look; lines that end were stopped.",
}
TIME, END = "training s", "what became of it"
NO_PARAM = ("trial", "objective", TIME, END, "run")  # columns of the table
STATES = {"COMPLETE": "complete", "PRUNED": "stopped early", "FAIL": "failed", "RUNNING": "runs"}


def table(study: optuna.Study) -> list[dict[str, Any]]:
    """A row for each trial, in the order in which they began."""
    rows = []
    for trial in study.get_trials(deepcopy=False):
        if trial.state is TrialState.WAITING:
            continue
        values = {
            key.removeprefix("train."): value
            for key, value in trial.user_attrs.get(VALUES, {}).items()
        }
        note = str(trial.user_attrs.get(WORDS, ""))
        measured = round(trial.value, 5) if trial.value is not None else ""
        rows.append(
            {
                "trial": trial.number,
                "objective": measured,
                **values,
                TIME: round(trial.user_attrs.get("seconds", 0.0), 1) or "",
                END: STATES[trial.state.name] + (f": {note}" if note else ""),
                "run": trial.user_attrs.get(RUN, ""),
            }
        )
    return rows


def found(
    study: optuna.Study,
    params: Params,
    facts: Facts,
    best: FrozenTrial | None,
    confirmed: Results | None,
) -> Found:
    """`sweep.json`: all that `cgan sweep` needs to know."""
    return Found(
        name=study.study_name,
        objective=facts.objective,
        commit=facts.commit,
        trials={
            state.name: len(study.get_trials(deepcopy=False, states=[state]))
            for state in TrialState
        },
        best=(
            {
                "trial": best.number,
                "value": best.value,
                "params": best.user_attrs[VALUES],
                "run": best.user_attrs[RUN],
            }
            if best
            else {}
        ),
        present=result_params(params),
        confirmed={
            role: {str(seed): value for seed, value in values.items()}
            for role, values in (confirmed or {}).items()
        },
    )


def write(folder: Path, study: optuna.Study, sweep: Found) -> tuple[str, list[str]]:
    """All files of the report → its text, and the names of its plots."""
    rows = table(study)
    text = in_markdown(rows, sweep)
    write_text(folder / "sweep.md", text)
    write_json(folder / RESULT, sweep.to_json())
    lines = io.StringIO()
    writer = csv.DictWriter(lines, rows[0].keys(), restval="")
    writer.writeheader()
    writer.writerows(rows)
    write_text(folder / "trials.csv", lines.getvalue())
    drawn = []
    for name, picture in plots(study, METRICS[sweep.objective].name):
        write_bytes(folder / f"{name}.png", picture)
        drawn.append(name)
    return text, drawn


def in_markdown(rows: list[dict[str, Any]], sweep: Found) -> str:
    """The table with the best trial on top, as people read it first. The params stand in one column: MLflow's
    page has no room for six."""
    metric = METRICS[sweep.objective]
    header = f"trial | {metric.name} ({metric.better} is better) | params | {TIME} | {END}"
    lines = [verdict(sweep).text, "", f"| {header} |", "|---|---|---|---|---|"]
    for row in sorted(rows, key=lambda row: _rank(row, metric.better)):
        params = ", ".join(f"{k} {value}" for k, value in row.items() if k not in NO_PARAM)
        cells = [row["trial"], row["objective"], params, row[TIME], row[END]]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join([*lines, ""])


def _rank(row: dict[str, Any], better: str) -> tuple[bool, float, int]:
    value = row["objective"]
    if value == "":
        return True, 0.0, row["trial"]
    return False, value if better == "lower" else -value, row["trial"]


def plots(study: optuna.Study, objective: str) -> Iterator[tuple[str, bytes]]:
    """(name, PNG) of each of PLOTS that the trials are enough for."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from optuna.importance import PedAnovaImportanceEvaluator
    from optuna.visualization import matplotlib as drawn

    finished = study.get_trials(deepcopy=False, states=[TrialState.COMPLETE])
    keys = list(finished[0].params) if finished else []
    several = len(finished) > 1
    makers: dict[str, Callable[[], Any]] = {
        "history": lambda: drawn.plot_optimization_history(study, target_name=objective),
        "importances": lambda: drawn.plot_param_importances(
            study, evaluator=PedAnovaImportanceEvaluator(), target_name=objective
        ),
        "slices": lambda: drawn.plot_slice(study, target_name=objective),
        "parallel": lambda: drawn.plot_parallel_coordinate(study, target_name=objective),
        "probes": lambda: drawn.plot_intermediate_values(study),
    }
    for name, make in makers.items():
        if not several or (name == "importances" and len(keys) < 2):
            continue
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of an axis on which all trials have one value
                axes = make()
        except (ValueError, RuntimeError):  # too few trials, or all with the same result
            continue
        first = axes.flat[0] if hasattr(axes, "flat") else axes
        figure = cast("Figure", first.figure)
        if name == "probes":
            first.set(xlabel="probe", ylabel="as the training's own judge says", title="Probes")
        figure.set_size_inches(WIDTH * (1.25 if name == "parallel" else 1), HEIGHT)
        if name == "slices":
            _fold(figure, list(axes.flat) if hasattr(axes, "flat") else [axes])
        picture = io.BytesIO()
        figure.savefig(picture, format="png", dpi=DPI, bbox_inches="tight")
        pyplot.close(figure)
        yield name, picture.getvalue()


def _fold(figure: Figure, axes: list[Any]) -> None:
    """Optuna puts all params in one row; here IN_A_ROW."""
    rows = -(-len(axes) // IN_A_ROW)
    figure.set_size_inches(WIDTH, HEIGHT * (rows + 1) / 2)
    grid = figure.add_gridspec(rows, IN_A_ROW, hspace=0.5, wspace=0.3, right=0.88)
    for number, each in enumerate(axes):
        place = grid[number]
        each.set_subplotspec(place)
        each.tick_params(which="both", labelsize="x-small", labelleft=place.is_first_col())
        each.tick_params(axis="x", which="both", labelrotation=30)
    for scale in figure.axes:
        if scale not in axes:
            scale.set_position((0.91, 0.11, 0.02, 0.77))


def to_prefect(folder: Path, study: optuna.Study, text: str) -> str:
    """The table and the plots as artifacts of a flow run. Their bytes stand in the page: it would not find
    a file. Returns why there are none, if the server went away: they are not worth the sweep."""
    from prefect import flow

    # Artifacts belong to a run.
    name = study.study_name
    made = flow(name="sweep", flow_run_name=name, persist_result=False)(_artifacts)
    try:
        made(folder, study, text)
    except Exception as error:  # Prefect's client raises httpx's errors, its own and RuntimeError
        return type(error).__name__
    return ""


def _artifacts(folder: Path, study: optuna.Study, text: str) -> None:
    from prefect.artifacts import create_markdown_artifact, create_table_artifact

    key = study.study_name.lower().replace("_", "-")
    create_table_artifact(table(study), key=f"{key}-trials", description="A row for each trial.")
    pictures = []
    for name, words in PLOTS.items():
        with contextlib.suppress(FileNotFoundError):
            content = base64.b64encode((folder / f"{name}.png").read_bytes()).decode()
            pictures.append(f"## {words}\n\n![{name}](data:image/png;base64,{content})\n")
    create_markdown_artifact(
        "\n".join([text, *pictures]),
        key=key,
        description="What the sweep found, with Optuna's plots.",
    )
