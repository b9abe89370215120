"""`run_stage`: what a stage's process says, its exit status, what it refuses, and its progress."""

import errno
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

HEAD = """
import logging, os, signal, sys
from pathlib import Path
from cgan.errors import *
from cgan.stages.runner import run_stage
def main():
    logging.getLogger("cgan.stages.probe").info("working")
"""
TAIL = """
if __name__ == "__main__":
    run_stage(main)
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of the package with a stage `probe` to be written, and params.yaml."""
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "cgan", tmp_path / "cgan", ignore=ignore)
    shutil.copy(ROOT / "params.yaml", tmp_path)
    return tmp_path


def process(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """A process that takes `cgan` from this folder."""
    variables = {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1", "PYTHONUNBUFFERED": "1"}
    variables["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=240,
    )


def run(project: Path, body: str) -> subprocess.CompletedProcess[str]:
    """Run a stage, as DVC does, whose `main` has this body."""
    lines = "".join(f"    {line}\n" for line in body.splitlines())
    (project / "cgan/stages/probe.py").write_text(HEAD + lines + TAIL)
    return process(project, sys.executable, "-m", "cgan.stages.probe")


def test_a_stage_logs_plain_lines_ends_with_0_and_our_own_bugs_keep_their_traceback(
    project: Path,
) -> None:
    done = run(project, "pass")
    assert (done.returncode, done.stdout, done.stderr) == (0, "working\n", "")
    done = run(project, "assert 1 == 2, 'a bug'")
    assert (done.returncode, done.stdout) == (1, "working\n")
    assert "Traceback" in done.stderr and "AssertionError: a bug" in done.stderr


def test_a_python_without_our_packages_says_which_and_what_to_do(project: Path) -> None:
    code = "import sys; sys.path.append('.'); import cgan.stages"
    done = process(project, sys.executable, "-I", "-S", "-c", code)
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith(
        f"Error: {sys.executable} was started for this stage, but has no pydantic"
    )
    assert "source .venv/bin/activate" in line


FULL = f"OSError({errno.ENOSPC}, os.strerror({errno.ENOSPC}), 'models/x.safetensors')"


@pytest.mark.parametrize(
    ("error", "words"),
    [
        ("DataError('data.csv, row 7: 256 is outside 0–255.')", "data.csv, row 7: 256 is outside"),
        pytest.param("MemoryError", "out of memory (.*`train.batch_size`", id="f50 memory"),
        pytest.param(
            "RuntimeError('CUDA out of memory. Tried')",
            "out of memory (CUDA.*`train.device: cpu`",
            id="f50 CUDA",
        ),
        pytest.param(FULL, "models/x.safetensors: No space left", id="f54 disk"),
    ],
)
def test_f50_f54_what_the_user_or_the_machine_lacks_is_a_message_alone(
    project: Path, error: str, words: str
) -> None:
    done = run(project, f"raise {error}")
    assert (done.returncode, done.stdout) == (1, "working\n")
    said, _, advice = words.partition(".*")
    assert done.stderr.startswith(f"Error: {said}") and advice in done.stderr
    assert "Traceback" not in done.stderr


def test_f46_ctrl_c_ends_with_130_and_no_traceback(project: Path) -> None:
    # Not os.kill: on a busy machine a signal to the process may come when the stage has ended.
    done = run(project, "signal.raise_signal(signal.SIGINT)")
    assert done.returncode == 128 + signal.SIGINT
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("body", "name"),
    [
        ("Path('params.yaml').write_text('# other')", "params.yaml"),
        ("import cgan.files\nPath(cgan.files.__file__).write_text('# other')", "files.py"),
        # Changed before it is imported: the stage ran with a text that DVC never saw.
        ("Path('cgan/files.py').write_text('x = 1')\nimport cgan.files", "files.py"),
        ("Path('cgan/stages/render.py').write_text('# for this stage of no use')", ""),
        ("Path('README.md').write_text('new')", ""),
    ],
)
def test_f49_a_text_that_changes_under_a_running_stage_fails_it_unless_it_concerns_another(
    project: Path, body: str, name: str
) -> None:
    done = run(project, body)
    assert done.returncode == bool(name)
    assert done.stderr.startswith(f"Error: {name} changed while the stage ran" if name else "")
    assert name or not done.stderr
