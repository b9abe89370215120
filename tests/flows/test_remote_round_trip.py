"""A whole run on one machine, pulled on another: over ssh, and through S3. Real stages, real servers."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import object_store
import pytest
import ssh_server as ssh
import yaml
from conftest import ROOT, TINY
from object_store import ACCESS_KEY, SECRET_KEY
from synthetic import make_images, write_csv
from toy_project import run_all

from cgan.errors import CganError
from flows import remote
from flows.dvc import Outcome

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

CSV = Path("data/digits.csv")


def run(*command: str | Path, folder: Path | None = None) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()


def git(*arguments: str | Path) -> str:
    return run("git", "-c", "user.name=t", "-c", "user.email=t@t", *arguments)


def dvc(*arguments: str | Path) -> str:
    return run(sys.executable, "-m", "dvc", *arguments)


@pytest.fixture(autouse=True)
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(("AWS_", "GIT_", "DVC_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", ".")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with its CSV under DVC, committed, and everything run: small, but all nine stages."""
    folder = tmp_path_factory.mktemp("finished") / "project"
    folder.mkdir()
    for name in git(
        "-C", ROOT, "ls-files", "cgan", "flows", "presets", "data", ".dvc"
    ).splitlines():
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    for name in (".gitignore", ".dvcignore", "dvc.yaml"):
        shutil.copy(ROOT / name, folder)
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    for section, values in TINY.items():
        params[section] |= values
    params["data"]["path"] = str(CSV)
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    write_csv(folder / CSV, *make_images())
    with contextlib.chdir(folder), pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
        patch.setenv("PYTHONPATH", ".")
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder.parent}/mlflow.db")
        git("init", "--quiet", "--initial-branch", "main", ".")
        dvc("add", "--quiet", CSV)
        git("add", "--all")
        git("commit", "--quiet", "--message", "the project")
        assert set(run_all()) == {Outcome.RAN}
    return folder


@contextlib.contextmanager
def remote_over_ssh(folder: Path, patch: pytest.MonkeyPatch) -> Iterator[str]:
    pytest.importorskip("dvc_ssh", reason="the extra ssh is not installed")
    with ssh.ssh_server(folder) as server:
        patch.setenv("HOME", str(server.home))
        patch.delenv("SSH_AUTH_SOCK", raising=False)
        yield server.url(folder / "store")


@contextlib.contextmanager
def remote_on_s3(folder: Path, patch: pytest.MonkeyPatch) -> Iterator[str]:
    pytest.importorskip("dvc_s3", reason="the extra s3 is not installed")
    with object_store.object_store(folder) as url:
        patch.setenv("AWS_ENDPOINT_URL", url)
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        patch.setenv("HOME", str(folder))
        yield "s3://cgan/store"


def told() -> str:
    try:
        return remote.check()
    except CganError as error:
        return str(error)


def see_faults_of_s3(patch: pytest.MonkeyPatch) -> None:
    """Each in a line of boto's; then credentials and a bucket that are good."""
    assert "Unable to locate credentials" in told()
    patch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
    patch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    assert "cannot be used" in told()
    patch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
    assert "cannot be used" in told()
    object_store.make_bucket(os.environ["AWS_ENDPOINT_URL"], "cgan")
    with patch.context() as guest:
        guest.setenv("AWS_ACCESS_KEY_ID", "team:guest")
        guest.setenv("AWS_SECRET_ACCESS_KEY", "guest")
        assert "cannot be used" in told()
    assert "answers" in told()


@pytest.mark.parametrize("kind", ["ssh", "s3"])
def test_a_run_on_one_machine_is_pulled_on_another_where_nothing_is_trained(
    kind: str, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = {"ssh": remote_over_ssh, "s3": remote_on_s3}[kind]
    (tmp_path / "server").mkdir()
    with server(tmp_path / "server", monkeypatch) as url:
        shutil.copytree(finished, tmp_path / "machine", symlinks=True)
        monkeypatch.chdir(tmp_path / "machine")
        dvc("remote", "add", "--default", "storage", url)
        git("commit", "--quiet", "--message", "a remote", ".dvc/config")
        git("init", "--quiet", "--bare", "--initial-branch", "main", tmp_path / "origin.git")
        git("remote", "add", "origin", tmp_path / "origin.git")
        git("push", "--quiet", "origin", "main")
        if kind == "s3":
            see_faults_of_s3(monkeypatch)
        assert "answers" in told()
        assert "files pushed" in remote.push()
        remote.publish("runs/first", "a run")
        made = {path: path.read_bytes() for path in map(Path, outputs()) if path.is_file()}
        assert (
            Path("models/mlflow_run.json") in made and Path("models/generator.safetensors") in made
        )

        git("clone", "--quiet", tmp_path / "origin.git", tmp_path / "colleague")
        monkeypatch.chdir(tmp_path / "colleague")
        git("switch", "--quiet", "runs/first")
        dvc("pull")
        assert "up to date" in dvc("status")
        assert "Running stage" not in dvc("repro")
        assert {path: path.read_bytes() for path in made} == made
        assert len(list(Path("samples/previews").iterdir())) >= 2
        run(sys.executable, "-m", "cgan.cli", "draw", "--grid", "--out", "drawn.png")
        assert Path("drawn.png").read_bytes().startswith(b"\x89PNG")

        # Another machine of the pool, at a commit that has no results: the remote knows them by their inputs.
        git("clone", "--quiet", tmp_path / "origin.git", tmp_path / "worker")
        monkeypatch.chdir(tmp_path / "worker")
        assert not Path("dvc.lock").exists()
        dvc("pull", f"{CSV}.dvc")
        assert set(run_all(pull=True)) == {Outcome.RESTORED}
        assert {path: path.read_bytes() for path in made} == made

        assert secrets_in(tmp_path / "machine") == []


def outputs() -> list[str]:
    lock = yaml.safe_load(Path("dvc.lock").read_text())
    return [out["path"] for stage in lock["stages"].values() for out in stage.get("outs", [])]


def secrets_in(project: Path) -> list[str]:
    """The project's files, settings and caches with the store's key in them."""
    files = [path for path in project.rglob("*") if path.is_file()]
    return [str(path) for path in files if SECRET_KEY.encode() in path.read_bytes()]
