"""`python -m flows.sweep`: a real study of stand-ins for trainings; the slow test has real checkouts."""

import re
from pathlib import Path
from typing import Any

import optuna
import pytest
from conftest import ROOT
from optuna.trial import TrialState
from toy_project import commit, git

from cgan.errors import CganError
from cgan.params.checks import check_params
from cgan.pipeline.params_file import load_params, set_params
from flows import sweep

# Optuna 4 warns of the sampler that looks at all params at once.
pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
SPACE = {"train.lr": {"low": 1e-3, "high": 1e-2, "log": True}}


def narrow_space(folder: Path) -> None:
    """The learning rate alone is searched."""
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

    def train(_base: Path, _commit: str, _study: str, _number: int, values: Any) -> float:
        done.append(values)
        if len(done) == 3:
            raise CganError("classes collapse")
        lr = values.get("train.lr", load_params().train.lr)
        return float(1000 * abs(lr - 3e-3) + values.get("train.seed", 1) / 100)

    monkeypatch.setattr(sweep, "train_trial", train)
    return done


def study_of(base: Path) -> optuna.Study:
    study: optuna.Study = sweep._open_study(base, "HEAD", load_params())
    return study


def test_a_search_begins_with_the_present_params(
    base: Path, trained: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    """It leaves out what fails, goes on where it ended, and says how to take the best."""
    set_params({"train.latent_dim": 32})  # not committed: part of every training
    assert sweep.main(["--trials", "4"]) == 0
    found = study_of(base).trials
    states = [trial.state.name for trial in found]
    assert states == ["COMPLETE", "COMPLETE", "FAIL", "COMPLETE"]
    assert found[0].params == {"train.lr": 4.5e-3} and found[0].value == pytest.approx(1.51)
    assert len({trial.params["train.lr"] for trial in found}) == 4
    assert sweep.main(["--trials", "5"]) == 0
    assert [trial.state for trial in study_of(base).trials].count(TrialState.COMPLETE) == 5
    output = capsys.readouterr().out
    assert "4 trials; 0 are done" in output and "5 trials; 3 are done" in output
    study = study_of(base)
    assert study.best_value == min(each.value for each in study.trials if each.value is not None)
    best = study.best_params["train.lr"]
    assert f"dvc exp run -S train.lr={best:.3g}\n" in output and "lr 0.0045" in output


def test_seeds_say_whether_params_yaml_is_better(
    base: Path, trained: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    seed = load_params().train.seed
    set_params({"train.seed": 9})
    assert sweep.main(["--seeds", "2"]) == 1
    set_params({"train.seed": seed})
    assert "HEAD has the same `train`" in capsys.readouterr().err
    set_params({"train.lr": 3e-3})
    trained += [{}] * 3  # none of these fails
    assert sweep.main(["--seeds", "2"]) == 0
    output = capsys.readouterr().out
    assert "0.025 ± 0.0071" in output
    assert re.search("better than HEAD.* -1.5", output)
    assert [each["train.seed"] for each in trained[3:]] == [2, 3, 2, 3], "fresh ones"


def test_a_key_that_a_params_yaml_lacks_has_its_default(base: Path) -> None:
    path = base / "params.yaml"
    set_params({"train.lr": 0.0045, "train.decay_from": 0.5})
    with_keys = path.read_text()
    for text in (re.sub(r"(?m)^  (lr|decay_from): .*\n", "", with_keys), "train:\n", ""):
        path.write_text(text)
        commit(base)
        path.write_text(with_keys)
        assert sweep._other_params(base, load_params(), "HEAD")["train.decay_from"] == 0.4


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
def test_only_a_clear_difference_in_the_metric_s_direction_is_better(
    key: str, others: list[float], present: list[float], words: str
) -> None:
    assert words in sweep.verdict(key, "HEAD", others, present)


def test_what_cannot_work_is_refused_before_anything_starts(
    base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(*arguments: str) -> str:
        assert sweep.main(arguments) == 1
        return capsys.readouterr().err

    Path("cgan/new.py").touch()
    assert "cgan/new.py: changed since HEAD" in refused("--trials", "2")
    Path("cgan/new.py").unlink()
    assert "Error: fatal: " in refused("--seeds", "2", "--against", "nobody")
    text = Path("params.yaml").read_text()
    Path("params.yaml").write_text(text.replace("'train.lr'", "'train.seed'"))
    assert "train.seed" in refused("--trials", "2")
    for arguments in ("--seeds 1", "--trials 0"):
        with pytest.raises(SystemExit):
            sweep.main(arguments.split())


def test_optuna_s_choices_are_of_the_space_with_three_digits(base: Path) -> None:
    axes = {
        "train.lr": {"low": 1e-3, "high": 1e-2, "log": True},
        "train.latent_dim": {"low": 16, "high": 64},
        "train.generator_width": {"choices": [8, 12, 16]},
    }
    wanted = {"train.lr": 0.00234567, "train.latent_dim": 33, "train.generator_width": 12}
    document = load_params().model_dump(by_alias=True)
    params = check_params(document | {"sweep": {"objective": "fid_judge", "space": axes}}, "x")
    trial = optuna.trial.FixedTrial(wanted)
    assert sweep._suggest(trial, params) == {**wanted, "train.lr": 0.00235}
    kinds = [type(axis).__name__ for axis in trial.distributions.values()]
    assert kinds == ["FloatDistribution", "IntDistribution", "CategoricalDistribution"]
    logarithmic = [name for name, axis in trial.distributions.items() if vars(axis).get("log")]
    assert logarithmic == ["train.lr"]


def test_a_study_goes_on_with_the_same_code_params_and_space_alone(base: Path) -> None:
    def name(**changes: Any) -> str:
        document = load_params().model_dump(by_alias=True)
        for section, values in changes.items():
            document[section] |= values
        return sweep._study_name(base, "HEAD", check_params(document, "x"))

    first = name()
    assert (
        first == name() == name(gate={"promote": False}) == name(tracking={"experiment": "other"})
    )
    others = [name(train={"latent_dim": 33}), name(evaluate={"seed": 9})]
    others.append(name(sweep={"objective": "conditional_accuracy"}))
    others.append(name(sweep={"space": {"train.lr": {"low": 1e-3, "high": 2e-2}}}))
    (base / "cgan/__init__.py").write_text("# other code")
    git(base, "commit", "--quiet", "--all", "-m", "other code")
    others.append(name())
    assert len({first, *others}) == 6


@pytest.mark.slow
def test_trials_and_seeds_are_trained_in_checkouts(
    repo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    narrow_space(repo)
    words = "Error: MLflow at http://nowhere cannot be used now"
    (repo / "cgan/stages/record.py").write_text(f"import sys; sys.exit({words!r})")
    (repo / ".gitignore").write_text(".cgan\n__pycache__\n")
    commit(repo)
    set_params({"train.lr": 3.1e-3})
    assert sweep.main(["--trials", "2"]) == 0
    output = capsys.readouterr().out
    assert "trial 0: fid_judge 0.11\n" in output
    assert f"-0: its run is not complete in MLflow. {words}" in output
    assert sweep.main(["--seeds", "2"]) == 0
    assert "params.yaml is better than HEAD" in capsys.readouterr().out
    logs = sorted(path.name.rpartition("-")[2] for path in repo.glob(".cgan/sweeps/*.log"))
    assert logs == ["0.log", "1.log", "2.log", "2.log", "3.log", "3.log"]
    assert not list(Path(".cgan/checkouts").glob("*/")), "checkouts are gone"
    assert load_params().train.lr == 3.1e-3
