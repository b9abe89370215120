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
from conftest import ROOT, run_python

import cgan
from cgan.files import write_bytes
from cgan.project import CSV

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


def test_completion_knows_the_commands() -> None:
    run = run_cgan(_CGAN_COMPLETE="complete_bash", COMP_WORDS="cgan re", COMP_CWORD="1")
    assert run.stdout.split() == ["registry", "reproduce", "report"]


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


def test_pages_on_a_port_that_is_taken_are_refused_with_the_option_for_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        run = run_cgan("ui", "--port", str(port), MLFLOW_TRACKING_URI="")
    assert (run.returncode, run.stdout) == (1, "")
    assert run.stderr.startswith(f"Error: port {port} ") and "--port" in run.stderr


def test_characters_that_the_locale_lacks_become_question_marks(project: Path) -> None:
    for name, source in (("dvc.yaml", ROOT / "dvc.yaml"), (CSV, project / "inbox/digits.csv")):
        write_bytes(project / name, source.read_bytes())
    posix = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "cgan.stages.validate"]
    run = subprocess.run(command, env={**os.environ, **posix}, capture_output=True, text=True)
    assert "8 ? 8 pixels" in run.stdout + run.stderr
    assert "Traceback" not in run.stderr
