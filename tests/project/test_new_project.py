"""`cgan init`: what the new project holds, and what is refused. From the wheel: tests/test_wheel.py."""

from pathlib import Path

import pytest
import yaml
from conftest import ROOT, git

from cgan.base.errors import CganError
from cgan.pipeline.new_project import FIRST_COMMIT, TEMPLATE_FILES, make_project


def make(out: str) -> str:
    return make_project(Path(out))


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


def test_a_new_project_is_ours_without_code_and_committed() -> None:
    assert "deep/new: a project, with its first commit." in make("deep/new")
    new = Path("deep/new")
    for name in TEMPLATE_FILES:
        same = (new / name).read_bytes() == (ROOT / name).read_bytes()
        assert same == (name != "dvc.yaml")
    assert list(Path("deep").iterdir()) == [new]
    ours, of_project = (yaml.safe_load((at / "dvc.yaml").read_text()) for at in (ROOT, new))
    for stage in ours["stages"].values():
        stage["deps"] = [dep for dep in stage["deps"] if not dep.startswith("cgan/")]
        assert stage["deps"], "DVC restores no stage that has none"
    assert of_project == ours
    assert set(TEMPLATE_FILES) < set(git(new, "ls-files").split())
    assert git(new, "log", "--format=%an %s") == f"Ada {FIRST_COMMIT}"
    assert git(new, "status", "--porcelain") == ""


def test_where_git_knows_nobody_the_command_is_said(gitconfig: Path) -> None:
    gitconfig.write_text('[user]\nname = ""\n')
    said = make("the new")
    assert f"`git -C 'the new' commit -m '{FIRST_COMMIT}'`" in said and "cd 'the new' &&" in said
    assert "A  dvc.yaml" in git(Path("the new"), "status", "--porcelain")


def test_a_folder_that_holds_something_is_refused() -> None:
    Path("full").mkdir()
    Path("full/file").touch()
    for out, words in (("full", "full: exists and is not empty"), (".", "you are in that folder")):
        with pytest.raises(CganError, match=words):
            make(out)
    assert list(Path().rglob("*")) == [Path("full"), Path("full/file")]
