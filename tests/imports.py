"""What a module of this package imports, by import-linter's graph."""

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
    graph = grimp.build_graph("cgan", cache_dir=None, exclude_type_checking_imports=True)
    left_out = set(without)
    # Methods that show and divide images. Whoever calls them, and is a stage, imports these, too.
    for shown in ("cgan.contact_sheet", "cgan.notebook", "cgan.splitting"):
        graph.remove_import(importer="cgan.images", imported=shown)
    found, waiting = set[str](), {module}
    while waiting:
        name = waiting.pop()
        if (ROOT / source_of(name)).is_file() and name not in left_out | found:
            found.add(name)
            waiting |= graph.find_modules_directly_imported_by(name)
    return found
