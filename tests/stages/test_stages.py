"""`run_stage`: what a stage's process says, its exit status, and what it refuses."""

import errno
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import copy_code, ended

PROBE = """
import logging, os, signal, sys
from pathlib import Path
from cgan.base.errors import *
from cgan.stages.runner import run_stage
def main():
    logging.getLogger("cgan.stages.probe").info("working")
    {}
if __name__ == "__main__":
    run_stage(main)
"""
FULL = f"raise OSError({errno.ENOSPC}, os.strerror({errno.ENOSPC}), 'models/x.safetensors')"


def stage(folder: Path, body: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a stage, as DVC does, whose `main` has this body, with a copy of the package."""
    copy_code(folder)
    (folder / "params.yaml").touch()
    (folder / "cgan/stages/probe.py").write_text(PROBE.format(body))
    return ended(sys.executable, "-m", "cgan.stages.probe", cwd=folder, **env)


def test_a_stage_logs_plain_lines_and_a_bug_keeps_its_traceback(tmp_path: Path) -> None:
    done = stage(tmp_path, "pass")
    assert (done.returncode, done.stdout, done.stderr) == (0, "working\n", "")
    done = stage(tmp_path, "assert 1 == 2, 'a bug'")
    assert (done.returncode, done.stdout) == (1, "working\n")
    assert "Traceback" in done.stderr and "AssertionError: a bug" in done.stderr


@pytest.mark.parametrize(
    ("body", "code", "words", "advice"),
    [
        ("raise DataError('x.csv, row 7: 256')", 1, "Error: x.csv, row 7: 256", ""),
        ("raise MemoryError", 1, "Error: out of memory (", "`train.batch_size`"),
        ("raise RuntimeError('CUDA out of memory. T')", 1, "Error: out of memory (CUDA", "cpu`"),
        (FULL, 1, "Error: models/x.safetensors: No space left", "Free some space"),
        # Not os.kill: on a busy machine a signal to the process may come when the stage has ended.
        ("signal.raise_signal(signal.SIGINT)", 128 + signal.SIGINT, "", ""),
    ],
)
def test_what_the_user_or_the_machine_lacks_is_a_message_alone(
    tmp_path: Path, body: str, code: int, words: str, advice: str
) -> None:
    done = stage(tmp_path, body)
    assert (done.returncode, done.stdout) == (code, "working\n")
    assert done.stderr.startswith(words) and advice in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("body", "name"),
    [
        ("Path('params.yaml').write_text('# other')", "params.yaml"),
        (
            "import cgan.base.files; Path(cgan.base.files.__file__).write_text('# other')",
            "files.py",
        ),
        # Changed before it is imported: the stage ran with a text that DVC never saw.
        ("Path('cgan/base/git.py').write_text('x = 1'); import cgan.base.git", "git.py"),
        ("Path('cgan/stages/render.py').write_text('# for this stage of no use')", ""),
    ],
)
def test_a_text_that_changes_under_a_running_stage_fails_it(
    tmp_path: Path, body: str, name: str
) -> None:
    """Unless it concerns another stage."""
    done = stage(tmp_path, body)
    assert done.returncode == bool(name)
    assert done.stderr.startswith(f"Error: {name} changed while the stage ran" if name else "")
    assert name or not done.stderr
