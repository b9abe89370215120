"""The page's scripts as one: modules that share a scope."""

from __future__ import annotations

import re
from typing import Any

from finished_project import page_data

from cgan.page.assemble import FOLDER, document


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
