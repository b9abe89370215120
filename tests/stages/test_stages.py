"""`run_stage`: what a stage's process says, its exit status, and what it refuses."""

from __future__ import annotations

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


def run(project: Path, body: str) -> subprocess.CompletedProcess[str]:
    """Run a stage, as DVC does, whose `main` has this body."""
    lines = "".join(f"    {line}\n" for line in body.splitlines())
    (project / "cgan/stages/probe.py").write_text(HEAD + lines + TAIL)
    environment = {**os.environ, "PYTHONPATH": str(project), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        [sys.executable, "-m", "cgan.stages.probe"],
        cwd=project,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_stage_logs_plain_lines_to_stdout_and_ends_with_0(project: Path) -> None:
    done = run(project, "pass")
    assert (done.returncode, done.stdout, done.stderr) == (0, "working\n", "")


@pytest.mark.parametrize("command", ["cgan.stages.probe", "cgan.cli report"])
@pytest.mark.parametrize("words", [">&- 2>&-", ">&-", "> /dev/full", "| head -c 1"])
def test_f94_words_that_nobody_can_read_end_nothing_and_no_traceback_is_left(
    project: Path, command: str, words: str
) -> None:
    lines = "".join(f"    logging.info('line %s', {n})\n" for n in range(200))
    (project / "cgan/stages/probe.py").write_text(HEAD + lines + "    Path('end').touch()\n" + TAIL)
    environment = {**os.environ, "PYTHONPATH": str(project), "PYTHONUNBUFFERED": "1"}
    done = subprocess.run(
        ["bash", "-c", f"{sys.executable} -m {command} {words}"],
        cwd=project,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "Traceback" not in done.stderr and "Logging error" not in done.stderr, done.stderr
    assert (project / "end").exists() == (command == "cgan.stages.probe")


def test_f94_no_memory_at_the_command_line_is_one_message() -> None:
    script = """
import sys
from cgan import cli
from cgan import project

def starve():
    raise MemoryError
project.project_root = starve
sys.argv = ["cgan", "track", "flush"]
cli.main()
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("Error: out of memory. ")


def test_a_python_without_our_packages_says_which_and_what_to_do(project: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", "import sys; sys.path.append('.'); import cgan.stages"],
        cwd=project,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"Error: {sys.executable} was started for this stage, and has no yaml")
    assert "source .venv/bin/activate" in line


@pytest.mark.parametrize("kind", ["CganError", "ParamsError", "DataError", "TrainingError"])
def test_an_error_of_ours_is_its_message_alone(project: Path, kind: str) -> None:
    done = run(project, f"raise {kind}('data.csv, row 7: 256 is outside 0–255.')")
    assert done.returncode == 1
    assert done.stderr == "Error: data.csv, row 7: 256 is outside 0–255.\n"
    assert done.stdout == "working\n"


def test_our_own_bugs_keep_their_traceback(project: Path) -> None:
    done = run(project, "assert 1 == 2, 'a bug'")
    assert done.returncode == 1
    assert "Traceback" in done.stderr and "AssertionError: a bug" in done.stderr


@pytest.mark.parametrize(
    "body",
    [
        "raise MemoryError",
        "raise RuntimeError('DefaultCPUAllocator: can\\'t allocate memory: you tried')",
        "raise RuntimeError('CUDA out of memory. Tried to allocate 2 GiB')",
    ],
)
def test_f50_exhausted_memory_is_told_with_advice(project: Path, body: str) -> None:
    done = run(project, body)
    assert done.returncode == 1 and done.stderr.startswith("Error: out of memory (")
    assert "`batch_size`" in done.stderr and "Traceback" not in done.stderr


def test_f54_a_full_disk_is_told_with_the_file_and_advice(project: Path) -> None:
    number = errno.ENOSPC
    done = run(project, f"raise OSError({number}, os.strerror({number}), 'models/x.safetensors')")
    assert done.returncode == 1
    assert done.stderr.startswith("Error: models/x.safetensors: cannot be written (No space left")
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
        ("Path('params.yaml').unlink()", "params.yaml"),
        ("import cgan.files\nPath(cgan.files.__file__).write_text('# other')", "files.py"),
        ("Path(__file__).write_text('# the stage itself')", "probe.py"),
        # Changed before it is imported: the stage ran with a text that DVC never saw.
        ("Path('cgan/files.py').write_text('x = 1')\nimport cgan.files", "files.py"),
    ],
)
def test_f49_a_text_that_changes_under_a_running_stage_fails_it(
    project: Path, body: str, name: str
) -> None:
    done = run(project, body)
    assert done.returncode == 1
    assert done.stderr.startswith(f"Error: {name} changed while the stage ran")
    assert "Run `dvc repro` again" in done.stderr


@pytest.mark.parametrize(
    "body",
    [
        "Path('params.yaml').write_bytes(Path('params.yaml').read_bytes())",
        "Path('cgan/stages/render.py').write_text('# a module that this stage has no use for')",
        "Path('README.md').write_text('new')",
    ],
)
def test_f49_changes_that_concern_another_stage_are_let_pass(project: Path, body: str) -> None:
    done = run(project, body)
    assert (done.returncode, done.stderr) == (0, "")


def test_f49_the_error_of_the_stage_itself_comes_first(project: Path) -> None:
    done = run(project, "Path('params.yaml').write_text('')\nraise DataError('no data')")
    assert done.stderr == "Error: no data\n"


def test_a_stage_that_refuses_leaves_its_last_outputs(tmp_path: Path) -> None:
    """DVC removes a stage's outputs, a file and a folder here, before it starts the stage."""
    shutil.copytree(ROOT / "cgan", tmp_path / "cgan", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "params.yaml", tmp_path)
    (tmp_path / "cgan/stages/probe.py").write_text(
        HEAD
        + """
    text = Path("in.txt").read_text()
    Path("folder/deep").mkdir(parents=True)
    Path("folder/deep/a").write_text(text)
    Path("out.txt").write_text(text)
    if text == "bad":
        Path("folder/stranger").write_text(text)
        raise DataError("in.txt is bad.")
"""
        + TAIL
    )
    (tmp_path / "dvc.yaml").write_text(
        "stages: {probe: {cmd: python -m cgan.stages.probe, deps: [in.txt], outs: [out.txt, folder]}}"
    )
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    environment.pop("PYTHONPATH", None)

    def dvc(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "dvc", *arguments],
            cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip

    dvc("init", "--no-scm", "--quiet")
    (tmp_path / "in.txt").write_text("bad")
    first = dvc("repro")
    assert first.returncode and "Error: in.txt is bad." in first.stderr, "nothing to bring back yet"
    (tmp_path / "in.txt").write_text("good")
    assert dvc("repro").returncode == 0
    (tmp_path / "in.txt").write_text("bad")
    refused = dvc("repro")
    assert refused.returncode and "Error: in.txt is bad." in refused.stderr
    assert "Traceback" not in refused.stderr
    files = {path for path in (tmp_path / "folder").rglob("*") if path.is_file()}
    assert files == {tmp_path / "folder/deep/a"}
    assert (tmp_path / "folder/deep/a").read_text() == (tmp_path / "out.txt").read_text() == "good"
    (tmp_path / "in.txt").write_text("good")
    assert "didn't change" in dvc("repro").stdout
