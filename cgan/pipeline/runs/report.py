"""`cgan report`: what the pipeline made, on one screen: quality, pictures, where to look next."""

import contextlib
import shlex
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cgan.errors import CganError
from cgan.evaluation import METRICS, RANKED_BY, Evaluation, context_differences
from cgan.files import locked, read_json
from cgan.hosts import is_server, mlflow_page, without_credentials
from cgan.model.file_facts import read_facts
from cgan.pipeline.params_file import load_params
from cgan.pipeline.registry.client import evaluation_of, open_registry
from cgan.pipeline.runs.recorded_run import present_evaluation
from cgan.pipeline.tracking.store import store_uri
from cgan.pipeline.tracking.tags import GENERATOR_SHA256_TAG, MEASUREMENT_TAG
from cgan.project import (
    BESIDE_REAL,
    EVALUATION,
    GENERATOR,
    GRID,
    JUDGE_METRICS,
    RUN_LOCATION,
    RUN_PAGE,
    TRAIN_LOCK,
    TRAINING,
    project_root,
)
from cgan.quality.intervals import change_interval
from cgan.quality.table import fewer_judged, quality_line
from cgan.text import percent

DISTANCE = METRICS[RANKED_BY].tracked_key
UI = "http://127.0.0.1:5000"  # of `cgan ui` and `make up`


def summary() -> Iterator[str]:
    """Lines; those of the quality come before MLflow is asked, which takes seconds. Raises CganError while
    the pipeline has not run."""
    if not EVALUATION.is_file():
        advice = "Run the pipeline first: `make repro` or `dvc repro`."
        if _trains_now():
            advice = "A training runs here now: wait until `dvc repro` has ended. `cgan status` shows it."
        raise CganError(f"{EVALUATION}: not found. {advice}")
    if not GENERATOR.is_file():  # DVC removes what a stage made before it starts it again
        raise CganError(
            f"{EVALUATION} is about a generator that is gone: {GENERATOR} does not exist. `dvc checkout` "
            "restores both; `dvc repro` trains another."
        )
    evaluation, judge = present_evaluation(Path()), read_json(JUDGE_METRICS)
    run: dict[str, Any] = {}
    with contextlib.suppress(CganError):
        run = read_json(TRAINING) | {"run_id": None}
        run |= read_json(RUN_LOCATION)
    try:
        lines = _quality(evaluation, judge["judge"], run)
    except (KeyError, TypeError, ValueError, AttributeError):
        raise CganError(
            f"{EVALUATION} or {JUDGE_METRICS}: this version cannot read one of them. Write both again: "
            "`dvc repro --force train_judge evaluate`."
        ) from None
    yield from (*lines, *_fewer(evaluation), "")
    numbers = "2024" if len(evaluation.classes) == 10 else "0,1"
    classes = ", ".join((evaluation.class_names or [numbers])[:3])
    local_command = Path(".venv/bin/cgan")  # of `make`: it may be on nobody's PATH
    command = local_command if local_command.is_file() else "cgan"
    yield f"  its page      {RUN_PAGE}: open it in a browser; it needs no server"
    yield f"  sample grid   {GRID}; beside real images: {BESIDE_REAL}"
    yield f"  draw more     {command} draw {shlex.quote(classes)} --seed 7"
    yield f"  sharing       {command} sharing says whether they may be shared"
    yield "  keep it       git commit -m 'My results' dvc.lock"
    yield f"  MLflow run    {run.get('run_name', 'none')}"
    if run.get("run_id"):
        yield f"  its id        {run['run_id']}"
        yield f"  compare       {command} compare RUN . (RUN: an id, or champion)"
    yield from _among_runs(run)
    if run:
        yield f"  in MLflow     {_in_mlflow(run, command)}"


def _trains_now() -> bool:
    if not (lock := project_root() / TRAIN_LOCK).is_file():
        return False
    with locked(lock, wait=False) as is_free:
        return not is_free


def _quality(evaluation: Evaluation, judge: dict[str, Any], run: dict[str, Any]) -> list[str]:
    context = evaluation.context
    rows = [row[:-1] for row in evaluation.table()]  # the page has the meanings: they fit no screen
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        f"{run.get('run_name', 'This generator')}: {quality_line(evaluation, run.get('training_s'))}",
        "",
        f"Quality, next to real images ({RUN_PAGE} says what each metric means):",
        *(f"  {'  '.join(map(str.ljust, row, widths)).rstrip()}" for row in rows),
        f"  {context['drawn_images'] * context['draws']:,} drawings, judged by a classifier that is right on",
        f"  {percent(judge['accuracy'])} of {judge['heldout_images']:,} held-out images (mean over classes)",
    ]


def _fewer(evaluation: Evaluation) -> list[str]:
    """Why fewer drawings of a sampler were judged than params.yaml asks for."""
    with contextlib.suppress(CganError, KeyError):
        if read_facts(GENERATOR, "generator")["params"]["generator"] == "local_score":
            text = fewer_judged(evaluation, load_params().evaluate.samples)
            return textwrap.wrap(text, 110, initial_indent="  ", subsequent_indent="  ")
    return []


def _among_runs(run: dict[str, Any]) -> list[str]:
    # There may be no store, or another version's numbers.
    with contextlib.suppress(CganError, KeyError, TypeError):
        if run.get("run_id") and (standing := rank_in_words(run["run_id"])):
            return [f"  on these data {standing}"]
    return []


def rank_in_words(run_id: str) -> str:
    """`number 2 of 5 generators by Fréchet distance, 0.335; seed 3 has 0.31, and the difference is within
    chance`.

    Empty where no other generator was measured alike. Raises TrackingError.
    """
    with open_registry() as registry:
        run = registry.client.get_run(run_id)
        measurement = str(run.data.tags.get(MEASUREMENT_TAG))
        peers = measured_alike(registry.client, run.info.experiment_id, measurement)
        weights = run.data.tags.get(GENERATOR_SHA256_TAG, run_id)
        if weights not in peers or len(peers) < 2:
            return ""
        ranking = list(peers)
        position = ranking.index(weights) + 1
        rival = peers[ranking[1 if position == 1 else 0]][0]
        own, rivals = (evaluation_of(registry, key) for key in (run_id, rival.info.run_id))
    text = f"number {position} of {len(peers)} generators by "
    text += f"{METRICS[RANKED_BY].name}, {run.data.metrics[DISTANCE]:.3g}; "
    text += f"{rival.info.run_name} has {rival.data.metrics[DISTANCE]:.3g}"
    if not own or not rivals or context_differences(own.context, rivals.context, RANKED_BY):
        return text
    if interval := change_interval(RANKED_BY, own, rivals):
        low, high = interval
        text += f", and the difference is {'within' if low <= 0 <= high else 'more than'} chance"
    return text


def measured_alike(client: Any, experiment: str, measurement: str) -> dict[str, list[Any]]:
    """The runs of each generator, the best first, by the hash of its file: equal params train it again."""
    wanted = f"tags.`{MEASUREMENT_TAG}` = '{measurement}'"
    runs: dict[str, list[Any]] = {}
    for run in client.search_runs([experiment], wanted, order_by=[f"metrics.`{DISTANCE}` ASC"]):
        if DISTANCE in run.data.metrics:
            runs.setdefault(run.data.tags.get(GENERATOR_SHA256_TAG, run.info.run_id), []).append(
                run
            )
    return runs


def _in_mlflow(run: dict[str, Any], command: Path | str) -> str:
    """Where the page of a run is."""
    if not run.get("run_id"):
        return "not recorded yet: dvc repro"
    ids = str(run.get("experiment_id") or 0), run["run_id"]
    recorded = str(run.get("tracking_uri") or store_uri(project_root()))
    if is_server(recorded):
        return mlflow_page(without_credentials(recorded), *ids)
    if not _is_in_store(run["run_id"]):
        return "in the store of the machine that recorded it, not in this one's"
    return f"{command} ui, then {mlflow_page(UI, *ids)}"


def _is_in_store(run_id: str) -> bool:
    with contextlib.suppress(Exception), open_registry() as registry:  # of MLflow, of a database
        return bool(registry.client.get_run(run_id))
    return False
