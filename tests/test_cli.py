"""The `cgan` command as a program: version, completion, colours, and how fast its help comes."""

import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, ended, run_python
from PIL import Image
from typer.main import get_command, get_group

import cgan
from cgan.cli import app
from cgan.errors import CganError
from cgan.files import write_bytes
from cgan.project import CSV

COLOUR = re.compile(r"\x1b\[(?:\d+;)*(?:[349][0-7]|[34]8)(?:;\d+)*m")


def run_cgan(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    """`cgan ARGUMENTS` as the installed command runs it."""
    code = "import sys; from cgan.cli import main; sys.argv[0] = 'cgan'; main()"
    return ended(sys.executable, "-c", code, *arguments, cwd=Path(), **env)


def test_version_is_that_of_the_package_which_is_typed_for_its_users() -> None:
    run = run_cgan("--version")
    assert (run.returncode, run.stdout) == (0, f"cgan {cgan.__version__}\n")
    assert (Path(cgan.__file__).parent / "py.typed").is_file()


def test_completion_knows_the_commands() -> None:
    run = run_cgan(_CGAN_COMPLETE="complete_bash", COMP_WORDS="cgan re", COMP_CWORD="1")
    assert sorted(run.stdout.split()) == ["registry", "report"]


def test_colours_are_shown_on_a_terminal_unless_no_color_is_set() -> None:
    assert COLOUR.search(run_cgan("--help", FORCE_COLOR="1").stdout)
    run = run_cgan("draw", "--no-such-option", FORCE_COLOR="1", NO_COLOR="1")
    assert run.stderr and not COLOUR.search(run.stdout + run.stderr)


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


ANYWHERE = {"draw", "serve", "card", "init", "validate"}
ARGUMENTS = {
    "preset": ["fast"],
    "compare": ["a", "b"],
    "split": ["parts"],
    "reproduce": ["champion"],
    "registry promote": ["1", "--why", "w"],
    "registry rollback": ["--why", "w"],
}


def commands(group: Any, name: str = "") -> list[str]:
    inside = getattr(group, "commands", {}).items()
    found = [one for key, each in inside for one in commands(each, f"{name} {key}")]
    return found or [name.strip()]


COMMANDS = set(commands(get_command(app)))


@pytest.mark.parametrize("command", sorted(COMMANDS - ANYWHERE))
def test_outside_a_project_every_command_says_the_same_and_makes_nothing(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DVC_ROOT", raising=False)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CganError) as told:
        app([*command.split(), *ARGUMENTS.get(command, [])], standalone_mode=False)
    assert str(tmp_path) in str(told.value) and "dvc.yaml" in str(told.value)
    assert list(tmp_path.iterdir()) == []


def test_validate_outside_a_project_says_how_to_make_the_params_that_it_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, side in (("cat", 10), ("dog", 20)):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        Image.new("L", (side, side)).save(tmp_path / "pictures" / name / "1.png")
    with pytest.raises(CganError, match=r"`data\.height: \d+`(.|\n)*`cgan init FOLDER`"):
        app(["validate", "pictures"], standalone_mode=False)
    (tmp_path / "x.csv").touch()
    with pytest.raises(CganError, match=r"first line is blank(?!.*cgan init)"):
        app(["validate", "x.csv"], standalone_mode=False)


def test_the_help_shows_fourteen_commands_in_groups_with_examples_and_names_the_rest() -> None:
    help_ = run_cgan("--help", COLUMNS="80").stdout
    groups = re.findall(r"─ ([\w ]+)[:?] cgan (\w+)", help_)
    assert [name for name, _ in groups] == ["Draw", "Your data", "How good is it", "Production"]
    shown = set(re.findall(r"(?m)^│ (\w+) ", help_))
    assert {example for _, example in groups} <= shown and len(shown) <= 14
    assert "─ Commands" not in help_, "each is in a group"
    below = set(re.findall(r"`cgan\s+(\w+)`", help_.rpartition("╯")[2]))
    assert shown | below == set(get_group(app).commands), "the rare ones stand below"


def test_pages_on_a_port_that_is_taken_are_refused_with_the_option_for_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dvc.yaml").touch()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        run = run_cgan("ui", "--port", str(port), MLFLOW_TRACKING_URI="")
    assert (run.returncode, run.stdout) == (1, "")
    assert run.stderr.startswith(f"Error: port {port} ") and "--port" in run.stderr


def test_characters_that_the_locale_lacks_become_question_marks(project: Path) -> None:
    for name, source in (("dvc.yaml", ROOT / "dvc.yaml"), (CSV, project / "inbox/digits.csv")):
        write_bytes(project / name, source.read_bytes())
    posix = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    run = ended(sys.executable, "-m", "cgan.stages.validate", cwd=project, **posix)
    assert "8 ? 8 pixels" in run.stdout + run.stderr
    assert "Traceback" not in run.stderr
