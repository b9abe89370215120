"""Checkouts: each run has a fresh clone at its commit, with the Home and the cache of its project."""

import os
import shutil
import sys
from pathlib import Path

import pytest
from conftest import commit, git, run

from cgan.base.errors import CganError
from cgan.base.files import locked
from cgan.base.git import working_tree
from cgan.pipeline.params_file import set_params
from flows.checkout import CHECKOUT_LOCK, become_engine, checkout, environment


@pytest.fixture
def clone(toy: Path, tmp_path: Path) -> Path:
    """A worker's clone of a project; its origin is a bare repository beside it."""
    folder = shutil.copytree(toy, tmp_path / "clone")
    (folder / "dvc.lock").write_text("of another machine")
    commit(folder)
    git(folder, "clone", "--quiet", "--bare", ".", str(tmp_path / "origin.git"))
    git(folder, "remote", "add", "origin", str(tmp_path / "origin.git"))
    return folder


def head(folder: Path) -> str:
    return git(folder, "rev-parse", "HEAD")


def test_a_checkout_is_the_commit_with_the_project_s_results(clone: Path) -> None:
    """Its cache and settings too, and given params. What a kill left goes, no living run's checkout."""
    first, left, living = head(clone), *(clone / f".cgan/checkouts/{n}" for n in ("left", "living"))
    left.mkdir(parents=True)
    (clone / ".cgan/dvc.lock").write_text("of the last run")
    mine = clone.parent / "mine/params.yaml"
    mine.parent.mkdir()
    mine.write_text((clone / "params.yaml").read_text() + "# mine\n")
    remote = "['remote \"storage\"']\nurl = s3://bucket/folder\n"
    (clone / ".dvc/config.local").write_text(remote)
    (clone / "prefect.yaml").write_text("of the next commit")
    commit(clone)
    with locked(living / CHECKOUT_LOCK), checkout(clone, first, mine) as folder:
        assert living.exists() and not left.exists()
        assert head(folder) == first
        assert (folder / "prefect.yaml").read_text() != "of the next commit"
        assert (folder / "dvc.lock").read_text() == "of the last run"
        assert (folder / "params.yaml").read_text() == mine.read_text()
        settings = run("dvc", "config", "--list", cwd=folder).splitlines()
    assert "remote.storage.url=s3://bucket/folder" in settings
    assert f"core.site_cache_dir={folder}/.dvc/tmp/site" in settings, "it goes with the checkout"
    assert not folder.exists()
    assert f"cache.dir={clone}/.dvc/cache" in settings, "what one run made, the next finds"
    assert git(clone, "status", "--porcelain") == ""


@pytest.mark.slow
def test_a_run_s_checkout_has_the_project_s_home_and_store(
    clone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "environ", {**os.environ, "CGAN_SOURCE": str(clone)})
    own = f"sqlite:///{clone}/mlflow.db"
    for uri, store in (("", own), ("sqlite:///mlflow.db", own), ("http://host:1", "http://host:1")):
        os.environ["MLFLOW_TRACKING_URI"] = uri
        assert environment(clone, clone / "folder")["MLFLOW_TRACKING_URI"] == store

    def engine(_program: str, arguments: list[str], variables: dict[str, str]) -> None:
        folder = Path.cwd()
        assert arguments[1:] == ["-m", "prefect.engine"]
        assert variables["CGAN_CHECKOUT"] == variables["PYTHONPATH"] == str(folder)
        assert variables["CGAN_HOME"] == str(clone / ".cgan")
        with locked(folder / CHECKOUT_LOCK, wait=False) as is_free:
            assert not is_free and folder.parent == clone / ".cgan/checkouts"
        raise SystemExit

    monkeypatch.chdir(clone)
    monkeypatch.setattr(os, "execve", engine)
    with pytest.raises(SystemExit):
        become_engine(head(clone))


@pytest.mark.slow
def test_a_commit_pushed_later_is_fetched(clone: Path) -> None:
    """And no branch of the project changes."""
    elsewhere, worker = clone.parent / "elsewhere", clone.parent / "worker"
    git(clone.parent, "clone", "--quiet", "origin.git", str(elsewhere))
    shallow = ("--depth", "1", f"file://{clone.parent}/origin.git")
    git(clone.parent, "clone", "--quiet", *shallow, "worker")
    (elsewhere / "new").touch()
    commit(elsewhere)
    git(elsewhere, "push", "--quiet")
    before = git(worker, "for-each-ref")
    with checkout(worker, head(elsewhere)) as folder:
        assert head(folder) == head(elsewhere)
    assert git(worker, "for-each-ref") == before
    with pytest.raises(CganError, match="1234567"):
        checkout(clone, "1234567").__enter__()


@pytest.mark.parametrize("path", ["data/inbox", "mine/digits.csv"])
def test_data_of_the_project_are_seen_in_a_checkout(clone: Path, path: str) -> None:
    set_params({"data.source": "file", "data.path": path}, clone / "params.yaml")
    commit(clone)
    file = clone / (path if path.endswith(".csv") else f"{path}/digits.csv")
    file.parent.mkdir(exist_ok=True)
    file.write_text("label\n")
    with checkout(clone, head(clone)) as folder:
        assert not (folder / "dvc.lock").exists(), "it would hide DVC's run cache"
        assert (folder / file.relative_to(clone)).read_text() == "label\n"
        assert working_tree(folder).changed == []
    assert file.exists() and (clone / "data/inbox/README.md").exists()


@pytest.mark.slow
def test_data_that_the_commit_points_to_are_pulled(
    clone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:/usr/bin:/bin")
    (clone / "dvc.lock").unlink()
    file = clone / "data/digits.csv"
    file.write_text("label\n")
    run("dvc", "add", "--quiet", file, cwd=clone)
    config = (clone / ".dvc/config").read_text().replace("[core]", "[core]\nremote = storage")
    remote = f"['remote \"storage\"']\nurl = {tmp_path}/remote\n"
    (clone / ".dvc/config").write_text(config + remote)
    commit(clone)
    (clone / ".dvc/cache").rename(tmp_path / "remote")  # as after a push
    file.unlink()
    with checkout(clone, head(clone)) as folder:
        assert (folder / "data/digits.csv").read_text() == "label\n"
