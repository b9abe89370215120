"""`cgan sweep`: what the sweeps found, and the best trial's params into params.yaml if they are better.

MLflow knows it: the parent run of a sweep carries `sweep.json`, which `python -m flows.sweep` writes.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer

from cgan.errors import CganError
from cgan.files import read_json

# Tags of the runs of a sweep.
NAME = "cgan.sweep"
ROLE = "cgan.sweep.role"  # parent | trial | best | present
JOB = "cgan.sweep.job"
PARENT_TAG = "mlflow.parentRunId"
RESULT = "sweep.json"  # among the parent's files: a verdict with `best` and `present` params
BETTER = "better"
SHOWN = 10  # sweeps in a list

sweep = typer.Typer(no_args_is_help=True, help="What sweeps found (`python -m flows.sweep`).")
Name = Annotated[str | None, typer.Argument(help="Of the sweep.  \\[default: the newest]")]


@sweep.command("show")
def _show(name: Name = None) -> None:
    """The best trial of a sweep, and whether it is better than params.yaml."""
    typer.echo(show(name))


@sweep.command("apply")
def _apply(name: Name = None) -> None:
    """Write the best trial's params into params.yaml, if they are better by more than the luck of seeds."""
    typer.echo(apply(name))


def show(name: str | None) -> str:
    """The newest sweep, or the one of that name; and which others there are."""
    found, others = find(name)
    return "\n".join([found["summary"], *(["Others: " + ", ".join(others)] if others else [])])


def apply(name: str | None) -> str:
    """Write the best trial's params into params.yaml if they are better → what was done, in words.

    Raises CganError where there is no such sweep, or params.yaml has changed since.
    """
    from cgan.params.editing import set_params
    from cgan.params.reading import load_params
    from cgan.params.sections import flatten

    found, _ = find(name)
    if found["verdict"] != BETTER:
        return f"{found['summary']}\nparams.yaml stays as it is."
    now, best = flatten(load_params()), found["best"]
    changed = {k: v for k, v in found["present"].items() if now.get(k, "nothing") != v}
    if changed.keys() <= best.keys() and best.items() <= now.items():
        return f"{found['summary']}\nparams.yaml holds its params already."
    if changed:
        told = "; ".join(f"`{key}` is {now.get(key)}, was {was}" for key, was in changed.items())
        raise CganError(
            f"params.yaml is not what the sweep compared with: {told[:500]}. Bring it back, or sweep again."
        )
    done = set_params(best, source="the sweep")
    lines = [f"{key}: {before} → {after}" for key, (before, after) in done.items()]
    return "\n".join([found["summary"], *lines, "`dvc repro` brings the rest up to date."])


def find(name: str | None) -> tuple[dict[str, Any], list[str]]:
    """The result of the newest sweep, or of the newest of that name; the names of others.

    Raises CganError if there is none in this experiment.
    """
    from cgan.params.reading import load_params
    from cgan.registry.client import open_registry
    from cgan.store.address import experiment_name

    with open_registry() as registry, tempfile.TemporaryDirectory() as folder:
        client = registry.client
        experiment = client.get_experiment_by_name(
            experiment_name(load_params().tracking.experiment)
        )
        known = [experiment.experiment_id] if experiment else []
        order, query = ["start_time DESC"], f"tags.`{ROLE}` = 'parent'"
        parents = client.search_runs(known, query, order_by=order) if known else []
        names = list(dict.fromkeys(run.data.tags[NAME] for run in parents))
        wanted = [own for own in names if name in (None, own, own.rpartition("-")[0])]
        run = next((run for run in parents if run.data.tags[NAME] in wanted), None)
        if run is None:
            raise CganError(
                f"no sweep{f' `{name}`' if name else ''} in the MLflow store {registry.shown}. There are: "
                f"{', '.join(names[:SHOWN]) or 'none'}. `python -m flows.sweep` makes one; if the store is "
                "another, set MLFLOW_TRACKING_URI."
            )
        own = run.data.tags[NAME]
        if RESULT not in {file.path for file in client.list_artifacts(run.info.run_id)}:
            raise CganError(f"the sweep `{own}` has no result yet: start it again, and it goes on.")
        result = read_json(Path(client.download_artifacts(run.info.run_id, RESULT, folder)))
        return result, [other for other in names if other != own][:SHOWN]
