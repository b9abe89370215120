"""The shared remote and `origin`: a folder, a bare repository, ssh and S3 where there is a server."""

from __future__ import annotations

import importlib.util
import os
import re
import socket
import subprocess
from pathlib import Path

import pytest
import ssh_server as ssh
import toy_project
from object_store import ACCESS_KEY, SECRET_KEY, make_bucket, object_store
from toy_project import attempts, quiet, repro_stage, run_all

from cgan.errors import CganError
from cgan.project import DVC_PULL
from flows import remote
from flows.checkout import dvc_in
from flows.dvc import Outcome, StageError

LOCAL_CONFIG = Path(".dvc/config.local")
pytestmark = pytest.mark.slow


def git(*arguments: str | Path, folder: Path | None = None) -> str:
    return toy_project.git(folder or Path.cwd(), *map(str, arguments))


def dvc(*arguments: str | Path) -> str:
    return dvc_in(Path.cwd(), *map(str, arguments))


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


def test_the_variable_goes_before_the_committed_remote_and_leaves_no_trace_in_git(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert remote.default_remote() == str(store)
    for name in ("other", "an other"):
        other = str(tmp_path / name)
        monkeypatch.setenv("CGAN_REMOTE", other)
        for _ in range(2):
            assert remote.default_remote() == other
    assert git("status", "--porcelain") == ""
    assert "core.remote=environment" in dvc("config", "--list")
    monkeypatch.delenv("CGAN_REMOTE")
    assert remote.default_remote() == str(store)
    assert "environment" not in LOCAL_CONFIG.read_text()


def test_an_address_that_cannot_be_used_is_refused_and_dvc_still_works(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for url, message in (
        ("ssh://me:secret@host/store", "holds a password"),
        ("ssh://me:se/ret?#@host/store", "holds a password"),
        ("../store", "CGAN_REMOTE is ../store, a relative path"),
        ("nonsense://host/store", r"nonsense://host/store(.|\n)*Unsupported URL type"),
    ):
        monkeypatch.setenv("CGAN_REMOTE", url)
        with pytest.raises(CganError, match=message) as refused:
            remote.default_remote()
        assert "secret" not in str(refused.value)
        assert not LOCAL_CONFIG.exists() or "secret" not in LOCAL_CONFIG.read_text()
    monkeypatch.delenv("CGAN_REMOTE")
    assert remote.default_remote() == str(store)


def test_a_project_without_a_remote_is_told_how_to_begin_and_it_works(repo: Path) -> None:
    assert remote.default_remote() is None
    with pytest.raises(CganError) as refused:
        remote.push()
    for advice in (DVC_PULL, str(refused.value)):
        (command,) = re.findall(r"`(dvc remote add .*?)`", advice)
        dvc(*command.split()[1:], "--force")
        assert remote.default_remote() == "ssh://host/folder"


def told() -> str:
    """What is said of the remote."""
    try:
        return remote.check()
    except CganError as error:
        return str(error)


def without_aws(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


def test_a_remote_that_answers_is_left_as_it_was_and_why_one_does_not_is_told_in_a_line(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "answers" in told()
    assert list(store.iterdir()) == []
    without_aws(monkeypatch, store)
    for url, message in (
        ("/not/mounted/store", "there is no folder /not/mounted"),
        ("ssh://127.0.0.1:1/store", "Connect call failed"),
        ("s3://bucket/store", "Unable to locate credentials"),
        ("gs://bucket/store", "requires 'dvc-gs'"),
    ):
        scheme = url.split(":")[0]
        if scheme not in ("ssh", "s3") or importlib.util.find_spec(f"dvc_{scheme}"):
            monkeypatch.setenv("CGAN_REMOTE", url)
            assert re.fullmatch(f"{url} cannot be used: .*{message}.*", told())
    monkeypatch.setattr(remote, "CHECK_S", 3.0)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        url = f"http://127.0.0.1:{mute.getsockname()[1]}/store"
        monkeypatch.setenv("CGAN_REMOTE", url)
        assert told() == f"{url} does not answer within 3 seconds."


# --- results go there, and come from there -------------------------------------------------------


def test_results_go_to_the_remote_and_a_fresh_clone_runs_only_what_has_other_inputs(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_all()
    assert remote.push() == f"{store}: 4 files pushed"
    # dvc.lock was not committed: the remote knows which inputs the results came from.
    clone(Path.cwd(), tmp_path / "fresh", monkeypatch)
    assert not Path("dvc.lock").exists()
    assert run_all(pull=True) == [Outcome.RESTORED] * 3
    assert run_all(pull=True) == run_all() == [Outcome.UNCHANGED] * 3
    assert attempts() == [] and Path("models/generator.safetensors").is_file()
    git("add", "dvc.lock")
    git("commit", "--quiet", "--message", "results that were pulled")
    clone(Path.cwd(), tmp_path / "second", monkeypatch)
    Path("data/inbox/digits.csv").write_text("label,pixel0\n1,2\n")
    Path("toy.py").write_text(Path("toy.py").read_text().replace("0.9941", "0.5"))
    monkeypatch.setenv("FAIL", "train")
    assert repro_stage("download", pull=True) is Outcome.RAN
    with pytest.raises(StageError, match="row 17"):
        repro_stage("train", pull=True)
    assert attempts() == ["download", "train"], "a stage that fails is not run a second time"
    # dvc.lock names results of `evaluate`, to which the run did not come: those that ended are pushed.
    remote.push(quiet, ["download"])
    assert sum(path.is_file() for path in store.rglob("*")) == 4 + 2, "a result, and from what"
    git("commit", "--quiet", "--all", "--message", "the other data")
    clone(Path.cwd(), tmp_path / "third", monkeypatch)
    assert repro_stage("download", pull=True) is Outcome.RESTORED


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
        CganError, match=r"ssh://127\.0\.0\.1:1/store: dvc push: .*Connect call failed"
    ):
        remote.push()


# --- what points there --------------------------------------------------------------------------


def test_a_run_s_branch_holds_its_pointers_alone_and_the_later_ones_if_it_is_tried_again(
    origin: Path,
) -> None:
    Path("notes.txt").write_text("of mine")
    git("add", "notes.txt")
    for content in ("first", "second"):
        Path("dvc.lock").write_text(content)
        with Path("params.yaml").open("a") as file:
            file.write(f"# {content}\n")
        remote.publish("runs/a", content)
    history = git("log", "--format=%s %an", "-2", "runs/a", folder=origin)
    assert history.splitlines() == ["second cgan", "a remote t"]
    assert git("show", "runs/a:dvc.lock", folder=origin) == "second"
    changed = git("diff", "--name-only", "runs/a~1", "runs/a", folder=origin).splitlines()
    assert changed == ["dvc.lock", "params.yaml"]


# --- over ssh, and through S3 -------------------------------------------------------------------


@pytest.fixture
def server(repo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ssh.SshServer:
    pytest.importorskip("dvc_ssh", reason="the extra ssh is not installed")
    with ssh.ssh_server(tmp_path / "sshd") as running:
        monkeypatch.setenv("HOME", str(running.home))
        monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
        monkeypatch.setenv("CGAN_REMOTE", running.url(tmp_path / "over-ssh"))
        yield running


def test_a_host_that_is_not_known_gets_nothing(server: ssh.SshServer, tmp_path: Path) -> None:
    ssh.make_key(server.folder / "other")
    kind, key = (server.folder / "other.pub").read_text().split()[:2]
    known = server.home / ".ssh/known_hosts"
    known.write_text(f"[127.0.0.1]:{server.port} {kind} {key}\n")
    assert "Host key is not trusted" in told()
    repro_stage("download")
    with pytest.raises(CganError, match="Host key"):
        remote.push()
    assert not (tmp_path / "over-ssh").exists()


def test_the_agent_s_key_opens_the_door_and_is_not_lent(
    server: ssh.SshServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = server.folder / "key-of-the-agent"
    (server.home / ".ssh/id_ed25519").rename(key)
    (server.home / ".ssh/id_ed25519.pub").unlink()
    door = server.folder / "agent"
    agent = subprocess.Popen(["ssh-agent", "-D", "-a", door], stdout=subprocess.DEVNULL)
    try:
        monkeypatch.setenv("SSH_AUTH_SOCK", str(door))
        while subprocess.run(["ssh-add", "-q", key], stderr=subprocess.DEVNULL).returncode == 2:
            assert agent.poll() is None  # it doesn't listen yet
        assert "answers" in told()
    finally:
        agent.terminate()
        agent.wait()
    assert "auth-agent" not in (server.folder / "log").read_text()


def test_results_travel_through_s3_and_no_file_holds_the_key(
    origin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("dvc_s3", reason="the extra s3 is not installed")
    without_aws(monkeypatch, tmp_path / "server")
    (tmp_path / "server").mkdir()
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    with object_store(tmp_path / "server") as address:
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        dvc("remote", "modify", "storage", "url", "s3://cgan/store")
        assert "Unable to locate credentials" in told()
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
        for key in ("wrong", SECRET_KEY):  # the second has no bucket yet
            monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", key)
            assert "cannot be used" in told()
        make_bucket(address, "cgan")
        assert "answers" in told()
        git("commit", "--quiet", "--all", "--message", "a bucket")
        git("push", "--quiet", "origin", "HEAD:main")
        run_all()
        assert "files pushed" in remote.push()
        machine = Path.cwd()
        clone(origin, tmp_path / "worker", monkeypatch)
        assert not Path("dvc.lock").exists()
        assert run_all(pull=True) == [Outcome.RESTORED] * 3
    for file in [path for path in machine.rglob("*") if path.is_file()]:
        assert SECRET_KEY.encode() not in file.read_bytes()
