"""tools/budget.py in a small repository of its own."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    (tmp_path / "tools").mkdir()
    (tmp_path / "cgan/data").mkdir(parents=True)
    shutil.copy(ROOT / "tools/budget.py", tmp_path / "tools")
    (tmp_path / "README.md").write_text("three words here\n")
    (tmp_path / "cgan/data/rows.py").write_text('"""Rows."""\n\n# Two.\nx = 1\ny = 2\n')
    subprocess.run(["git", "init", "--quiet", "."], cwd=tmp_path, check=True)
    assert budget(tmp_path, "--write") == (0, "")
    return tmp_path


def budget(folder: Path, *option: str) -> tuple[int, str]:
    subprocess.run(["git", "add", "."], cwd=folder, check=True)
    command = [sys.executable, "tools/budget.py", *option]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


def row(folder: Path, name: str) -> str:
    lines = (folder / "tools/budget.toml").read_text().splitlines()
    return next(line for line in lines if line.startswith(f'"{name}" = '))


def test_what_grows_beyond_the_budget_is_refused_with_its_numbers(repository: Path) -> None:
    assert row(repository, "cgan/data").endswith(
        "{ files = 1, lines = 5, code = 2, statements = 2 }"
    )
    assert row(repository, "prose").endswith("{ files = 1, words = 3 }")
    assert budget(repository) == (0, "")
    (repository / "cgan/data/rows.py").write_text("x = 1; y = 2; z = 3\n")
    code, words = budget(repository)
    assert code == 1 and "cgan/data, statements: 3, at most 2" in words
    assert "cgan and flows, statements: 3, at most 2" in words and "lines" not in words
    (repository / "cgan/data/rows.py").write_text("x = 1\n")
    (repository / "cgan/new").mkdir()
    (repository / "cgan/new/rows.py").write_text("y = 2\n")
    code, words = budget(repository)
    assert code == 1 and "cgan/new, files: 1, at most 0" in words


def test_the_budget_is_lowered_and_never_raised(repository: Path) -> None:
    (repository / "README.md").write_text("many more words than there were\n")
    (repository / "cgan/data/rows.py").write_text("x = 1\n")
    code, words = budget(repository, "--lower")
    assert code == 1 and words.startswith("prose, words: 6, at most 3\n")
    assert row(repository, "cgan/data").endswith(
        "{ files = 1, lines = 1, code = 1, statements = 1 }"
    )
    assert row(repository, "prose").endswith("{ files = 1, words = 3 }")
