"""Runs of a real project (git, DVC, sqlite store) repeated: equal bytes, or plain words why not."""

from __future__ import annotations

import hashlib
import shutil
import signal
from pathlib import Path

import psutil
import pytest
from acceptance.door import Project, until
from acceptance.door import finished as finished
from conftest import MLFLOWS_OWN_WARNINGS

from cgan.files import sha256_of

SECRET = "planted-secret-0123456789"
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600), *MLFLOWS_OWN_WARNINGS]


@pytest.fixture(scope="module")
def trained(finished: Project, tmp_path_factory: pytest.TempPathFactory) -> tuple[Project, str]:
    """A project with a run whose params.yaml was changed after the commit, as a flow's overrides do."""
    project = finished.copy(tmp_path_factory.mktemp("trained") / "project")
    project.set(train={"seed": 5})
    (project.folder / ".env").write_text(f"TOKEN={SECRET}\n")
    project.run("dvc repro train", SOME_TOKEN=SECRET)
    return project, project.read("models/mlflow_run.json")["run_id"]


@pytest.fixture
def project(trained: tuple[Project, str], tmp_path: Path) -> Project:
    """A copy, of which everything but its store may be lost."""
    return trained[0].copy(tmp_path / "project")


def test_what_a_run_was_made_from_is_at_the_run_and_no_secret_is(
    trained: tuple[Project, str],
) -> None:
    project, run_id = trained
    csv = project.folder / "data/raw/train.csv"
    tags = project.client().get_run(run_id).data.tags
    expected = {
        "git.dirty": "true",
        "git.changed_files": "params.yaml",
        "dvc.csv_md5": hashlib.md5(csv.read_bytes()).hexdigest(),
        "cgan.csv_sha256": sha256_of(csv),
    }
    assert expected.items() <= tags.items()
    assert {"torch.version", "machine.cpu", "machine.cores", "cgan.device"} <= tags.keys()
    source = project.folder / f"mlartifacts/{run_id}/artifacts/source"
    assert "+  seed: 5" in (source / "patch.diff").read_text()
    assert {path.name for path in source.iterdir()} >= {"params.yaml", "dvc.yaml", "dvc.lock"}
    files = [path for path in (project.folder / "mlartifacts").rglob("*") if path.is_file()]
    for path in [*files, project.folder / "mlflow.db"]:
        assert SECRET.encode() not in path.read_bytes()


def test_what_cannot_be_repeated_is_refused_with_the_way_out(
    project: Project, trained: tuple[Project, str], tmp_path: Path
) -> None:
    client, run_id = project.client(), trained[1]

    def refused(what: str, *words: str) -> None:
        said = project.run(f"cgan reproduce {what}", 1, TMPDIR=str(tmp_path))
        assert all(each in said for each in words) and not list(tmp_path.glob("cgan-*"))

    refused("0" * 32, "0" * 32)
    refused("models:/../etc@champion", "names no run")
    client.set_tag(run_id, "cgan.csv_sha256", "0" * 64)
    places = ("data/raw/train.csv: other", "DVC's cache or remote: other", "the data source: ")
    refused(run_id, "sha256 " + "0" * 64, *places)
    client.set_tag(run_id, "git.changed_files", "cgan/training/losses.py, params.yaml")
    refused(run_id, "`source/patch.diff`", "(cgan/training/losses.py, params.yaml)")


def test_bytes_that_differ_are_told_with_what_differs_and_a_signal_leaves_no_clone(
    project: Project, trained: tuple[Project, str], tmp_path: Path
) -> None:
    """As if the run had been made on another machine."""
    client, run_id = project.client(), trained[1]
    other = {
        "cgan.generator_sha256": "0" * 64,
        "torch.version": "2.0.0",
        "machine.cpu": "Zilog Z80",
    }
    for key, value in other.items():
        client.set_tag(run_id, key, value)
    said = project.run(f"cgan reproduce {run_id}", 1)
    for words in ("NOT the same", "0" * 64, "torch.version: 2.0.0 then, ", "cpu: Zilog Z80 then, "):
        assert words in said
    assert "cgan.device" not in said
    assert "NOT the same" in client.get_run(run_id).data.tags["cgan.reproduced"]

    began = "Running stage 'train_judge'"
    with project.started(f"cgan reproduce {run_id}", TMPDIR=str(tmp_path)) as (process, output):
        until(lambda: began in output.read_text() or process.poll() is not None)
        process.send_signal(signal.SIGTERM)
        assert process.wait() == 128 + signal.SIGTERM
    assert "Traceback" not in output.read_text()
    assert not list(tmp_path.glob("cgan-*"))
    assert not [
        p for p in psutil.process_iter(["cwd"]) if "cgan-reproduce" in (p.info["cwd"] or "")
    ]


def test_a_run_is_repeated_though_the_tree_went_on_and_only_dvcs_remote_has_the_data(
    project: Project, trained: tuple[Project, str], tmp_path: Path
) -> None:
    """Its params.yaml was changed after the commit, and nothing changes but a tag of the run."""
    project.run(f"dvc remote add --quiet --local --default there {tmp_path / 'remote'}")
    project.run("dvc push --quiet download")
    for name in (".dvc/cache", "inbox"):
        shutil.rmtree(project.folder / name)
    (project.folder / "data/raw/train.csv").unlink()
    (project.folder / "data/raw/train.csv").write_bytes(b"label,pixel0\n")
    (project.folder / "params.yaml").write_text("broken: [\n")
    before = state(project)
    said = project.run(f"cgan reproduce {trained[1]}", TMPDIR=str(tmp_path))
    tags = project.client().get_run(trained[1]).data.tags
    assert f"the same bytes: {tags['cgan.generator_sha256']}" in said
    assert "data from DVC's cache or remote" in said and "the same bytes" in tags["cgan.reproduced"]
    assert not list(tmp_path.glob("cgan-*")), "the clone is gone"
    after = state(project)
    assert {path: after.get(path) for path in before} == before


def state(project: Project) -> dict[str, str]:
    """Hashes of all that a repeat must leave alone; the store aside, which takes the tag."""
    ignored = ("mlflow.db", "__pycache__", "store.lock", ".dvc/tmp", ".dvc/cache")
    files = [path for path in project.folder.rglob("*") if path.is_file()]
    kept = [path for path in files if not any(part in str(path) for part in ignored)]
    return {str(path): sha256_of(path) for path in kept}
