"""Writes the map of the code into docs/architecture.md: a line a file, from its docstring.

python tools/code_map.py    (a test says when it is due)
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs/architecture.md"
BEGIN, END = "<!-- map: tools/code_map.py writes this -->", "<!-- end of the map -->"


def code_map() -> str:
    """A list a package: its purpose, then its modules."""
    lines = []
    for init in sorted((*ROOT.glob("cgan/**/__init__.py"), *ROOT.glob("flows/__init__.py"))):
        package = init.parent.relative_to(ROOT).as_posix()
        lines += ["", f"**`{package}/`** {first_paragraph(init)}", ""]
        for module in sorted(init.parent.glob("*.py")):
            if module != init and not module.name.startswith("__"):
                lines.append(f"- `{module.name}`: {first_paragraph(module)}")
    return "\n".join(lines[1:])


def first_paragraph(path: Path) -> str:
    words = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return re.sub(r"\s+", " ", words.split("\n\n")[0])


def replaced(page: str) -> str:
    head, rest = page.split(BEGIN)
    return f"{head}{BEGIN}\n\n{code_map()}\n\n{END}{rest.split(END)[1]}"


if __name__ == "__main__":
    PAGE.write_text(replaced(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
