"""faults.md: every fault has its row, and every test that it names exists."""

import ast
import fnmatch
import functools
import re

from conftest import ROOT

PAGE = (ROOT / "tests/faults.md").read_text()
NUMBERS = set(range(1, 107)) - {25, 53, 56, 68, 84, 90, 92, 96}
ROWS = re.findall(r"^\| (\d+) \|(.*)\|$", PAGE, re.MULTILINE)
CELLS = 3  # fault, tests, what happens


@functools.cache
def all_tests() -> dict[str, bool]:
    """Name of each test → is it marked slow."""
    found = {}
    for path in (ROOT / "tests").rglob("test_*.py"):
        text = path.read_text()
        slow = bool(re.search(r"^pytestmark = (\[[^]]*)?pytest\.mark\.slow", text, re.MULTILINE))
        for node in ast.parse(text).body:
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                marks = [ast.unparse(decorator) for decorator in node.decorator_list]
                found[node.name] = slow or "pytest.mark.slow" in marks
    return found


def named(text: str) -> list[str]:
    return re.findall(r"`(test_[\w*]+)`", text)


def test_every_row_says_fault_tests_and_result_and_names_each_test_of_its_number() -> None:
    assert [int(number) for number, _ in ROWS] == sorted(NUMBERS)
    patterns = {}
    for number, row in ROWS:
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", row)]
        assert len(cells) == CELLS and all(cells), f"row {number}"
        patterns[number] = names = named(cells[1])
        assert any(re.search(rf"f{int(number):02}(_|$)", name) for name in names), f"row {number}"
    for test in all_tests():
        for number in re.findall(r"(?<=_f)(\d\d)(?=_)", test):
            names = patterns[str(int(number))]
            assert any(fnmatch.fnmatch(test, name) for name in names), f"{test} is not in its row"


def test_every_test_named_exists_and_what_runs_in_make_test_all_alone_is_marked() -> None:
    tests = all_tests()
    for name, dagger in re.findall(r"`(test_[\w*]+)`(†?)", PAGE):
        slow = [tests[test] for test in fnmatch.filter(tests, name)]
        assert slow, f"no test {name}"
        assert bool(dagger) == all(slow), name
