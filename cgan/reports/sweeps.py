"""`cgan sweep`: what the sweeps found, and the best trial's params into params.yaml if they are better.

MLflow knows it: the parent run of a sweep carries `sweep.json`, which `python -m flows.sweep` writes.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cgan.errors import CganError
from cgan.params.editing import set_params
from cgan.params.reading import load_params
from cgan.params.sections import flatten
from cgan.project import project_root
from cgan.quality.intervals import difference_of_means
from cgan.quality.table import METRICS
from cgan.registry.client import open_registry
from cgan.reports.recorded_run import ANY
from cgan.store.address import experiment_name, is_absent, store_uri, without_credentials

if TYPE_CHECKING:
    from mlflow.entities import Run

# Tags of the runs of a sweep.
NAME = "cgan.sweep"
ROLE = "cgan.sweep.role"  # parent | trial | best | present
JOB = "cgan.sweep.job"
STATE = "cgan.sweep.state"
PARENT_TAG = "mlflow.parentRunId"
RESULT = "sweep.json"  # among the parent's files
SHOWN = 10  # sweeps in a list


@dataclass(frozen=True)
class Found:
    """What a sweep knows in the end, or so far.

    `best`: trial, value, params and run, empty where no trial has a result. `present`: all params that a
    result depends on, as params.yaml had them. `confirmed`: the objective by role (best, present) and seed;
    None where that training failed.
    """

    name: str
    objective: str
    commit: str
    trials: dict[str, int]
    best: dict[str, Any]
    present: dict[str, Any]
    confirmed: dict[str, dict[str, float | None]]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, document: Any, where: str) -> Found:
        try:
            return cls(**{field.name: document[field.name] for field in fields(cls)})
        except (KeyError, TypeError):
            raise CganError(f"{where}: no result of a sweep that this version can read.") from None


@dataclass(frozen=True)
class Verdict:
    better: bool
    text: str


def verdict(sweep: Found) -> Verdict:
    """Is the best trial better than params.yaml, by more than the luck of seeds explains?"""
    counts = {state.lower(): count for state, count in sweep.trials.items() if count}
    done = f"Sweep `{sweep.name}`: " + ", ".join(
        f"{count} {state}" for state, count in counts.items()
    )
    if not sweep.best:
        return Verdict(False, f"{done}. No trial has a result.")
    metric = METRICS[sweep.objective]
    number = sweep.best["trial"]
    which = f"trial {number} ({_values(sweep.best['params'])})"
    now = {key: sweep.present.get(key) for key in sweep.best["params"]}
    if now == sweep.best["params"]:
        return Verdict(False, f"{done}. The best is what params.yaml holds: {which}.")
    best, present = (sweep.confirmed.get(role, {}) for role in ("best", "present"))
    if not best or not present:
        return Verdict(
            False,
            f"{done}. The best is {which} with a {metric.name} of {sweep.best['value']:.4g}. It has not been "
            "compared with params.yaml over several seeds.",
        )
    failed = [
        f"{role} with seed {seed}"
        for role, values in (("the best", best), ("params.yaml", present))
        for seed, value in values.items()
        if value is None
    ]
    if failed:
        return Verdict(False, f"{done}. {which} is not comparable: {', '.join(failed)} failed.")
    ours, theirs = (
        [value for value in values.values() if value is not None] for values in (best, present)
    )
    change, (low, high) = difference_of_means(theirs, ours)
    better = high < 0 if metric.better == "lower" else low > 0
    words = "is better" if better else "is not clearly better"
    return Verdict(
        better,
        f"{done}. {which} {words} than params.yaml: {metric.name} {_mean(ours):.4g} against "
        f"{_mean(theirs):.4g} over {len(ours)} fresh seeds (difference {change:+.4g}, 95 %: {low:+.4g} to "
        f"{high:+.4g}; {metric.better} is better).",
    )


def apply(name: str | None) -> str:
    """Write the best trial's params into params.yaml if they are better → what was done, in words.

    Raises CganError where there is no such sweep, or params.yaml has changed since.
    """
    sweep = find(name)
    said = verdict(sweep)
    if not said.better:
        return f"{said.text}\nparams.yaml stays as it is."
    now, best = flatten(load_params()), sweep.best["params"]
    changed = {k: v for k, v in sweep.present.items() if now.get(k, "nothing") != v}
    if changed and changed.keys() <= best.keys() and all(now[key] == best[key] for key in best):
        return f"{said.text}\nparams.yaml holds its params already."
    if changed:
        told = "; ".join(f"`{key}` is {now.get(key)}, was {was}" for key, was in changed.items())
        raise CganError(
            f"params.yaml is no longer what the sweep `{sweep.name}` compared with: {told[:500]}. Bring "
            "that back, or sweep again."
        )
    done = set_params(best, source=f"sweep {sweep.name}")
    lines = [f"{key}: {before} → {after}" for key, (before, after) in done.items()]
    return "\n".join([said.text, *lines, "`dvc repro` brings the rest up to date."])


def show(name: str | None) -> str:
    """The newest sweep, or the one of that name; and which others there are."""
    others = [run.data.tags.get(NAME, "") for run in _parents()]
    sweep = find(name)
    more = [other for other in others if other != sweep.name][:SHOWN]
    return "\n".join([verdict(sweep).text, *(["Others: " + ", ".join(more)] if more else [])])


def find(name: str | None) -> Found:
    """The result of the newest sweep, or of the newest of that name. Raises CganError if there is none."""
    parents = _parents()
    found = [run for run in parents if name in (None, run.data.tags.get(NAME))]
    if not found:
        which = f" `{name}`" if name else ""
        others = list(dict.fromkeys(run.data.tags.get(NAME, "") for run in parents))[:SHOWN]
        there = f" There are: {', '.join(others)}." if others else ""
        raise CganError(
            f"no sweep{which} in the MLflow store {without_credentials(store_uri(project_root()))}.{there} "
            "`python -m flows.sweep` makes one; is the store another, set MLFLOW_TRACKING_URI."
        )
    run_id = str(found[0].info.run_id)
    with open_registry(ANY) as registry, tempfile.TemporaryDirectory() as folder:
        files = {file.path for file in registry.client.list_artifacts(run_id)}
        if RESULT not in files:
            raise CganError(
                f"the sweep `{found[0].data.tags[NAME]}` has no result yet. The command that started it goes "
                "on with it."
            )
        path = registry.client.download_artifacts(run_id, RESULT, folder)
        return Found.from_json(json.loads(Path(path).read_text(encoding="utf-8")), RESULT)


def _parents() -> list[Run]:
    """The parent runs of all sweeps of this experiment, the newest first."""
    if is_absent(store_uri(project_root())):
        return []
    with open_registry(ANY) as registry:
        client = registry.client
        experiment = client.get_experiment_by_name(
            experiment_name(load_params().tracking.experiment)
        )
        if experiment is None:
            return []
        query = f"tags.`{ROLE}` = 'parent'"
        order = ["start_time DESC"]
        return list(client.search_runs([experiment.experiment_id], query, order_by=order))


def _values(params: dict[str, Any]) -> str:
    return ", ".join(f"{key.removeprefix('train.')} {value}" for key, value in params.items())


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
