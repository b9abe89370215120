"""The sources as a whole: their map, their size, their encoding."""

import ast
import re
import tomllib
from collections import Counter
from pathlib import Path

from conftest import ROOT
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


def test_the_map_names_each_package() -> None:
    page = (ROOT / "docs/architecture.md").read_text()
    for init in ROOT.glob("cgan/**/__init__.py"):
        package = str(init.parent.relative_to(ROOT))
        assert package in ("cgan", "cgan/pipeline") or f"`{package}`" in page


def test_text_is_written_and_read_as_utf8_in_every_locale() -> None:
    folders = ("cgan", "flows", "tools", "benchmarks")
    for path in [path for folder in folders for path in (ROOT / folder).rglob("*.py")]:
        for call in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute):
                named = {keyword.arg for keyword in call.keywords}
                mode = [str(a.value) for a in call.args if isinstance(a, ast.Constant)]
                text = call.func.attr in ("read_text", "write_text") or mode in map(list, "war")
                assert "encoding" in named or not (text or "text" in named), ast.unparse(call)


def test_no_module_is_longer_than_a_reader_s_patience() -> None:
    for path in [path for folder in ("cgan", "flows") for path in (ROOT / folder).rglob("*.py")]:
        assert path.read_text().count("\n") <= 450, path


# Lines of Python that each room may have. A feature pays for its lines with a deletion; where it cannot,
# raise the ceiling in a commit that says what that pays for.
CEILINGS = {
    "cgan": 220,
    "cgan/base": 672,
    "cgan/data": 1_783,
    "cgan/drawing": 738,
    "cgan/models": 1_326,
    "cgan/page": 634,
    "cgan/params": 514,
    "cgan/pipeline": 2_649,
    "cgan/privacy": 676,
    "cgan/quality": 2_452,
    "cgan/service": 321,
    "cgan/stages": 845,
    "cgan/training": 1_594,
    "cgan/utility": 825,
    "flows": 751,
    "tests": 12_500,
}
PAGE_LINES = 1_332  # of JavaScript, CSS and HTML
DOCS_WORDS = 12_000  # in README.md, CONTRIBUTING.md and docs/


def room_of(path: Path) -> str:
    """`cgan/quality` of a module below it; of the package's own modules `cgan`."""
    top, *below = path.relative_to(ROOT).parts
    return f"{top}/{below[0]}" if top == "cgan" and len(below) > 1 else top


def test_no_room_is_larger_than_its_ceiling() -> None:
    sizes = Counter[str]()
    for path in [path for top in ("cgan", "flows", "tests") for path in (ROOT / top).rglob("*.py")]:
        sizes[room_of(path)] += path.read_text().count("\n")
    assert sizes.keys() == CEILINGS.keys()
    pages = [path for end in ("js", "css", "html") for path in (ROOT / "cgan").rglob(f"*.{end}")]
    sizes["the pages"] = sum(path.read_text().count("\n") for path in pages)
    texts = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]
    sizes["words in the docs"] = sum(len(path.read_text().split()) for path in texts)
    ceilings = CEILINGS | {"the pages": PAGE_LINES, "words in the docs": DOCS_WORDS}
    over = {room: (size, ceilings[room]) for room, size in sizes.items() if size > ceilings[room]}
    assert not over, "raise a ceiling in a commit that says what it pays for"


def test_constraints_pin_what_make_installs_but_for_torch() -> None:
    pins = re.findall(r"^(\S+)==(\S+)", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    makefile = (ROOT / "Makefile").read_text()
    extras = ",".join(re.findall(r"^(?:EXTRAS := |ALL := \S+?,)(.*)$", makefile, re.MULTILINE))
    wanted = [project["optional-dependencies"][extra] for extra in extras.split(",")]
    for text in sum(wanted, project["dependencies"]):
        needed = Requirement(text)
        found = [version for name, version in pins if name == canonicalize_name(needed.name)]
        assert bool(found) == (needed.name != "torch"), needed
        assert all(needed.specifier.contains(version) for version in found), needed
