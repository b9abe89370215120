"""The page of two runs, out of the data that their own pages hold: pictures, curves, numbers, params."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from cgan.errors import CganError, ModelError
from cgan.page.assemble import document
from cgan.page.charts import bundle
from cgan.page.run_page import FORMAT
from cgan.quality.intervals import difference, passports_differ, replicated
from cgan.quality.table import METRICS

SCRIPTS = ("pieces.js", "charts.js", "sections.js", "compare.js")
DIGEST_SHOWN = 12  # characters, in a message
MAX_BYTES = 200_000_000
# What the page of two runs shows of each as it is.
KEPT = ("title", "class_names", "previews", "losses", "probes", "passport", "lineage", "params")
SHAPES = {
    "title": str,
    "class_names": list | None,
    "previews": list,
    "losses": dict,
    "probes": dict,
    "passport": dict,
    "lineage": dict,
    "params": dict,
    "metrics": list,
    "classes": list,
}
_DATA = re.compile(r'<script type="application/json" id="page-data">(.*?)</script>', re.DOTALL)

Run = dict[str, Any]


def compare_page(a: Run, b: Run, cache: Path) -> tuple[str, str]:
    """HTML, and why the numbers are not compared ("" where they are).

    Raises CganError for data that no page of this version holds.
    """
    try:
        data = compare_facts(a, b)
        title = f"{a['title']} and {b['title']}"
        page = document(title, ["compare"], SCRIPTS, {"compare": data}, charts=bundle(cache))
    except (KeyError, TypeError, ArithmeticError, ValueError, AttributeError, IndexError):
        raise CganError(
            "one of the two pages was made by another version of cgan. Make it again: `dvc repro page`."
        ) from None
    return page, refusal(data)


def read_page(path: Path) -> Run:
    """The data of a run's page. Raises ModelError for a file that is no such page."""
    again = "Expected a run's page, as `dvc repro` makes reports/run.html."
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ModelError(f"{path}: larger than {MAX_BYTES / 1e6:.0f} MB. {again}")
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror}). {again}") from None
    except ValueError:
        raise ModelError(f"{path}: not UTF-8 text. {again}") from None
    try:
        found = _DATA.search(text)
        run = json.loads(found[1])["run"] if found else None
        json.dumps(run, ensure_ascii=False, allow_nan=False).encode()  # as it is written again
        version = run["format"] if run is not None else None
    except (ValueError, KeyError, TypeError, RecursionError):
        run = None
    if not isinstance(run, dict):
        raise ModelError(f"{path}: holds no data of a run. {again}")
    if version != FORMAT:
        raise ModelError(
            f"{path}: of format {repr(version)[:20]}, expected {FORMAT}. Make it again. {again}"
        )
    for key, kind in SHAPES.items():
        if not isinstance(run.get(key), kind):
            raise ModelError(
                f"{path}: its `{key}` is not what a page of this version holds. {again}"
            )
    return run


def compare_facts(a: Run, b: Run) -> dict[str, Any]:
    """What the page shows, as plain JSON. Numbers only where both were measured alike."""
    differs = passports_differ(a, b)
    return {
        "runs": [{key: run[key] for key in KEPT} for run in (a, b)],
        "passports_differ": [[key, *map(_text, pair)] for key, pair in differs.items()],
        "metrics": None if differs else metric_changes(a["metrics"], b["metrics"]),
        "classes": None if differs else class_changes(a["classes"], b["classes"]),
        "params": params_that_differ(a, b),
    }


def refusal(data: dict[str, Any]) -> str:
    """Why the numbers of two runs are not compared, in words; empty where they are."""
    if not data["passports_differ"]:
        return ""
    what = "; ".join(
        f"{key.replace('_', ' ')}: {_short(key, a)} and {_short(key, b)}"
        for key, a, b in data["passports_differ"]
    )
    return (
        f"The numbers are not compared, for the two runs were not measured alike: {what}. To compare them, "
        "evaluate both with one judge, one hold-out and the same params of `evaluate`: "
        "`cgan gate` does that for the champion and the generator at hand."
    )


def _short(key: str, value: str) -> str:
    return value[:DIGEST_SHOWN] if key.endswith("digest") else value


def metric_changes(a: list[Run], b: list[Run]) -> list[Run]:
    """Each metric of both runs with the difference, B less A, its interval and what that means."""
    others = {row["key"]: row for row in b}
    found = []
    for row in a:
        other = others.get(row["key"])
        if other is None or row["key"] not in METRICS:
            continue
        one, two = _number(row["value"]), _number(other["value"])
        low, high = _interval(row, other)
        metric = METRICS[row["key"]]
        found.append(
            {
                "name": metric.name,
                "meaning": metric.meaning,
                "better": metric.better,
                "a": one,
                "b": two,
                "floor": row["floor"],
                "change": None if one is None or two is None else two - one,
                "low": low,
                "high": high,
                "verdict": _verdict(low, high, metric.better),
            }
        )
    return found


def class_changes(a: list[Run], b: list[Run]) -> list[Run]:
    """Accuracy of each class in both runs."""
    found = []
    for row, other in zip(a, b, strict=True):
        one, two = _number(row["accuracy"]), _number(other["accuracy"])
        low, high = _interval(row | {"value": one}, other | {"value": two})
        difference_of = None if one is None or two is None else two - one
        change = {"a": one, "b": two, "change": difference_of, "low": low, "high": high}
        found.append(
            {"label": int(row["label"]), **change, "verdict": _verdict(low, high, "higher")}
        )
    return found


def params_that_differ(a: Run, b: Run) -> list[list[str]]:
    """Key and both values, what was chosen for the data in place of `auto`."""
    one, other = (_values(run["params"]["rows"]) for run in (a, b))
    keys = [*one, *(key for key in other if key not in one)]
    return [
        [key, one.get(key, "–"), other.get(key, "–")]
        for key in keys
        if one.get(key) != other.get(key)
    ]


def _values(rows: list[Run]) -> dict[str, str]:
    return {
        str(row["key"]): _text(row["value"])
        + (f" ({_text(row['chosen'])})" if "chosen" in row else "")
        for row in rows
    }


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


def _interval(row: Run, other: Run) -> tuple[float | None, float | None]:
    if any(found[key] is None for found in (row, other) for key in ("value", "low", "high")):
        return None, None
    if row.get("replicates") and other.get("replicates"):
        one, two = (
            replicated(float(found["value"]), list(map(float, found["replicates"])))
            for found in (row, other)
        )
        return (two - one).interval
    of_a = float(row["low"]), float(row["high"])
    of_b = float(other["low"]), float(other["high"])
    return difference(float(row["value"]), of_a, float(other["value"]), of_b)


def _verdict(low: float | None, high: float | None, better: str) -> str:
    """Of B, beside A."""
    if low is None or high is None:
        return ""
    if low <= 0 <= high:
        return "within chance"
    return "better" if (low > 0) == (better == "higher") else "worse"
