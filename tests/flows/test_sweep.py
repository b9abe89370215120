"""`python -m flows.sweep`: a real study of stand-ins for trainings; the slow test has real checkouts."""

import re
from pathlib import Path
from typing import Any

import optuna
import pytest
from conftest import ROOT, commit, exit_code
from optuna.storages.journal import JournalFileBackend

from cgan.base.errors import CganError
from cgan.pipeline.params_file import load_params, set_params
from flows import sweep

SPACE = {
    "train.lr": {"low": 1e-3, "high": 1e-2, "log": True},
    "train.latent_dim": {"low": 16, "high": 128},
    "train.generator_width": {"choices": [8, 12, 16]},
}


def narrow_space(folder: Path) -> None:
    """The repository's params.yaml with this space."""
    text = (ROOT / "params.yaml").read_text()
    space, rest = text.index("  space:"), text.index("\ntracking:")
    (folder / "params.yaml").write_text(f"{text[:space]}  space: {SPACE}\n{text[rest:]}")


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project without stages; the working directory."""
    narrow_space(tmp_path)
    (tmp_path / "dvc.yaml").touch()
    (tmp_path / ".gitignore").write_text(".cgan\n")
    (tmp_path / "cgan").mkdir()
    (tmp_path / "cgan/__init__.py").touch()
    commit(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The values of each training. The best rate is 3e-3, seeds have luck, and one training fails."""
    done: list[dict[str, Any]] = []

    def train(*about: Any) -> float:
        values = about[-1]
        done.append(values)
        if len(done) == 3:
            raise CganError("classes collapse")
        lr = values.get("train.lr", load_params().train.lr)
        return float(1000 * abs(lr - 3e-3) + values.get("train.seed", 1) / 100)

    monkeypatch.setattr(sweep, "train_trial", train)
    return done


def studies() -> list[optuna.Study]:
    storage = optuna.storages.JournalStorage(JournalFileBackend(".cgan/optuna.log"))
    names = optuna.get_all_study_names(storage)
    return [optuna.load_study(study_name=name, storage=storage) for name in names]


def test_a_search_begins_with_the_present_params(
    base: Path, trained: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    """It leaves out what fails, goes on where it ended, and says how to take the best."""
    set_params({"train.latent_dim": 32})  # not committed: part of every training
    assert exit_code(sweep.app, "--trials", "4") == 0
    (study,) = studies()
    found = study.trials
    states = [trial.state.name for trial in found]
    assert states == ["COMPLETE", "COMPLETE", "FAIL", "COMPLETE"]
    assert (found[0].params["train.lr"], found[0].params["train.latent_dim"]) == (4.5e-3, 32)
    assert found[0].value == pytest.approx(1.51)
    kinds = [type(axis).__name__ for axis in found[1].distributions.values()]
    assert kinds == ["FloatDistribution", "IntDistribution", "CategoricalDistribution"]
    logs = [name for name, axis in found[1].distributions.items() if vars(axis).get("log")]
    assert logs == ["train.lr"]
    assert len({values["train.lr"] for values in trained}) == 4
    assert exit_code(sweep.app, "--trials", "5") == 0
    (study,) = studies()
    values = [trial.value for trial in study.trials if trial.value is not None]
    assert len(values) == 5 and study.best_value == min(values)
    output = capsys.readouterr().out
    assert "4 trials; 0 are done" in output and "5 trials; 3 are done" in output
    best = study.best_params["train.lr"]
    assert re.search(rf"dvc exp run .*-S train\.lr={best}\b", output) and "lr 0.0045" in output


def test_seeds_say_whether_params_yaml_is_better(
    base: Path, trained: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    seed = load_params().train.seed
    set_params({"train.seed": 9})
    assert exit_code(sweep.app, "--seeds", "2") == 1
    set_params({"train.seed": seed})
    assert "HEAD has the same `train`" in capsys.readouterr().err
    set_params({"train.lr": 3e-3})
    trained += [{}] * 3  # none of these fails
    assert exit_code(sweep.app, "--seeds", "2") == 0
    output = capsys.readouterr().out
    assert re.search("better than HEAD.* -1.5", output)
    assert [each["train.seed"] for each in trained[3:]] == [2, 3, 2, 3], "fresh ones"
    # A key that a params.yaml lacks has its default.
    set_params({"train.lr": 0.0045, "train.decay_from": 0.5})
    present = Path("params.yaml").read_text()
    for text in (re.sub(r"(?m)^  (lr|decay_from): .*\n", "", present), "train:\n"):
        Path("params.yaml").write_text(text)
        commit(base)
        Path("params.yaml").write_text(present)
        assert exit_code(sweep.app, "--seeds", "2") == 0
        assert trained[-4]["train.decay_from"] == 0.4, "of HEAD"


@pytest.mark.parametrize(
    ("key", "others", "present", "words"),
    [
        ("fid_judge", [3.0, 3.1, 2.9], [2.0, 2.1, 1.9], "is better than HEAD"),
        ("fid_judge", [2.0, 2.1, 1.9], [3.0, 3.1, 2.9], "is worse than HEAD"),
        ("conditional_accuracy", [0.8, 0.81], [0.9, 0.91], "is better than HEAD"),
        ("fid_judge", [2.0, 2.5, 3.0], [2.1, 2.4, 2.9], "No difference from HEAD that 3 seeds"),
        ("fid_judge", [2.0, 2.0], [2.1, 2.1], "whatever the seed. `cgan compare` says whether"),
        ("fid_judge", [2.0, 2.0], [2.0, 2.0], "No difference from HEAD that 2 seeds"),
    ],
)
def test_only_a_clear_difference_in_its_direction_is_better(
    key: str, others: list[float], present: list[float], words: str
) -> None:
    assert words in sweep.verdict(key, "HEAD", others, present)


def test_what_cannot_work_is_refused_before_anything_starts(
    base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(*arguments: str) -> str:
        assert exit_code(sweep.app, *arguments) == 1
        return capsys.readouterr().err

    Path("cgan/new.py").touch()
    assert "cgan/new.py: changed since HEAD" in refused("--trials", "2")
    Path("cgan/new.py").unlink()
    text = Path("params.yaml").read_text()
    Path("params.yaml").write_text(text.replace("'train.lr'", "'train.seed'"))
    assert "train.seed" in refused("--trials", "2")
    Path("params.yaml").write_text(re.sub(r"objective: \w+", "objective: recal", text))
    assert "sweep.objective: 'recal' is none of " in refused("--trials", "2")


def test_a_study_goes_on_with_the_same_code_params_and_space(
    base: Path, trained: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    trained += [{}] * 3

    def is_new() -> bool:
        assert exit_code(sweep.app, "--trials", "1") == 0
        return "; 0 are done" in capsys.readouterr().out

    assert is_new() and not is_new()
    set_params({"gate.promote": False, "tracking.experiment": "other"})
    assert not is_new()
    for changes in (
        {"train.latent_dim": 33},
        {"evaluate.seed": 9},
        {"sweep.objective": "conditional_accuracy"},
    ):
        set_params(changes)
        assert is_new(), changes
    assert [study.direction.name for study in studies()] == ["MINIMIZE"] * 3 + ["MAXIMIZE"]
    text = Path("params.yaml").read_text()
    Path("params.yaml").write_text(re.sub(r"(high'?: 0\.0)1", r"\g<1>2", text))
    assert is_new()
    Path("cgan/__init__.py").write_text("# other code")
    commit(base)
    assert is_new() and not is_new()


@pytest.mark.slow
def test_trials_and_seeds_are_trained_in_checkouts(
    repo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    narrow_space(repo)
    words = "Error: MLflow at http://nowhere cannot be used"
    (repo / "cgan/stages/record.py").write_text(f"import sys; sys.exit({words!r})")
    commit(repo)
    set_params({"train.lr": 3.1e-3})
    assert exit_code(sweep.app, "--trials", "2") == 0
    assert "trial 0: fid_judge 0.11\n" in capsys.readouterr().out
    assert words in next(repo.glob(".cgan/sweeps/*-0.log")).read_text()
    assert exit_code(sweep.app, "--seeds", "2") == 0
    assert "params.yaml is better than HEAD" in capsys.readouterr().out
    logs = sorted(path.name.rpartition("-")[2] for path in repo.glob(".cgan/sweeps/*.log"))
    assert logs == ["0.log", "1.log", "2.log", "2.log", "3.log", "3.log"]
    assert not list(Path(".cgan/checkouts").glob("*/")), "checkouts are gone"
    assert load_params().train.lr == 3.1e-3
