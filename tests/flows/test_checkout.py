"""Checkouts: each run has a fresh clone at its commit, with the Home and the cache of its project."""

import hashlib
import json
import shutil
import sys
from pathlib import Path
from uuid import uuid4

import pytest
from conftest import run
from prefect.logging import LogEavesdropper
from prefect.settings import PREFECT_LOGGING_TO_API_ENABLED, temporary_settings
from test_pipeline import python
from toy_project import commit, copy_code, git

from cgan.errors import CganError
from cgan.git import clone_at, working_tree
from cgan.pipeline.params_file import load_params, set_params
from flows.checkout import PROJECT_VARIABLE, checkout, enter, environment, tag_results
from flows.repro import dvc, has_remote


@pytest.fixture
def clone(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A worker's clone of a small project with an inbox; its origin is a bare repository beside it."""
    for name in ("CGAN_HOME", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "clone"
    shutil.copytree(template, folder)
    git(folder, "mv", "data/inbox/digits.csv", "data/inbox/README.md")
    (folder / ".gitignore").write_text(".cgan\n")
    (folder / "dvc.lock").write_text("of another machine")
    commit(folder)
    git(folder, "clone", "--quiet", "--bare", ".", str(tmp_path / "origin.git"))
    git(folder, "remote", "add", "origin", str(tmp_path / "origin.git"))
    return folder


def head(folder: Path) -> str:
    return git(folder, "rev-parse", "HEAD")


def test_a_checkout_is_the_commit_with_the_project_s_cache_and_then_gone(clone: Path) -> None:
    first = head(clone)
    (clone / "params.yaml").write_text("of the next commit")
    git(clone, "commit", "--quiet", "--all", "-m", "second")
    with checkout(clone, first) as folder:
        assert head(folder) == first
        assert (folder / "params.yaml").read_text() != "of the next commit"
        assert not (folder / "dvc.lock").exists(), "it would hide DVC's run cache"
        (folder / "file").write_text("x")
        dvc("add", "--quiet", "file", folder=folder)
    assert not folder.exists()
    assert list((clone / ".dvc/cache").rglob("*")), "what one run made, the next finds"
    assert git(clone, "status", "--porcelain") == ""


def test_a_process_in_a_checkout_has_the_project_s_home_store_and_remote(
    clone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = f"sqlite:///{clone}/mlflow.db"
    for uri, store in (("", own), ("sqlite:///mlflow.db", own), ("http://host:1", "http://host:1")):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        variables = environment(clone, clone / "folder")
        assert (variables["CGAN_HOME"], variables["MLFLOW_TRACKING_URI"]) == (
            str(clone / ".cgan"),
            store,
        )
    dvc("remote", "add", "--local", "other", "../other", folder=clone)
    assert not has_remote(clone), "no default one"
    dvc("remote", "add", "--project", "--default", "storage", "../store", folder=clone)
    assert has_remote(clone)
    git(clone, "commit", "--quiet", "--all", "--allow-empty", "-m", "a remote")
    with checkout(clone, head(clone)) as folder:
        settings = dvc("config", "--list", folder=folder).splitlines()
    assert f"remote.storage.url={clone.parent / 'store'}" in settings
    assert f"remote.other.url={clone.parent / 'other'}" in settings
    assert f"core.site_cache_dir={folder}/.dvc/tmp/site" in settings, "it goes with the checkout"


def test_a_run_s_results_have_a_tag_in_the_project_and_nothing_else_changes_there(
    clone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit, before = head(clone), (clone / "params.yaml").read_text()
    with checkout(clone, commit) as folder:
        monkeypatch.setenv(PROJECT_VARIABLE, str(clone))
        monkeypatch.chdir(folder)
        (folder / "dvc.lock").write_text("of this run")
        (folder / "params.yaml").write_text("with overrides")
        tag_results("run/2026-11-30T0200-promoted-1a2b3c4d")
    name = git(clone, "tag", "--list", "run/*")
    assert name == "run/2026-11-30T0200-promoted-1a2b3c4d"
    assert git(clone, "diff", "--name-only", commit, name).split() == ["dvc.lock", "params.yaml"]
    assert git(clone, "show", f"{name}:dvc.lock") == "of this run"
    assert (head(clone), (clone / "params.yaml").read_text()) == (commit, before)
    assert git(clone, "status", "--porcelain") == ""


def test_a_commit_pushed_later_is_fetched_and_no_branch_of_the_project_changes(clone: Path) -> None:
    elsewhere, worker = clone.parent / "elsewhere", clone.parent / "worker"
    git(clone.parent, "clone", "--quiet", "origin.git", str(elsewhere))
    shallow = ("--depth", "1", f"file://{clone.parent}/origin.git")
    git(clone.parent, "clone", "--quiet", *shallow, "worker")
    git(elsewhere, "commit", "--quiet", "--allow-empty", "-m", "pushed later")
    git(elsewhere, "push", "--quiet")
    before = git(worker, "for-each-ref")
    with checkout(worker, head(elsewhere)) as folder:
        assert head(folder) == head(elsewhere)
    assert git(worker, "for-each-ref") == before
    with pytest.raises(CganError, match=r"commit 1234567 is neither in .*git push"):
        checkout(clone, "1234567").__enter__()


def test_why_a_run_has_no_checkout_stands_in_its_log(
    clone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prefect's state says that its process ended with exit code 1, and no more."""
    monkeypatch.setenv(PROJECT_VARIABLE, str(clone))
    monkeypatch.setenv("PREFECT__FLOW_RUN_ID", str(uuid4()))
    no_server = temporary_settings({PREFECT_LOGGING_TO_API_ENABLED: False})
    with no_server, LogEavesdropper("prefect.flow_runs") as log, pytest.raises(CganError):
        enter("1234567")
    assert "commit 1234567 is neither in" in log.text() and "git push" in log.text()


def test_git_is_asked_with_the_key_of_the_environment(
    clone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script, log = clone.parent / "ssh", clone.parent / "log"
    script.write_text(f'#!/bin/sh\necho "$@" >> {log}\necho no key >&2\nexit 1\n')
    script.chmod(0o755)
    monkeypatch.setenv("GIT_SSH_COMMAND", f"{script} -i the-key")
    git(clone, "remote", "set-url", "origin", "ssh://host/cgan.git")
    with pytest.raises(CganError, match="no key"):
        clone_at(clone, "0" * 40, clone.parent / "tree")
    (asked,) = [line for line in log.read_text().splitlines() if "upload-pack" in line]
    assert asked.startswith("-i the-key ")


@pytest.mark.slow
@pytest.mark.parametrize("path", ["data/inbox", "mine/digits.csv"])
def test_data_of_the_machine_are_seen_in_a_checkout_unless_the_commit_has_a_pointer(
    clone: Path, tmp_path: Path, path: str
) -> None:
    set_params({"data.source": "file", "data.path": path}, clone / "params.yaml")
    file = clone / (path if path.endswith(".csv") else f"{path}/digits.csv")
    file.parent.mkdir(exist_ok=True)
    file.write_text("label\n")
    stages = f"stages:\n  copy:\n    cmd: cp -r {path} out\n    deps: [{path}]\n    outs: [out]\n"
    (clone / "dvc.yaml").write_text(stages)
    git(clone, "add", "dvc.yaml", "params.yaml")
    git(clone, "commit", "--quiet", "-m", "a stage")
    (clone / "dvc.lock").unlink()
    dvc("repro", "--quiet", folder=clone)
    with checkout(clone, head(clone)) as folder:
        assert (folder / file.relative_to(clone)).read_text() == "label\n"
        assert working_tree(folder).changed == []
        assert "is cached - skipping run" in dvc("repro", folder=folder), "the same hash for DVC"
    assert file.exists() and (clone / "data/inbox/README.md").exists()
    dvc("add", "--quiet", str(file), folder=clone)
    dvc("remote", "add", "--default", "storage", str(tmp_path / "remote"), folder=clone)
    dvc("push", "--quiet", folder=clone)
    git(clone, "add", "--force", f"{file}.dvc", ".dvc/config")
    git(clone, "commit", "--quiet", "-m", "pointer")
    file.write_text("label\nof another version\n")
    shutil.rmtree(clone / ".dvc/cache")
    (clone / ".cgan/dvc.lock").unlink(missing_ok=True)  # no run has been here
    for _ in range(2):
        with checkout(clone, head(clone)) as folder:
            assert (folder / file.relative_to(clone)).read_text() == "label\n"
        shutil.rmtree(tmp_path / "remote", ignore_errors=True)  # now it is in the cache


@pytest.mark.parametrize("source", ["sample", "kaggle", "file"])
def test_data_that_the_source_does_not_name_are_neither_pulled_nor_linked(
    clone: Path, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    set_params({"data.source": source}, clone / "params.yaml")
    (clone / "data/inbox/digits.csv.dvc").write_text("outs: []")
    (clone / "data/inbox/other.csv").write_text("label\n")
    git(clone, "add", "--force", "data/inbox/digits.csv.dvc", "params.yaml")
    git(clone, "commit", "--quiet", "--message", "another source")
    asked: list[str] = []
    monkeypatch.setattr("flows.checkout.dvc", lambda *given, folder: asked.append(given[0]) or "")
    with checkout(clone, head(clone)) as folder:
        assert load_params(folder / "params.yaml").data.source == source
        assert (folder / "data/inbox/other.csv").exists() == ("pull" in asked) == (source == "file")


HOLD = """
import sys, time
from pathlib import Path
from flows.checkout import checkout
with checkout(Path(sys.argv[1]), sys.argv[2]) as folder:
    print(folder, flush=True)
    time.sleep(240)
"""


@pytest.mark.slow
def test_what_a_kill_left_the_next_removes_and_a_living_run_s_checkout_stays(clone: Path) -> None:
    killed, living = (python("-c", HOLD, str(clone), head(clone)) for _ in range(2))
    with killed, living:
        left, kept = (
            Path(process.stdout.readline().strip())
            for process in (killed, living)
            if process.stdout
        )
        killed.kill()
        killed.wait()
        assert (left / "params.yaml").exists()
        with checkout(clone, head(clone)):
            assert not left.exists()
            assert (kept / "params.yaml").exists()
        living.kill()


ENTER = """
import os, sys
from flows import checkout
found = checkout.enter(sys.argv[1])["directory"]
os.chdir(found)
os.execv(sys.executable, [sys.executable, "-c", sys.argv[2], found])  # as Prefect does it
"""
FLOW = """
import fcntl, json, os, sys
import flows.repro
found = sys.argv[1]
try:
    fcntl.flock(open(found + "/.cgan/checkout.lock"), fcntl.LOCK_EX | fcntl.LOCK_NB)
except BlockingIOError:
    print(json.dumps([found, flows.repro.__file__, os.environ["CGAN_CHECKOUT"], os.environ["CGAN_HOME"]]))
"""


def test_a_run_holds_its_checkout_and_imports_the_code_of_its_commit(clone: Path) -> None:
    """In a process of its own, as a run is: `enter` changes what that imports."""
    copy_code(clone)
    commit(clone)
    command = [sys.executable, "-c", ENTER, head(clone), FLOW]
    said = run(*command, cwd=clone.parent, CGAN_SOURCE=str(clone))  # as a worker has it
    folder = json.loads(said)[0]
    assert Path(folder).parent == clone / ".cgan/checkouts"
    assert json.loads(said) == [folder, f"{folder}/flows/repro.py", folder, str(clone / ".cgan")]


@pytest.mark.slow
def test_after_a_disk_error_dvc_finds_what_is_damaged_once_its_cache_is_writable(
    repo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As docs/reliability.md has it."""
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:/usr/bin:/bin")
    out = Path("data/raw/train.csv")
    dvc("repro", "--quiet", "download")
    good = out.read_bytes()
    digest = hashlib.md5(good, usedforsecurity=False).hexdigest()
    cached = Path(f".dvc/cache/files/md5/{digest[:2]}/{digest[2:]}")
    assert cached.read_bytes() == good
    cached.chmod(0o644)
    cached.write_bytes(b"x" + good[1:])
    cached.chmod(0o444)
    out.unlink()
    dvc("checkout", "--quiet", "download")
    assert out.read_bytes() != good, "DVC hashes no file again that is write-protected"
    run("chmod", "-R", "u+w", ".dvc/cache/files", cwd=repo)
    out.unlink()
    dvc("repro", "--quiet", "download")
    assert out.read_bytes() == good and cached.read_bytes() == good
