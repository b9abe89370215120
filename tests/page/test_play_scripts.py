"""The page's scripts as one: modules that share a scope."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

from finished_project import page_data

from cgan.page.assemble import FOLDER, document

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


def test_data_and_words_are_text_whatever_is_in_them() -> None:
    """Neither ends the script that it stands in, nor breaks the file's encoding or its JSON."""
    hostile = "</script><script>alert(1)</script><!-- \u2028 \ud800"
    data = {"name": hostile, "numbers": (float("nan"), [float("-inf")], 0.5)}
    known: dict[str, Any] = {"count": 0, "of": 0, "names": [], "suspects": []}
    page = document("labels.html", (), data, how=hostile, **known)
    assert page.encode() and "<script>alert" not in page
    assert page_data(page) == {"name": hostile, "numbers": [None, [None], 0.5]}
