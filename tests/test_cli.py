"""The `cgan` command as a program: version, completion, colours, and how fast its help comes."""

from __future__ import annotations

import importlib.metadata
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

import cgan
from cgan.files import write_bytes
from cgan.project import CSV
from cgan.reports.status import make_console

COLOUR = re.compile(r"\x1b\[(?:\d+;)*(?:[349][0-7]|[34]8)(?:;\d+)*m")


def run_cgan(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    """`cgan ARGUMENTS` as the installed command runs it."""
    code = "import sys; from cgan.cli import main; sys.argv[0] = 'cgan'; main()"
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT), **env},
        capture_output=True,
        text=True,
        check=False,
    )


def test_version_is_that_of_the_package_which_is_typed_for_its_users() -> None:
    run = run_cgan("--version")
    assert (run.returncode, run.stdout) == (0, f"cgan {cgan.__version__}\n")
    assert importlib.metadata.version("cgan") == cgan.__version__
    assert (Path(cgan.__file__).parent / "py.typed").is_file()


def test_completion_knows_the_commands_and_is_installed_for_a_shell(tmp_path: Path) -> None:
    run = run_cgan(_CGAN_COMPLETE="complete_bash", COMP_WORDS="cgan re", COMP_CWORD="1")
    assert run.stdout.split() == ["reproduce", "reevaluate", "report", "registry"]
    env = {"HOME": str(tmp_path), "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    run = run_cgan("--install-completion", "bash", **env)
    assert run.returncode == 0, run.stderr
    assert "_CGAN_COMPLETE=complete_bash" in (tmp_path / ".bash_completions/cgan.sh").read_text()
    assert ".bash_completions/cgan.sh" in (tmp_path / ".bashrc").read_text()


def test_help_is_coloured_on_a_terminal_and_no_color_is_respected_by_help_and_errors() -> None:
    assert COLOUR.search(run_cgan("--help", FORCE_COLOR="1").stdout)
    for arguments in (["--help"], ["draw", "--no-such-option"]):
        run = run_cgan(*arguments, FORCE_COLOR="1", NO_COLOR="1")
        assert run.stdout + run.stderr and not COLOUR.search(run.stdout + run.stderr)


@pytest.mark.parametrize("no_color", ["", "1"])
def test_no_color_is_respected_by_status(
    no_color: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", no_color)
    make_console().print("[green]promoted[/green]")
    assert bool(COLOUR.search(capsys.readouterr().out)) == (not no_color)


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from cgan.cli import main\n"
        "sys.argv = ['cgan', '--help']\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = ('torch', 'numpy', 'mlflow', 'pydantic', 'ruamel', 'yaml', 'pandas', 'PIL')\n"
        "assert not [name for name in heavy if name in sys.modules]\n"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", code], env=env, check=True, capture_output=True)


def test_pages_on_a_port_that_is_taken_are_refused_with_the_option_for_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        run = run_cgan("ui", "--port", str(port), MLFLOW_TRACKING_URI="")
    assert (run.returncode, run.stdout) == (1, "")
    assert run.stderr.startswith(f"Error: port {port} cannot be used (Address already in use).")
    assert "--port" in run.stderr


@pytest.mark.parametrize(
    ("module", "arguments", "said"),
    [
        ("cgan.cli", ["status"], "not in git ? 20"),
        ("cgan.stages.validate", [], "8 ? 8 pixels"),
    ],
)
def test_characters_that_the_locale_lacks_become_question_marks(
    module: str, arguments: list[str], said: str, project: Path
) -> None:
    for name, source in (("dvc.yaml", ROOT / "dvc.yaml"), (CSV, project / "inbox/digits.csv")):
        write_bytes(project / name, source.read_bytes())
    posix = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", module, *arguments]
    run = subprocess.run(command, env={**os.environ, **posix}, capture_output=True, text=True)
    assert said in run.stdout + run.stderr
    assert "Traceback" not in run.stderr
