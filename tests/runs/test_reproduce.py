"""Runs of a real project (git, DVC, sqlite store) repeated: equal bytes, or plain words why not."""

import re
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from acceptance.door import Project
from acceptance.door import finished as finished

from cgan.files import sha256_of

SECRET = "planted-secret-0123456789"
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


@pytest.fixture(scope="module")
def trained(finished: Project, tmp_path_factory: pytest.TempPathFactory) -> tuple[Project, str]:
    """A project with a run whose params.yaml was changed after the commit, as a flow's overrides do."""
    project = finished.copy(tmp_path_factory.mktemp("trained") / "project")
    project.set(train={"seed": 5})
    (project.folder / ".env").write_text(f"TOKEN={SECRET}\n")
    project.run("dvc repro", SOME_TOKEN=SECRET)
    return project, project.read("models/mlflow_run.json")["run_id"]


@pytest.fixture
def project(trained: tuple[Project, str], tmp_path: Path) -> Project:
    """A copy, of which everything but its store may be lost."""
    return trained[0].copy(tmp_path / "project")


def test_what_a_run_was_made_from_is_at_it_and_no_secret_is(trained: tuple[Project, str]) -> None:
    project, run_id = trained
    run, csv = project.client().get_run(run_id), project.folder / "data/raw/train.csv"
    tags = run.data.tags
    assert (tags["git.dirty"], tags["git.changed_files"]) == ("true", "params.yaml")
    assert tags["cgan.csv_sha256"] == sha256_of(csv)
    assert {"torch.version", "machine.cpu", "machine.cores", "cgan.device"} <= tags.keys()
    # Of the project that this one was copied from.
    artifacts = Path(urlsplit(run.info.artifact_uri).path)
    source = artifacts / "source"
    assert "+  seed: 5" in (source / "patch.diff").read_text()
    assert {path.name for path in source.iterdir()} >= {"params.yaml", "dvc.yaml", "dvc.lock"}
    files = [path for path in artifacts.rglob("*") if path.is_file()]
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
    said = project.run("cgan compare champion .")
    assert re.search(r"train\.seed[ │|]+\d+[ │|]+5", said) and "uncommitted changes" in said
    experiment = client.get_run(run_id).info.experiment_id
    begun = client.create_run(experiment).info.run_id  # `record` was not run for it
    assert "has no evaluation" in project.run(f"cgan compare . {begun}", 1)
    client.set_tag(run_id, "git.changed_files", "cgan/training/losses.py, params.yaml")
    refused(run_id, "`source/patch.diff`", "(cgan/training/losses.py, params.yaml)")


def test_a_run_is_repeated_though_the_tree_went_on_and_bytes_that_differ_are_told(
    project: Project, trained: tuple[Project, str], tmp_path: Path
) -> None:
    """Its params.yaml was changed after the commit; nothing here changes, and no clone is left."""
    client, run_id = project.client(), trained[1]
    champion = client.get_model_version_by_alias("cgan", "champion").run_id
    repeated, first = (
        client.get_run(run).data.tags["cgan.generator_sha256"] for run in (run_id, champion)
    )
    params = project.folder / "params.yaml"
    text = params.read_text()
    params.write_text("broken: [\n")
    before = state(project)
    said = project.run(f"cgan reproduce {run_id}", TMPDIR=str(tmp_path))
    assert f"the same bytes: {repeated}" in said and "differ from those of the run" not in said
    after = state(project)
    assert {path: after.get(path) for path in before} == before
    params.write_text(text)  # names the registered model
    for name in ("generator", "csv"):
        client.set_tag(champion, f"cgan.{name}_sha256", "0" * 64)
    said = project.run("cgan reproduce champion", 1, TMPDIR=str(tmp_path))
    assert f"{'0' * 64} then, {first} now" in said
    assert "differ from those of the run" in said
    assert not list(tmp_path.glob("cgan-*"))


def state(project: Project) -> dict[str, str]:
    """Hashes of all that a repeat must leave alone; the store aside, whose tags the test changes."""
    ignored = ("mlflow.db", "__pycache__", "store.lock", ".dvc/tmp")
    files = [path for path in project.folder.rglob("*") if path.is_file()]
    kept = [path for path in files if not any(part in str(path) for part in ignored)]
    return {str(path): sha256_of(path) for path in kept}
