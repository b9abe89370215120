"""`cgan sweep`: is the best trial better, and in which words."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from typer.testing import CliRunner

from cgan.cli import app
from cgan.errors import CganError
from cgan.reports.sweeps import Found, verdict

FOUND = Found(
    name="sweep-1",
    objective="fid_judge",
    commit="c" * 40,
    trials={"COMPLETE": 5, "PRUNED": 1, "FAIL": 0},
    best={"trial": 4, "value": 0.1, "params": {"train.lr": 0.002}, "run": "r"},
    present={"train.lr": 0.0045, "train.seed": 1},
    confirmed={
        "best": {"2": 0.11, "3": 0.12, "4": 0.10},
        "present": {"2": 0.21, "3": 0.22, "4": 0.20},
    },
)


def test_a_clear_difference_over_seeds_is_better() -> None:
    said = verdict(FOUND)
    assert said.better
    assert "trial 4 (lr 0.002) is better than params.yaml" in said.text
    assert "0.11 against 0.21 over 3 fresh seeds" in said.text
    assert "5 complete, 1 pruned" in said.text and "fail" not in said.text


def test_the_direction_follows_from_the_metric() -> None:
    assert not verdict(replace(FOUND, objective="conditional_accuracy")).better
    swapped = {"best": FOUND.confirmed["present"], "present": FOUND.confirmed["best"]}
    assert not verdict(replace(FOUND, confirmed=swapped)).better
    assert verdict(replace(FOUND, objective="coverage", confirmed=swapped)).better


NOISE = {"best": {"2": 0.1, "3": 0.3}, "present": {"2": 0.2, "3": 0.3}}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        *(
            ({"objective": objective, "confirmed": confirmed}, "is not clearly better")
            for objective in ("fid_judge", "coverage")
            for confirmed in (NOISE, {"best": NOISE["present"], "present": NOISE["best"]})
        ),
        ({"confirmed": {}}, "It has not been compared with params.yaml over several seeds"),
        ({"best": {}}, "No trial has a result"),
        ({"present": {"train.lr": 0.002}}, "The best is what params.yaml holds"),
        (
            {"confirmed": {"best": {"2": None, "3": 0.1}, "present": {"2": 0.2, "3": 0.2}}},
            "not comparable: the best with seed 2 failed",
        ),
    ],
)
def test_everything_else_is_not_better_and_says_why(changes: dict[str, Any], words: str) -> None:
    said = verdict(replace(FOUND, **changes))
    assert not said.better
    assert words in said.text


def test_a_result_of_another_version_is_told_in_words() -> None:
    assert Found.from_json(FOUND.to_json(), "sweep.json") == FOUND
    with pytest.raises(CganError, match=r"sweep\.json: no result of a sweep"):
        Found.from_json({"name": "x"}, "sweep.json")


def test_the_commands_are_there_without_importing_what_they_need() -> None:
    shown = CliRunner().invoke(app, ["sweep", "--help"])
    assert "apply" in shown.output and "show" in shown.output
