"""What a module of this package imports, by import-linter's graph."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import grimp
from conftest import ROOT


def source_of(module: str) -> Path:
    """Its file, relative to the top folder, unless it is a package."""
    return Path(*module.split(".")).with_suffix(".py")


def closure(module: str, without: Iterable[str] = ()) -> set[str]:
    """`module` and all that it imports, inside functions too, except `without`. Packages themselves are left
    out: they hold a docstring, and no code that a result hangs on."""
    graph = grimp.build_graph("cgan", cache_dir=None)
    for name in graph.modules & set(without):
        graph.remove_module(name)
    found = graph.find_upstream_modules(module) | {module}
    return {name for name in found if (ROOT / source_of(name)).is_file()}
