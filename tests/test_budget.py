"""tools/budget.py in a small repository of its own."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from conftest import ROOT


def budget(folder: Path, *option: str) -> tuple[int, list[str]]:
    subprocess.run(["git", "add", "."], cwd=folder, check=True)
    command = [sys.executable, "tools/budget.py", *option]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    return done.returncode, done.stdout.splitlines()


def test_what_grows_is_refused_and_the_budget_only_falls(tmp_path: Path) -> None:
    code, prose = tmp_path / "cgan/data/rows.py", tmp_path / "README.md"
    for path in (code, tmp_path / "tools/budget.py"):
        path.parent.mkdir(parents=True)
    shutil.copy(ROOT / "tools/budget.py", tmp_path / "tools")
    prose.write_text("three words here\n")
    code.write_text('"""Rows."""\n\n# Two.\nx = 1\ny = 2\n')
    subprocess.run(["git", "init", "--quiet", "."], cwd=tmp_path, check=True)
    assert budget(tmp_path, "--write") == (0, [])
    table = tmp_path / "tools/budget.toml"
    assert '"cgan/data" = { files = 1, lines = 5, code = 2, statements = 2 }' in table.read_text()
    assert '"prose" = { files = 1, words = 3 }' in table.read_text()
    code.write_text("x = 1; y = 2; z = 3\n")
    (tmp_path / "cgan/new.py").write_text("")
    failed, lines = budget(tmp_path)
    assert failed and "cgan/data, statements: 3, at most 2" in lines
    assert "cgan, files: 1, at most 0" in lines and not any("code" in line for line in lines)
    (tmp_path / "cgan/new.py").unlink()
    code.write_text("x = 1\n")
    prose.write_text("many more words than there were\n")
    assert budget(tmp_path, "--lower") == (1, ["prose, words: 6, at most 3"])
    assert '"cgan/data" = { files = 1, lines = 1, code = 1, statements = 1 }' in table.read_text()
    assert '"prose" = { files = 1, words = 3 }' in table.read_text()
