"""The page's scripts as one: modules that share a scope."""

from __future__ import annotations

import json
import re
from collections import Counter

from cgan.page.assemble import FOLDER, as_script_text

DECLARED = r"^(?:export )?(?:async )?(?:const|let|function|class) (\w+)"


def test_no_name_stands_at_the_top_of_two_scripts() -> None:
    """A page joins them: a second declaration is a syntax error, and nothing of the page runs."""
    texts = [path.read_text() for path in FOLDER.glob("*.js")]
    names = Counter(name for text in texts for name in re.findall(DECLARED, text, re.MULTILINE))
    assert len(names) > 50 and [name for name, count in names.items() if count > 1] == []


def test_no_script_makes_markup_of_text() -> None:
    for path in FOLDER.glob("*.js"):
        found = re.findall(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", path.read_text()
        )
        assert found == [], path


def test_data_that_utf8_or_json_cannot_hold_become_what_they_can() -> None:
    text = as_script_text({"half": "\ud800", "numbers": (float("nan"), [float("-inf")], 0.5)})
    assert json.loads(text.encode()) == {"half": "\ufffd", "numbers": [None, [None], 0.5]}


def test_data_cannot_end_the_script_that_it_stands_in() -> None:
    hostile = {"name": "</script><script>alert(1)</script><!--", "line": "\u2028"}
    text = as_script_text(hostile)
    assert "<" not in text and "\u2028" not in text and json.loads(text) == hostile
