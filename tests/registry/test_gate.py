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
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import ROOT
from gated import change_params, digits, gated, make_project, settled, train
from mlflow import MlflowClient

from cgan.data.dataset import Dataset, load_dataset, save_dataset, split
from cgan.errors import CganError, ModelError, TrackingError
from cgan.model.model_file import load_generator, save_network
from cgan.model.networks import Architecture, build_generator
from cgan.model.sampling import draw
from cgan.params.reading import load_params
from cgan.quality import evaluation
from cgan.quality.judge import load_judge, look, save_judge
from cgan.registry import champion as champion_module
from cgan.registry import gate as gatekeeper
from cgan.registry import load_check
from cgan.registry.archive import generator_file, judge_of
from cgan.registry.client import PromotionConflictError, Registry, mlflow_set_to, open_registry
from cgan.registry.decision import Loaded, Share
from cgan.registry.load_check import drawing_apart, labels_for, load_result
from cgan.tracking.journal import JOURNAL, JournalTracker, RunHeader, count_waiting, journals

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
        _, features, _, prints = judge_of(registry.version(1))
    from cgan.data.dataset import load_dataset

    training = load_dataset(champion / "data/processed/train.safetensors")
    assert features.shape == (len(training), 128)
    assert len(prints.unique()) == len(training)


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
    assert versions(root) == [(1, "promoted")]
    with open_registry("cgan") as registry:
        assert [move.target for move in registry.history()] == [1]


# --------------------------------------------------------------------------------- those that follow


@pytest.fixture
def second(champion: Path, tmp_path: Path) -> Iterator[Path]:
    """A copy of the project with its first champion, to go on from."""
    root = tmp_path / "project"
    shutil.copytree(champion, root)
    with settled(root):
        yield root


def test_a_copied_project_uses_its_own_files_and_a_moved_one_keeps_its_champion(
    champion: Path, second: Path, tmp_path: Path
) -> None:
    originals = set((champion / "mlartifacts").rglob("*"))
    train(second, "second", 60)
    with settled(second):
        assert gated()[0]["verdict"] == "promoted"
    assert set((champion / "mlartifacts").rglob("*")) == originals
    moved = second.rename(tmp_path / "änother place")
    with settled(moved):
        train(moved, "third", 90)
        report, _ = gated()
        assert report["champion"]["version"] == 2, "it was compared"
        with generator_file("models:/cgan@champion") as path:
            assert load_generator(path)
    assert not second.exists()


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


@pytest.mark.parametrize(
    "moment", ["before the promotion", "before what follows from it", "after the promotion"]
)
def test_f97_gate_killed_around_the_promotion_is_finished_by_the_next(
    second: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    train(second, "second", 60)
    name = "_update_what_follows" if moment == "before what follows from it" else "promote"
    real = getattr(Registry, name)

    def killed(registry: Registry, *arguments: Any, **named: Any) -> Any:
        if moment == "before what follows from it" and registry.champion() == 1:
            return real(registry)
        if moment == "after the promotion":
            real(registry, *arguments, **named)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Registry, name, killed)
        with pytest.raises(KeyboardInterrupt):
            gated()
    report, _ = gated()
    assert report["verdict"] == ("promoted" if moment == "before the promotion" else "unchanged")
    assert versions(second) == [(2, "promoted"), (1, "promoted")]
    assert aliases(second) == {"champion": 2, "previous": 1}
    with open_registry("cgan") as registry:
        assert [move.target for move in registry.history()] == [1, 2]


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
    assert "pixel_values 0." in reason


# ------------------------------------------------------------- what does not belong, what is damaged


def refused(words: str) -> None:
    """By `cgan gate`, before anything of the training is delivered, registered or told."""
    with pytest.raises(CganError, match=words) as found:
        gated()
    assert "`dvc " in str(found.value)
    assert not Path("reports/gate.json").exists()
    assert count_waiting(Path(".cgan/tracking/first")) > 0
    assert versions(Path()) == []


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
        lambda: with_heldout(lambda d: (d.images[:, :, 1:], d.labels, {})),
        r"holdout.safetensors: made for another kind .* found \(3, 1, 7, 8\)",
        id="hold-out of another shape",
    ),
    pytest.param(
        lambda: with_heldout(of_another_split),
        r"holdout.safetensors: 41 of its 54 images are in .*train.safetensors too",
        id="hold-out of another split",
    ),
]


@pytest.mark.parametrize(("spoil", "words"), FOREIGN)
def test_f86_what_does_not_belong_to_the_training_data_is_refused(
    root: Path, spoil: Callable[[], Any], words: str
) -> None:
    train(root, "first", 2)
    spoil()
    refused(words)
    with pytest.raises(CganError, match=words):
        evaluation.judge_generator(evaluation.Inputs.load(), load_params().evaluate)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda report: report["csv"].update(sha256="d" * 64), id="another CSV"),
        pytest.param(lambda report: report.update(rows=179), id="another number of images"),
    ],
)
def test_f86_validation_report_of_another_csv_is_refused(
    root: Path, change: Callable[[dict[str, Any]], Any]
) -> None:
    train(root, "first", 2)
    change_validation(change)
    refused(r"validation.json: of another CSV than .* expected sha256 \w{12} and 180 images, found")


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
        (cut_off, "not even JSON"),
        (lambda path: path.write_text("[]"), "not a validation report of this version"),
        (without_profile, r"of this version \(profile: Field required\)"),
    ],
    ids=["missing", "cut off", "a list", "without its profile"],
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
    assert versions(second) == [(1, "promoted")]
    assert count_waiting(Path(".cgan/tracking/swapped")) > 0


def kept_at(root: Path, number: int, name: str) -> Path:
    """A file that the gate kept at the run of a version."""
    run_id = client_of(root).get_model_version("cgan", str(number)).run_id
    [found] = root.glob(f"mlartifacts/{run_id}/artifacts/gate/{name}")
    return found


@contextlib.contextmanager
def damaged(path: Path, damage: Callable[[Path], Any]) -> Iterator[None]:
    """A file of the store, which other tests read too, for a while."""
    content = path.read_bytes()
    damage(path)
    try:
        yield
    finally:
        path.write_bytes(content)


def test_f85_damaged_profile_of_the_champion_is_an_objection_in_words(
    second: Path,
) -> None:
    swap_parts()
    train(second, "swapped", 60)
    with damaged(kept_at(second, 1, "validation.json"), without_profile):
        report, _ = gated()
    assert report["verdict"] == "blocked"
    [reason] = [r for r in report["reasons"] if "is not known" in r]
    assert "gate/validation.json of run" in reason
    assert (
        "is damaged (validation.json: not a validation report of this version (profile:" in reason
    )
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


def test_f89_judgement_stands_once_in_the_numbers_of_both_runs(second: Path) -> None:
    train(second, "second", 60)
    report, _ = gated()
    assert report["verdict"] == "promoted"
    numbers = gate_numbers(second)
    assert stand_once(numbers), numbers
    own = {key: value for run, key, _, value in numbers if run == report["challenger"]["run_id"]}
    assert own == {f"gate/{name}": value for name, value in report["measured"].items()}
    theirs = [n[1:3] for n in numbers if n[0] == report["champion"]["run_id"]]
    assert sorted(theirs) == sorted((key, step) for key in own for step in (0, 2))


@pytest.mark.parametrize(
    ("owner", "name", "nth", "done"),
    [
        pytest.param(Registry, "log_once", 2, False, id="the champion's numbers are missing"),
        pytest.param(MlflowClient, "update_model_version", 1, False, id="the page is missing"),
        pytest.param(Registry, "promote", 1, False, id="judged, not promoted"),
        pytest.param(Registry, "promote", 1, True, id="promoted, not told"),
        pytest.param(MlflowClient, "update_model_version", 2, False, id="half of it told"),
    ],
)
def test_f89_gate_killed_while_it_tells_tells_once_when_run_again(
    second: Path, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, nth: int, done: bool
) -> None:
    train(second, "second", 60)
    real, calls = getattr(owner, name), []

    def dying(*arguments: Any, **named: Any) -> Any:
        calls.append(name)
        if len(calls) != nth:
            return real(*arguments, **named)
        if done:
            real(*arguments, **named)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, dying)
        with pytest.raises(KeyboardInterrupt):
            gated()
    gated()
    numbers = gate_numbers(second)
    assert stand_once(numbers), numbers
    assert len(numbers) == 12  # of version 1 alone, and of both beside each other
    assert versions(second) == [(2, "promoted"), (1, "promoted")]
    version = client_of(second).get_model_version_by_alias("cgan", "champion")
    run = client_of(second).get_run(version.run_id)
    assert run.data.tags["gate.verdict"] == "promoted"
    assert "Version 2 is the new champion" in run.data.tags["gate.summary"]
    assert "Version 2 is the new champion" in version.description


def test_f89_other_circumstances_give_a_second_row_which_is_the_last(second: Path) -> None:
    train(second, "worse", 20)
    first, _ = gated()
    change_params(second, "evaluate", seed=11)
    again, _ = gated()
    assert (first["verdict"], again["verdict"]) == ("blocked", "blocked")
    run_id = first["challenger"]["run_id"]
    numbers = gate_numbers(second)
    distances = [n[3] for n in numbers if n[:3] == (run_id, "gate/fid_judge", 0)]
    assert distances == [each["measured"]["fid_judge"] for each in (first, again)]
    assert distances[0] != distances[1]
    shown = client_of(second).get_run(run_id).data.metrics
    assert shown["gate/fid_judge"] == distances[1]
    change_params(second, "gate", min_judge_accuracy=0.5)  # other bars, equal numbers
    assert gated()[0]["verdict"] == "blocked"
    assert gate_numbers(second) == numbers


def test_whatever_a_verdict_depends_on_makes_another_judgement_and_nothing_else(root: Path) -> None:
    train(root, "first", 2)
    inputs, params = gatekeeper._Inputs.load(), load_params()
    one = gatekeeper._circumstances(params, inputs)

    def with_digest(part: str) -> gatekeeper._Inputs:
        data: Dataset = getattr(inputs, part)
        return replace(inputs, **{part: replace(data, metadata={**data.metadata, "digest": "0"})})

    others = [
        replace(inputs, judge_facts={"digest": "0"}),
        with_digest("training"),
        with_digest("heldout"),
    ]
    assert all(gatekeeper._circumstances(params, other) != one for other in others)
    for section, key, value, counts in (
        ("evaluate", "seed", 99, True),
        ("evaluate", "samples", 600, True),
        ("gate", "min_judge_accuracy", 0.123, True),
        ("gate", "on_drift", "note", True),
        ("gate", "promote", False, False),
        ("train", "lr", 0.5, False),
    ):
        changed = getattr(params, section).model_copy(update={key: value})
        other = params.model_copy(update={section: changed})
        assert (gatekeeper._circumstances(other, inputs) != one) is counts, key


def test_f72_rollback_killed_halfway_is_not_undone_by_the_next_gate(
    second: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(second, "second", 60)
    assert gated()[0]["verdict"] == "promoted"

    def dying(_: Registry) -> None:
        raise KeyboardInterrupt

    with (
        monkeypatch.context() as patch,
        open_registry("cgan") as registry,
        pytest.raises(KeyboardInterrupt),
    ):
        patch.setattr(Registry, "_update_what_follows", dying)
        registry.rollback("it draws badly on the wall")
    report, _ = gated()
    assert report["verdict"] == "unchanged"
    assert "it draws badly on the wall" in report["summary"]
    assert aliases(second)["champion"] == 1


def test_f72_training_data_that_a_kill_cut_off_are_kept_again(second: Path) -> None:
    train(second, "worse", 20)
    gated()
    kept = kept_at(second, 2, "training_data.safetensors")
    whole = kept.read_bytes()
    kept.write_bytes(whole[:1000])
    change_params(second, "gate", min_judge_accuracy=0.5)  # judged anew
    gated()
    assert kept.read_bytes() == whole


CLONE = """
import sys, time
from pathlib import Path
from cgan.errors import CganError
from cgan.registry.client import Registry
from gated import gated
real = Registry.promote
def together(*arguments, **named):
    Path("ready").touch()
    while not Path("../go").exists():
        time.sleep(0.005)
    return real(*arguments, **named)
Registry.promote = together
try:
    print(gated()[0]["verdict"])
except CganError as error:
    print(error)
    sys.exit(3)
"""


@pytest.mark.slow
def test_f72_of_two_clones_whose_gates_both_would_promote_one_does_and_the_other_says_so(
    champion: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clones = [tmp_path / "one", tmp_path / "two"]
    store = f"sqlite:///{tmp_path / 'one/mlflow.db'}"
    for clone, steps in zip(clones, (55, 60), strict=True):
        shutil.copytree(champion, clone)
        with settled(clone):
            change_params(clone, "gate", against_champion="not_worse")
            train(clone, clone.name, steps)
    gates = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", CLONE],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=clone,
            env={
                **os.environ,
                "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}",
                "DVC_ROOT": str(clone),
                "MLFLOW_TRACKING_URI": store,
            },
        )
        for clone in clones
    ]
    while not all((clone / "ready").exists() for clone in clones):
        assert all(each.poll() is None for each in gates), [each.communicate() for each in gates]
        time.sleep(0.02)
    (tmp_path / "go").touch()
    said = [each.communicate(timeout=120) for each in gates]
    codes = [each.returncode for each in gates]
    assert sorted(codes) == [0, 3], said
    loser = codes.index(3)
    assert "another promotion came first" in said[loser][0]
    assert "Run `cgan gate` again" in said[loser][0]
    with settled(clones[loser]):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
        with open_registry("cgan") as registry:
            number = {version.run_id: version.number for version in registry.versions()}
            assert sorted(number.values()) == [1, 2, 3]
            winner = registry.champion()
            assert [move.target for move in registry.history()] == [1, winner]
            assert registry.aliases()["previous"] == 1
        report, _ = gated()
        assert report["champion"]["version"] == winner
        assert report["challenger"]["version"] == 5 - (winner or 0)
        assert report["verdict"] in ("promoted", "blocked")
    assert stand_once(gate_numbers(clones[0]))


# ----------------------------------------------------------------------------- copies of training images


def test_copies_of_a_sorted_holdout_are_counted_as_evaluate_counts_them(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The held-out images of one class are all alike here: a sample of it alone says nothing."""

    def by_class(data: Dataset) -> tuple[Any, Any, dict[str, Any]]:
        order = data.labels.argsort(stable=True)
        images = data.images[order].clone()
        images[:18] = 255 - images[:18]
        return images, data.labels[order], {}

    for module in (gatekeeper, evaluation):
        monkeypatch.setattr(module, "COPIES_SAMPLE", 18, raising=False)
    change_params(root, "evaluate", draws=1, gan_train_kimg=0.0)
    with_heldout(by_class)
    train(root, "first", 30)
    report = evaluation.judge_generator(evaluation.Inputs.load(), load_params().evaluate)
    [check] = [check for check in gated()[0]["checks"] if check["name"] == "copies"]
    assert check["value"] == report["copies"]["closer_than_1_percent_of_heldout"]


# ------------------------------------------------------------------------------- few different drawings


def test_f52_a_generator_that_draws_one_picture_a_class_is_blocked_by_name(root: Path) -> None:
    """It draws the mean image of each class."""
    change_params(root, "gate", min_different_drawings=30)
    train(root, "first", 30)
    report, said = gated()
    assert report["verdict"] == "blocked"
    [check] = [check for check in report["checks"] if check["name"] == "different_drawings"]
    assert not check["passed"] and check["value"] < 3
    [reason] = report["reasons"]
    assert re.match(
        r"different drawings of \d, the least varied class: \d\.\d+, at least \d+", reason
    )
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


def test_f79_f80_other_runs_journals_are_named_and_stop_no_gate(root: Path) -> None:
    train(root, "first", 30)
    kept = {}
    for key, text in (("gone", None), ("damaged", '{"run_key": "dam')):
        other = JournalTracker(
            journals(root) / key, RunHeader(key, key, "cgan", "http://127.0.0.1:9"), resume=True
        )
        other.write("start")
        other.close()
        if text:
            (other.folder / "run.json").write_text(text)
        kept[other.folder / JOURNAL] = (other.folder / JOURNAL).read_bytes()
    report, said = gated()
    assert report["verdict"] == "promoted"
    (line,) = [line for line in said if "wait in" in line]
    assert line.startswith("Records of 2 other runs wait in") and "`cgan track flush`" in line
    assert {path: path.read_bytes() for path in kept} == kept


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda: Path("models/generator.safetensors").unlink(), "Make it with `dvc repro`"),
        (lambda: Path("models/mlflow_run.json").unlink(), "names no MLflow run"),
        (
            lambda: shutil.rmtree(".cgan/tracking"),
            "has no run .* restore it from a backup, .* `dvc repro --force --downstream train`",
        ),
        (
            lambda: (shutil.rmtree(".cgan/tracking"), Path("mlflow.db").unlink()),
            "no MLflow store .* came from elsewhere .* `dvc repro --force --downstream train`",
        ),
        (
            lambda: train(Path(), "other", 20) and shutil.rmtree(".cgan/tracking/other"),
            "has no run",
        ),
    ],
)
def test_project_without_a_complete_training_is_refused(root: Path, spoil: Any, words: str) -> None:
    train(root, "first", 5)
    spoil()
    with pytest.raises(CganError, match=words):
        gated()


def test_generator_of_another_run_is_refused(root: Path) -> None:
    train(root, "first", 5)
    generator = Path("models/generator.safetensors").read_bytes()
    train(root, "second", 6)
    Path("models/generator.safetensors").write_bytes(generator)
    with pytest.raises(ModelError, match=r"is not what run \w+ trained"):
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
    assert "champion" not in aliases(second)


def test_champion_of_another_kind_of_image_is_an_objection(second: Path) -> None:
    train(second, "second", 60)
    other = build_generator(Architecture("deconv", 4, 1, 8, 8, 4, 4))
    save_network("other.safetensors", other, {})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            champion_module, "generator_file", lambda _: contextlib.nullcontext("other.safetensors")
        )
        report, _ = gated()
    assert report["verdict"] == "blocked"
    assert "draws 4 classes of 8 × 8 × 1, this one 3 classes of 8 × 8 × 1" in report["reasons"][0]


# -------------------------------------------------------------------------------------- load check


def test_drawings_from_apart_are_compared_pixel_for_pixel_and_by_class(root: Path) -> None:
    train(root, "first", 2)  # too few: it draws one class for another
    inputs, labels = gatekeeper._Inputs.load(), labels_for(3)
    drawn = draw(inputs.network, torch.tensor(labels), 7)
    named = look(inputs.judge, drawn).classes
    right = int((named == torch.tensor(labels)).sum())
    assert right < len(labels)
    assert load_result(drawn, inputs.network, inputs.judge, labels, 7) == Loaded(
        right=Share(right, len(labels))
    )
    drawn[-1, 0, 0, 0] ^= 1
    words = "its drawings are not those of models/generator.safetensors"
    assert load_result(drawn, inputs.network, inputs.judge, labels, 7).problem == words
    assert load_result(drawn[:-1], inputs.network, inputs.judge, labels, 7).problem == words
    assert load_result("no module", inputs.network, inputs.judge, labels, 7).problem == "no module"


def registered_model(root: Path) -> Path:
    """The folder of version 1's files, to spoil."""
    return next(root.rglob("mlartifacts/models/*/artifacts"))


@pytest.fixture(scope="module")
def model_copy(history: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("model")
    shutil.copytree(registered_model(history), target / "model")
    return target / "model"


def drawn_apart(history: Path, model: str) -> torch.Tensor | str:
    with (
        mlflow_set_to(f"sqlite:///{history / 'mlflow.db'}"),
        drawing_apart(model, labels_for(3), 7) as drawn,
    ):
        return drawn()


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
