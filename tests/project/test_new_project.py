"""`cgan init`: what the new project holds, and what is refused. From the wheel: tests/test_wheel.py."""

import configparser
import shutil
import tomllib
from pathlib import Path

import pytest
import yaml
from conftest import ROOT

from cgan.errors import CganError
from cgan.git import git
from cgan.pipeline.project.new_project import FIRST_COMMIT, TEMPLATE_FILES, make_project


def make(out: str) -> str:
    said: list[str] = []
    make_project(Path(out), said.append)
    return "\n".join(said)


@pytest.fixture(autouse=True)
def gitconfig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of a user whom git knows; an empty working directory beside it."""
    home, here = tmp_path / "home", tmp_path / "here"
    home.mkdir()
    here.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.chdir(here)
    (home / ".gitconfig").write_text("[user]\nname = Ada\nemail = ada@localhost\n")
    return home / ".gitconfig"


def settings(path: Path) -> dict[str, str]:
    found = configparser.ConfigParser()
    found.read_string("\n".join(line.strip() for line in path.read_text().splitlines()))
    return dict(found["core"])


def test_a_new_project_is_the_repository_s_without_code_and_committed() -> None:
    assert "deep/new: a project, with its first commit." in make("deep/new")
    new, files = Path("deep/new"), [ROOT / name for name in TEMPLATE_FILES]
    for file in files:
        same = (new / file.relative_to(ROOT)).read_bytes() == file.read_bytes()
        assert same == (file.name != "dvc.yaml")
    assert [path.name for path in Path("deep").iterdir()] == ["new"]
    of_repository, of_project = (
        yaml.safe_load((at / "dvc.yaml").read_text()) for at in (ROOT, new)
    )
    for stage in of_repository["stages"].values():
        stage["deps"] = [dep for dep in stage["deps"] if not dep.startswith("cgan/")]
        assert stage["deps"], "DVC restores no stage that has none"
    assert of_project == of_repository
    assert settings(new / ".dvc/config").items() <= settings(ROOT / ".dvc/config").items()
    committed = set(git("ls-files", folder=new).decode().split())
    assert {str(file.relative_to(ROOT)) for file in files} < committed
    assert git("log", "--format=%an %s", folder=new).decode() == f"Ada {FIRST_COMMIT}\n"
    assert git("status", "--porcelain", folder=new) == b""


def test_where_git_knows_nobody_all_is_there_and_the_command_is_said(gitconfig: Path) -> None:
    gitconfig.write_text('[user]\nname = ""\n')
    said = make("the new")
    assert f"`git -C 'the new' commit -m '{FIRST_COMMIT}'`" in said and "cd 'the new' &&" in said
    assert "A  dvc.yaml" in git("status", "--porcelain", folder=Path("the new")).decode()


def test_a_folder_that_holds_something_is_refused_and_a_failure_leaves_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    Path("full").mkdir()
    Path("full/file").touch()
    for out, words in (("full", "full: exists and is not empty"), (".", "you are in that folder")):
        with pytest.raises(CganError, match=words):
            make(out)
    git_alone = Path("bin")
    git_alone.mkdir()
    found = shutil.which("git")
    assert found
    (git_alone / "git").write_text(
        f'#!/bin/sh\ncase " $* " in *" add "*) exit 1;; esac\nexec {found} "$@"\n'
    )
    (git_alone / "git").chmod(0o755)
    monkeypatch.setenv("PATH", f"{git_alone.resolve()}:/usr/bin:/bin")
    with pytest.raises(CganError):
        make("new")
    assert sorted(path.name for path in Path().iterdir()) == ["bin", "full"]


def test_the_wheel_gets_the_files_of_a_project() -> None:
    built = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    assert {name for names in built["data-files"].values() for name in names} == set(TEMPLATE_FILES)
    for folder, names in built["data-files"].items():
        below = Path(folder).relative_to("share/cgan")
        assert all(Path(name).parent == below for name in names)
