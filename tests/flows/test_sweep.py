"""A sweep's bookkeeping: real Optuna, a real MLflow store, trainings that are made up."""

from __future__ import annotations

import http.server
import itertools
import json
import math
import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar
from uuid import UUID

import optuna
import pytest
import yaml
from conftest import ROOT
from optuna.trial import TrialState
from PIL import Image
from postgres import PASSWORD, USER, Postgres
from postgres import postgres as postgres
from prefect.settings import (
    PREFECT_API_URL,
    PREFECT_CLIENT_CSRF_SUPPORT_ENABLED,
    temporary_settings,
)

from cgan.errors import CganError, ParamsError
from cgan.params.reading import load_params
from cgan.params.sections import Params
from cgan.reports import sweeps
from cgan.store.address import store_uri
from flows.sweep import __main__ as sweep_command
from flows.sweep import report, space
from flows.sweep.confirm import Confirmation, best_of
from flows.sweep.jobs import Job, Seen, State
from flows.sweep.pages import Pages
from flows.sweep.pool import Pool
from flows.sweep.search import Search
from flows.sweep.study import VALUES, facts_of, open_study

pytestmark = [
    pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning"),  # MLflow's
]

SPACE = {
    "train.lr": {"low": 1e-3, "high": 1e-2, "log": True},
    "train.generator_width": {"choices": [8, 16]},
}
PASSPORT = {"extractor_digest": "judge", "drawn_images": 100}


class KilledError(BaseException):
    """What SIGKILL does to a driver, as far as a test can do it within a process."""


class Desk:
    """A place where a training is a line in MLflow: the distance is a function of the params."""

    def __init__(self, pages: Pages, distance: Callable[[Job], float]) -> None:
        self.pages, self.distance = pages, distance
        self.started: list[str] = []
        self.stopped: list[str] = []
        self.probes: dict[str, list[float]] = {}
        self.ends: dict[
            str, list[Seen]
        ] = {}  # by the job's last word: what becomes of its attempts
        self.killed_at: Callable[[str, str], bool] = lambda event, job: False
        self.passport = PASSPORT

    def _kill(self, event: str, job: Job) -> None:
        if self.killed_at(event, job.name.rpartition("-")[2]):
            self.killed_at = lambda *_: False
            raise KilledError

    def start(self, job: Job, attempt: int) -> None:
        self._kill("before start", job)
        self.started.append(job.name)
        client = self.pages.client
        if self.pages.child(job) is None:
            run = client.create_run(self.pages.experiment_id, tags=job.tags)
            for step, value in enumerate(self.probes.get(job.name.rpartition("-")[2], []), 1):
                client.log_metric(run.info.run_id, "probe/fid_judge", value, step=10 * step)
        self._kill("after start", job)

    def look(self, job: Job) -> Seen:
        self._kill("look", job)
        word = job.name.rpartition("-")[2]
        if ends := self.ends.get(word):
            return ends.pop(0)
        run = self.pages.child(job)
        assert run is not None
        run_id = run.info.run_id
        self.pages.client.log_metric(run_id, "quality/fid_judge", self.distance(job))
        text = json.dumps({"passport": self.passport})
        self.pages.client.log_text(run_id, text, "reports/evaluation.json")
        self.pages.client.set_terminated(run_id)
        self._kill("done", job)
        return Seen(State.DONE)

    def stop(self, job: Job) -> None:
        self.stopped.append(job.name.rpartition("-")[2])


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flows.sweep.jobs.POLL_S", 0.0)
    monkeypatch.setattr("flows.sweep.search.LOOK_EVERY_S", 0.0)
    monkeypatch.delenv("OPTUNA_STORAGE", raising=False)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture
def folder(tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_params(tmp_path)
    shutil.copy(ROOT / "dvc.yaml", tmp_path)
    (tmp_path / "cgan").mkdir()
    (tmp_path / "cgan/code.py").touch()
    shutil.copyfile(empty_store, tmp_path / "mlflow.db")
    for command in (
        ["git", "init", "--quiet", "."],
        ["git", "add", "params.yaml", "dvc.yaml", "cgan"],
        ["git", "-c", "user.name=t", "-c", "user.email=t@t", "commit", "--quiet", "-m", "start"],
    ):
        subprocess.run(command, cwd=tmp_path, check=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_params(folder: Path, **sweep: Any) -> None:
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    params["sweep"] |= {"space": SPACE, "seeds": 3, "prune_after_trials": None, **sweep}
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))


def distance(job: Job) -> float:
    """Best at a rate of 0.003 and the larger width; the seed adds a little."""
    rate = job.overrides.get("train.lr", 0.0045)
    wide = job.overrides.get("train.generator_width", 16)
    noise = 0.001 * job.overrides.get("train.seed", 1)
    return float(abs(rate - 0.003) * 100 + 1 / wide + noise)


class Driver:
    """What `python -m flows.sweep` puts together, each time anew."""

    def __init__(self, folder: Path, desk: Desk | None = None) -> None:
        self.params: Params = load_params()
        self.pages = Pages(store_uri(folder), folder)
        commit = subprocess.check_output(["git", "rev-parse", "HEAD"], cwd=folder, text=True)
        facts = facts_of(folder, self.params, commit.strip())
        self.study, self.facts = open_study(folder, "trial-sweep", self.params, facts)
        self.desk = desk or Desk(self.pages, distance)
        self.parent = self.pages.parent(f"trial-sweep-{self.facts.token}", "trial-sweep", {})
        self.said: list[str] = []
        common = (self.study, self.params, self.facts, self.desk, self.pages, self.parent)
        self.search = Search(*common, self.said.append)
        self.confirmation = Confirmation(*common, self.said.append)

    def results(self) -> list[tuple[int, str]]:
        return [
            (t.number, t.state.name) for t in self.study.trials if t.state != TrialState.WAITING
        ]

    def children(self) -> list[str]:
        runs = self.pages.client.search_runs(
            [self.pages.experiment_id], f"tags.`mlflow.parentRunId` = '{self.parent}'"
        )
        return sorted(run.data.tags[sweeps.JOB].rpartition("-")[2] for run in runs)


def test_trials_are_children_of_one_run_and_the_first_is_what_params_yaml_holds(
    folder: Path,
) -> None:
    driver = Driver(folder)
    driver.search.run(4, 2)
    assert driver.results() == [(n, "COMPLETE") for n in range(4)]
    assert driver.children() == ["0", "1", "2", "3"]
    first = driver.study.trials[0]
    assert first.user_attrs[VALUES] == {"train.lr": 0.0045, "train.generator_width": 16}
    assert first.value == pytest.approx(0.15 + 1 / 16 + 0.001)


def test_values_are_written_with_three_digits_and_stay_in_their_range(folder: Path) -> None:
    params = load_params()
    assert space.rounded(params, {"lr": 0.0034567, "generator_width": 8}) == {
        "train.lr": 0.00346,
        "train.generator_width": 8,
    }
    assert space.rounded(params, {"lr": 0.00999999})["train.lr"] == 0.01


@pytest.mark.parametrize("event", ["before start", "after start", "look", "done"])
def test_a_driver_that_is_killed_at_any_moment_leaves_its_trials_to_the_next(
    folder: Path, event: str
) -> None:
    first = Driver(folder)
    first.desk.killed_at = lambda what, job: what == event and job == "1"
    with pytest.raises(KilledError):
        first.search.run(4, 2)
    asked = {t.number: t.user_attrs.get(VALUES) for t in first.study.trials}
    second = Driver(folder)
    second.search.run(4, 2)
    assert second.results() == [(n, "COMPLETE") for n in range(4)]
    assert second.children() == ["0", "1", "2", "3"]
    assert second.parent == first.parent
    for number, values in asked.items():
        assert second.study.trials[number].user_attrs[VALUES] == values
    third = Driver(folder)
    third.search.run(4, 2)
    assert third.desk.started == []  # nothing is left to do


def test_a_driver_killed_between_asking_and_suggesting_loses_no_trial(folder: Path) -> None:
    first = Driver(folder)
    first.study.ask()
    second = Driver(folder)
    second.search.run(2, 1)
    assert second.results() == [(0, "COMPLETE"), (1, "COMPLETE")]


def test_the_next_driver_does_not_repeat_the_throws_of_the_first(folder: Path) -> None:
    Driver(folder).search.run(3, 1)
    Driver(folder).search.run(6, 1)
    rates = [t.params["lr"] for t in Driver(folder).study.trials]
    assert len(set(rates)) == 6


def test_a_killed_training_is_done_again_three_times_in_all(folder: Path) -> None:
    driver = Driver(folder)
    gone = Seen(State.GONE, "killed")
    driver.desk.ends = {"0": [gone, gone], "1": [gone, gone, gone]}
    driver.search.run(2, 1)
    assert driver.results() == [(0, "COMPLETE"), (1, "FAIL"), (2, "COMPLETE")]
    numbers = [name.rpartition("-")[2] for name in driver.desk.started]
    assert numbers == ["0", "0", "0", "1", "1", "1", "2"]


def test_another_trial_takes_the_place_of_the_last_one_that_failed(folder: Path) -> None:
    driver = Driver(folder)
    driver.desk.ends = {"3": [Seen(State.FAILED, "no space left")]}
    driver.search.run(4, 3)
    assert [state for _, state in driver.results()] == [*["COMPLETE"] * 3, "FAIL", "COMPLETE"]


def test_three_failures_in_a_row_end_the_sweep_in_words(folder: Path) -> None:
    driver = Driver(folder)
    driver.desk.ends = {str(n): [Seen(State.FAILED, "data: no such file")] for n in range(9)}
    with pytest.raises(CganError, match="3 trials in a row failed; the last: data: no such file"):
        driver.search.run(4, 1)
    assert driver.results() == [(n, "FAIL") for n in range(3)]


def test_three_failures_with_a_result_between_them_do_not_end_the_sweep(folder: Path) -> None:
    driver = Driver(folder)
    driver.desk.ends = {str(n): [Seen(State.FAILED, "no space left")] for n in (0, 1, 3)}
    driver.search.run(2, 1)
    assert [state for _, state in driver.results()] == [
        *["FAIL"] * 2,
        "COMPLETE",
        "FAIL",
        "COMPLETE",
    ]


def test_a_hopeless_trial_is_stopped_by_its_probes_and_the_child_says_so(folder: Path) -> None:
    write_params(folder, prune_after_trials=1, prune_after_probes=2)
    subprocess.run(["git", "commit", "-qam", "p", "--author", "t <t@t>"], cwd=folder, check=False)
    driver = Driver(folder)
    driver.desk.probes = {"0": [9, 5, 4, 3, 2, 2, 2, 1], "1": [9, 8, 8]}
    driver.desk.ends = {"1": [Seen(State.RUNNING)] * 9}
    driver.search.run(2, 1)
    assert driver.results() == [(0, "COMPLETE"), (1, "PRUNED")]
    assert driver.desk.stopped == ["1"]
    job = driver.search._job_of(1, {})
    child = driver.pages.child(job)
    assert child is not None
    assert child.data.tags[sweeps.STATE] == "pruned"
    assert child.info.status == "KILLED"
    assert str(child.info.run_name).startswith("trial 1 · ")


def test_a_stop_that_was_decided_before_a_kill_is_carried_out_by_the_next_driver(
    folder: Path,
) -> None:
    write_params(folder, prune_after_trials=1, prune_after_probes=2)
    first = Driver(folder)
    first.desk.probes = {"0": [9, 5, 4, 3, 2, 2, 2, 1], "1": [9, 8, 8]}
    first.desk.ends = {"1": [Seen(State.RUNNING)] * 9}
    first.desk.stop = lambda job: (_ for _ in ()).throw(KilledError)  # type: ignore[method-assign]
    with pytest.raises(KilledError):
        first.search.run(2, 1)
    second = Driver(folder)
    second.search.run(2, 1)
    assert second.results() == [(0, "COMPLETE"), (1, "PRUNED")]
    assert second.desk.started == [] and second.desk.stopped == ["1"]


def test_a_collapsed_training_counts_as_a_bad_one_and_not_as_a_failure(folder: Path) -> None:
    driver = Driver(folder)
    driver.desk.ends = {"1": [Seen(State.FAILED, "a class collapsed")]}
    plain_start = driver.desk.start

    def start(job: Job, attempt: int) -> None:
        plain_start(job, attempt)
        if job.name.endswith("-1"):
            run = driver.pages.child(job)
            assert run is not None
            tag = "TrainingError: a class collapsed"
            driver.pages.client.set_tag(run.info.run_id, "cgan.ended_by", tag)

    driver.desk.start = start  # type: ignore[method-assign]
    driver.search.run(2, 1)
    assert driver.results() == [(0, "COMPLETE"), (1, "PRUNED")]


def test_the_same_params_are_not_trained_twice(folder: Path) -> None:
    write_params(folder, space={"train.generator_width": {"choices": [8, 16]}})
    driver = Driver(folder)
    driver.search.run(5, 1)
    assert len(driver.desk.started) == 2
    assert driver.results() == [(n, "COMPLETE") for n in range(5)]


def test_a_trial_that_another_judge_measured_is_no_result(folder: Path) -> None:
    driver = Driver(folder)
    driver.search.run(1, 1)
    driver.desk.passport = {**PASSPORT, "extractor_digest": "another judge"}
    with pytest.raises(CganError, match=r"another ruler.*extractor_digest judge and another judge"):
        driver.search.run(2, 1)


def test_a_trial_whose_number_is_none_is_no_result(folder: Path) -> None:
    driver = Driver(folder)
    driver.desk.distance = lambda _: math.nan
    with pytest.raises(CganError, match=r"quality/fid_judge of its run \w+ is nan"):
        driver.search.run(1, 1)
    assert {state for _, state in driver.results()} == {"FAIL"}


def test_another_space_is_another_sweep(folder: Path) -> None:
    Driver(folder)
    write_params(folder, space={"train.lr": {"low": 1e-3, "high": 2e-2}})
    with pytest.raises(CganError, match="`trial-sweep` is of other params, data, code, space"):
        Driver(folder)


def test_code_that_is_not_committed_is_refused(folder: Path) -> None:
    (folder / "cgan/code.py").write_text("changed = True\n")
    (folder / "cgan/new.py").touch()
    with pytest.raises(CganError, match=r"cgan/code\.py, cgan/new\.py: not as in commit"):
        Driver(folder)


def test_params_that_are_not_committed_are_part_of_every_training(folder: Path) -> None:
    text = (folder / "params.yaml").read_text()
    (folder / "params.yaml").write_text(text.replace("latent_dim: 64", "latent_dim: 32"))
    driver = Driver(folder)
    assert driver.facts.base == {"train.latent_dim": 32}
    assert driver.search._job_of(0, {"train.lr": 0.002}).overrides == {
        "train.latent_dim": 32,
        "train.lr": 0.002,
    }


def test_params_reach_a_training_as_they_are_written_for_dvc_tells_6_from_6_0(folder: Path) -> None:
    path = folder / "params.yaml"
    document = yaml.safe_load(path.read_text())
    document["train"]["total_kimg"] = 6
    path.write_text(yaml.safe_dump(document, sort_keys=False))
    base = Driver(folder).facts.base
    assert base == {"train.total_kimg": 6} and isinstance(base["train.total_kimg"], int)


def test_values_that_do_not_go_together_are_refused_before_anything_starts(folder: Path) -> None:
    write_params(folder, space={"train.batch_size": {"low": 32, "high": 64}})
    with pytest.raises(ParamsError, match=r"must be a multiple of `cpu_parts`.*batch_size = 33"):
        space.check_combinations(load_params())
    write_params(folder, space={"train.batch_size": {"low": 32, "high": 64, "step": 2}})
    space.check_combinations(load_params())


def confirmed(driver: Driver) -> sweeps.Found:
    best = best_of(driver.study)
    assert best is not None
    values = driver.confirmation.run(best, 2)
    return report.found(driver.study, driver.params, driver.facts, best, values)


def test_the_best_is_confirmed_with_fresh_seeds_and_once(folder: Path) -> None:
    driver = Driver(folder)
    driver.search.run(6, 2)
    found = confirmed(driver)
    assert {role: sorted(values) for role, values in found.confirmed.items()} == {
        "best": ["2", "3", "4"],
        "present": ["2", "3", "4"],
    }
    again = Driver(folder)
    assert confirmed(again) == found
    assert again.desk.started == []


def test_a_confirmation_that_failed_is_tried_again_by_the_next_sweep(folder: Path) -> None:
    driver = Driver(folder)
    driver.search.run(6, 2)
    driver.desk.ends = {"3": [Seen(State.FAILED, "no space left")]}  # the best with seed 3
    assert "best with seed 3 failed" in sweeps.verdict(confirmed(driver)).text
    again = Driver(folder)
    assert "failed" not in sweeps.verdict(confirmed(again)).text
    assert [name.rpartition("-")[2] for name in again.desk.started] == ["3"]
    assert again.confirmation.attempts(Job(again.desk.started[0], {}, {})) == 2


def test_apply_writes_what_is_better_and_the_page_shows_it(folder: Path) -> None:
    driver = Driver(folder)
    driver.search.run(8, 2)
    found = confirmed(driver)
    text, plots = report.write(folder / "out", driver.study, found)
    assert {"history", "importances", "slices", "parallel"} <= set(plots)
    for name in plots:
        with Image.open(folder / f"out/{name}.png") as picture:
            assert picture.width <= 800, "MLflow's page becomes as wide as its widest picture"
    driver.pages.publish(driver.parent, folder / "out", text, plots, {})
    page = driver.pages.client.get_run(driver.parent).data.tags["mlflow.note.content"]
    assert "is better than params.yaml" in page and "history.png" in page
    assert "is better than params.yaml" in sweeps.show("trial-sweep")
    said = sweeps.apply(None)
    rate = found.best["params"]["train.lr"]
    assert f"train.lr: 0.0045 → {rate}" in said
    assert load_params().train.lr == rate
    assert "holds its params already" in sweeps.apply(None)


def test_without_a_sweep_the_store_is_named_and_which_there_are(folder: Path) -> None:
    with pytest.raises(
        CganError, match=r"no sweep in .*mlflow\.db\. `python -m flows\.sweep` makes"
    ):
        sweeps.apply(None)
    Driver(folder)
    with pytest.raises(CganError, match=r"no sweep `sweeep` in .* There are: trial-sweep\."):
        sweeps.show("sweeep")
    with pytest.raises(CganError, match="`trial-sweep` has no result yet"):
        sweeps.apply("trial-sweep")
    (folder / "mlflow.db").unlink()
    with pytest.raises(CganError, match="no sweep in"):
        sweeps.show(None)
    assert not (folder / "mlflow.db").exists()


def test_noise_is_not_applied(folder: Path) -> None:
    driver = Driver(folder)
    dice = itertools.cycle([0.3, 0.1, 0.5, 0.2, 0.6, 0.4])
    driver.desk.distance = lambda job: next(dice)
    driver.search.run(5, 1)
    found = confirmed(driver)
    text, plots = report.write(folder / "out", driver.study, found)
    driver.pages.publish(driver.parent, folder / "out", text, plots, {})
    before = (folder / "params.yaml").read_text()
    said = sweeps.apply(None)
    assert "is not clearly better" in said and "stays as it is" in said
    assert (folder / "params.yaml").read_text() == before


def test_apply_refuses_where_params_yaml_is_no_longer_what_was_compared(folder: Path) -> None:
    driver = Driver(folder)
    driver.search.run(8, 2)
    text, plots = report.write(folder / "out", driver.study, confirmed(driver))
    driver.pages.publish(driver.parent, folder / "out", text, plots, {})
    changed = (folder / "params.yaml").read_text().replace("latent_dim: 64", "latent_dim: 32")
    (folder / "params.yaml").write_text(changed)
    with pytest.raises(CganError, match=r"no longer what the sweep .*latent_dim` is 32, was 64"):
        sweeps.apply(None)


def test_the_report_shows_every_trial_best_first(folder: Path) -> None:
    driver = Driver(folder)
    driver.desk.ends = {"1": [Seen(State.FAILED, "no room")]}
    driver.search.run(3, 1)
    rows = report.table(driver.study)
    assert [row["trial"] for row in rows] == [0, 1, 2, 3]
    assert rows[1]["what became of it"] == "failed: no room"
    found = report.found(driver.study, driver.params, driver.facts, best_of(driver.study), None)
    text = report.in_markdown(rows, found)
    assert "| lr 0.0045, generator_width 16 |" in text
    values = [line.split("|")[2].strip() for line in text.splitlines() if line.startswith("|")][2:]
    assert values[:3] == sorted(values[:3]) and values[3] == ""


def test_a_storage_that_cannot_be_used_is_told_without_its_password(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPTUNA_STORAGE", "postgresql://me:verysecret@127.0.0.1:1/none")
    with pytest.raises(CganError, match="OPTUNA_STORAGE") as caught:
        Driver(folder)
    assert "verysecret" not in str(caught.value)


def test_optuna_is_quiet(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    Driver(folder).search.run(2, 1)
    assert "trial" not in capfd.readouterr().err.lower()
    assert optuna.logging.get_verbosity() == optuna.logging.WARNING


def test_trainings_on_this_machine_have_the_threads_that_the_shell_gives_them(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    driver = Driver(folder)
    assert os.environ["OMP_NUM_THREADS"] == "7", "they inherit it"
    del driver


@pytest.mark.parametrize("name", ["../outside", "it's", "v1.2", "", "a" * 61])
def test_a_name_that_no_folder_run_and_artifact_can_have_is_refused_before_anything_starts(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    (folder / "prefect.yaml").touch()
    monkeypatch.setattr("signal.signal", lambda *_: None)
    monkeypatch.setattr(sweep_command, "sweep", lambda *_: "started")
    assert sweep_command.main(["--name", name]) == 1
    assert f"--name {name!r}: expected letters, digits" in capsys.readouterr().err
    assert sweep_command.main(["--name", "Night_2-b"]) == 0


class Api(http.server.BaseHTTPRequestHandler):
    """Prefect's, as far as a pool asks: a deployment, and then the answers of the test."""

    answers: ClassVar[dict[str, tuple[int, Any]]] = {}  # by the method and the path's first word

    def answer(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        key = f"{self.command} {self.path.split('/')[2]}"
        code, content = self.answers.get(key, (404, {"detail": "not found"}))
        body = json.dumps(content).encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        self.answer()

    def do_POST(self) -> None:
        self.answer()

    def log_message(self, *_: Any) -> None: ...


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, tuple[int, Any]]]:
    number = "00000000-0000-0000-0000-000000000001"
    deployment = {"id": number, "name": "train", "flow_id": number}
    monkeypatch.setattr(
        Api, "answers", {"GET deployments": (200, deployment), "POST work_pools": (200, [])}
    )
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Api)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    url = f"http://127.0.0.1:{server.server_port}/api"
    with temporary_settings({PREFECT_API_URL: url, PREFECT_CLIENT_CSRF_SUPPORT_ENABLED: False}):
        yield Api.answers
    server.shutdown()
    thread.join()
    server.server_close()


def test_what_prefect_refuses_is_told_at_once_and_not_asked_for_minutes(
    api: dict[str, tuple[int, Any]], folder: Path
) -> None:
    api["POST deployments"] = 409, {"detail": "Additional properties: 'tags' was unexpected"}
    with pytest.raises(CganError, match=r"'tags' was unexpected.*\n.*make deploy"):
        Pool("train").start(Job("sweep-trial-0", {}, {}), 1)


def test_a_trial_whose_flow_run_somebody_deleted_has_failed(
    api: dict[str, tuple[int, Any]],
) -> None:
    pool, job = Pool("train"), Job("sweep-trial-0", {}, {})
    pool._runs[job.name] = UUID(int=2)
    assert pool.look(job) == Seen(State.FAILED, "its flow run was deleted")
    pool.stop(job)


def test_a_server_that_is_away_in_the_end_costs_the_artifacts_and_not_the_sweep(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = Driver(folder)
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}):
        assert report.to_prefect(folder, driver.study, "text") != ""


def test_in_postgresql_a_killed_sweep_goes_on_and_the_password_stays_in_the_environment(
    folder: Path, postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = postgres.create()
    address = f"postgresql://{USER}@127.0.0.1:{postgres.port}/{database}"
    monkeypatch.setenv("OPTUNA_STORAGE", address)
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    first = Driver(folder)
    first.desk.killed_at = lambda event, job: event == "look" and job == "1"
    with pytest.raises(KilledError):
        first.search.run(3, 1)
    second = Driver(folder, first.desk)
    second.search.run(3, 1)
    assert second.results() == [(number, "COMPLETE") for number in range(3)]
    kept = postgres.rows(database, "select state from trials order by number")
    assert kept == [["COMPLETE"]] * 3
    assert not (folder / ".cgan/optuna.db").exists()
