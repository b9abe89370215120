"""A text asks for the same classes in the page as in Python, or is refused by both."""

from pathlib import Path

import pytest
from visitor import Visitor, generator_of
from visitor import browser as browser
from visitor import page as page

from cgan.drawing.class_names import Classes
from cgan.errors import CganError

ZOO = ("x", "y", "x y z", "z", "ankle boot", "Boot")
CITIES = ("New", "York", "New York", "x")
FOLDED = ("Straße", "ΣΟΦΟΣ", "İzmir")
TWINS = ("ab", "AB", "c")
LETTERS = tuple("ABCDEFGHIJKLMNOP")
SHUFFLED = ("3", "5", "9")
FROM_1 = tuple(map(str, range(1, 13)))
SIGNS = tuple("0123456789AB")

# Names (or how many classes there are without), a text, and its labels or None where it is refused.
CASES: list[tuple[tuple[str, ...] | int, str, list[int] | None]] = [
    (10, "2024", [2, 0, 2, 4]),
    (10, " 20,\t24, ", [2, 0, 2, 4]),
    (10, "20x4", None),
    (10, "", None),
    (10, " , ,", None),
    (12, "11,3 0", [11, 3, 0]),
    (12, "12", None),
    (12, "1 x", None),
    (ZOO, "x y", [0, 1]),
    (ZOO, "x y z", [2]),
    (ZOO, "x  Y\tz", [2]),
    (ZOO, "z, x y z", [3, 2]),
    (ZOO, "x y z x", [0, 1, 3, 0]),
    (ZOO, "xyz", [0, 1, 3]),
    (ZOO, "ankle boot, boot", [4, 5]),
    (ZOO, "ankle boot boot", None),
    (ZOO, "boot 2, ankle  boot", [5, 2, 4]),
    (ZOO, "25", [2, 5]),
    (ZOO, "6", None),
    (ZOO, "2x", [2, 0]),
    (CITIES, "new york", [2]),
    (CITIES, "new york x", [0, 1, 3]),
    (CITIES, "new york, x", [2, 3]),
    (FOLDED, "straße, ΣΟΦΟΣ σοφος", [0, 1, 1]),
    (FOLDED, "i̇zmir", [2]),
    (FOLDED, "STRASSE", None),
    (TWINS, "AB ab c", [1, 0, 2]),
    (TWINS, "aB", [0]),
    (LETTERS, "Head m", [7, 4, 0, 3, 12]),
    (LETTERS, "A1", None),
    (SHUFFLED, "9 3", [2, 0]),
    (SHUFFLED, "0", None),
    (("0", "1", "2"), "2 0,1", [2, 0, 1]),
    (FROM_1, "12 1", [11, 0]),
    (FROM_1, "13", None),
    (SIGNS, "A11 2024", [10, 1, 1, 2, 0, 2, 4]),
    (SIGNS, "11", [1, 1]),
]
KINDS = list(dict.fromkeys(kind for kind, _, _ in CASES))


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_the_page_and_python_read_the_texts_of_the_table(
    page: Visitor, tmp_path: Path, kind: tuple[str, ...] | int
) -> None:
    """What is typed is drawn: its label says what was read, and the fault that something was not."""
    names, classes = (None, kind) if isinstance(kind, int) else (kind, len(kind))
    page.show(generator_of(names=names, classes=classes, height=8, width=8, features=4), tmp_path)
    called = names or [str(label) for label in range(classes)]
    for text, labels in [(text, labels) for names_of, text, labels in CASES if names_of == kind]:
        try:
            found = Classes(classes, names).labels(text)
        except CganError:
            found = None
        assert found == labels, text
        page.change("text", text)
        assert (page.words("fault") == "") == (labels is not None), text
        if labels is not None:
            drawn = "".join(called[each] for each in labels)
            assert page.label().replace(", ", "") == f"{drawn}drawn with seed 0", text
