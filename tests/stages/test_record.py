"""Stage record: an MLflow run that is complete whatever came before, and holds nothing twice.

In a project in which the stages before have run; MLflow is a real sqlite store, or MLflow's server.
"""

import contextlib
import csv
import html
import itertools
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import LOG_EVERY, STEPS, Project, Store, answers, free_port, started, wait_until

from cgan.base.errors import CganError, TrackingError
from cgan.base.files import locked, read_json, write_bytes, write_json
from cgan.base.report import in_markdown
from cgan.base.text import percent
from cgan.pipeline.project import (
    CARD,
    EVALUATION,
    LOSSES,
    METRICS_FILE,
    PREVIEWS,
    PROBES,
    RUN_LOCATION,
    RUN_PAGE,
    TRAINING,
    training_folder,
    training_lock,
)
from cgan.pipeline.tracking.run import open_run, read_training
from cgan.quality.evaluate import METRICS
from cgan.quality.evaluation import Evaluation, Metric, Score
from cgan.stages import evaluate, page, record
from cgan.training.records import preview_paths

LEFT = [path for paths in record.FILES.values() for path in paths]


@pytest.fixture
def store(copied: Project, empty_store: Path) -> Store:
    """Of a finished project whose run has never been recorded: the working directory."""
    shutil.rmtree("mlartifacts")
    shutil.copyfile(empty_store, "mlflow.db")
    RUN_LOCATION.unlink()
    return Store(copied.folder / "mlflow.db")


def assert_complete(store: Store) -> str:
    """One finished run with all that the stages left, each point, picture and model once: its id."""
    ((run_id, name, status),) = store.runs()
    about, numbers = read_json(TRAINING), Evaluation.read(EVALUATION).values()
    assert (name, status) == (about["run_name"], "FINISHED")
    assert read_json(RUN_LOCATION)["run_id"] == run_id
    for key, path in (
        ("loss/generator", LOSSES),
        ("progress/kimg", LOSSES),
        ("probe/fid_judge", PROBES),
    ):
        with path.open() as file:
            assert store.steps(key) == [int(row["step"]) for row in csv.DictReader(file)], key
    assert store.steps("loss/generator") == [*range(LOG_EVERY, STEPS + 1, LOG_EVERY)]
    assert store.steps("time/training_s") == [0]
    points = "select key, step, value from metrics where key like 'quality/%' order by key"
    tracked = [(f"quality/{key}", 0) for key in sorted(numbers)]
    assert [row[:2] for row in store.rows(points)] == tracked
    previews = {path.name for path in Path("mlartifacts").rglob("samples/by_step/*")}
    assert previews == {path.name for path in preview_paths(PREVIEWS).values()}
    assert store.rows("select name, status from logged_models") == [("generator", 2)]
    assert store.rows("select count(*) from logged_model_metrics")[0][0] == len(numbers)
    assert store.rows("select count(*) from inputs where destination_type = 'RUN'") == [(1,)]
    assert store.params(run_id)["train.lr"] == str(about["params"]["train.lr"])
    return str(run_id)


def test_a_run_is_complete_from_outputs_and_again_is_the_same(store: Store) -> None:
    for _ in range(2):
        record.main()
        run_id = assert_complete(store)
    about, evaluation = read_json(TRAINING), Evaluation.read(EVALUATION)
    began, ended = about["began_ms"], about["ended_ms"]
    assert store.rows("select end_time from runs") == [(ended,)]
    times = "select min(timestamp), max(timestamp) from metrics where key = 'loss/generator'"
    assert store.rows(times) == [(int(began + (ended - began) * LOG_EVERY / STEPS), ended)]
    files = {path.name for path in Path("mlartifacts").rglob(f"{run_id}/artifacts/**/*.*")}
    left = {path.name for path in LEFT}
    assert left | {"README.md", "params.yaml"} <= files
    assert "discriminator.safetensors" not in files, "it tells who was in the training data"
    tags, sentence = store.tags(run_id), evaluation.report(about["training_s"]).sentence
    note = tags["mlflow.note.content"]
    assert tags["cgan.quality"] == sentence and note.startswith(f"**{in_markdown(sentence)}**\n\n")
    assert f"(get-artifact?path=strip.png&run_uuid={run_id})" in note
    assert tags["cgan.run_key"] == about["run_key"]
    of_model = f"select tag_value from logged_model_tags where tag_key = '{record.NOTE_TAG}'"
    assert f'"runs:/{run_id}/generator"' in store.rows(of_model)[0][0]
    with LOSSES.open() as file:
        rates = [float(row["learning_rate"]) for row in csv.DictReader(file)]
    query = "select value from metrics where key = 'progress/learning_rate' order by step"
    assert [value for (value,) in store.rows(query)] == pytest.approx(rates)
    card = CARD.read_text()
    assert f"**{in_markdown(evaluation.report().sentence)}**" in card
    assert (CARD.parent / re.findall(r"!\[Drawings\]\((.+)\)", card)[0]).is_file()
    # Numbers that changed are added, and no others; a param keeps its first value.
    first = about["params"]["train.lr"]
    write_json(TRAINING, about | {"params": about["params"] | {"train.lr": 9.0}})
    changed = read_json(EVALUATION)
    changed["metrics"]["recall"]["value"] += 0.25
    write_json(EVALUATION, changed)
    record.main()
    assert store.steps("quality/recall") == [0, 0] and store.steps("quality/fid_judge") == [0]
    assert store.params(run_id)["train.lr"] == str(first) != "9.0"


def test_what_a_sweep_s_trial_has_not_made_is_left_out(store: Store) -> None:
    for path in {*LEFT} - {EVALUATION, LOSSES, PROBES, Path("models/generator.safetensors")}:
        path.unlink()
    record.main()
    note = store.tags(assert_complete(store))["mlflow.note.content"]
    assert "get-artifact" not in note


def test_what_the_training_sent_already_is_not_sent_again(store: Store) -> None:
    about = read_training(TRAINING)
    with open_run(about) as run:
        run.log_metrics([("loss/generator", 0.25, LOG_EVERY, about["began_ms"])])
        run.log_metrics([("progress/images_per_s", 300.0, LOG_EVERY, about["began_ms"])])
        run.client.update_run(run.run_id, status="RUNNING")
    record.main()
    first = "select value, timestamp from metrics where key = 'loss/generator' order by step"
    assert store.rows(first)[0] == (0.25, about["began_ms"]), "as it was"
    assert_complete(store)


class Killed(BaseException):
    """SIGKILL: nothing of ours catches it."""


CALLS = (  # in their order, and the how many-th call of that name it is then
    *(("create_experiment", 1), ("create_run", 1), ("log_batch", 1), ("log_batch", 2)),
    *(("log_inputs", 1), ("log_artifact", 1), ("log_batch", 3), ("log_artifact", 4)),
    *(("set_terminated", 1), ("log_artifact", 6), ("create_logged_model", 1), ("log_outputs", 1)),
    *(("log_model_artifacts", 1), ("finalize_logged_model", 1), ("log_batch", 3), ("log_batch", 3)),
)
TROUBLES: dict[str, BaseException] = {  # in place of a kill before the call
    "create_run": ImportError("libXau.so: failed to map segment from shared object"),
    "log_batch": OSError(28, "No space left on device"),
    "create_logged_model": MemoryError(),
    "log_model_artifacts": ConnectionError("reset by peer"),
}


def ending_in(
    trouble: BaseException, plain: Callable[..., Any], last: int, *, after: bool
) -> Callable[..., Any]:
    """MLflow's call, which ends in trouble the `last` time, before or after it did its work."""
    counted = itertools.count(1)

    def call(*args: Any, **options: Any) -> Any:
        ends = next(counted) == last
        answer = plain(*args, **options) if after or not ends else None
        if ends:
            raise trouble
        return answer

    return call


@pytest.mark.parametrize("served", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_killed_or_in_trouble_at_any_call_nothing_is_doubled(
    store: Store, monkeypatch: pytest.MonkeyPatch, served: bool
) -> None:
    """On a SQLite file, and on MLflow's server."""
    from mlflow import MlflowClient

    port = free_port()
    with contextlib.ExitStack() as running:
        if served:
            running.enter_context(started("cgan", "ui", "--port", port, cwd=Path()))
            wait_until(lambda: answers(f"http://127.0.0.1:{port}/health"))
            monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
        for (call, last), after in itertools.product(CALLS, (False, True)):
            trouble = Killed() if after else TROUBLES.get(call, Killed())
            ending = ending_in(trouble, getattr(MlflowClient, call), last, after=after)
            with monkeypatch.context() as patch, pytest.raises((Killed, TrackingError)):
                patch.setattr(MlflowClient, call, ending)
                record.main()
        record.main()
        assert_complete(store)


@pytest.mark.parametrize("kind", ["away", "a database that cannot be read"])
def test_without_mlflow_a_sentence_and_next_time_the_whole_run(
    store: Store, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    Path("broken.db").write_text("no database")
    broken = f"sqlite:///{Path('broken.db').resolve()}"
    address = f"http://127.0.0.1:{free_port()}" if kind == "away" else broken
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    with pytest.raises(TrackingError) as caught:
        record.main()
    words, name = str(caught.value), read_json(TRAINING)["run_name"]
    assert words.startswith(f"MLflow at {address} cannot be used (")
    assert f"so run `{name}` is not complete there" in words and "`dvc repro` again" in words
    assert not RUN_LOCATION.exists()
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    record.main()
    assert_complete(store)


def test_checkpoints_go_once_dvc_has_the_result_unless_in_use(store: Store) -> None:
    folder = training_folder(read_json(TRAINING)["tags"]["cgan.fingerprint"])
    write_bytes(folder / "step-1.safetensors", b"weights")
    with locked(training_lock(folder)):
        record.main()
    assert (folder / "step-1.safetensors").exists()
    record.main()
    assert not folder.exists()
    assert not [path for path in folder.parent.iterdir() if "removed" in path.name]


def test_what_is_damaged_or_of_another_generator_is_refused(store: Store) -> None:
    another = '{"metrics": {}, "context": {"generator_digest": "another"}}'
    for path, content, words in (
        (EVALUATION, "[]", r"evaluation\.json: "),
        (EVALUATION, another, r"evaluation\.json: of another generator than"),
        (TRAINING, '{"run_key": "k", "run_na', r"training\.json: "),
    ):
        whole = path.read_bytes()
        path.write_text(content)
        with pytest.raises(CganError, match=words):
            record.main()
        path.write_bytes(whole)
    assert store.runs() == []


def test_a_metric_added_in_one_place_is_shown_everywhere(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    toy = Metric(
        key="brightness",
        name="mean <brightness>",
        meaning="of all pixels",
        measure=lambda drawn: Score(value=drawn.pixels.double().mean().item() / 255, real=0.5),
    )
    monkeypatch.setitem(METRICS, toy.key, toy)
    for stage in (evaluate, page, record):
        stage.main()
    value = read_json(EVALUATION)["metrics"][toy.key]["value"]
    row = [toy.name, percent(value), "", "50.0 %", "higher", toy.meaning]
    assert Evaluation.read(EVALUATION).report().tables[0].as_rows()[-1] == row
    assert read_json(METRICS_FILE)["quality"][toy.key] == round(value, 5)
    shown = RUN_PAGE.read_text(encoding="utf-8").replace("\u00a0", " ")
    assert "<brightness>" not in shown and all(f">{html.escape(cell)}</" in shown for cell in row)
    assert store.steps(f"quality/{toy.key}") == [0]
    assert " mean &lt;brightness&gt; | " in CARD.read_text(encoding="utf-8")
