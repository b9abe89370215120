"""What a module of this package imports, read from its source."""

from __future__ import annotations

import ast
import importlib.util
from pathlib import Path

from conftest import ROOT


def source_of(module: str) -> Path | None:
    """The file of a module of this package, relative to the top folder; None if there is none."""
    path = ROOT.joinpath(*module.split("."))
    for found in (path.with_suffix(".py"), path / "__init__.py"):
        if found.is_file():
            return found.relative_to(ROOT)
    return None


def imports_of(module: str) -> set[str]:
    """The modules of this package that `module` imports, inside functions too. Those named `__init__`
    are left out: they hold a docstring, and no code that a result hangs on."""
    source = source_of(module)
    assert source, f"{module} has no source"
    names = set()
    for node in ast.walk(ast.parse((ROOT / source).read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            origin = "." * node.level + (node.module or "")
            if node.level:
                origin = importlib.util.resolve_name(origin, module.rpartition(".")[0])
            names |= {origin, *(f"{origin}.{alias.name}" for alias in node.names)}
    ours = {name: source_of(name) for name in names if name.split(".")[0] == "cgan"}
    return {name for name, path in ours.items() if path and path.name != "__init__.py"}


def closure(module: str, without: set[str] | None = None) -> set[str]:
    """`module` and all that it imports, except `without`."""
    seen: set[str] = set()
    waiting = {module}
    while waiting:
        name = waiting.pop()
        seen.add(name)
        waiting |= imports_of(name) - seen - (without or set())
    return seen
