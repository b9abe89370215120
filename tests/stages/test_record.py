"""Stage record: an MLflow run that is complete whatever came before, and holds nothing twice.

In a project in which the stages before have run; MLflow is a real sqlite store, or MLflow's server.
"""

import contextlib
import csv
import itertools
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import free_port
from finished_project import STEPS, finish
from tracked import Store, mlflow_server, refusing

from cgan.errors import CganError, TrackingError
from cgan.evaluation import Evaluation
from cgan.files import locked, read_json, write_bytes, write_json
from cgan.pipeline.tracking.run import open_run, read_training
from cgan.project import (
    CARD,
    EVALUATION,
    GRID,
    LOSSES,
    PREVIEWS,
    PROBES,
    RUN_LOCATION,
    TRAINING,
    training_folder,
    training_lock,
)
from cgan.quality.table import quality_line, tracked_values
from cgan.stages import record
from cgan.text import percent

SERIES = ("loss/generator", "progress/kimg", "probe/fid_judge")
AT_THE_END = f"A first look~at the end+step+{STEPS[-1]}"
PICTURES = [AT_THE_END, *(f"A first look~by step+step+{step}" for step in STEPS)]


@pytest.fixture
def root(
    project: Path, digits_csv: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """The working directory."""
    for name in ("TRACKING_URI", "RUN_ID", "RUN_CONTEXT", "DEFAULT_ARTIFACT_ROOT"):
        monkeypatch.delenv(f"MLFLOW_{name}", raising=False)
    monkeypatch.setenv("DVC_ROOT", str(project))
    finish(digits_csv, steps=STEPS[-1])
    for path in [path for paths in record.FILES.values() for path in paths]:
        path.parent.mkdir(exist_ok=True)
        path.touch()
    RUN_LOCATION.unlink()  # it is made here
    shutil.copyfile(empty_store, project / "mlflow.db")
    (project / "dvc.yaml").touch()  # it is a project
    return project


def assert_complete(root: Path, store: Path | None = None) -> Store:
    """One finished run with all that the stages left, each point, picture and model once."""
    held = Store(store or root / "mlflow.db")
    ((run_id, name, status),) = held.runs()
    about, numbers = read_json(TRAINING), tracked_values(Evaluation.read(EVALUATION))
    assert (name, status) == ("a run", "FINISHED")
    assert read_json(RUN_LOCATION)["run_id"] == run_id
    for key in SERIES:
        assert held.steps(key) == sorted(STEPS), key
    assert held.steps("time/training_s") == [0]
    points = "select key, step, value from metrics where key like 'quality/%' order by key"
    assert [row[:2] for row in held.rows(points)] == [(key, 0) for key in sorted(numbers)]
    assert held.pictures() == sorted(PICTURES)
    assert held.rows("select name, status from logged_models") == [("generator", 2)]
    assert held.rows("select count(*) from logged_model_metrics")[0][0] == len(numbers)
    assert held.rows("select count(*) from inputs where destination_type = 'RUN'") == [(1,)]
    assert held.params(run_id)["train.lr"] == str(about["params"]["train.lr"])
    times = held.rows("select min(timestamp), max(timestamp) from metrics where key = ?", SERIES[0])
    assert times == [(about["began_ms"], about["ended_ms"])]
    return held


def test_the_run_is_complete_from_the_outputs_alone_and_again_changes_nothing(root: Path) -> None:
    for _ in range(2):
        record.main()
        held = assert_complete(root)
    ((run_id, _, _),) = held.runs()
    assert held.rows("select end_time from runs") == [(read_json(TRAINING)["ended_ms"],)]
    assert read_json(Path("reports/recorded.json")) == tracked_values(Evaluation.read(EVALUATION))
    files = {path.name for path in (root / "mlartifacts").rglob(f"{run_id}/artifacts/**/*.*")}
    left = {path.name for paths in record.FILES.values() for path in paths}
    assert left | {"README.md", "quality.csv", "quality_by_class.csv", "params.yaml"} <= files
    assert "discriminator.safetensors" not in files, "it tells who was in the training data"
    tags, evaluation = held.tags(run_id), Evaluation.read(EVALUATION)
    right = evaluation.score("conditional_accuracy").value or 0
    note = tags["mlflow.note.content"]
    assert note.startswith(f"accuracy ↑ **{percent(right)}** · distance ↓ **")
    assert f"(get-artifact?path=strip.png&run_uuid={run_id})" in note
    assert {"data": "digits", "cgan.run_key": "k"}.items() <= tags.items()
    ((note,),) = held.rows(
        "select tag_value from logged_model_tags where tag_key = ?", record.NOTE_TAG
    )
    assert f'"runs:/{run_id}/generator"' in note
    with LOSSES.open() as file:
        rates = [float(row["learning_rate"]) for row in csv.DictReader(file)]
    query = "select value from metrics where key = 'progress/learning_rate' order by step"
    assert [value for (value,) in held.rows(query)] == pytest.approx(rates)
    card = CARD.read_text()
    assert f"**{quality_line(evaluation)}**" in card
    assert (CARD.parent / re.findall(r"!\[Drawings\]\((.+)\)", card)[0]).is_file()


def test_what_a_sweep_s_trial_has_not_made_is_left_out(root: Path) -> None:
    for path in {path for paths in record.FILES.values() for path in paths} - {
        *(EVALUATION, LOSSES, PROBES, Path("models/generator.safetensors"))
    }:
        path.unlink()
    record.main()
    ((run_id, _, _),) = (held := assert_complete(root)).runs()
    assert "get-artifact" not in held.tags(run_id)["mlflow.note.content"]


def test_f81_numbers_that_changed_are_added_and_no_others(root: Path) -> None:
    record.main()
    evaluation = read_json(EVALUATION)
    evaluation["metrics"]["recall"]["value"] += 0.25
    write_json(EVALUATION, evaluation)
    record.main()
    held = Store(root / "mlflow.db")
    assert held.steps("quality/recall") == [0, 0] and held.steps("quality/fid_judge") == [0]


def test_what_the_training_sent_before_mlflow_went_away_is_not_sent_again(root: Path) -> None:
    about = read_training(TRAINING)
    with open_run(about) as run:
        run.log_metrics([("loss/generator", 0.25, STEPS[0], about["began_ms"])])
        run.log_metrics([("progress/images_per_s", 300.0, STEPS[0], about["began_ms"])])
        run.log_image("A first look/by step", np.zeros((8, 12), np.uint8), STEPS[1], 1)
        run.client.update_run(run.run_id, status="RUNNING")
    record.main()
    held = assert_complete(root)
    query = "select value from metrics where key = 'loss/generator' order by step"
    assert held.rows(query)[0] == (0.25,), "as it was"


class Killed(BaseException):
    """SIGKILL: nothing of ours catches it."""


CALLS = (  # in their order, and the how many-th call of that name it is then
    *(("create_experiment", 1), ("create_run", 1), ("log_batch", 1), ("log_batch", 2)),
    *(("log_inputs", 1), ("log_artifact", 1), ("log_batch", 3), ("log_image", 1), ("log_image", 2)),
    *(("set_terminated", 1), ("log_artifact", 4), ("create_logged_model", 1), ("log_outputs", 1)),
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
def test_f61_f91_a_record_killed_or_in_trouble_at_any_call_loses_and_doubles_nothing(
    root: Path, monkeypatch: pytest.MonkeyPatch, served: bool
) -> None:
    """On a SQLite file, and on MLflow's server."""
    from mlflow import MlflowClient

    with mlflow_server(root, free_port()) if served else contextlib.nullcontext("") as site:
        if site:
            monkeypatch.setenv("MLFLOW_TRACKING_URI", site)
        for (call, last), after in itertools.product(CALLS, (False, True)):
            trouble = Killed() if after else TROUBLES.get(call, Killed())
            ending = ending_in(trouble, getattr(MlflowClient, call), last, after=after)
            with monkeypatch.context() as patch, pytest.raises((Killed, TrackingError)):
                patch.setattr(MlflowClient, call, ending)
                record.main()
        record.main()
        assert_complete(root)


@pytest.mark.parametrize("kind", ["away", "error 500", "a database that cannot be read"])
def test_f61_without_mlflow_it_fails_in_a_sentence_and_completes_the_run_the_next_time(
    root: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    with refusing() as refused:
        address = {"away": f"http://127.0.0.1:{free_port()}", "error 500": f"http://{refused}"}.get(
            kind, f"sqlite:///{root}/broken.db"
        )
        Path("broken.db").write_text("no database")
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        with pytest.raises(TrackingError) as caught:
            record.main()
    words = str(caught.value)
    assert words.startswith(f"MLflow at {address} cannot be used now (")
    assert "so run `a run` is not complete there" in words and "`dvc repro` again" in words
    assert not RUN_LOCATION.exists() and not Path("reports/recorded.json").exists()
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    record.main()
    assert_complete(root)


def test_checkpoints_go_once_dvc_has_the_result_but_not_another_training_s(root: Path) -> None:
    about = read_json(TRAINING)
    folder = training_folder(about["tags"]["cgan.fingerprint"])
    for key, kept in (("k", False), ("other", True), ("k", True)):
        write_json(folder / "run.json", {"run_key": key})
        write_bytes(folder / "step-1.safetensors", b"weights")
        in_use = locked(training_lock(folder)) if kept and key == "k" else contextlib.nullcontext()
        with in_use:
            record.main()
        assert (folder / "step-1.safetensors").exists() is kept
    assert not [path for path in folder.parent.iterdir() if "removed" in path.name]


@pytest.mark.parametrize(
    ("path", "content"),
    [
        *((EVALUATION, text) for text in ("", "[]")),
        (EVALUATION, '{"measurement_context": {"generator_digest": "another"}}'),
        (TRAINING, '{"run_key": "k", "run_na'),
    ],
)
def test_f80_what_is_damaged_or_not_of_this_generator_is_refused(
    root: Path, path: Path, content: str
) -> None:
    path.write_text(content)
    with pytest.raises(CganError, match=rf"{path.name}: "):
        record.main()
    assert Store(root / "mlflow.db").runs() == []


def test_a_sampler_which_has_no_previews_shows_its_grid(root: Path) -> None:
    shutil.copyfile(PREVIEWS / "step-000000.png", GRID)
    shutil.rmtree(PREVIEWS)
    record.main()
    assert Store(root / "mlflow.db").pictures() == [AT_THE_END]


def test_a_param_that_has_changed_since_keeps_its_first_value(root: Path) -> None:
    record.main()
    about = read_json(TRAINING)
    first = about["params"]["train.lr"]
    write_json(TRAINING, about | {"params": about["params"] | {"train.lr": 9.0}})
    record.main()
    held = Store(root / "mlflow.db")
    ((run_id, _, _),) = held.runs()
    assert held.params(run_id)["train.lr"] == str(first) != "9.0"
