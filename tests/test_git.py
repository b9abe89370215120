"""What a run's patch holds, what it leaves out, and the tree it brings back: a real repository."""

import re
from pathlib import Path

import pytest
import toy_project
from conftest import ROOT

from cgan import git
from cgan.stages.origin import project_tree


def run(*arguments: str) -> None:
    toy_project.git(Path.cwd(), *arguments)


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A commit of a small project; the working directory."""
    folder = tmp_path / "project"
    (folder / "cgan/training").mkdir(parents=True)
    (folder / ".dvc").mkdir()
    monkeypatch.chdir(folder)
    for name, text in {
        "cgan/training/losses.py": "loss = 1\n",
        "params.yaml": "train: 1\n",
        "dvc.lock": "first\n",
        ".dvc/config": "[core]\n",
        ".gitignore": ".env\n/models/\n",
        "README.md": "words\n",
    }.items():
        Path(name).write_text(text)
    toy_project.commit(folder)
    return folder


def test_the_patch_brings_a_tree_of_the_commit_to_this_one(repository: Path) -> None:
    clean = git.working_tree()
    assert (clean.changed, clean.patch, clean.branch) == ([], b"", "main")
    Path("cgan/training/losses.py").write_text("loss = 2\n")
    Path("cgan/new.py").write_text("new = 'ü'\n")
    Path("cgan/staged.py").write_bytes(b"binary = '\x00\xff'\n")
    run("add", "cgan/staged.py")
    run("rm", "--quiet", "README.md")
    index = Path(".git/index").read_bytes()
    found = git.working_tree()
    changed = ["README.md", "cgan/new.py", "cgan/staged.py", "cgan/training/losses.py"]
    assert found.changed == changed and found.patch
    assert Path(".git/index").read_bytes() == index
    patch, tree = repository.parent / "patch.diff", repository.parent / "tree"
    patch.write_bytes(found.patch)
    git.clone_at(repository, found.commit, tree)
    assert (tree / "cgan/training/losses.py").read_text() == "loss = 1\n"
    git.git("apply", patch, folder=tree)
    for name in ("cgan/training/losses.py", "cgan/new.py", "cgan/staged.py"):
        assert (tree / name).read_bytes() == Path(name).read_bytes()
    assert not (tree / "README.md").exists()


def test_settings_of_git_change_no_patch(repository: Path) -> None:
    Path("cgan/training/losses.py").write_text("loss = 2\n")
    expected = git.working_tree().patch
    booleans = ("diff.noprefix true", "diff.mnemonicPrefix true", "diff.external false")
    for setting in (*booleans, "color.ui always", "diff.renames copies"):
        run("config", *setting.split())
    assert git.working_tree().patch == expected and b"+loss = 2" in expected


def test_what_git_ignores_and_what_is_not_ours_stays_out_of_the_patch(repository: Path) -> None:
    Path("dvc.lock").write_text("second\n")
    for name in (".dvc/config", ".env", "cgan/.env", "notes.txt", "cgan/credentials.json"):
        Path(name).write_text("TOKEN=planted-secret\n")
    assert git.working_tree().changed == []
    Path("params.yaml").write_text("train: 2\n")
    found = git.working_tree()
    assert found.changed == ["params.yaml"] and b"planted-secret" not in found.patch


def test_a_secret_in_a_patch_is_known_by_its_variable_s_name_or_as_a_password_in_an_address(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    named = "HF_TOKEN MY_SECRET_ID TRACKING_PASSWD GOOGLE_CREDENTIALS SLACK_WEBHOOK_URL "
    named += (
        "kaggle_token PREFECT_API_AUTH_STRING KAGGLE_KEY KEY_OF_MINE DB_PASS MYSQL_PWD GITHUB_PAT "
    )
    named += "APIKEY SSH_PASSPHRASE JWT PGPASSWORD OPENAI_APIKEY AZURE_STORAGE_CONNECTION_STRING SENTRY_DSN "
    named += "DOCKER_AUTH_CONFIG AWS_ACCESS_KEY_ID"
    cases = [(name, "planted-secret", "planted-secret") for name in named.split()]
    cases += [
        ("PLACE", "postgresql+asyncpg://me:planted-1@host/db", "planted-1"),
        ("PLACE", "redis://:planted-2@host", "planted-2"),
        ("PLACE", "https://me:plan:ted@/3@host", "plan:ted@/3"),
        ("PLACE", "mysql://me:pl%40nt%2Fed-4@host", "pl%40nt%2Fed-4"),
        ("PLACE", "mysql://me:pl%40nt%2Fed-5@host", "pl@nt/ed-5"),
        ("DB_PASS", "pl@nt/ed-6", "pl%40nt%2Fed-6"),
        ("SENTRY_DSN", "https://planted7@sentry.example/1", "planted7"),
        ("DB_PASS", "training", "training"),
        ("JWT", f"{'e' * 5000}-8", f"{'e' * 5000}-8"),  # no path has so long a name
    ]
    for name, value, secret in cases:
        with monkeypatch.context() as patch:
            patch.setenv(name, value)
            assert git.secrets_in(f"x = '{secret}'".encode()) == name
            assert git.secrets_in(secret[:-1].encode()) == ""
    for name, value in (
        ("MONKEY", "a long word"),
        ("TOKEN", "seven-7"),  # it may stand there by chance
        ("PLACE", "http://me@host/db:x"),
        ("PLACE", "ssh://somebody@host"),
        ("PWD", "/home/me/a-project"),
        ("OLDPWD", "/home/me/a-project"),
        ("GIT_AUTHOR_NAME", "Somebody Else"),
        ("PATH_OF_COMPASS", "a long word"),
        ("TOKEN_FILE", __file__),
    ):
        monkeypatch.setenv(name, value)
        assert git.secrets_in(value.encode()) == "", name


def test_ordinary_params_hold_no_secret_of_an_ordinary_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Passwords that are parts of longer words; variables whose names only sound like a secret's."""
    ordinary = {"DB_PASS": "accuracy", "MYSQL_PWD": "previews", "KEYMAP": "us-altgr-intl"}
    ordinary |= {"TOKENIZERS_PARALLELISM": "true", "COMPASS": "discriminator_width"}
    for name, value in ordinary.items():
        monkeypatch.setenv(name, value)
    names = ("params.yaml", "dvc.yaml", "dvc.lock")
    text = "".join((ROOT / name).read_text() for name in names)
    assert "accuracy" in text and "previews" in text and "discriminator_width" in text
    whole = re.sub(r"(?<![\w-])(accuracy|previews)(?![\w-])", "", text)
    assert git.secrets_in(whole.encode()) == ""
    assert git.secrets_in(b"password: accuracy") == "DB_PASS"


def test_a_clone_runs_no_hook(repository: Path) -> None:
    hook = Path(".git/hooks/post-checkout")
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(f"#!/bin/sh\ntouch {repository}/hooked\n")
    hook.chmod(0o755)
    run("checkout", "--quiet", "-b", "other")
    assert Path("hooked").exists(), "the hook works"
    Path("hooked").unlink()
    git.clone_at(repository, git.working_tree().commit, repository.parent / "tree")
    assert not Path("hooked").exists()


def test_the_repository_of_a_git_hook_is_not_taken_for_ours(
    repository: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere.git"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(tmp_path / "elsewhere.index"))
    monkeypatch.setenv("GIT_LITERAL_PATHSPECS", "1")
    Path("params.yaml").write_text("train: 2\n")
    assert (git.working_tree().branch, git.working_tree().changed) == ("main", ["params.yaml"])
    monkeypatch.chdir(tmp_path)
    with pytest.raises(git.GitError):
        git.working_tree()


def test_git_is_asked_as_the_environment_sets_it_up_and_what_it_refuses_is_told(
    repository: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A repository of another user, as in a container of CI: `safe.directory` is in the environment."""
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")  # of git's own tests
    assert project_tree() is None
    assert (
        "kept without its commit and changes, as git says: fatal: detected dubious" in caplog.text
    )
    for name, value in (("COUNT", "1"), ("KEY_0", "safe.directory"), ("VALUE_0", str(repository))):
        monkeypatch.setenv(f"GIT_CONFIG_{name}", value)
    found = project_tree()
    assert found and found.branch == "main"
    caplog.clear()
    monkeypatch.chdir(repository.parent)
    assert project_tree() is None and not caplog.records, "no repository is no fault"


def test_a_commit_that_is_no_branch_s_is_fetched_whatever_protocol_is_set(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = git.working_tree().commit
    run("commit", "--quiet", "--allow-empty", "-m", "second")
    for name, value in (("COUNT", "1"), ("KEY_0", "protocol.version"), ("VALUE_0", "0")):
        monkeypatch.setenv(f"GIT_CONFIG_{name}", value)
    git.clone_at(repository, first, repository.parent / "tree")
    assert git.working_tree(repository.parent / "tree").commit == first
