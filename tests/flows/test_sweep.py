"""`python -m flows.sweep`: real checkouts and a real study, with stages of a moment."""

import os
import re
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import optuna
import psutil
import pytest
from conftest import run, wait_until
from optuna.trial import TrialState
from test_pipeline import python
from toy_project import commit, git

from cgan.errors import CganError
from cgan.evaluation import Evaluation, Score
from cgan.params.checks import check_params
from cgan.pipeline.params_file import load_params, set_params
from flows import sweep

# Optuna 4 warns of the sampler that does not propose twice what runs.
pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
SPACE = {"train.lr": {"low": 1e-3, "high": 1e-2, "log": True}}


@pytest.fixture
def base(repo: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project whose space has the learning rate alone; distances are least at 3e-3."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    text = Path("params.yaml").read_text()
    space = text.index("  space:")
    rest = text.index("\ntracking:")
    Path("params.yaml").write_text(f"{text[:space]}  space: {SPACE}\n{text[rest:]}")
    Path(".gitignore").write_text(".cgan\n__pycache__\n")
    commit(repo)
    return repo


def study_of(base: Path) -> optuna.Study:
    storage = sweep.storage_at(f"sqlite:///{base}/.cgan/optuna.db")
    (name,) = optuna.get_all_study_names(storage)
    return optuna.load_study(study_name=name, storage=storage)


def test_a_search_begins_with_the_present_params_finds_better_ones_and_says_how_to_take_them(
    base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    set_params({"train.latent_dim": 32})  # not committed: part of every training
    assert sweep.main(["--trials", "3", "--parallel", "2"]) == 0
    found = study_of(base).trials
    assert [trial.state for trial in found] == [TrialState.COMPLETE] * 3
    assert found[0].params == {"train.lr": 4.5e-3} and found[0].value == pytest.approx(1.51)
    output = capsys.readouterr().out
    best = min(found, key=lambda trial: trial.value or 9.0).params["train.lr"]
    # Not of their results: two rates as far from the best one have the same.
    assert len({trial.params["train.lr"] for trial in found}) == 3
    assert f"dvc exp run -S train.lr={best:.3g}" in output and "lr 0.0045" in output
    assert not list(Path(".cgan/checkouts").glob("*/")), "checkouts are gone"
    assert "latent_dim: 32" in Path("params.yaml").read_text()
    # The same command, with more: it goes on.
    assert sweep.main(["--trials", "4"]) == 0
    study = study_of(base)
    assert len(study.trials) == 4 and "measurement_context" in study.user_attrs


@pytest.mark.slow
def test_a_trial_takes_from_the_remote_what_is_not_in_the_cache(base: Path) -> None:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"  # of an activated environment

    def dvc(*arguments: str) -> None:
        run(sys.executable, "-m", "dvc", *arguments, cwd=base, PATH=path)

    dvc("remote", "add", "--quiet", "--default", "storage", str(base.parent / "storage"))
    commit(base)
    dvc("repro", "--quiet", "evaluate")
    dvc("push", "--quiet", "--run-cache")
    shutil.rmtree(base / ".dvc/cache")
    assert sweep.main(["--trials", "2", "--parallel", "1"]) == 0
    first, second = (path.read_text() for path in sorted(base.glob(".cgan/sweeps/*.log")))
    assert "train_judge: process" not in first + second
    assert "train: process" not in first and "train: process" in second, "of other params"


def test_f79_a_trial_whose_run_mlflow_does_not_take_counts_and_says_so(
    base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = "Error: MLflow at http://nowhere cannot be used now"
    (base / "cgan/stages/record.py").write_text(f"import sys; sys.exit({words!r})")
    commit(base)
    assert sweep.main(["--trials", "1"]) == 0
    assert [trial.state for trial in study_of(base).trials] == [TrialState.COMPLETE]
    assert f"-0: its run is not complete in MLflow. {words}" in capsys.readouterr().out


@pytest.mark.slow
def test_a_sampler_s_windows_and_cap_are_searched_and_its_seeds_are_not(
    base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Both are `auto` in params.yaml, so the first trial is Optuna's choice."""
    space = {"train.score_window_scale": {"low": 0.8, "high": 2.0}}
    space |= {"train.score_window_scale": {"low": 0.5, "high": 2.0}}
    text = Path("params.yaml").read_text().replace(str(SPACE), str(space))
    Path("params.yaml").write_text(text)
    set_params({"train.generator": "local_score"})
    assert sweep.main(["--trials", "2", "--parallel", "1"]) == 0
    found = study_of(base).trials
    assert all(set(trial.params) == {*space} for trial in found) and len(found) == 2
    output = capsys.readouterr().out
    assert "is better than an earlier run" in output and "cgan compare RUN ." in output
    assert sweep.main(["--seeds", "2"]) == 1
    assert "`cgan compare RUN .`" in capsys.readouterr().err


@pytest.mark.slow
def test_the_same_command_goes_on_with_a_sweep_that_was_interrupted(base: Path) -> None:
    """Killed: tests/acceptance."""
    command = ("-m", "flows.sweep", "--trials", "2")
    with python(*command, SLOW="train") as cut_off:
        in_training = lambda: any(  # noqa: E731
            "train: step 2" in log.read_text() for log in base.glob(".cgan/sweeps/*.log")
        )
        wait_until(lambda: in_training() or cut_off.poll() is not None)
        assert cut_off.poll() is None, cut_off.stdout and cut_off.stdout.read()
        children = psutil.Process(cut_off.pid).children(recursive=True)
        os.kill(cut_off.pid, signal.SIGINT)
        assert cut_off.wait(120) == 130
        assert psutil.wait_procs(children, timeout=60)[1] == []
        assert list(base.glob(".cgan/checkouts/*/saved")), "its checkpoint"
    with python(*command) as following:
        output, _ = following.communicate(timeout=200)
        assert following.returncode == 0, output
    found = study_of(base).trials
    states = [trial.state.name for trial in found]
    assert sorted(states) == ["COMPLETE", "COMPLETE", "FAIL"]
    assert found[0].params == found[1].params, "the one that was cut off, again"


@pytest.mark.slow
def test_f106_what_a_kill_cut_off_is_trained_again_one_after_the_other(
    base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of two that wait, two threads may take the same, and one would never be trained."""
    assert sweep.main(["--trials", "1"]) == 0
    study = study_of(base)
    for lr in (0.001, 0.002):
        study.enqueue_trial({"train.lr": lr})
        study.ask().set_user_attr("here", f"{os.uname().nodename}:{base}")
    capsys.readouterr()
    assert sweep.main(["--trials", "3", "--parallel", "2"]) == 0
    numbers = re.findall(r"^trial (\d+)", capsys.readouterr().out, re.MULTILINE)
    assert numbers == ["3", "3", "4", "4"], "begun and ended, then the next"
    assert [trial.state.name for trial in study_of(base).trials].count("COMPLETE") == 3


def test_seeds_say_whether_params_yaml_is_better_than_a_commit(
    base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    set_params({"train.lr": 3e-3})
    assert sweep.main(["--seeds", "2"]) == 0
    output = capsys.readouterr().out
    assert "0.025 ± 0.0071" in output
    assert re.search("better than HEAD.* -1.5", output)
    assert sweep.main(["--seeds", "2", "--against", "nobody"]) == 1
    assert "--against nobody: no commit here" in capsys.readouterr().err


def test_a_key_that_a_params_yaml_lacks_has_its_default(base: Path) -> None:
    path = base / "params.yaml"
    set_params({"train.lr": 0.0045, "train.decay_from": 0.5})
    with_keys = path.read_text()
    path.write_text(re.sub(r"(?m)^  (lr|decay_from): .*\n", "", with_keys))
    commit(base)
    study = sweep._open_study(base, "HEAD", load_params(), f"sqlite:///{base}/optuna.db")
    assert study.trials[0].system_attrs["fixed_params"] == {"train.lr": 0.0045}
    path.write_text(with_keys)
    assert sweep._other_params(base, load_params(), "HEAD") == {"train.decay_from": 0.4}
    for text in ("gate:\n  promote: true\n", "train:\n", ""):
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
    base: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*arguments: str) -> Any:
        assert sweep.main([*arguments]) == 1
        return capsys.readouterr().err

    monkeypatch.setenv("FAIL", "validate")
    assert "row 17" in refused("--trials", "2"), "the first trial's own words"
    Path("cgan/new.py").touch()
    assert "cgan/new.py: changed since HEAD" in refused("--trials", "2")
    Path("cgan/new.py").unlink()
    text = Path("params.yaml").read_text()
    Path("params.yaml").write_text(text.replace("'train.lr'", "'train.seed'"))
    assert "train.seed" in refused("--trials", "2")
    Path("params.yaml").write_text(text)
    git(base, "update-ref", "-d", "HEAD")
    assert re.search("no commit here.*git add .; git commit", refused("--trials", "2"))


def test_optuna_s_choices_are_of_the_space_with_three_digits(base: Path) -> None:
    params = load_params()
    axes = {
        "train.lr": {"low": 1e-3, "high": 1e-2, "log": True},
        "train.latent_dim": {"low": 16, "high": 64},
        "train.generator_width": {"choices": [8, 12, 16]},
    }
    wanted = {"train.lr": 0.00234567, "train.latent_dim": 33, "train.generator_width": 12}
    params = check_params(
        params.model_dump(by_alias=True) | {"sweep": {"objective": "fid_judge", "space": axes}}, "x"
    )
    trial = optuna.trial.FixedTrial(wanted)
    assert sweep._suggest(trial, params) == {**wanted, "train.lr": 0.00235}
    assert {name: type(axis).__name__ for name, axis in trial.distributions.items()} == {
        "train.lr": "FloatDistribution",
        "train.latent_dim": "IntDistribution",
        "train.generator_width": "CategoricalDistribution",
    }
    assert trial.distributions["train.lr"].log and not trial.distributions["train.latent_dim"].log


def test_a_study_goes_on_with_the_same_code_params_and_space_alone(base: Path) -> None:
    def name(**changes: Any) -> str:
        document = load_params().model_dump(by_alias=True)
        for section, values in changes.items():
            document[section] |= values
        return sweep._study_name(base, "HEAD", "sweep", check_params(document, "x"))

    first = name()
    assert first.startswith("sweep-") and first == name()
    assert first == name(gate={"promote": False}) == name(tracking={"experiment": "other"})
    others = [name(train={"latent_dim": 33}), name(evaluate={"seed": 9})]
    others.append(name(sweep={"objective": "conditional_accuracy"}))
    others.append(name(sweep={"space": {"train.lr": {"low": 1e-3, "high": 2e-2}}}))
    (base / "cgan/__init__.py").write_text("# other code")
    git(base, "commit", "--quiet", "--all", "-m", "other code")
    others.append(name())
    (base / "notes.md").write_text("no code")
    git(base, "add", "notes.md")
    git(base, "commit", "--quiet", "-m", "notes")
    assert name() == others[-1], "notes change no result"
    assert len({first, *others}) == 6


def test_a_trial_that_fails_or_was_measured_otherwise_is_left_out_and_the_search_goes_on(
    base: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The trainings are stand-ins: what is told apart is in their reports."""
    numbers = iter([3.0, None, 0.1, 2.0])
    contexts = iter([1, 1, 2, 1])

    def train(_base: Path, _commit: str, _study: str, _number: int, _values: Any) -> Evaluation:
        number, seed = next(numbers), next(contexts)
        if number is None:
            raise CganError("classes collapse")
        return Evaluation(metrics={"fid_judge": Score(value=number)}, context={"seed": seed})

    monkeypatch.setattr(sweep, "train_trial", train)
    assert sweep.main(["--trials", "4", "--parallel", "1"]) == 0
    states = [trial.state.name for trial in study_of(base).trials]
    assert states == ["COMPLETE", "FAIL", "FAIL", "COMPLETE"]
    assert study_of(base).best_value == 2.0, "0.1 was measured with other images"
    said = capsys.readouterr().out
    assert "4 trials, 1 at a time; 0 are done" in said and "The best, fid_judge 2" in said
    assert "\n2 of 4 are missing: the same command" in said, "of one whose process was killed, too"


def test_what_makes_no_sweep_is_refused_before_training(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, why in {
        "--against HEAD~1": "--against is for a comparison over --seeds",
        "--seeds 1": "--seeds 2",
        "--seeds 0": "--seeds 2",
        "--parallel 0": "--parallel 1",
        "--trials 0": "--trials 1",
    }.items():
        with pytest.raises(SystemExit):
            sweep.main(arguments.split())
        assert why in capsys.readouterr().err
