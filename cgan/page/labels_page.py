"""The page of `cgan label-errors`: rows whose label looks wrong, with pictures."""

from __future__ import annotations

from typing import Any

from cgan.page.assemble import document
from cgan.page.data_facts import Rows, suspects_facts
from cgan.quality.label_errors import Suspects

SCRIPTS = ("pieces.js", "charts.js", "sections.js", "labels.js")
SHOWN = 400


def labels_page(
    rows: Rows, found: Suspects, looked: Any, how: str, class_names: list[str] | None
) -> str:
    """HTML. `how`: who doubts these labels, in a sentence. `looked`: the rows that `found` counts."""
    facts = suspects_facts(found.first(SHOWN), looked, rows)
    data = {"how": how, "count": len(found), "of": len(looked), "class_names": class_names, **facts}
    return document("Labels that look wrong", ["labels"], SCRIPTS, {"labels": data})
