"""The shared remote and `origin`: a folder, a bare repository, and ssh where there is a server."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import ssh_server as ssh
from toy_project import repo as repo
from toy_project import template as template

from cgan.data.csv_reader import read_csv
from cgan.data.dataset import load_dataset
from cgan.errors import CganError
from cgan.git import clone_at
from cgan.model.file_facts import read_facts
from cgan.params.reading import load_params
from flows import remote
from flows.dvc import Outcome, StageError, read_stages, repro_stage
from flows.remote import Remote, RemoteError

LOCAL_CONFIG = Path(".dvc/config.local")


def quiet(_: str) -> None:
    pass


def run(*command: str | Path, folder: Path | None = None) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()


def git(*arguments: str | Path, folder: Path | None = None) -> str:
    return run("git", "-c", "user.name=t", "-c", "user.email=t@t", *arguments, folder=folder)


def dvc(*arguments: str | Path) -> str:
    return run(sys.executable, "-m", "dvc", *arguments)


def attempts() -> list[str]:
    """The stages that ran in the working directory."""
    log = Path("attempts.log")
    return [line.split()[0] for line in log.read_text().splitlines()] if log.exists() else []


def run_all(pull: bool = False) -> list[Outcome]:
    return [repro_stage(stage.name, quiet, pull=pull) for stage in read_stages()]


@pytest.fixture
def store(repo: Path, tmp_path: Path) -> Path:
    """A folder as the project's remote, committed."""
    folder = tmp_path / "store"
    folder.mkdir()
    dvc("remote", "add", "--default", "storage", folder)
    for name in ("data/raw/train.csv", "models/generator.safetensors", "samples/grid.png"):
        ignore = Path(name).parent / ".gitignore"  # as in a project that has run once
        ignore.parent.mkdir(exist_ok=True)
        ignore.write_text(f"/{Path(name).name}\n")
    git("add", "--all")
    git("commit", "--quiet", "--message", "a remote")
    return folder


@pytest.fixture
def origin(store: Path, tmp_path: Path) -> Path:
    """A bare repository as the project's origin, with its main branch."""
    bare = tmp_path / "origin.git"
    git("init", "--quiet", "--bare", "--initial-branch", "main", bare)
    git("remote", "add", "origin", bare)
    git("push", "--quiet", "origin", "HEAD:main")
    return bare


def clone(origin: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    git("clone", "--quiet", origin, folder)
    monkeypatch.chdir(folder)
    return folder


# --- which one ----------------------------------------------------------------------------------


def test_a_project_without_a_remote_has_none_and_push_says_how_to_add_one(repo: Path) -> None:
    assert remote.default_remote() is None
    with pytest.raises(RemoteError, match="dvc remote add --default storage ssh://"):
        remote.push(quiet)


def test_the_variable_goes_before_the_committed_remote_and_leaves_no_trace_in_git(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert remote.default_remote() == Remote("storage", str(store))
    for name in ("other", "an other"):
        other = str(tmp_path / name)
        monkeypatch.setenv("CGAN_REMOTE", other)
        for _ in range(2):
            assert remote.default_remote() == Remote("environment", other)
    assert git("status", "--porcelain") == ""
    assert "core.remote=environment" in dvc("config", "--list")
    monkeypatch.delenv("CGAN_REMOTE")
    assert remote.default_remote() == Remote("storage", str(store))
    assert "environment" not in LOCAL_CONFIG.read_text()


@pytest.mark.slow
def test_settings_that_a_person_made_for_this_tree_stay(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dvc("config", "--local", "cache.type", "copy")
    monkeypatch.setenv("CGAN_REMOTE", "/elsewhere")
    remote.default_remote()
    monkeypatch.delenv("CGAN_REMOTE")
    remote.default_remote()
    assert "cache.type=copy" in dvc("config", "--list")


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("ssh://me:secret@host/store", "holds a password"),
        ("../store", "CGAN_REMOTE is ../store, a relative path"),
        ("nonsense://host/store", "CGAN_REMOTE=nonsense://host/store: .*Unsupported URL type"),
    ],
)
def test_an_address_that_cannot_be_used_is_refused_and_dvc_still_works(
    store: Path, monkeypatch: pytest.MonkeyPatch, url: str, message: str
) -> None:
    monkeypatch.setenv("CGAN_REMOTE", url)
    with pytest.raises(RemoteError, match=message) as refused:
        remote.default_remote()
    assert "secret" not in str(refused.value)
    assert not LOCAL_CONFIG.exists() or "secret" not in LOCAL_CONFIG.read_text()
    monkeypatch.delenv("CGAN_REMOTE")
    assert remote.default_remote() == Remote("storage", str(store))


def test_the_advice_to_pull_says_how_to_begin_and_it_works(repo: Path) -> None:
    Path("models").mkdir()
    Path("digits.csv").write_text("outs:\n- md5: 0123\n  path: digits.csv\n")
    for missing in (
        lambda: load_dataset("data/processed/train.safetensors"),
        lambda: read_facts("models/generator.safetensors", "generator"),
        lambda: read_csv("digits.csv", load_params().validation),
    ):
        with pytest.raises(CganError, match="`dvc pull`") as told:
            missing()
        command = re.findall(r"`(dvc remote add .*?)`", str(told.value))[0]
        assert remote.default_remote() is None
        run(sys.executable, "-m", *command.split())
        assert remote.default_remote() == Remote("storage", "ssh://host/folder")
        run(sys.executable, "-m", "dvc", "remote", "remove", "storage")


@pytest.mark.parametrize("password", ["secret", "se@ret", "se/ret", "se?ret#", "12345", "s:x"])
def test_a_password_in_an_address_is_not_shown(password: str) -> None:
    """Nor when it has characters that should have been written otherwise."""
    told = str(Remote("storage", f"https://me:{password}@host:8443/store"))
    assert told == "https://me@host:8443/store"
    with pytest.raises(RemoteError, match="holds a password"):
        remote._settle(f"https://me:{password}@host:8443/store")


@pytest.mark.parametrize("url", ["https://host:8443/a@b", "s3://bucket/a@b", "ssh://me@host/x"])
def test_an_address_without_a_password_is_shown_as_it_is(url: str) -> None:
    assert str(Remote("storage", url)) == url
    assert not remote._has_password(url)


# --- does it answer -----------------------------------------------------------------------------


def test_a_remote_that_answers_is_left_as_it_was(store: Path) -> None:
    found = remote.default_remote()
    assert found and remote.check(found) is None
    assert list(store.iterdir()) == []


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("/not/mounted/store", "there is no folder /not/mounted"),
        ("ssh://127.0.0.1:1/store", "Connect call failed"),
        ("s3://bucket/store", "Unable to locate credentials"),
        ("gs://bucket/store", "requires 'dvc-gs'"),
    ],
)
def test_why_a_remote_cannot_be_used_is_told_in_a_line_of_its_library_s(
    repo: Path, monkeypatch: pytest.MonkeyPatch, url: str, message: str
) -> None:
    if url.startswith("ssh"):
        pytest.importorskip("dvc_ssh", reason="the extra ssh is not installed")
    if url.startswith("s3"):
        pytest.importorskip("dvc_s3", reason="the extra s3 is not installed")
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(repo))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("CGAN_REMOTE", url)
    found = remote.default_remote()
    assert found
    told = remote.check(found)
    assert told and told.startswith(f"{url} cannot be used: ") and message in told
    assert "\n" not in told


def test_a_remote_that_never_answers_costs_no_more_than_the_limit(
    repo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as mute:
        url = f"http://127.0.0.1:{mute.getsockname()[1]}/store"
        monkeypatch.setenv("CGAN_REMOTE", url)
        monkeypatch.setattr(remote, "CHECK_S", 3.0)
        found = remote.default_remote()
        assert found
        assert remote.check(found) == f"{url} does not answer within 3 seconds."


# --- results go there, and come from there -------------------------------------------------------


@pytest.mark.slow
def test_results_go_to_the_remote_and_a_fresh_clone_runs_nothing(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_all()
    assert remote.push(quiet) == f"4 files pushed to {store}."
    # dvc.lock was not committed: the remote knows which inputs the results came from.
    clone(Path.cwd(), tmp_path / "fresh", monkeypatch)
    assert not Path("dvc.lock").exists()
    assert run_all(pull=True) == [Outcome.RESTORED] * 3
    assert attempts() == []
    assert Path("models/generator.safetensors").is_file()
    assert run_all(pull=True) == [Outcome.UNCHANGED] * 3
    assert run_all() == [Outcome.UNCHANGED] * 3


@pytest.mark.slow
def test_a_stage_with_other_inputs_runs_though_the_remote_knows_the_former(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_all()
    remote.push(quiet)
    clone(Path.cwd(), tmp_path / "fresh", monkeypatch)
    Path("data/inbox/digits.csv").write_text("label,pixel0\n1,2\n")
    Path("toy.py").write_text(Path("toy.py").read_text().replace("0.9941", "0.5"))
    assert repro_stage("download", quiet, pull=True) is Outcome.RAN
    assert attempts() == ["download"]


@pytest.mark.slow
def test_after_a_run_that_failed_the_stages_that_ended_are_pushed(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_all()
    git("add", "dvc.lock")
    git("commit", "--quiet", "--message", "results that were never pushed")
    clone(Path.cwd(), tmp_path / "second", monkeypatch)
    Path("data/inbox/digits.csv").write_text("label,pixel0\n3,4\n")
    Path("toy.py").write_text(Path("toy.py").read_text().replace("0.9941", "0.5"))
    monkeypatch.setenv("FAIL", "train")
    repro_stage("download", quiet, pull=True)
    with pytest.raises(StageError, match="row 17"):
        repro_stage("train", quiet, pull=True)
    assert attempts() == ["download", "train"], "a stage that fails is not run a second time"
    assert remote.push(quiet) == f"2 files pushed to {store}."
    git("commit", "--quiet", "--all", "--message", "the other data")
    clone(Path.cwd(), tmp_path / "third", monkeypatch)
    assert repro_stage("download", quiet, pull=True) is Outcome.RESTORED


@pytest.mark.slow
def test_a_run_of_some_stages_pushes_theirs_though_dvc_lock_names_others_that_are_not_here(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_all()
    git("add", "dvc.lock")
    git("commit", "--quiet", "--message", "results that were never pushed")
    clone(Path.cwd(), tmp_path / "second", monkeypatch)
    Path("data/inbox/digits.csv").write_text("label,pixel0\n3,4\n")
    repro_stage("download", quiet)
    shutil.rmtree("models")  # an input of evaluate, to which the run did not come
    assert re.fullmatch(rf"\d files? pushed to {store}\.", remote.push(quiet, ["download"]))


def test_with_the_remote_away_a_stage_is_run_and_a_warning_says_why(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("dvc_ssh", reason="the extra ssh is not installed")
    monkeypatch.setenv("CGAN_REMOTE", "ssh://127.0.0.1:1/store")
    remote.default_remote()
    said: list[str] = []
    assert repro_stage("download", said.append, pull=True) is Outcome.RAN
    (warning,) = [line for line in said if line.startswith("WARNING: download: nothing came")]
    assert "Connect call failed" in warning and attempts() == ["download"]
    with pytest.raises(
        RemoteError, match=r"ssh://127\.0\.0\.1:1/store: not pushed: .*Connect call failed"
    ):
        remote.push(quiet)


# --- what points there --------------------------------------------------------------------------


@pytest.mark.slow
def test_a_run_travels_as_a_branch_and_dvc_pull_brings_it_without_a_stage_running(
    origin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clone_at(Path.cwd(), "HEAD", tmp_path / "work")
    monkeypatch.chdir(tmp_path / "work")
    params = Path("params.yaml")
    params.write_text(params.read_text().replace("seed: 1", "seed: 5", 1))
    run_all()
    Path("notes.txt").write_text("of mine")
    name = remote.branch_name("nightly 25 Nov 02:00 · train.seed=5")
    assert name == "runs/nightly-25-Nov-02-00-train-seed-5"
    assert len(remote.branch_name("train.seed=5 · " * 99)) < 100, "git keeps it as a file"
    assert remote.push(quiet).startswith("4 files pushed to ")
    assert remote.publish(name, "nightly 25 Nov 02:00").startswith(f"origin has branch {name}, at ")

    clone(origin, tmp_path / "colleague", monkeypatch)
    git("switch", "--quiet", name)
    assert git("log", "-1", "--format=%s") == "nightly 25 Nov 02:00"
    changed = git("diff", "--name-only", "HEAD~1").splitlines()
    assert changed == ["dvc.lock", "params.yaml"]
    dvc("pull")
    assert "up to date" in dvc("status")
    assert run_all() == [Outcome.UNCHANGED] * 3 and attempts() == []


def test_of_a_run_that_is_tried_again_the_later_results_are_published(origin: Path) -> None:
    for content in ("first", "second"):
        Path("dvc.lock").write_text(content)
        remote.publish("runs/a", content)
    history = git("log", "--format=%s %an", "-2", "runs/a", folder=origin)
    assert history.splitlines() == ["second cgan", "a remote t"]
    assert git("show", "runs/a:dvc.lock", folder=origin) == "second"


@pytest.mark.parametrize("kind", ["refused", "gone"])
def test_what_git_s_server_says_is_told_in_a_line(origin: Path, kind: str) -> None:
    Path("dvc.lock").write_text("results")
    if kind == "refused":
        hook = origin / "hooks/pre-receive"
        hook.write_text("#!/bin/sh\necho 'no branches named runs here'\nexit 1\n")
        hook.chmod(0o755)
        words = "no branches named runs here"
    else:
        origin.rename(origin.with_name("elsewhere"))
        words = "does not appear to be a git repository"
    with pytest.raises(RemoteError, match="origin did not take branch runs/a: ") as told:
        remote.publish("runs/a", "a run")
    assert words in str(told.value) and "\n" not in str(told.value)


@pytest.mark.slow
def test_collecting_garbage_by_all_commits_keeps_the_results_of_runs_and_by_all_branches_does_not(
    origin: Path, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def kept() -> int:
        return len(list((store / "files").glob("*/*/*")))

    repro_stage("download", quiet)
    remote.push(quiet)
    remote.publish("runs/a", "a run")
    clone(origin, tmp_path / "fresh", monkeypatch)
    assert kept() == 1
    dvc("gc", "--cloud", "--force", "--all-commits")
    assert kept() == 1
    dvc("gc", "--cloud", "--force", "--all-branches")
    assert kept() == 0


# --- over ssh -----------------------------------------------------------------------------------


@pytest.fixture
def server(repo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ssh.SshServer:
    pytest.importorskip("dvc_ssh", reason="the extra ssh is not installed")
    with ssh.ssh_server(tmp_path / "sshd") as running:
        monkeypatch.setenv("HOME", str(running.home))
        monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
        monkeypatch.setenv("CGAN_REMOTE", running.url(tmp_path / "over-ssh"))
        yield running


def told() -> str | None:
    found = remote.default_remote()
    assert found
    return remote.check(found)


@pytest.mark.slow
def test_results_travel_over_ssh(
    server: ssh.SshServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert told() is None
    repro_stage("download", quiet)
    assert remote.push(quiet).startswith("2 files pushed to ssh://127.0.0.1:")
    clone(Path.cwd(), tmp_path / "fresh", monkeypatch)
    assert remote.default_remote()
    assert repro_stage("download", quiet, pull=True) is Outcome.RESTORED
    assert attempts() == [] and Path("data/raw/train.csv").is_file()


@pytest.mark.slow
def test_a_host_that_is_not_known_gets_nothing(server: ssh.SshServer, tmp_path: Path) -> None:
    ssh.make_key(server.folder / "other")
    kind, key = (server.folder / "other.pub").read_text().split()[:2]
    known = server.home / ".ssh/known_hosts"
    known.write_text(f"[127.0.0.1]:{server.port} {kind} {key}\n")
    assert "Host key is not trusted" in (told() or "")
    repro_stage("download", quiet)
    with pytest.raises(RemoteError, match="Host key"):
        remote.push(quiet)
    assert not (tmp_path / "over-ssh").exists()


@pytest.mark.slow
def test_a_key_that_the_server_does_not_accept_is_told_without_a_question(
    server: ssh.SshServer,
) -> None:
    ssh.make_key(server.home / ".ssh/id_ed25519")
    assert "cannot be used: " in (told() or "")
    server.accept(ssh.make_key(server.home / ".ssh/id_ed25519", passphrase="secret"))
    assert "cannot be used: " in (told() or "")


@pytest.mark.slow
def test_the_agent_s_key_opens_the_door_and_is_not_lent(
    server: ssh.SshServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = server.folder / "key-of-the-agent"
    (server.home / ".ssh/id_ed25519").rename(key)
    (server.home / ".ssh/id_ed25519.pub").unlink()
    socket = server.folder / "agent"
    agent = subprocess.Popen(["ssh-agent", "-D", "-a", socket], stdout=subprocess.DEVNULL)
    try:
        monkeypatch.setenv("SSH_AUTH_SOCK", str(socket))
        while subprocess.run(["ssh-add", "-q", key], stderr=subprocess.DEVNULL).returncode == 2:
            assert agent.poll() is None  # it doesn't listen yet
        assert told() is None
    finally:
        agent.terminate()
        agent.wait()
    assert "auth-agent" not in (server.folder / "log").read_text()
