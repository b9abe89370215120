"""The `cgan` command as a program: what it refuses outside a project."""

import re
import tomllib
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from conftest import ROOT, many
from typer.main import get_command

from cgan.base.commands import run_app
from cgan.cli import app

ANYWHERE = {"draw", "serve", "card", "init", "validate"}
ARGUMENTS = {
    "preset": ["fast"],
    "compare": ["a", "b"],
    "registry promote": ["1", "--why", "w"],
    "registry rollback": ["--why", "w"],
}


def commands(group: Any, name: str = "") -> list[str]:
    inside = getattr(group, "commands", {}).items()
    found = [one for key, each in inside for one in commands(each, f"{name} {key}")]
    return found or [name.strip()]


def test_outside_a_project_commands_say_so_and_make_nothing(tmp_path: Path) -> None:
    names = sorted(set(commands(get_command(app))) - ANYWHERE)
    ended = many([(tmp_path, [*name.split(), *ARGUMENTS.get(name, [])]) for name in names])
    for name, (code, words) in zip(names, ended, strict=True):
        assert code == 1 and words.startswith("Error: "), f"{name}: {words}"
        assert str(tmp_path) in words and "dvc.yaml" in words, f"{name}: {words}"
    assert list(tmp_path.iterdir()) == []


def test_a_package_that_is_missing_is_told_with_its_extra(
    capsys: pytest.CaptureFixture[str],
) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    packages = {
        extra: {re.split(r"[^\w-]", line)[0].replace("-", "_") for line in lines}
        for extra, lines in project["optional-dependencies"].items()
    }
    for extra in ("pipeline", "serve", "sweep"):
        for name in packages[extra] - (packages["pipeline"] if extra != "pipeline" else set()):
            with pytest.raises(SystemExit):
                run_app(Mock(side_effect=ModuleNotFoundError(name=name)))
            assert (
                f"no package {name} here: `pip install 'cgan[{extra}]'`" in capsys.readouterr().err
            )
