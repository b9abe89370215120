"""What a run's patch holds, what it leaves out, and the tree it brings back: a real repository."""

from pathlib import Path

import pytest
from conftest import commit
from conftest import git as run

from cgan.base import git


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A commit of a small project; the working directory."""
    folder = tmp_path / "project"
    for name, text in {
        "cgan/losses.py": "loss = 1\n",
        "params.yaml": "train: 1\n",
        "dvc.lock": "first\n",
        ".dvc/config": "[core]\n",
        ".gitignore": ".env\n/models/\n",
        "README.md": "words\n",
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    commit(folder)
    monkeypatch.chdir(folder)
    return folder


def test_the_patch_brings_a_tree_of_the_commit_to_this_one(repository: Path) -> None:
    """Whatever settings the engineer's git has."""
    booleans = ("diff.noprefix true", "diff.mnemonicPrefix true", "diff.external false")
    for setting in (*booleans, "color.ui always", "diff.renames copies"):
        run(repository, "config", *setting.split())
    clean = git.working_tree()
    assert (clean.changed, clean.patch) == ([], b"")
    Path("cgan/losses.py").write_text("loss = 2\n")
    Path("cgan/new.py").write_text("new = 'ü'\n")
    Path("cgan/staged.py").write_bytes(b"binary = '\x00\xff'\n")
    run(repository, "add", "cgan/staged.py")
    run(repository, "rm", "--quiet", "README.md")
    index = Path(".git/index").read_bytes()
    found = git.working_tree()
    assert found.changed == ["README.md", "cgan/losses.py", "cgan/staged.py", "cgan/new.py"]
    assert Path(".git/index").read_bytes() == index
    patch, tree = repository.parent / "patch.diff", repository.parent / "tree"
    patch.write_bytes(found.patch)
    git.clone_at(repository, found.commit, tree)
    assert (tree / "cgan/losses.py").read_text() == "loss = 1\n"
    git.git("apply", patch, folder=tree)
    for name in ("cgan/losses.py", "cgan/staged.py"):
        assert (tree / name).read_bytes() == Path(name).read_bytes()
    assert not (tree / "README.md").exists()


def test_what_git_ignores_and_what_is_not_ours_stays_out(repository: Path) -> None:
    Path("dvc.lock").write_text("second\n")
    for name in (".dvc/config", ".env", "cgan/.env", "notes.txt", "cgan/credentials.json"):
        Path(name).write_text("TOKEN=planted-secret\n")
    assert git.working_tree().changed == []
    Path("params.yaml").write_text("train: 2\n")
    found = git.working_tree()
    assert found.changed == ["params.yaml"] and b"planted-secret" not in found.patch


@pytest.mark.parametrize(
    ("name", "value", "is_secret"),
    [
        *((name, "planted-secret", True) for name in ("HF_TOKEN", "MY_SECRET_ID")),
        *((name, "planted-secret", True) for name in ("kaggle_key", "DB_PASSWORD")),
        ("PREFECT_SERVER_API_AUTH_STRING", "admin:planted", True),
        *(("TOKEN", "seven-7", False), ("PWD", "/home/me/a-project", False)),
    ],
    ids=map(str, range(7)),  # pytest puts a value that names a test into the environment
)
def test_secrets_are_known_by_the_name_of_their_variable(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, is_secret: bool
) -> None:
    monkeypatch.setenv(name, value)
    assert git.secrets_in(f"x = '{value}'".encode()) == (name if is_secret else "")
    assert git.secrets_in(value[:-1].encode()) == ""
