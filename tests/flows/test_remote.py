"""DVC's remote: what a run takes from there, and brings there."""

from __future__ import annotations

from pathlib import Path

import pytest
import toy_project
from toy_project import attempts, quiet, repro_stage, run_all

from flows.checkout import dvc_in
from flows.dvc import Outcome, StageError, has_remote, run_dvc

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


def push() -> None:
    """As a flow run ends."""
    code, lines = run_dvc(["push", "--run-cache"], quiet)
    assert code == 0, lines


def clone(origin: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    git("clone", "--quiet", origin, folder)
    monkeypatch.chdir(folder)
    return folder


def test_results_go_to_the_remote_and_a_fresh_clone_runs_only_what_has_other_inputs(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_all()
    push()
    assert any(store.rglob("*"))
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
    # dvc.lock names results of `evaluate`, to which the run did not come; what ended is pushed.
    push()
    git("commit", "--quiet", "--all", "--message", "the other data")
    clone(Path.cwd(), tmp_path / "third", monkeypatch)
    assert repro_stage("download", pull=True) is Outcome.RESTORED


def test_with_a_remote_that_cannot_be_used_a_stage_is_run_and_a_warning_says_why(
    store: Path,
) -> None:
    dvc("remote", "modify", "storage", "url", "gs://bucket/store")
    assert has_remote()
    said: list[str] = []
    assert repro_stage("download", said.append, pull=True) is Outcome.RAN
    (warning,) = [line for line in said if line.startswith("WARNING: download: nothing came")]
    assert "requires 'dvc-gs'" in warning and attempts() == ["download"]


def test_a_project_without_a_remote_has_none(repo: Path) -> None:
    assert not has_remote()
