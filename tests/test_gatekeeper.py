"""`cgan gate` from end to end, in a real MLflow store: trainings come, are judged, promoted, blocked."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ROOT
from gated import change_params, gated, make_project, settled, train
from mlflow import MlflowClient

from cgan import gatekeeper, load_check
from cgan.dataset import load_dataset, save_dataset
from cgan.errors import ModelError, TrackingError
from cgan.gatekeeper import training_data_of
from cgan.load_check import drawing_apart, labels_for
from cgan.registry import Registry, open_registry

pytestmark = [  # MLflow's own: connections left to the garbage collector, hints of its own classes
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*Any type hint is inferred:UserWarning"),
]


@pytest.fixture(scope="module")
def blank(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Path:
    """A project before its first training, with a store that has its tables."""
    root = tmp_path_factory.mktemp("blank")
    make_project(root)
    shutil.copyfile(empty_store, root / "mlflow.db")
    return root


@pytest.fixture
def root(blank: Path, tmp_path: Path) -> Iterator[Path]:
    target = tmp_path / "project"
    shutil.copytree(blank, target)
    with settled(target):
        yield target


@pytest.fixture(scope="module")
def history(blank: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A first champion, gated by the real command; its output is in said.txt."""
    root = tmp_path_factory.mktemp("history") / "project"
    shutil.copytree(blank, root)
    with settled(root):
        train(root, "first", 30)
        done = subprocess.run(
            [sys.executable, "-m", "cgan.cli", "gate"],
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            cwd=root,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        (root / "said.txt").write_text(done.stdout)
        yield root


@pytest.fixture
def champion(history: Path) -> Path:
    """The module's project with its first champion; tests only read it."""
    return history


def client_of(root: Path) -> MlflowClient:
    return MlflowClient(f"sqlite:///{root / 'mlflow.db'}")


# ------------------------------------------------------------------------------------- the first one


def test_first_good_generator_is_registered_judged_and_promoted(champion: Path) -> None:
    report = json.loads((champion / "reports/gate.json").read_text())
    assert report["verdict"] == "promoted"
    assert report["summary"] == "Version 1 is the first champion."
    assert (report["champion"], report["promoted_from"]) == (None, None)
    assert all(check["passed"] for check in report["checks"])
    said = (champion / "said.txt").read_text()
    assert "Version 1 of `cgan` registered: fit of 30 steps." in said
    assert "PROMOTED: Version 1 is the first champion." in said
    assert (champion / "reports/gate.md").read_text().startswith("# Gate: promoted")


def test_verdict_is_where_mlflow_shows_it(champion: Path) -> None:
    client = client_of(champion)
    version = client.get_model_version_by_alias("cgan", "champion")
    assert version.version in (1, "1")
    assert version.tags["gate.verdict"] == "promoted"
    assert version.tags["gate.summary"] == "Version 1 is the first champion."
    assert version.tags["git.commit"] == "c" * 40
    assert version.tags["prefect.flow_run_id"] == "flow-1"
    assert "## Bars" in version.description
    run = client.get_run(version.run_id)
    assert run.data.tags["gate.verdict"] == "promoted"
    assert run.data.metrics["gate/conditional_accuracy"] > 0.95
    names = {file.path for file in client.list_artifacts(version.run_id, "gate")}
    assert names == {
        f"gate/{name}"
        for name in (
            "gate.json",
            "gate.md",
            "judge.safetensors",
            "training_data.safetensors",
            "validation.json",
        )
    }


def test_what_a_reevaluation_needs_is_kept(champion: Path) -> None:
    with settled(champion), open_registry("cgan") as registry:
        features, prints = training_data_of(registry, registry.version(1))
    from cgan.dataset import load_dataset

    training = load_dataset(champion / "data/processed/train.safetensors")
    assert features.shape == (len(training), 128)
    assert len(prints.unique()) == len(training)


def test_f72_two_gates_at_once_make_one_version_and_one_promotion(root: Path) -> None:
    train(root, "first", 30)
    gates = [
        subprocess.Popen(
            [sys.executable, "-m", "cgan.cli", "gate"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        for _ in range(2)
    ]
    said = [each.communicate(timeout=240) for each in gates]
    assert [each.returncode for each in gates] == [0, 0], said
    assert all("PROMOTED" in out or "UNCHANGED" in out for out, _ in said)
    assert versions(root) == [(1, "promoted")]
    with open_registry("cgan") as registry:
        assert [move.target for move in registry.history()] == [1]


# --------------------------------------------------------------------------------- those that follow


@pytest.fixture
def second(champion: Path, tmp_path: Path) -> Iterator[Path]:
    """A copy of the project with its first champion, to go on from."""
    root = tmp_path / "project"
    shutil.copytree(champion, root)
    # Artifacts have absolute addresses in the store: the copy reads and writes those of the original.
    with settled(root):
        yield root


def aliases(root: Path) -> dict[str, int]:
    with open_registry("cgan") as registry:
        return registry.aliases()


def versions(root: Path) -> list[tuple[int, str]]:
    with open_registry("cgan") as registry:
        return [(version.number, version.verdict) for version in registry.versions()]


def test_second_call_says_unchanged_and_makes_no_second_version(second: Path) -> None:
    report, _ = gated()
    assert report["verdict"] == "unchanged"
    assert "it is the champion already" in report["summary"]
    assert report["checks"], "the numbers of then are told again"
    assert versions(second) == [(1, "promoted")]
    with open_registry("cgan") as registry:
        assert len(registry.history()) == 1


def test_better_generator_replaces_the_champion_and_rollback_is_not_undone(second: Path) -> None:
    train(second, "second", 60)
    report, _ = gated()
    assert report["verdict"] == "promoted", report["reasons"]
    assert report["promoted_from"] == 1
    assert report["champion"]["version"] == 1
    rows = {row["metric"]: row for row in report["comparison"]}
    assert rows["fid_judge"]["better"] is True
    assert rows["fid_judge"]["interval"][1] < 0
    assert aliases(second) == {"champion": 2, "previous": 1}
    first = client_of(second).get_run(report["champion"]["run_id"])
    assert first.data.metrics["gate/fid_judge"] == rows["fid_judge"]["champion"]
    with open_registry("cgan") as registry:
        registry.rollback("it draws badly on the wall")
    report, _ = gated()
    assert report["verdict"] == "unchanged"
    assert "it draws badly on the wall" in report["summary"]
    assert aliases(second) == {"champion": 1}


def test_worse_generator_is_blocked_once_and_stays_challenger(second: Path) -> None:
    train(second, "worse", 20)
    report, _ = gated()
    assert report["verdict"] == "blocked"
    assert any("worse than the champion's" in reason for reason in report["reasons"])
    assert aliases(second) == {"champion": 1, "challenger": 2}
    report, _ = gated()
    assert report["verdict"] == "unchanged"
    assert "it was judged before: Version 2 is blocked" in report["summary"]
    change_params(second, "gate", min_judge_accuracy=0.5)  # other bars: judged anew
    assert gated()[0]["verdict"] == "blocked"


def test_same_weights_from_another_run_need_no_version(second: Path) -> None:
    train(second, "again", 30)
    report, _ = gated()
    assert report["verdict"] == "unchanged"
    assert "the weights are the champion's, bit by bit" in report["summary"]
    assert versions(second) == [(1, "promoted")]


def test_without_promotion_a_good_one_waits_for_a_person(second: Path) -> None:
    train(second, "second", 60)
    change_params(second, "gate", promote=False)
    assert gated()[0]["verdict"] == "passed"
    assert aliases(second) == {"champion": 1, "challenger": 2}
    assert gated()[0]["verdict"] == "unchanged"
    change_params(second, "gate", promote=True)
    assert gated()[0]["verdict"] == "promoted"
    assert aliases(second) == {"champion": 2, "previous": 1}


@pytest.mark.parametrize("moment", ["before the promotion", "after the promotion"])
def test_gate_killed_around_the_promotion_is_finished_by_the_next(
    second: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    train(second, "second", 60)
    real = Registry.promote

    def killed(*arguments: Any, **named: Any) -> Any:
        if moment == "after the promotion":
            real(*arguments, **named)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Registry, "promote", killed)
        with pytest.raises(KeyboardInterrupt):
            gated()
    report, _ = gated()
    assert report["verdict"] == ("unchanged" if moment == "after the promotion" else "promoted")
    assert versions(second) == [(2, "promoted"), (1, "promoted")]
    assert aliases(second) == {"champion": 2, "previous": 1}
    with open_registry("cgan") as registry:
        assert [move.target for move in registry.history()] == [1, 2]


def test_f73_champion_without_files_is_told_and_the_bars_decide(second: Path) -> None:
    train(second, "second", 60)
    with pytest.MonkeyPatch.context() as patch:

        def gone(uri: str) -> Any:
            raise ModelError(f"{uri}: its files are gone")

        patch.setattr(gatekeeper, "generator_file", gone)
        report, _ = gated()
    assert report["verdict"] == "promoted"
    assert report["comparison"] == []
    assert any("cannot be read, so the bars alone decided" in each for each in report["reasons"])


def swap_parts() -> int:
    """Other data, of the same kind: the hold-out becomes the training part. Returns the images held out."""
    paths = [Path(f"data/processed/{part}.safetensors") for part in ("train", "holdout")]
    parts = [load_dataset(path) for path in paths]
    for path, part, name in zip(paths, parts[::-1], ("train", "holdout"), strict=True):
        facts = {"classes": 3, "part": name, "csv_sha256": "f" * 64}
        save_dataset(path, part.images.numpy(), part.labels.numpy(), facts)
    return len(parts[0])


def test_champion_of_other_data_is_judged_on_todays_and_its_advantage_counted(
    second: Path,
) -> None:
    heldout = swap_parts()
    train(second, "swapped", 60)
    report, _ = gated()
    note = f"of whose {heldout:,} images {heldout:,} were among its training images"
    assert any(note in reason for reason in report["reasons"]), report["reasons"]
    assert "no longer like" not in str(report["reasons"])


@pytest.mark.parametrize(("on_drift", "verdict"), [("block", "blocked"), ("note", "promoted")])
def test_f19_data_unlike_the_champions_block_what_they_made_however_good(
    second: Path, on_drift: str, verdict: str
) -> None:
    """Today's judge learnt from today's data, so that no other number would show it."""
    swap_parts()
    profile = json.loads(Path("reports/validation.json").read_text())
    profile["profile"]["brightness"].reverse()  # as of inverted images
    Path("reports/validation.json").write_text(json.dumps(profile))
    change_params(second, "gate", on_drift=on_drift, against_champion="not_worse")
    train(second, "inverted", 60)
    report, _ = gated()
    assert report["verdict"] == verdict
    (reason,) = (r for r in report["reasons"] if "no longer like" in r)
    assert "pixel_values 0." in reason


# ------------------------------------------------------------------------------------ when it cannot


def test_store_that_is_away_is_one_message_and_nothing_is_lost(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(root, "first", 30)
    with monkeypatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
        with pytest.raises(TrackingError, match="MLflow is away"):
            gated()
    assert not Path("reports/gate.json").exists()
    assert gated()[0]["verdict"] == "promoted"


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda: Path("models/generator.safetensors").unlink(), "Make it with `dvc repro`"),
        (lambda: Path("models/mlflow_run.json").unlink(), "names no MLflow run"),
        (lambda: shutil.rmtree(".cgan/tracking"), "has no run"),
        (
            lambda: train(Path(), "other", 20) and shutil.rmtree(".cgan/tracking/other"),
            "has no run",
        ),
    ],
)
def test_project_without_a_complete_training_is_refused(root: Path, spoil: Any, words: str) -> None:
    train(root, "first", 5)
    spoil()
    with pytest.raises(ModelError, match=words):
        gated()


def test_generator_of_another_run_is_refused(root: Path) -> None:
    train(root, "first", 5)
    generator = Path("models/generator.safetensors").read_bytes()
    train(root, "second", 6)
    Path("models/generator.safetensors").write_bytes(generator)
    with pytest.raises(ModelError, match=r"is not what run \w+ trained"):
        gated()


# -------------------------------------------------------------------------------------- load check


def registered_model(root: Path) -> Path:
    """The folder of version 1's files, to spoil."""
    return next(root.rglob("mlartifacts/models/*/artifacts"))


@pytest.fixture(scope="module")
def model_copy(history: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("model")
    shutil.copytree(registered_model(history), target / "model")
    return target / "model"


def drawn_apart(history: Path, model: str) -> torch.Tensor | str:
    with drawing_apart(f"sqlite:///{history / 'mlflow.db'}", model, labels_for(3), 7) as process:
        return process.drawings()


def test_model_is_loaded_without_this_project_its_environment_or_its_folder(
    history: Path, model_copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tmp_path / "model"
    shutil.copytree(model_copy, model)
    spy = "import os, sys\nraise ValueError(sorted(os.environ), os.listdir('.'), sys.flags.isolated)\n"
    for path in model.rglob("mlflow_model.py"):
        path.write_text(spy)
    monkeypatch.setenv("SECRET_TOKEN", "x")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    problem = drawn_apart(history, str(model))
    assert isinstance(problem, str)
    assert "SECRET_TOKEN" not in problem
    assert "PYTHONPATH" not in problem
    assert "'MLFLOW_ALLOW_PICKLE_DESERIALIZATION'" in problem
    assert "['model']" in problem


def test_model_whose_files_are_gone_says_nothing_of_the_generator(history: Path) -> None:
    with pytest.raises(ModelError, match="cannot give its files"):
        drawn_apart(history, "models:/cgan/77")


def test_load_that_takes_too_long_is_no_verdict(
    history: Path, model_copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(load_check, "TIME_LIMIT_S", 0.05)
    with pytest.raises(ModelError, match=r"not loaded and drawn with in 0\.05 s"):
        drawn_apart(history, str(model_copy))
