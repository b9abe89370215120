"""`cgan compare`: two runs beside each other, and numbers only where both were measured alike."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT
from finished_project import finish, page_data

from cgan.errors import CganError, ModelError
from cgan.page.run_page import run_page
from cgan.params.reading import load_params
from cgan.project import RUN_PAGE
from cgan.reports import compare as command
from cgan.reports.compare_facts import (
    code_in_words,
    compare_facts,
    compare_runs,
    metric_changes,
    read_page,
    refusal,
)
from cgan.tracking.store import store_uri

CACHE = ROOT / ".cgan"
Change = Callable[[dict[str, Any]], None]


@pytest.fixture
def page(project: Path) -> Path:
    """A run's page."""
    finish(project / "inbox/digits.csv")
    RUN_PAGE.write_text(run_page(load_params(), CACHE), encoding="utf-8")
    return RUN_PAGE


def changed(page: Path, name: str, change: Change) -> Path:
    """A copy of the page with other data in it."""
    data = page_data(page.read_text())
    before = json.dumps(data["run"])
    change(data["run"])
    assert json.dumps(data["run"]) != before
    script = json.dumps(data).replace("<", "\\u003c")
    path = page.with_name(name)
    text = f'<script type="application/json" id="page-data">{script}</script>'
    path.write_text(text, encoding="utf-8")
    return path


def better(run: dict[str, Any]) -> None:
    run["title"] = "the other run"
    run["measurement_context"]["generator_digest"] = "b" * 64
    row = next(row for row in run["metrics"] if row["key"] == "fid_judge")
    row["value"], row["low"], row["high"] = (row[key] - 100_000 for key in ("value", "low", "high"))
    # Chance moves both alike, but for a little.
    row["replicates"] = [each + n % 7 - 3 for n, each in enumerate(row["replicates"])]
    next(row for row in run["params"]["rows"] if row["key"] == "train.lr")["value"] = 0.125


def test_metrics_stand_beside_each_other_with_the_difference_and_what_it_means(page: Path) -> None:
    other = changed(page, "b.html", better)
    runs = read_page(page), read_page(other)
    data, markdown = compare_facts(*runs), compare_runs(*runs)
    rows = {row["name"]: row for row in data["metrics"]}
    distance = rows["Fréchet distance"]
    assert distance["change"] == pytest.approx(-100_000)
    assert distance["low"] < -100_000 < distance["high"] < 0 and distance["verdict"] == "better"
    assert rows["conditional accuracy"]["verdict"] == "within chance"
    assert rows["density"]["verdict"] == "within chance"
    assert [row[0] for row in data["params"]] == ["train.lr"]
    assert data["params"][0][2] == "0.125"
    assert [run["title"] for run in data["runs"]] == ["a run", "the other run"]
    assert markdown.startswith("**B is better in Fréchet distance; the rest is within chance.**")
    assert "| run | a run | the other run |" in markdown
    shown = [line for line in markdown.splitlines() if line.startswith("| Fréchet distance ↓")]
    assert "| -100,000 | -100," in shown[0] and shown[0].endswith(" | better |")
    assert "clearly differs: none" in markdown and "| train.lr | 0.0045 | 0.125 |" in markdown


def test_the_code_of_two_runs_is_what_git_shows() -> None:
    a, b = {"commit": "a" * 40}, {"commit": "b" * 40, "dirty": "true"}
    assert code_in_words(a, a) == "Both are of the same commit."
    assert f"`git diff {'a' * 12} {'b' * 12} -- " in code_in_words(a, b)
    assert code_in_words(a, b).endswith(
        "B had uncommitted changes: `source/patch.diff` of the run in MLflow."
    )
    assert "outside of git" in code_in_words(a, {})


def test_a_difference_that_chance_can_make_is_called_so() -> None:
    for key, low, high, verdict in (
        ("conditional_accuracy", 0.4, 0.6, "better"),
        ("fid_judge", 0.4, 0.6, "worse"),
        ("conditional_accuracy", 0.0, 0.2, "worse"),
        ("conditional_accuracy", 0.2, 0.5, "within chance"),
    ):
        one = {"key": key, "value": 0.3, "low": 0.25, "high": 0.35, "floor": 0.1}
        two = {**one, "value": (low + high) / 2, "low": low, "high": high}
        assert metric_changes([one], [two])[0]["verdict"] == verdict


def test_numbers_of_different_contexts_are_not_compared_and_the_reason_is_told(
    page: Path,
) -> None:
    context = {"reference_digest": "f" * 64, "seed": 5}
    other = changed(page, "b.html", lambda run: run["measurement_context"].update(context))
    runs = read_page(page), read_page(other)
    data, markdown = compare_facts(*runs), compare_runs(*runs)
    why = refusal(data)
    assert "not compared" in why and "not compared" in markdown
    assert "| seed | 1001 | 5 |" in markdown and "Fréchet" not in markdown
    assert "seed: 1001 and 5" in why and " and ffffffffffff" in why and "f" * 13 not in why
    assert data["metrics"] is None and data["classes"] is None


def test_a_file_that_is_no_page_of_a_run_or_damaged_is_refused(page: Path) -> None:
    whole, path = read_page(page), page.with_name("x.html")
    assert command.find_page(".") == command.find_page(str(page)) == whole
    script = '<script type="application/json" id="page-data">'
    for content, message in (
        (None, "cannot be read"),
        ("<html>", "holds no data of a run"),
        (f'{script}{{"run": 3}}</script>', "holds no data of a run"),
        (f"{script}{{</script>", "holds no data of a run"),
        (f'{script}{{"run": {{"format": 9}}}}</script>', "of format 9, expected 3"),
    ):
        if content:
            path.write_text(content)
        with pytest.raises(ModelError, match=message):
            command.find_page(str(path))

    def damage(run: dict[str, Any]) -> None:
        run["metrics"][0]["value"] = "much"

    with pytest.raises(CganError, match="made by another version of cgan"):
        compare_runs(whole, read_page(changed(page, "b.html", damage)))


def test_the_terminal_shows_it_and_what_a_foreign_page_is_called_commands_no_terminal(
    page: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    title = "\x1b[2Jevil\u202e\nError: fake" + "x" * 1000
    other = changed(page, "b.html", lambda run: run.update(title=title))
    command.compare(str(page), str(other), print)
    shown = capsys.readouterr().out
    assert "Fréchet" in shown and "within chance" in shown and "\\x1b[2J" in shown
    command.compare(str(page), str(other), print, markdown=True)
    assert capsys.readouterr().out == "reports/compare.md: for a pull request.\n"
    written = command.MARKDOWN.read_text()
    assert "| Fréchet distance ↓ |" in written and "\nError: fake" not in written
    assert all(line.isprintable() for line in [*shown.splitlines(), *written.splitlines()])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # MLflow's own
def test_a_run_is_found_in_mlflow_by_id_and_by_name(
    page: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Path("mlflow.db").resolve()
    store.write_bytes(empty_store.read_bytes())
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{store}")
    from mlflow import MlflowClient

    client = MlflowClient(store_uri(Path()))
    experiment = client.create_experiment(
        "e", artifact_location=Path("mlartifacts").resolve().as_uri()
    )
    runs = [client.create_run(experiment, run_name=name) for name in ("it's one", "two", "two")]
    one = runs[0].info.run_id
    client.log_artifact(one, str(page))
    found = read_page(page)
    assert command.find_page(one) == command.find_page("it's one") == found
    with pytest.raises(CganError, match="several runs are called 'two'"):
        command.find_page("two")
    with pytest.raises(CganError, match="has no page"):
        command.find_page(runs[1].info.run_id)
    with pytest.raises(CganError, match="names no run"):
        command.find_page("default · seed 9")
