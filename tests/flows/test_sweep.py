"""A sweep: real Optuna, a real MLflow store, trainings that are made up."""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState, create_trial
from PIL import Image
from prefect.settings import PREFECT_API_URL, temporary_settings
from toy_project import git

from cgan.errors import CganError
from cgan.files import locked
from cgan.params.reading import load_params
from cgan.reports.sweeps import JOB, apply, show
from flows.sweep import __main__ as command
from flows.sweep.jobs import Job, JobError, Watch
from flows.sweep.report import publish, verdict
from flows.sweep.search import Results, Sweep
from flows.sweep.study import best_of, check_combinations, trained

pytestmark = [
    pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning"),  # MLflow's
]

SPACE = {
    "train.lr": {"low": 1e-3, "high": 1e-2, "log": True},
    "train.generator_width": {"choices": [8, 16]},
}


class KilledError(BaseException):
    """What SIGKILL does to a driver, as far as a test can do it within a process."""


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(os, "environ", os.environ.copy())
    for name in ("OPTUNA_STORAGE", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    with temporary_settings({PREFECT_API_URL: None}):
        yield


@pytest.fixture
def folder(tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_params()
    shutil.copy(ROOT / "dvc.yaml", tmp_path)
    for name in (".cgan", "cgan"):
        (tmp_path / name).mkdir()
    (tmp_path / "cgan/code.py").touch()
    shutil.copyfile(empty_store, tmp_path / "mlflow.db")
    for words in ("init --quiet .", "add params.yaml dvc.yaml cgan", "commit --quiet -m start"):
        git(tmp_path, *words.split())
    return tmp_path


def write_params(train: dict[str, Any] | None = None, **sweep: Any) -> None:
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    params["train"] |= train or {}
    params["sweep"] |= {"space": SPACE, "seeds": 3, "prune_after_trials": None, **sweep}
    Path("params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))


def distance(job: Job) -> float:
    """Best at a rate of 0.002 and the larger width; the seed adds a little."""
    rate = job.overrides.get("train.lr", 0.0045)
    wide = job.overrides.get("train.generator_width", 16)
    return float(abs(rate - 0.002) * 100 + 1 / wide + 0.001 * job.overrides.get("train.seed", 1))


class Driver(Sweep):
    """Each time anew, as `python -m flows.sweep` makes it; a training is a line in MLflow."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, load_params(), "try", load_params().sweep.space)
        self.train = self.pretend
        self.started: list[str] = []
        self.given: dict[str, Any] = {}
        self.ends: dict[str, BaseException] = {}  # by the job's last word: how its training ends
        self.probes: dict[str, list[float]] = {}
        self.tags: dict[str, str] = {}
        self.distance: Callable[[Job], float] = distance
        self.judge = "judge"

    def pretend(self, job: Job, watch: Watch) -> None:
        word = job.name.rpartition("-")[2]
        self.started.append(word)
        self.given = job.overrides
        made = self.client.create_run(self.experiment, tags={**job.tags, **self.tags})
        run_id = made.info.run_id
        for step, value in enumerate(self.probes.get(word, []), 1):
            self.client.log_metric(run_id, "probe/fid_judge", value, step=10 * step)
        watch()
        if word in self.ends:
            raise self.ends.pop(word)
        self.client.log_metric(run_id, "quality/fid_judge", self.distance(job))
        text = json.dumps({"passport": {"extractor_digest": self.judge}})
        self.client.log_text(run_id, text, "reports/evaluation.json")
        self.client.set_terminated(run_id)

    def states(self) -> list[str]:
        kept = [trial.state for trial in self.study.trials if trial.state != TrialState.WAITING]
        return [state.name for state in kept]

    def confirm_best(self) -> Results:
        best = best_of(self.study)
        assert best
        return self.train_seeds({"best": trained(best), "present": {}})


def test_trials_are_children_of_one_run_and_the_first_is_what_params_yaml_holds(
    folder: Path,
) -> None:
    driver = Driver(folder)
    driver.search(4, 2)
    query = f"tags.`mlflow.parentRunId` = '{driver.parent}'"
    runs = driver.client.search_runs([driver.experiment], query)
    assert sorted(run.data.tags[JOB][-1] for run in runs) == ["0", "1", "2", "3"]
    assert driver.states() == ["COMPLETE"] * 4
    first = driver.study.trials[0]
    assert trained(first) == {"train.lr": 0.0045, "train.generator_width": 16}
    assert first.value == pytest.approx(0.25 + 1 / 16 + 0.001)
    assert len({trial.params["train.lr"] for trial in driver.study.trials}) == 4


@pytest.mark.parametrize("end", [KilledError(), CganError("the server is away")])
@pytest.mark.parametrize("parallel", [1, 2])
def test_a_driver_that_was_killed_or_lost_a_server_leaves_its_trials_to_the_next(
    folder: Path, parallel: int, end: BaseException
) -> None:
    first = Driver(folder)
    first.ends = {"1": end}
    with pytest.raises(type(end)):
        first.search(4, parallel)
    asked = [trained(trial) for trial in first.study.trials]
    second = Driver(folder)
    second.search(6, parallel)
    assert second.parent == first.parent and second.states() == ["COMPLETE"] * 6
    assert "1" in second.started and "0" not in second.started
    assert [trained(trial) for trial in second.study.trials][: len(asked)] == asked
    assert len({trial.params["train.lr"] for trial in second.study.trials}) == 6
    third = Driver(folder)
    third.search(6, parallel)
    assert third.started == []


def test_another_trial_takes_the_place_of_one_that_failed_and_three_in_a_row_end_it(
    folder: Path,
) -> None:
    driver = Driver(folder)
    driver.ends = {n: JobError("no space left") for n in "023"}
    driver.search(2, 1)
    assert driver.states() == ["FAIL", "COMPLETE", "FAIL", "FAIL", "COMPLETE"]
    driver.ends = {n: JobError("no such file") for n in "567"}
    with pytest.raises(CganError, match="no such file"):
        driver.search(4, 2)


def test_a_hopeless_trial_is_stopped_by_its_probes_and_a_collapsed_one_is_no_failure(
    folder: Path,
) -> None:
    write_params(prune_after_trials=1, prune_after_probes=2)
    driver = Driver(folder)
    driver.probes = {"0": [5, 4, 3], "1": [9, 8, 8]}
    driver.search(2, 1)
    driver.tags = {"cgan.ended_by": "TrainingError: a class collapsed"}
    driver.ends = {"2": JobError("a class collapsed")}
    driver.search(3, 1)
    assert driver.states() == ["COMPLETE", "PRUNED", "PRUNED"]


def test_a_number_of_another_judge_and_one_that_is_none_are_no_results(folder: Path) -> None:
    driver = Driver(folder)
    driver.search(1, 1)
    driver.judge = "another"
    with pytest.raises(CganError, match="extractor_digest judge and another"):
        driver.search(2, 1)
    driver = Driver(folder)
    driver.distance = lambda _: math.nan
    with pytest.raises(CganError, match="is nan"):
        driver.search(2, 1)


def test_another_space_is_another_sweep_and_code_that_is_not_committed_is_refused(
    folder: Path,
) -> None:
    Driver(folder).search(1, 1)
    write_params(space={"train.generator_width": {"choices": [8, 16]}})
    other = Driver(folder)
    other.search(5, 1)
    assert len(other.started) == 2, "the same params are not trained twice"
    (folder / "cgan/code.py").write_text("changed = True\n")
    (folder / "cgan/new.py").touch()
    with pytest.raises(CganError, match=r"cgan/code\.py, cgan/new\.py"):
        Driver(folder)


def test_params_that_are_not_committed_are_part_of_every_training_as_they_are_written(
    folder: Path,
) -> None:
    write_params({"total_kimg": 6, "latent_dim": 32})
    driver = Driver(folder)
    driver.search(1, 1)
    own = {"train.lr": 0.0045, "train.generator_width": 16}
    assert driver.given == {"train.total_kimg": 6, "train.latent_dim": 32, **own}
    assert isinstance(driver.given["train.total_kimg"], int), "DVC tells 6 from 6.0"


def test_values_that_do_not_go_together_are_refused_before_anything_starts(folder: Path) -> None:
    write_params(space={"train.batch_size": {"low": 32, "high": 64}})
    with pytest.raises(CganError, match=r"batch_size 33.*must be a multiple of `cpu_parts`"):
        check_combinations(load_params())
    write_params(space={"train.batch_size": {"low": 32, "high": 64, "step": 2}})
    check_combinations(load_params())


BEST = create_trial(
    params={"train.lr": 0.002},
    distributions={"train.lr": FloatDistribution(0.001, 0.01)},
    value=0.1,
)
LOW, HIGH, SPREAD = [0.1, 0.11, 0.12], [0.2, 0.21, 0.22], [0.1, 0.11, 0.9]


def test_only_a_clear_difference_over_all_seeds_in_the_metric_s_direction_is_better() -> None:
    now = {"train.lr": 0.0045}
    for objective, best, present, is_better in (
        ("fid_judge", LOW, HIGH, True),
        ("fid_judge", HIGH, LOW, False),
        ("coverage", HIGH, LOW, True),
        ("coverage", LOW, HIGH, False),
        ("fid_judge", LOW, SPREAD, False),
        ("coverage", SPREAD, LOW, False),
    ):
        results = [[{objective: value} for value in side] for side in (best, present)]
        assert verdict(objective, BEST, now, results)[0] is is_better, (objective, results)
    for trial, held in ((None, now), (BEST, {"train.lr": 0.002}), (BEST, now)):
        assert not verdict("fid_judge", trial, held, None)[0]


def test_what_is_better_over_fresh_seeds_is_applied_and_the_page_shows_it(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(CganError, match=r"mlflow\.db"):
        apply()
    driver = Driver(folder)
    with pytest.raises(CganError, match="no result yet"):
        apply("try")
    driver.search(8, 1)
    driver.ends = {"3": JobError("no space left")}
    with pytest.raises(JobError):
        driver.confirm_best()
    again = Driver(folder)
    publish(again, again.confirm_best())
    assert "3" in again.started and len(again.started) < 6, "only what failed"
    page = again.client.get_run(again.parent)
    assert page.info.status == "FINISHED"
    text = page.data.tags["mlflow.note.content"].splitlines()
    rows = [line.split("|") for line in text if line.startswith("|")][2:]
    values = [float(row[2].removeprefix(" &ensp;")) for row in rows]
    assert len(values) == 8 and values == sorted(values)
    for name in ("history", "importances", "parallel"):
        path = again.client.download_artifacts(again.parent, f"{name}.png", str(folder))
        with Image.open(path) as picture:
            assert picture.width <= 800, "MLflow's page becomes as wide as its widest picture"

    capsys.readouterr()
    for named in ("try", again.study.study_name, None):
        show(named)
    assert len(set(capsys.readouterr().out.splitlines())) == 1
    with pytest.raises(CganError, match=f"`another`.*{again.study.study_name}"):
        show("another")
    before = Path("params.yaml").read_text()
    Path("params.yaml").write_text(before.replace("latent_dim: 64", "latent_dim: 32"))
    with pytest.raises(CganError, match="latent_dim` is 32, was 64"):
        apply()
    Path("params.yaml").write_text(before)
    for said in ("train.lr: 0.0045 → ", "already"):
        apply()
        assert said in capsys.readouterr().out
    assert load_params().train.lr != 0.0045


@pytest.fixture
def made(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Driver:
    """What trains for the command."""
    Path("prefect.yaml").touch()
    shutil.copytree(ROOT / "presets", "presets")
    monkeypatch.setattr(command.signal, "signal", lambda *_: None)
    driver = Driver(folder)
    monkeypatch.setattr(
        "flows.sweep.search.train_here", lambda base, commit, *job: driver.train(*job)
    )
    return driver


def test_the_command_searches_confirms_and_says_in_100_columns_what_it_found(
    folder: Path, made: Driver, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(["--trials", "8", "--parallel", "1", "--name", "try"]) == 0
    said = capsys.readouterr().out
    table = said[said.index(f"Sweep {made.study.study_name}: 8 complete") :]
    assert max(map(len, table.splitlines())) <= 100 and "fresh seeds" in table
    assert said.rstrip().endswith("in MLflow, which `make ui` shows")
    assert len(made.started) == 8 + 2 * 3
    for option in ("--trials", "--parallel"):
        assert command.main([option, "0"]) == 1
        assert option.strip("-") in capsys.readouterr().err
    with locked(folder / command.SWEEPS / "lock"):
        assert command.main([]) == 1
    assert "runs in this folder already" in capsys.readouterr().err


def test_seeds_say_whether_params_yaml_is_better_than_a_commit_or_a_preset(
    made: Driver, capsys: pytest.CaptureFixture[str]
) -> None:
    def seeds(*options: str) -> str:
        made.started.clear()
        assert command.main(["--seeds", "3", *options]) == 0
        return " ".join(capsys.readouterr().out.split())

    assert "0.3155 ± 0.001: HEAD has the same `train`" in seeds() and made.started == [*"234"]
    for change, said in (
        ({"lr": 0.009, "seed": 5}, "params.yaml (lr 0.009) against HEAD (lr 0.0045): worse"),
        ({"r1_gamma": 0.1}, "HEAD (r1_gamma 0.3): no difference that 3 seeds can show"),
        ({"lr": 0.002}, "params.yaml (lr 0.002) against HEAD (lr 0.0045): better"),
    ):
        write_params(change)
        assert said in seeds() and len(made.started) == 6
        assert said in seeds() and not made.started
    run = made.client.search_runs([made.experiment], "tags.`cgan.sweep.role` = 'parent'")[0]
    query = f"tags.`mlflow.parentRunId` = '{run.info.run_id}'"
    assert len(made.client.search_runs([made.experiment], query)) == 6
    for key, value in {"quality": 0.0655, "quality_sd": 0.001, "difference": -0.25}.items():
        assert run.data.metrics[f"{key}/fid_judge"] == pytest.approx(value)
    assert run.data.metrics["difference_high/fid_judge"] < -0.24
    lines = run.data.tags["mlflow.note.content"].splitlines()
    assert "| --- | ---: | ---: |" in lines, "without it the page shows no table"
    assert "| &ensp;Fréchet distance, seed 4 | &ensp;0.0665 | &ensp;0.3165 |" in lines
    write_params()
    apply()
    assert "train.lr: 0.0045 → 0.002" in capsys.readouterr().out
    assert "against fast (" in seeds("--against", "fast")
    assert command.main(["--seeds", "3", "--against", "fest"]) == 1
    assert "no preset (best, default, demo, fast), and no commit" in capsys.readouterr().err


def test_seeds_that_were_cut_off_go_on_and_the_first_makes_the_data_for_all(made: Driver) -> None:
    write_params({"lr": 0.002})
    made.ends = {"2": JobError("no such file")}
    assert command.main(["--seeds", "2"]) == 1 and made.started == ["2"]
    made.ends = {"3": KilledError()}
    with pytest.raises(KilledError):
        command.main(["--seeds", "2", "--parallel", "1"])
    made.started.clear()
    assert command.main(["--seeds", "3"]) == 0
    again = [made.started.count(seed) for seed in "234"]
    assert again[0] < 2 and again[1] and again[2] == 2, "what was finished is kept"
