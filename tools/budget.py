"""The size of each package against tools/budget.toml, a budget that only falls.

Without an option it fails where something has grown. `--lower` writes today's numbers where they are smaller,
`--write` all of them. Code lines are not blank, comment or docstring; a docstring is no statement either.
"""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from collections import Counter
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
TABLE = ROOT / "tools/budget.toml"
HEAD = "# At most so much. `python tools/budget.py --lower` lowers it; a rise is an edit by hand.\n"
ROWS = {"tests": "tests", "benchmarks": "benchmarks and tools", "tools": "benchmarks and tools"}


def measure(path: Path) -> tuple[list[str], dict[str, int]]:
    """The rows of the table in which a file counts, and for how much."""
    text, top = (ROOT / path).read_text(encoding="utf-8"), path.parts[0]
    if path.suffix == ".md":
        return ["prose"], {"words": len(text.split())}
    if path.suffix != ".py":
        return ["pages"], {"lines": text.count("\n")}
    nodes = list(ast.walk(ast.parse(text)))
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    docs = [n.body[0] for n in nodes if isinstance(n, documented) and ast.get_docstring(n)]
    prose = {n for doc in docs for n in range(doc.lineno, (doc.end_lineno or 0) + 1)}
    lines = [line.strip() for line in text.splitlines()]
    code = sum(bool(s) and s[0] != "#" and n not in prose for n, s in enumerate(lines, 1))
    statements = sum(isinstance(node, ast.stmt) for node in nodes) - len(docs)
    rows = [ROWS[top]] if top in ROWS else ["cgan and flows", path.parent.as_posix()]
    return rows, {"lines": len(lines), "code": code, "statements": statements}


def main() -> None:
    option = sys.argv[1] if len(sys.argv) > 1 else ""
    patterns = ["*.py", "cgan/*.js", "cgan/*.css", "cgan/*.html", "docs/*.md", ":!docs/*.py"]
    command = ["git", "ls-files", *patterns, "README.md", "CONTRIBUTING.md", ":!docs/log.md"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, encoding="utf-8", check=True)
    sizes: dict[str, Counter[str]] = {}
    for path in filter(Path.is_file, map(ROOT.joinpath, listed.stdout.splitlines())):
        rows, found = measure(path.relative_to(ROOT))
        for row in rows:
            sizes.setdefault(row, Counter()).update(files=1, **found)
    budget: dict[str, Any] = (
        sizes if option == "--write" else tomllib.loads(TABLE.read_text(encoding="utf-8"))
    )
    if option in ("--write", "--lower"):
        least = [
            f'"{row}" = {{ {", ".join(f"{k} = {min(v, sizes[row][k])}" for k, v in most.items())} }}\n'
            for row, most in sorted(budget.items())
            if row in sizes
        ]
        TABLE.write_text(HEAD + "".join(least), encoding="utf-8")
    for row, found in sizes.items():
        for what, number in found.items():
            if number > (most := budget.get(row, {}).get(what, 0)):
                print(f"{row}, {what}: {number:,}, at most {most:,}")
                option = "grown"
    if option == "grown":
        sys.exit("Delete as much there, or raise tools/budget.toml by hand and say why.")


if __name__ == "__main__":
    main()
