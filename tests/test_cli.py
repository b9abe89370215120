"""The `cgan` command as a program: version, help, and what it refuses."""

import re
import sys
from pathlib import Path
from typing import Any

from conftest import many, run_python
from PIL import Image
from typer.main import get_command

from cgan.cli import app

CGAN = (sys.executable, "-m", "cgan.cli")
ANYWHERE = {"draw", "serve", "card", "init", "validate"}
ARGUMENTS = {
    "preset": ["fast"],
    "compare": ["a", "b"],
    "registry promote": ["1", "--why", "w"],
    "registry rollback": ["--why", "w"],
}


def test_help_imports_nothing_heavy(tmp_path: Path) -> None:
    code = (
        "import sys; from cgan.cli import main\n"
        "sys.argv = ['cgan', '--help']\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = ('torch', 'numpy', 'mlflow', 'pydantic', 'ruamel', 'yaml', 'pandas', 'PIL')\n"
        "assert not [name for name in heavy if name in sys.modules]\n"
    )
    run_python(code, tmp_path)


def commands(group: Any, name: str = "") -> list[str]:
    inside = getattr(group, "commands", {}).items()
    found = [one for key, each in inside for one in commands(each, f"{name} {key}")]
    return found or [name.strip()]


def test_outside_a_project_every_command_says_so_and_makes_nothing(tmp_path: Path) -> None:
    names = sorted(set(commands(get_command(app))) - ANYWHERE)
    ended = many([(tmp_path, [*name.split(), *ARGUMENTS.get(name, [])]) for name in names])
    for name, (code, words) in zip(names, ended, strict=True):
        assert code == 1 and words.startswith("Error: "), f"{name}: {words}"
        assert str(tmp_path) in words and "dvc.yaml" in words, f"{name}: {words}"
    assert list(tmp_path.iterdir()) == []


def test_validate_outside_a_project_says_how_to_make_params(tmp_path: Path) -> None:
    for name, side in (("cat", 10), ("dog", 20)):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        Image.new("L", (side, side)).save(tmp_path / "pictures" / name / "1.png")
    (tmp_path / "x.csv").touch()
    calls = [(tmp_path, ["validate", name]) for name in ("pictures", "x.csv")]
    (pictures, unlike), (csv, blank) = many(calls)
    assert (pictures, csv) == (1, 1)
    assert re.search(r"`data\.height: \d+`(.|\n)*`cgan init FOLDER`", unlike)
    assert "first line is blank" in blank and "cgan init" not in blank
