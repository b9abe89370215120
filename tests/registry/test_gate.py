"""`cgan gate` from end to end, in a real MLflow store: trainings come, are judged, promoted, blocked."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import MLFLOWS_OWN_WARNINGS, ROOT
from gated import blank as blank
from gated import champion as champion
from gated import change_params, copied, digits, gated, train
from mlflow import MlflowClient

from cgan.data.dataset import Dataset, load_dataset, save_dataset, split
from cgan.errors import CganError, ModelError, TrackingError
from cgan.model.model_file import load_generator, save_network
from cgan.model.networks import Architecture, build_generator
from cgan.params.reading import load_params
from cgan.quality import evaluation
from cgan.quality.judge import load_judge, save_judge
from cgan.registry import gate as gatekeeper
from cgan.registry import load_check
from cgan.registry.client import PromotionConflictError, Registry, mlflow_set_to, open_registry
from cgan.registry.load_check import drawing_apart, load_problem
from cgan.run.records import RECORDS, Run, RunInfo, count_waiting, runs

pytestmark = MLFLOWS_OWN_WARNINGS


@pytest.fixture
def root(blank: Path, tmp_path: Path) -> Iterator[Path]:
    """A project before its first training."""
    with copied(blank, tmp_path / "project") as target:
        yield target


@pytest.fixture
def second(champion: Path, tmp_path: Path) -> Iterator[Path]:
    """A copy of the project with its first champion, to go on from."""
    with copied(champion, tmp_path / "project") as root:
        yield root


def client_of(root: Path) -> MlflowClient:
    return MlflowClient(f"sqlite:///{root / 'mlflow.db'}")


def aliases() -> dict[str, int]:
    with open_registry("cgan") as registry:
        return registry.aliases()


def versions() -> list[tuple[int, str]]:
    with open_registry("cgan") as registry:
        return [(version.number, version.verdict) for version in registry.versions()]


# ------------------------------------------------------------------------------------- the first one


def test_first_good_generator_is_promoted_and_the_verdict_stands_in_mlflow(champion: Path) -> None:
    summary = "Version 1 is the new champion: every bar is reached, also at the pessimistic end "
    summary += "of its interval."
    report = json.loads((champion / "reports/gate.json").read_text())
    assert (report["verdict"], report["summary"]) == ("promoted", summary)
    assert report["champion"] is None
    assert all(check["passed"] for check in report["checks"])
    said = (champion / "said.txt").read_text()
    assert "Version 1 of `cgan`: fit of 30 steps." in said
    assert f"PROMOTED: {summary}" in said
    assert (champion / "reports/gate.md").read_text().startswith("# Gate: promoted")
    client = client_of(champion)
    version = client.get_model_version_by_alias("cgan", "champion")
    assert version.tags.items() >= {
        ("gate.verdict", "passed"),
        ("champion.instead_of", "none"),
        ("git.commit", "c" * 40),
        ("prefect.flow_run_id", "flow-1"),
    }
    assert version.version in (1, "1") and "## Bars" in version.description
    run = client.get_run(version.run_id)
    assert run.data.tags["gate.verdict"] == "passed"
    assert run.data.metrics["gate/conditional_accuracy"] > 0.95
    files = {
        file.path.removeprefix("gate/") for file in client.list_artifacts(run.info.run_id, "gate")
    }
    kept = {"judge.safetensors", "training_data.safetensors", "validation.json"}
    assert files == {"gate.json", "gate.md"} | kept


@pytest.mark.slow
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
    assert versions() == [(1, "passed")]


# --------------------------------------------------------------------------------- those that follow


def test_equal_weights_are_registered_once_whoever_trained_them(second: Path) -> None:
    for key in ("", "again"):
        if key:
            train(second, key, 30)
        report, _ = gated()
        assert report["verdict"] == "unchanged" and "the champion already" in report["summary"]
    train(second, "worse", 20)
    assert gated()[0]["verdict"] == "blocked"
    train(second, "asbad", 20)
    assert "it was judged before: Version 2 is blocked" in gated()[0]["summary"]
    assert versions() == [(2, "blocked"), (1, "passed")]


def test_f72_f89_better_generator_becomes_champion_until_a_rollback_even_a_killed_one(
    second: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(second, "second", 60)
    report, _ = gated()
    assert report["verdict"] == "promoted", report["reasons"]
    assert report["champion"]["version"] == 1
    rows = {row["metric"]: row for row in report["comparison"]}
    assert rows["fid_judge"]["better"] is True
    assert rows["fid_judge"]["interval"][1] < 0
    assert aliases() == {"champion": 2, "previous": 1}
    numbers = gate_numbers(second)
    assert stand_once(numbers), numbers
    own = {key: value for run, key, _, value in numbers if run == report["challenger"]["run_id"]}
    assert own == {f"gate/{name}": value for name, value in report["measured"].items()}
    theirs = [n[1:] for n in numbers if n[0] == report["champion"]["run_id"]]
    assert sorted(n[:2] for n in theirs) == sorted((key, step) for key in own for step in (0, 2))
    assert ("gate/fid_judge", 2, rows["fid_judge"]["champion"]) in theirs
    with (
        monkeypatch.context() as patch,
        open_registry("cgan") as registry,
        pytest.raises(KeyboardInterrupt),
    ):
        patch.setattr(Registry, "_update_aliases", killed)
        registry.rollback("it draws badly on the wall")
    report, _ = gated()
    assert report["verdict"] == "unchanged"
    assert "it draws badly on the wall" in report["summary"]
    assert aliases()["champion"] == 1


def test_f72_f89_worse_generator_is_blocked_and_judged_anew_under_other_bars_or_draws(
    second: Path,
) -> None:
    train(second, "worse", 20)
    first, _ = gated()
    assert first["verdict"] == "blocked"
    assert any("worse than the champion's" in reason for reason in first["reasons"])
    assert aliases() == {"champion": 1, "challenger": 2}
    report, _ = gated()
    assert report["verdict"] == "unchanged"
    assert "it was judged before: Version 2 is blocked" in report["summary"]
    kept = kept_at(second, 2, "training_data.safetensors")
    whole = kept.read_bytes()
    kept.write_bytes(whole[:1000])  # as a kill leaves it
    numbers = gate_numbers(second)
    change_params(second, "gate", min_judge_accuracy=0.5)
    assert gated()[0]["verdict"] == "blocked"
    assert kept.read_bytes() == whole
    assert gate_numbers(second) == numbers
    change_params(second, "evaluate", seed=11)
    again, _ = gated()
    distances = [each["measured"]["fid_judge"] for each in (first, again)]
    assert again["verdict"] == "blocked" and distances[0] != distances[1]
    place = (first["challenger"]["run_id"], "gate/fid_judge", 0)
    assert [number[3] for number in gate_numbers(second) if number[:3] == place] == distances
    assert client_of(second).get_run(place[0]).data.metrics[place[1]] == distances[1]


def test_without_promotion_a_good_one_waits_for_a_person(second: Path) -> None:
    train(second, "second", 60)
    change_params(second, "gate", promote=False)
    assert gated()[0]["verdict"] == "passed"
    assert aliases() == {"champion": 1, "challenger": 2}
    assert gated()[0]["verdict"] == "unchanged"
    change_params(second, "gate", promote=True)
    assert gated()[0]["verdict"] == "promoted"
    assert aliases() == {"champion": 2, "previous": 1}


def swap_parts() -> int:
    """Other data, of the same kind: the hold-out becomes the training part. Returns the images held out."""
    paths = [Path(f"data/processed/{part}.safetensors") for part in ("train", "holdout")]
    parts = [load_dataset(path) for path in paths]
    for path, part, name in zip(paths, parts[::-1], ("train", "holdout"), strict=True):
        facts = {"classes": 3, "part": name, "csv_sha256": "f" * 64}
        save_dataset(path, part.images.numpy(), part.labels.numpy(), facts)
    judge, _ = load_judge("models/judge.safetensors")
    digest = load_dataset(paths[0]).metadata["digest"]
    save_judge("models/judge.safetensors", judge, {"data_digest": digest})
    change_validation(lambda report: report["csv"].update(sha256="f" * 64))
    return len(parts[0])


def change_validation(change: Callable[[dict[str, Any]], Any]) -> None:
    path = Path("reports/validation.json")
    report = json.loads(path.read_text())
    change(report)
    path.write_text(json.dumps(report))


def test_champion_of_other_data_is_judged_on_todays_and_its_advantage_counted(
    second: Path,
) -> None:
    heldout = swap_parts()
    train(second, "swapped", 60)
    report, _ = gated()
    note = f"of whose {heldout:,} images {heldout:,} were among its training images"
    assert any(note in reason for reason in report["reasons"]), report["reasons"]
    assert "no longer like" not in str(report["reasons"])
    assert report["comparison"]


@pytest.mark.parametrize(("on_drift", "verdict"), [("block", "blocked"), ("note", "promoted")])
def test_f19_data_unlike_the_champions_block_what_they_made_however_good(
    second: Path, on_drift: str, verdict: str
) -> None:
    """Today's judge learnt from today's data, so that no other number would show it."""
    swap_parts()
    # as of inverted images
    change_validation(lambda report: report["profile"]["brightness"].reverse())
    change_params(second, "gate", on_drift=on_drift, against_champion="not_worse")
    train(second, "inverted", 60)
    report, _ = gated()
    assert report["verdict"] == verdict
    (reason,) = (r for r in report["reasons"] if "no longer like" in r)
    assert "change of brightness, as a part of 0–255: 0." in reason
    assert bool(report["comparison"]) is (verdict == "promoted"), "nothing was drawn in vain"


# ------------------------------------------------------------- what does not belong, what is damaged


def with_judge(facts: dict[str, Any]) -> None:
    judge, _ = load_judge("models/judge.safetensors")
    save_judge("models/judge.safetensors", judge, facts)


def with_heldout(change: Callable[[Dataset], tuple[Any, Any, dict[str, Any]]]) -> None:
    path = Path("data/processed/holdout.safetensors")
    images, labels, facts = change(load_dataset(path))
    known = {"classes": 3, "part": "holdout", "csv_sha256": csv_sha256()}
    save_dataset(path, np.asarray(images), np.asarray(labels), known | facts)


def csv_sha256() -> str:
    return str(json.loads(Path("reports/validation.json").read_text())["csv"]["sha256"])


def of_another_split(_: Dataset) -> tuple[Any, Any, dict[str, Any]]:
    images, labels = digits()
    _, held = split(images, labels, 0.3, seed=2)
    return images[held], labels[held], {}


OTHER_CSV = r"validation.json: of another CSV than .* expected sha256 \w{12} and 180 images, found"
FOREIGN: list[Any] = [
    pytest.param(swap_parts, r"generator.safetensors: trained on other data", id="generator"),
    pytest.param(
        lambda: with_judge({"data_digest": "0" * 64}),
        r"judge.safetensors: learnt from other data .* found 000000000000\.",
        id="judge",
    ),
    pytest.param(
        lambda: with_heldout(lambda d: (d.images, d.labels, {"csv_sha256": "e" * 64})),
        r"holdout.safetensors: made from another CSV .* found eeeeeeeeeeee\.",
        id="hold-out of another CSV",
    ),
    pytest.param(
        lambda: with_heldout(lambda d: (d.images, d.labels, {"classes": 4})),
        r"holdout.safetensors: made for another kind .* \(3, 1, 8, 8\), found \(4, 1, 8, 8\)",
        id="hold-out of other classes",
    ),
    pytest.param(
        lambda: with_heldout(of_another_split),
        r"holdout.safetensors: 41 of its 54 images are in .*train.safetensors too",
        id="hold-out of another split",
    ),
    pytest.param(
        lambda: change_validation(lambda report: report["csv"].update(sha256="d" * 64)),
        OTHER_CSV,
        id="validation report of another CSV",
    ),
]


@pytest.mark.parametrize(("spoil", "words"), FOREIGN)
def test_f86_what_does_not_belong_to_the_training_data_is_refused(
    root: Path, spoil: Callable[[], Any], words: str
) -> None:
    train(root, "first", 2)
    spoil()
    with pytest.raises(CganError, match=words) as found:
        gated()
    assert "`dvc " in str(found.value)
    assert not Path("reports/gate.json").exists()
    assert count_waiting(Path(".cgan/runs/first")) > 0
    assert versions() == []
    if words == OTHER_CSV:
        return
    with pytest.raises(CganError, match=words):
        evaluation.judge_generator(evaluation.Inputs.load(), load_params().evaluate)


def cut_off(path: Path) -> None:
    path.write_text(path.read_text()[:200])


def without_profile(path: Path) -> None:
    report = json.loads(path.read_text())
    del report["profile"]
    path.write_text(json.dumps(report))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (Path.unlink, "cannot be read"),
        (cut_off, "of this version"),
        (without_profile, "of this version"),
    ],
    ids=["missing", "cut off", "without its profile"],
)
def test_f85_damaged_validation_report_is_refused_before_anything_is_registered(
    second: Path, damage: Callable[[Path], Any], words: str
) -> None:
    """The champion is of other data, so that today's report is compared with the champion's."""
    swap_parts()
    train(second, "swapped", 2)
    damage(Path("reports/validation.json"))
    with pytest.raises(CganError, match=rf"reports/validation.json: .*{words}.*`dvc checkout`"):
        gated()
    assert versions() == [(1, "passed")]
    assert count_waiting(Path(".cgan/runs/swapped")) > 0


def kept_at(root: Path, number: int, name: str) -> Path:
    """A file that the gate kept at the run of a version."""
    run_id = client_of(root).get_model_version("cgan", str(number)).run_id
    [found] = root.glob(f"mlartifacts/{run_id}/artifacts/gate/{name}")
    return found


def test_f85_damaged_profile_of_the_champion_is_an_objection_in_words(second: Path) -> None:
    swap_parts()
    train(second, "swapped", 60)
    without_profile(kept_at(second, 1, "validation.json"))
    report, _ = gated()
    assert report["verdict"] == "blocked"
    [reason] = [r for r in report["reasons"] if "is not known" in r]
    assert "gate/validation.json of run" in reason and "(validation.json: not a valid" in reason
    assert "`gate.on_drift: note`" in reason


# ------------------------------------------------------------------------- what stands in the store


def gate_numbers(root: Path) -> list[tuple[str, str, int, float]]:
    """Of the store's table: run, key, step and value, in the order of their time."""
    with contextlib.closing(sqlite3.connect(root / "mlflow.db")) as store:
        return store.execute(
            "select run_uuid, key, step, value from metrics where key like 'gate/%' order by timestamp"
        ).fetchall()


def stand_once(numbers: list[tuple[str, str, int, float]]) -> bool:
    places = [number[:3] for number in numbers]
    return len(places) == len(set(places))


def killed(*_: Any, **__: Any) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("owner", "name", "nth"),
    [
        pytest.param(
            Registry, "log_once", 2, id="the champion's numbers are missing", marks=pytest.mark.slow
        ),
        pytest.param(Registry, "promote", 1, id="judged, not promoted", marks=pytest.mark.slow),
        pytest.param(Registry, "_update_aliases", 2, id="the other aliases as before"),
        pytest.param(
            MlflowClient, "update_model_version", 1, id="half recorded", marks=pytest.mark.slow
        ),
    ],
)
def test_f89_f97_gate_killed_at_any_point_is_finished_by_the_next_and_tells_once(
    second: Path, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, nth: int
) -> None:
    train(second, "second", 60)
    real, calls = getattr(owner, name), []

    def dying(*arguments: Any, **named: Any) -> Any:
        calls.append(name)
        if len(calls) == nth:
            raise KeyboardInterrupt
        return real(*arguments, **named)

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, dying)
        with pytest.raises(KeyboardInterrupt):
            gated()
    gated()
    numbers = gate_numbers(second)
    assert stand_once(numbers), numbers
    assert len(numbers) == 12  # of version 1 alone, and of both beside each other
    assert versions() == [(2, "passed"), (1, "passed")]
    assert aliases() == {"champion": 2, "previous": 1}
    version = client_of(second).get_model_version_by_alias("cgan", "champion")
    assert "Fréchet distance" in version.tags["champion.why"]
    assert client_of(second).get_run(version.run_id).data.tags["gate.verdict"] == "passed"
    assert "Version 2 is good enough to be champion" in version.description


# ------------------------------------------------------------------------------- few different drawings


def test_f52_a_generator_that_draws_one_picture_a_class_is_blocked_by_name(root: Path) -> None:
    """It draws the mean image of each class."""
    change_params(root, "gate", min_different_drawings=30)
    train(root, "first", 30)
    report, said = gated()
    assert report["verdict"] == "blocked"
    [check] = [check for check in report["checks"] if check["name"] == "different_drawings"]
    assert not check["passed"] and check["value"] < 5
    [reason] = report["reasons"]
    assert re.match(r"different drawings of \d, the least varied class: .*, expected .* 30", reason)
    assert reason in Path("reports/gate.md").read_text() and any(reason in line for line in said)


# ------------------------------------------------------------------------------------ when it cannot


def test_store_that_is_away_is_one_message_and_nothing_is_lost(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(root, "first", 30)
    with monkeypatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
        with pytest.raises(TrackingError, match=r"MLflow at http://127.0.0.1:9 is away"):
            gated()
    assert not Path("reports/gate.json").exists()
    assert gated()[0]["verdict"] == "promoted"


def test_f79_f80_other_runs_records_stop_no_gate_and_are_left_alone(root: Path) -> None:
    train(root, "first", 30)
    kept = {}
    for key, text in (("gone", None), ("damaged", '{"run_key": "dam')):
        other = Run(runs(root) / key, RunInfo(key, key, "cgan", "http://127.0.0.1:9"), resume=True)
        other.write("start")
        other.close()
        if text:
            (other.folder / "run.json").write_text(text)
        kept[other.folder / RECORDS] = (other.folder / RECORDS).read_bytes()
    assert gated()[0]["verdict"] == "promoted"
    assert {path: path.read_bytes() for path in kept} == kept


def other_generator() -> None:
    """Of another training than the run that models/mlflow_run.json names."""
    network, facts = load_generator("models/generator.safetensors")
    save_network("models/generator.safetensors", network, facts | {"steps": 6})


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda: Path("models/generator.safetensors").unlink(), "Make it with `dvc repro`"),
        (lambda: Path("models/mlflow_run.json").unlink(), "names no MLflow run"),
        (
            lambda: shutil.rmtree(".cgan/runs"),
            "has no run .* restore it from a backup, .* `dvc repro --force --downstream train`",
        ),
        (
            lambda: (shutil.rmtree(".cgan/runs"), Path("mlflow.db").unlink()),
            "no MLflow store .* came from elsewhere .* `dvc repro --force --downstream train`",
        ),
        (
            lambda: train(Path(), "other", 20) and shutil.rmtree(".cgan/runs/other"),
            "has no run",
        ),
        (other_generator, r"is not what run \w+ trained"),
    ],
)
def test_project_without_a_complete_training_is_refused(root: Path, spoil: Any, words: str) -> None:
    train(root, "first", 5)
    spoil()
    with pytest.raises(CganError, match=words):
        gated()


def test_f72_champion_that_went_during_the_judgement_is_replaced_by_nobody(
    second: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(second, "second", 60)
    real = gatekeeper.decide

    def meanwhile(*arguments: Any) -> Any:
        client_of(second).delete_registered_model_alias("cgan", "champion")
        return real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(gatekeeper, "decide", meanwhile)
        with pytest.raises(
            PromotionConflictError, match="The champion is none now, and was version 1"
        ):
            gated()
    assert "champion" not in aliases()


def other_digits(names: list[str] | None = None, classes: int = 3) -> None:
    """The champion's file as it would be, had it learnt other classes of another CSV."""
    facts = {"data_digest": "0" * 64, "class_names": names}
    network = build_generator(Architecture("deconv", classes, 1, 8, 8, 4, 4))
    save_network(next(Path("mlartifacts/models").rglob("generator.safetensors")), network, facts)


@pytest.mark.parametrize(
    ("champion_draws", "words"),
    [
        (lambda: other_digits(classes=4), "4 classes of 8 × 8 × 1"),
        (
            lambda: other_digits(["stop", "yield", "go"]),
            r"3 classes of 8 × 8 × 1 \(stop, yield, go\)",
        ),
    ],
    ids=["other classes", "other names"],
)
def test_generator_of_something_else_is_refused_at_once_and_not_registered(
    second: Path, champion_draws: Callable[[], None], words: str
) -> None:
    train(second, "second", 60)
    champion_draws()
    with pytest.raises(ModelError, match=rf"draws 3 classes .* draws {words}\. .*`gate\.model`"):
        gated()
    assert versions() == [(1, "passed")]


# -------------------------------------------------------------------------------------- load check


def test_drawings_of_the_registered_model_are_compared_pixel_for_pixel() -> None:
    expected = torch.arange(3 * 64, dtype=torch.uint8).view(3, 1, 8, 8)
    assert load_problem(expected.clone(), expected) == ""
    other = expected.clone()
    other[-1, 0, 0, 0] ^= 1
    words = "its drawings are not those of models/generator.safetensors"
    assert load_problem(other, expected) == load_problem(expected[:-1], expected) == words
    assert load_problem("no module", expected) == "no module"


def registered_model(root: Path) -> Path:
    """The folder of version 1's files, to spoil."""
    return next(root.rglob("mlartifacts/models/*/artifacts"))


@pytest.fixture(scope="module")
def model_copy(champion: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("model")
    shutil.copytree(registered_model(champion), target / "model")
    return target / "model"


def drawn_apart(champion: Path, model: str) -> torch.Tensor | str:
    with (
        mlflow_set_to(f"sqlite:///{champion / 'mlflow.db'}"),
        drawing_apart(model, [0, 1, 2], 7) as drawn,
    ):
        return drawn()


def test_model_is_loaded_without_this_project_its_environment_or_its_folder(
    champion: Path, model_copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tmp_path / "model"
    shutil.copytree(model_copy, model)
    spy = "import os, sys\nraise ValueError(sorted(os.environ), os.listdir('.'), sys.flags.isolated)\n"
    for path in model.rglob("mlflow_model.py"):
        path.write_text(spy)
    monkeypatch.setenv("SECRET_TOKEN", "x")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    problem = drawn_apart(champion, str(model))
    assert isinstance(problem, str)
    assert "SECRET_TOKEN" not in problem
    assert "PYTHONPATH" not in problem
    assert "'MLFLOW_ALLOW_PICKLE_DESERIALIZATION'" in problem
    assert "['model']" in problem


def test_model_whose_files_are_gone_says_nothing_of_the_generator(champion: Path) -> None:
    with pytest.raises(ModelError, match="cannot give its files"):
        drawn_apart(champion, "models:/cgan/77")


def test_load_that_takes_too_long_is_no_verdict(
    champion: Path, model_copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(load_check, "TIME_LIMIT_S", 0.05)
    with pytest.raises(ModelError, match=r"not loaded and drawn with in 0\.05 s"):
        drawn_apart(champion, str(model_copy))
