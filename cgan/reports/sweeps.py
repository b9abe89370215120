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
ROLE = "cgan.sweep.role"  # parent | trial
JOB = "cgan.sweep.job"
PARENT_TAG = "mlflow.parentRunId"
RESULT = "sweep.json"  # among the parent's files: a verdict with `best` and `present` params
BETTER = "better"

sweep = typer.Typer(no_args_is_help=True, help="What sweeps found (`python -m flows.sweep`).")
Name = Annotated[str | None, typer.Argument(help="Of the sweep.  \\[default: the newest]")]


@sweep.command()
def show(name: Name = None) -> None:
    """The best trial of a sweep, and whether it is better than params.yaml."""
    typer.echo(find(name)["summary"])


@sweep.command()
def apply(name: Name = None) -> None:
    """Write the best trial's params into params.yaml, if they are better by more than the luck of seeds."""
    from cgan.params.editing import set_params
    from cgan.params.reading import load_params
    from cgan.params.sections import flatten

    found = find(name)
    typer.echo(found["summary"])
    now, best = flatten(load_params()), found["best"]
    if found["verdict"] != BETTER:
        typer.echo("params.yaml stays as it is.")
        return
    if best.items() <= now.items():
        typer.echo("params.yaml holds its params already.")
        return
    changed = {k: v for k, v in found["present"].items() if now.get(k, "nothing") != v}
    if changed:
        words = "; ".join(f"`{key}` is {now.get(key)}, was {was}" for key, was in changed.items())
        raise CganError(
            f"params.yaml is not what the sweep compared with: {words[:500]}. Bring it back, or sweep again."
        )
    for key, (before, after) in set_params(best, source="the sweep").items():
        typer.echo(f"{key}: {before} → {after}")
    typer.echo("`dvc repro` brings the rest up to date.")


def find(name: str | None) -> dict[str, Any]:
    """The result of the newest sweep, or of the newest of that name, with or without its last part.

    Raises CganError if there is none in this experiment.
    """
    from cgan.params.reading import load_params
    from cgan.registry.client import open_registry
    from cgan.tracking.store import experiment_name

    with open_registry() as registry, tempfile.TemporaryDirectory() as folder:
        client = registry.client
        experiment = client.get_experiment_by_name(
            experiment_name(load_params().tracking.experiment)
        )
        known = [experiment.experiment_id] if experiment else []
        order, query = ["start_time DESC"], f"tags.`{ROLE}` = 'parent'"
        parents = client.search_runs(known, query, order_by=order) if known else []
        for run in parents:
            own = run.data.tags[NAME]
            if name in (None, own, own.rpartition("-")[0]):
                if RESULT not in {file.path for file in client.list_artifacts(run.info.run_id)}:
                    raise CganError(
                        f"the sweep `{own}` has no result yet: start it again, and it goes on."
                    )
                file = client.download_artifacts(run.info.run_id, RESULT, folder)
                return dict(read_json(Path(file)))
        names = dict.fromkeys(run.data.tags[NAME] for run in parents)
        raise CganError(
            f"no sweep{f' `{name}`' if name else ''} in the MLflow store {registry.shown}. There are: "
            f"{', '.join(names) or 'none'}. `python -m flows.sweep` makes one; if the store is another, set "
            "MLFLOW_TRACKING_URI."
        )
