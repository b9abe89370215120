"""The map of the code in docs/architecture.md."""

from __future__ import annotations

import ast

from conftest import ROOT

from tools import code_map


def test_the_map_has_each_file_with_its_docstring() -> None:
    page = code_map.PAGE.read_text()
    assert code_map.replaced(page) == page, "`python tools/code_map.py` writes it anew"


def test_each_file_says_in_a_few_words_what_it_is() -> None:
    for folder in ("cgan", "flows"):
        for path in (ROOT / folder).rglob("*.py"):
            assert 10 < len(code_map.first_paragraph(path)) < 400, path


def test_text_is_written_and_read_as_utf8_in_every_locale() -> None:
    folders = ("cgan", "flows", "tools", "benchmarks")
    for path in [path for folder in folders for path in (ROOT / folder).rglob("*.py")]:
        for call in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute):
                named = {keyword.arg for keyword in call.keywords}
                mode = [a.value for a in call.args if isinstance(a, ast.Constant)]
                text = call.func.attr in ("read_text", "write_text") or mode in (
                    ["w"],
                    ["a"],
                    ["r"],
                )
                assert "encoding" in named or not (text or "text" in named), ast.unparse(call)


def test_the_house_has_the_size_that_a_newcomer_can_survey() -> None:
    files = [path for folder in ("cgan", "flows") for path in (ROOT / folder).rglob("*.py")]
    assert len([path for path in files if path.name != "__init__.py"]) < 150
    assert len(list((ROOT / "cgan").glob("*.py"))) <= 10, "nine, and the package's own"
    longest = max(files, key=lambda path: path.read_text().count("\n"))
    assert longest.read_text().count("\n") <= 450, longest
