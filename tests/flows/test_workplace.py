"""Trees of their own for runs: made once, found again, gone when done; and a worker that joins a pool."""

from __future__ import annotations

import http.server
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from conftest import ROOT
from prefect import __version__ as prefect_version

from cgan.errors import CganError
from cgan.tracking.records import RECORDS
from flows import worker, workplace
from flows.servers import Production

DVC = [sys.executable, "-m", "dvc"]


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=t", "-c", "user.email=t@t"]
    command = ["git", *identity, *arguments]
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=True
    ).stdout.strip()


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A worker's clone of a small project with an inbox; its origin is a bare repository beside it."""
    folder = tmp_path / "clone"
    (folder / "data/inbox").mkdir(parents=True)
    (folder / "data/inbox/README.md").write_text("Put your CSV here.")
    shutil.copy(ROOT / "params.yaml", folder)
    git(folder, "init", "--quiet", "--initial-branch", "main", ".")
    subprocess.run([*DVC, "init", "--quiet"], cwd=folder, check=True)
    (folder / ".gitignore").write_text(".cgan\n")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "-m", "first")
    git(folder, "clone", "--quiet", "--bare", ".", str(tmp_path / "origin.git"))
    git(folder, "remote", "add", "origin", str(tmp_path / "origin.git"))
    return folder


def head(folder: Path) -> str:
    return git(folder, "rev-parse", "HEAD")


def test_a_tree_is_at_the_commit_and_shares_the_clone_s_cache(clone: Path) -> None:
    first = head(clone)
    (clone / "params.yaml").write_text("of the next commit")
    git(clone, "commit", "--quiet", "--all", "-m", "second")
    tree = workplace.prepare(clone, first, "run")
    assert head(tree) == first
    assert (tree / "params.yaml").read_text() != "of the next commit"
    (tree / "file").write_text("x")
    subprocess.run([*DVC, "add", "--quiet", "file"], cwd=tree, check=True)
    assert list((clone / ".dvc/cache").rglob("*")), "what one run made, the next finds"
    assert git(clone, "status", "--porcelain") == ""


@pytest.mark.parametrize("where", ["--project", "--local"])
def test_a_relative_remote_is_the_same_folder_from_a_tree_and_from_the_clone_of_production(
    clone: Path, where: str
) -> None:
    add = ["remote", "add", where, "--default", "storage", "../store"]
    subprocess.run([*DVC, *add], cwd=clone, check=True)
    git(clone, "commit", "--quiet", "--all", "--allow-empty", "-m", "a remote")
    tree = workplace.prepare(clone, head(clone), "run")
    work = clone / ".cgan/production/work"
    workplace.update_clone(clone, work)
    for folder in (tree, work, workplace.prepare(work, head(clone), "run")):
        told = workplace.dvc_in(folder, "config", "--list").splitlines()
        assert f"remote.storage.url={clone.parent / 'store'}" in told
        assert git(folder, "status", "--porcelain") == ""


def test_a_run_that_is_taken_up_again_finds_its_tree_with_the_commit_s_params(clone: Path) -> None:
    tree = workplace.prepare(clone, head(clone), "run")
    (tree / ".cgan").mkdir()
    (tree / ".cgan/checkpoint").write_text("half a training")
    params = (tree / "params.yaml").read_text()
    (tree / "params.yaml").write_text("left by the run's overrides")
    assert workplace.prepare(clone, head(clone), "run") == tree
    assert (tree / ".cgan/checkpoint").read_text() == "half a training"
    assert (tree / "params.yaml").read_text() == params


def test_a_tree_that_was_half_made_is_made_again(clone: Path) -> None:
    left = clone / workplace.TREES / "run"
    left.mkdir(parents=True)
    (left / "half").write_text("")
    assert head(workplace.prepare(clone, head(clone), "run")) == head(clone)
    assert not (left / "half").exists()


def test_runs_beside_each_other_get_trees_of_their_own(clone: Path) -> None:
    """Two fetches at once would fail over git's locks."""
    elsewhere = clone.parent / "elsewhere"
    git(clone.parent, "clone", "--quiet", "origin.git", str(elsewhere))
    (elsewhere / "new").write_text("")
    git(elsewhere, "add", ".")
    git(elsewhere, "commit", "--quiet", "-m", "pushed later")
    git(elsewhere, "push", "--quiet")
    code = "import sys; from pathlib import Path; from flows import workplace as w; "
    code += "w.prepare(Path(sys.argv[1]), *sys.argv[2:])"
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(clone), head(elsewhere), f"run{number}"],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        for number in range(3)
    ]
    assert [run.wait(60) for run in runs] == [0, 0, 0]
    assert [head(clone / workplace.TREES / f"run{n}") for n in range(3)] == [head(elsewhere)] * 3


def test_a_commit_that_nobody_has_is_named_with_the_way_out(clone: Path) -> None:
    with pytest.raises(
        CganError, match=r"commit 1234567 .*no branch or tag there has it.*git push"
    ):
        workplace.prepare(clone, "1234567", "run")
    shutil.rmtree(clone.parent / "origin.git")
    with pytest.raises(CganError, match=r"not .*repository"):
        workplace.prepare(clone, "1234567", "run")


def test_the_inbox_of_the_machine_is_seen_in_a_tree_and_git_calls_it_clean(clone: Path) -> None:
    (clone / ".gitignore").write_text(".cgan\ndata/inbox/*.csv\n")
    git(clone, "commit", "--quiet", "--all", "-m", "ignored")
    tree = workplace.prepare(clone, head(clone), "run")
    (clone / "data/inbox/mine.csv").write_text("label\n")
    assert (tree / "data/inbox/mine.csv").exists()
    assert git(tree, "status", "--porcelain") == ""
    workplace.remove(clone, "run")
    assert (clone / "data/inbox/mine.csv").exists()


def test_a_clone_from_a_template_of_one_s_own_may_lack_git_s_info(clone: Path) -> None:
    shutil.rmtree(clone / ".git/info")
    tree = workplace.prepare(clone, head(clone), "run")
    assert (tree / "data/inbox").is_symlink()
    assert git(tree, "status", "--porcelain") == ""


def test_data_that_git_has_a_pointer_for_comes_from_the_remote(clone: Path) -> None:
    (clone / "data/inbox/mine.csv.dvc").write_text("outs:\n- path: mine.csv\n")
    git(clone, "add", "--force", ".")
    git(clone, "commit", "--quiet", "-m", "pointer")
    tree = workplace.prepare(clone, head(clone), "run")
    assert not (tree / "data/inbox").is_symlink()


def test_enter_takes_the_clone_for_its_own_runs_and_a_tree_for_others(clone: Path) -> None:
    """In a process of its own, as a run is: it changes what that imports."""
    for folder in ("cgan", "flows"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / folder, clone / folder, ignore=ignored)
    git(clone, "add", ".")
    git(clone, "commit", "--quiet", "-m", "code")
    (clone / "params.yaml").write_text("left by the last run")
    code = """
import json, os, sys
from flows import workplace
found = workplace.enter(sys.argv[1], *sys.argv[2:])
import flows.names
print(json.dumps([found["directory"], flows.names.__file__, os.environ.get("CGAN_TREE")]))
"""

    def begin(*arguments: str, run: str, commit: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", code, commit, *arguments],
            env={**os.environ, "PYTHONPATH": str(clone), "PREFECT__FLOW_RUN_ID": run},
            cwd=clone.parent,
            stdout=subprocess.PIPE,
            text=True,
        )

    def enter(*arguments: str, run: str = "the-run", commit: str = head(clone)) -> list[str]:
        return list(json.loads(begin(*arguments, run=run, commit=commit).communicate()[0]))

    tree = str(clone / workplace.TREES / "the-run")
    assert enter(str(clone)) == [str(clone), f"{clone}/flows/names.py", None]
    assert (clone / "params.yaml").read_text() == (ROOT / "params.yaml").read_text()
    assert enter() == [tree, f"{tree}/flows/names.py", tree]
    assert enter(str(clone.parent / "on-another-machine"))[0] == tree
    assert workplace.noted(clone) == {"the-run": None}
    (Path(tree) / ".cgan").mkdir()
    (Path(tree) / ".cgan/done").touch()
    enter(str(clone))
    assert Path(tree).exists(), "it is that run's own, which is taken up again"
    enter(run="the-next")
    assert not Path(tree).exists(), "the tree goes when the next run starts"
    deployed = head(clone)
    git(clone, "commit", "--quiet", "--allow-empty", "-m", "not deployed")
    assert enter(str(clone), commit=deployed)[0] == tree, "the clone is at another commit"
    assert head(Path(tree)) == deployed
    shutil.rmtree(clone / workplace.TREES)  # there is none to tidy up
    with workplace.one_at_a_time(clone):  # as `make deploy` does it
        run = begin(str(clone), run="meanwhile", commit=head(clone))
        while "meanwhile" not in workplace.noted(clone):
            time.sleep(0.02)
        time.sleep(1)
        git(clone, "commit", "--quiet", "--allow-empty", "-m", "deployed")
    assert json.loads(run.communicate()[0])[0] == str(clone / workplace.TREES / "meanwhile")


def test_trees_of_runs_that_are_done_go_and_those_at_work_stay(
    clone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("done", "failed", "at-work", "failed-long-ago"):
        workplace.prepare(clone, head(clone), name)
    (clone / workplace.TREES / "done/.cgan").mkdir()
    (clone / workplace.TREES / "done/.cgan/charts-1.js.gz").write_text("Vega")
    for name in ("done", "at-work"):
        monkeypatch.setenv(workplace.TREE, str(clone / workplace.TREES / name))
        workplace.leave()
    monkeypatch.setenv("PREFECT__FLOW_RUN_ID", "at-work")
    workplace.note(clone, "at-work")
    long_ago = time.time() - 2 * workplace.KEPT_S
    os.utime(clone / workplace.TREES / "failed-long-ago", (long_ago, long_ago))
    workplace.tidy(clone)
    assert sorted(path.name for path in (clone / workplace.TREES).iterdir()) == [
        "at-work",
        "failed",
    ]
    assert len(git(clone, "worktree", "list").splitlines()) == 3
    next_one = workplace.prepare(clone, head(clone), "next")
    assert (next_one / ".cgan/charts-1.js.gz").read_text() == "Vega", "put together once"


def test_a_tree_in_which_records_wait_for_mlflow_stays(
    clone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = workplace.prepare(clone, head(clone), "run") / ".cgan/runs/one/journal.jsonl"
    assert journal.name == RECORDS
    journal.parent.mkdir(parents=True)
    journal.touch()
    monkeypatch.setenv(workplace.TREE, str(clone / workplace.TREES / "run"))
    workplace.leave()
    workplace.tidy(clone)
    assert journal.exists()
    shutil.rmtree(journal.parent)  # as `cgan track flush` does
    workplace.leave()
    workplace.tidy(clone)
    assert not (clone / workplace.TREES / "run").exists()


def test_a_run_that_was_in_the_clone_itself_is_forgotten_in_time(clone: Path) -> None:
    for run in ("yesterday", "long-ago"):
        workplace.note(clone, run)
        path = clone / workplace.RUNS / f"{run}.json"
        path.write_text("{}")
    long_ago = time.time() - 2 * workplace.KEPT_S
    os.utime(path, (long_ago, long_ago))
    workplace.tidy(clone)
    assert list(workplace.noted(clone)) == ["yesterday"]


def test_a_process_with_the_number_of_a_former_run_is_not_that_run(clone: Path) -> None:
    workplace.note(clone, "run")
    path = clone / workplace.RUNS / "run.json"
    assert workplace.noted(clone) == {"run": psutil.Process()}
    known = json.loads(path.read_text())
    path.write_text(json.dumps({**known, "started": known["started"] - 1}))
    assert workplace.noted(clone) == {"run": None}
    path.write_text("{")
    assert workplace.noted(clone) == {"run": None}


# Joining


class Server(http.server.BaseHTTPRequestHandler):
    """Prefect's API, as far as it is asked whether it is there."""

    version = prefect_version
    answer = b""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.answer or json.dumps(self.version).encode())

    def log_message(self, *_: Any) -> None: ...


@pytest.fixture
def server() -> Iterator[str]:
    running = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
    thread = threading.Thread(target=running.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{running.server_port}/api"
    running.shutdown()
    thread.join()
    running.server_close()


def test_a_machine_that_cannot_join_is_told_all_that_is_missing(
    clone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(clone)
    for name in ("PREFECT_API_URL", "MLFLOW_TRACKING_URI", "CGAN_REMOTE"):
        monkeypatch.delenv(name, raising=False)
    shutil.rmtree(clone.parent / "origin.git")
    with pytest.raises(CganError) as told:
        worker.require(clone)
    lines = str(told.value).splitlines()
    assert [line.split(":")[0].strip() for line in lines[1:5]] == [
        "Prefect",
        "MLflow",
        "DVC remote",
        "git",
    ]
    assert "PREFECT_API_URL is not set" in lines[1]
    assert "MLFLOW_TRACKING_URI is not set" in lines[2]
    assert "dvc remote add" in lines[3]


def test_git_is_asked_with_the_key_of_the_environment_and_asks_nobody(
    clone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script, log = clone.parent / "ssh", clone.parent / "log"
    script.write_text(f'#!/bin/sh\necho "$@" >> {log}\necho no key >&2\nexit 1\n')
    script.chmod(0o755)
    monkeypatch.setenv("GIT_SSH_COMMAND", f"{script} -i the-key")
    git(clone, "remote", "set-url", "origin", "ssh://host/cgan.git")
    assert "no key" in str(worker._fault_of_origin(clone))
    with pytest.raises(CganError, match="no key"):
        workplace.prepare(clone, "0" * 40, "run")
    asked = [line for line in log.read_text().splitlines() if "upload-pack" in line]
    assert len(asked) == 2
    assert all(line.startswith("-i the-key -o BatchMode=yes") for line in asked)


def test_servers_that_are_away_or_of_another_kind_are_told_apart(
    clone: Path, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", server)
    assert worker._fault_of_prefect() is None
    monkeypatch.setenv("PREFECT_API_URL", server.removesuffix("/api"))
    assert worker._fault_of_prefect() is None, "the address of the page is meant, too"
    monkeypatch.setattr(Server, "version", "2.20.0")
    assert "the server is Prefect 2.20.0" in str(worker._fault_of_prefect())
    monkeypatch.setenv("PREFECT_API_URL", "http://name:secret@127.0.0.1:9/api")
    with pytest.raises(CganError, match=r"127\.0\.0\.1:9/api gives no answer") as away:
        worker._fault_of_prefect()
    assert "secret" not in str(away.value)
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:port/api")
    with pytest.raises(CganError, match=r"gives no answer \(Invalid port"):
        worker._fault_of_prefect()
    monkeypatch.setenv("PREFECT_API_URL", server)
    monkeypatch.setattr(Server, "answer", b"<!doctype html>")
    with pytest.raises(CganError, match="with 200: <!doctype"):
        worker._fault_of_prefect()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    assert "http://127.0.0.1:9 gives no answer" in str(worker._fault_of_mlflow(clone))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://me:secret@127.0.0.1:9/runs")
    began = time.monotonic()
    with pytest.raises(CganError, match=r"Connection refused") as away:
        worker._fault_of_mlflow(clone)
    assert "secret" not in str(away.value) and time.monotonic() - began < 10


def test_prefect_cloud_is_asked_at_the_address_of_the_workspace(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []
    url = "https://api.prefect.cloud/api/accounts/a/workspaces/w"
    monkeypatch.setenv("PREFECT_API_URL", f"{url}/")
    monkeypatch.setattr(worker, "ask_prefect", lambda *question: asked.append(question[:3]))
    assert worker._fault_of_prefect() is None
    assert asked == [(url, "POST", "/work_pools/filter")]
    assert worker.pages_of(url) == "https://app.prefect.cloud/account/a/workspace/w"
    assert worker.pages_of("http://api.host:4200/api") == "http://api.host:4200"


def test_in_a_container_a_run_that_is_the_first_process_has_no_worker_to_end_with(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PREFECT__WORKER_NAME", "in the cluster")
    monkeypatch.setattr(os, "getppid", lambda: 0)
    monkeypatch.setattr(threading, "Thread", None)
    workplace.end_with_worker()


def test_a_worker_s_name_says_what_it_takes_and_is_no_other_machine_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker.socket, "gethostname", lambda: "gpu-box")
    names = [worker._name(Production(tmp_path / n), ("cpu", "cuda")) for n in ("a", "b", "a")]
    assert all(re.fullmatch(r"gpu-box-[0-9a-f]{4} \(cpu, cuda\)", name) for name in names)
    assert names[0] == names[2] != names[1]


def test_a_worker_has_started_when_it_says_so_and_not_when_a_killed_one_seems_alive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed = {"name": "w", "status": "ONLINE", "last_heartbeat_time": "12:00"}
    answers = [[killed], [killed], [killed], [killed | {"last_heartbeat_time": "12:01"}]]
    monkeypatch.setattr(worker, "api_of", lambda _: lambda *_: answers.pop(0))
    monkeypatch.setattr(Production, "start", lambda *_: None)
    monkeypatch.setattr(Production, "running", lambda *_: True)
    worker.start(Production(tmp_path), worker.Worker("w", ("cpu",), 1), {}, "http://127.0.0.1:5000")
    assert answers == []


@pytest.mark.parametrize(("cores", "runs"), [(1, 1), (2, 1), (16, 8), (None, 1)])
def test_a_machine_takes_as_many_runs_as_its_cores_are_enough_for(
    monkeypatch: pytest.MonkeyPatch, cores: int | None, runs: int
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    assert worker.runs_at_once() == runs


def test_a_label_that_no_deployment_names_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    deployed = [{"work_queue_name": "cpu"}, {"work_queue_name": "default"}]

    def api(*question: Any) -> Any:
        return deployed

    assert worker._for_nobody(api, ["cpu"]) == []
    (line,) = worker._for_nobody(api, ["cpu", "cud"])
    assert "no deployment is for cud yet" in line


def test_zero_runs_at_once_are_refused(
    clone: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(clone)
    assert worker.main(["join", "--runs", "0"]) == 1
    assert "--runs: expected 1 or more, got 0" in capsys.readouterr().err
