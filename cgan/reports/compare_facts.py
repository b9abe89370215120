"""How two runs differ, out of the data that their pages hold: numbers, params, code."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from cgan.errors import CganError, ModelError
from cgan.metric import METRICS
from cgan.page.run_page import FORMAT
from cgan.quality.intervals import contexts_differ, difference, replicated
from cgan.reports.compare_markdown import compare_markdown

DIGEST_SHOWN = 12  # characters, in a message
_DATA = re.compile(r'<script type="application/json" id="page-data">(.*?)</script>', re.DOTALL)

Run = dict[str, Any]


def compare_runs(a: Run, b: Run) -> str:
    """Markdown. Raises CganError for data that no page of this version holds."""
    try:
        facts = compare_facts(a, b)
        names = a["class_names"] or [str(row["label"]) for row in a["classes"]]
        return compare_markdown(facts, refusal(facts) or in_words(facts["metrics"]), names)
    except Exception:  # what a page of another version lacks, or has in another form
        raise CganError(
            "one of the two pages was made by another version of cgan. Make it again: `dvc repro page`."
        ) from None


def read_page(path: Path) -> Run:
    """The data of a run's page. Raises ModelError for a file that is no such page."""
    again = "Expected a run's page, as `dvc repro` makes reports/run.html."
    try:
        found = _DATA.search(path.read_text(encoding="utf-8"))
        run = dict(json.loads(found[1])["run"]) if found else {}
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror}). {again}") from None
    except (ValueError, KeyError, TypeError):
        run = {}
    if "format" not in run:
        raise ModelError(f"{path}: holds no data of a run. {again}")
    if run["format"] != FORMAT:
        raise ModelError(f"{path}: of format {run['format']}, expected {FORMAT}. {again}")
    return run


def compare_facts(a: Run, b: Run) -> dict[str, Any]:
    """Numbers only where both were measured alike."""
    differs = contexts_differ(a, b)
    return {
        "runs": [{"title": run["title"], "verdict": run.get("verdict")} for run in (a, b)],
        "contexts_differ": [[key, *map(_text, pair)] for key, pair in differs.items()],
        "metrics": None if differs else metric_changes(a["metrics"], b["metrics"]),
        "classes": None if differs else class_changes(a["classes"], b["classes"]),
        "params": params_that_differ(a, b),
        "code": code_in_words(*(run["lineage"]["origin"] for run in (a, b))),
    }


def code_in_words(a: dict[str, str], b: dict[str, str]) -> str:
    """What shows how the code of two runs differs. `a`, `b`: what each was made from."""
    commits = [origin.get("commit", "") for origin in (a, b)]
    if not all(commits):
        return "One of the two was made outside of git."
    text = "Both are of the same commit."
    if commits[0] != commits[1]:
        text = f"`git diff {' '.join(commit[:12] for commit in commits)} -- cgan flows dvc.yaml`"
    dirty = [name for name, origin in (("A", a), ("B", b)) if origin.get("dirty") == "true"]
    if dirty:
        text += f" {' and '.join(dirty)} had uncommitted changes: `source/patch.diff` of the run in MLflow."
    return text


def refusal(data: dict[str, Any]) -> str:
    """Why the numbers of two runs are not compared, in words; empty where they are."""
    if not data["contexts_differ"]:
        return ""
    what = []
    for key, *values in data["contexts_differ"]:
        a, b = (value[:DIGEST_SHOWN] if key.endswith("digest") else value for value in values)
        what.append(f"{key.replace('_', ' ')}: {a} and {b}")
    return (
        f"The numbers are not compared, for the two runs were not measured alike: {'; '.join(what)}. To "
        "compare them, evaluate both with one judge, one hold-out and the same params of `evaluate`: "
        "`cgan gate` does that for the champion and the generator at hand."
    )


def in_words(metrics: list[Run]) -> str:
    """`B is better in recall, worse in copies; the rest is within chance.` A difference without an interval
    is named: of it nothing is known."""
    by_word: dict[str, list[str]] = {}
    for row in metrics:
        if row["verdict"] or row["change"]:
            by_word.setdefault(row["verdict"], []).append(row["name"])
    parts = [f"{word} in {' and '.join(by_word[word])}" for word in _CLEAR if word in by_word]
    sentences = [f"B is {', '.join(parts)}"] if parts else []
    if "within chance" in by_word:
        rest = "the rest is within chance" if parts else "B's differences from A are within chance"
        sentences.append(rest)
    if unknown := by_word.get(""):
        sentences.append(f"of {' and '.join(unknown)}, chance is not known")
    text = "; ".join(sentences) or "B does not differ from A"
    return f"{text[0].upper()}{text[1:]}."


_CLEAR = ("better", "worse")


def metric_changes(a: list[Run], b: list[Run]) -> list[Run]:
    """Each metric of both runs with the difference, B less A, its interval and what that means."""
    others = {row["key"]: row for row in b}
    found = []
    for row in a:
        metric, other = METRICS.get(row["key"]), others.get(row["key"])
        if metric and other:
            known = {"name": metric.name, "meaning": metric.meaning, "better": metric.better}
            change = _change(row, other, "value", metric.better)
            found.append({**known, "floor": row["floor"], **change})
    return found


def class_changes(a: list[Run], b: list[Run]) -> list[Run]:
    """Accuracy of each class in both runs."""
    return [
        {"label": int(row["label"]), **_change(row, other, "accuracy", "higher")}
        for row, other in zip(a, b, strict=True)
    ]


def _change(row: Run, other: Run, key: str, better: str) -> Run:
    """B less A, and what that means: with the interval of the gate's bootstrap where both have replicates,
    else one from both intervals, else none."""
    a, b = row[key], other[key]
    change = None if a is None or b is None else b - a
    low, high, verdict = None, None, ""
    if change is not None and row.get("replicates") and other.get("replicates"):
        one, two = (replicated(found[key], found["replicates"]) for found in (row, other))
        low, high = (two - one).interval
    elif change is not None and None not in [
        f[end] for f in (row, other) for end in ("low", "high")
    ]:
        low, high = difference(a, (row["low"], row["high"]), b, (other["low"], other["high"]))
    if low is not None and high is not None:
        is_better = (low > 0) == (better == "higher")
        verdict = "within chance" if low <= 0 <= high else "better" if is_better else "worse"
    return {"a": a, "b": b, "change": change, "low": low, "high": high, "verdict": verdict}


def params_that_differ(a: Run, b: Run) -> list[list[str]]:
    """Key and both values, what was chosen for the data in place of `auto`."""
    one, other = (_values(run["params"]["rows"]) for run in (a, b))
    return [
        [key, one.get(key, "–"), other.get(key, "–")]
        for key in one | other
        if one.get(key) != other.get(key)
    ]


def _values(rows: list[Run]) -> dict[str, str]:
    return {
        row["key"]: _text(row["value"]) + (f" ({_text(row['chosen'])})" if "chosen" in row else "")
        for row in rows
    }


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
