"""The registry in a real MLflow store: who is champion, who brings whom back, and what goes wrong."""

import contextlib
import itertools
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import add_version
from mlflow import MlflowClient
from typer.testing import CliRunner

from cgan.base.errors import CganError
from cgan.cli import app
from cgan.pipeline.registry.client import (
    CHALLENGER,
    PREVIOUS_CHAMPION,
    ROLLED_BACK,
    VERDICT,
    Registry,
    Version,
    former_champion,
    open_registry,
)


@pytest.fixture
def registry(root: Path) -> Iterator[Registry]:
    with open_registry("cgan") as found:
        yield found


def add_versions(registry: Registry, count: int, verdict: str = "passed") -> None:
    for number in range(count):
        add_version(registry, number, **{VERDICT: verdict})


def cgan(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == 0, result.exception
    return result.stdout


def refusal(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments))
    assert isinstance(result.exception, CganError), result.output
    return str(result.exception)


def test_data_are_compared_with_those_a_person_accepted_last(registry: Registry) -> None:
    add_versions(registry, 5)

    def accepted() -> list[int]:
        return [version.accepted_version for version in reversed(registry.versions())]

    for number in (1, 2, 3):
        registry.promote(number, why="passed the gate: good")
    assert accepted() == [1, 1, 1, 4, 5]
    cgan("registry", "promote", "3", "--why", "new scanner")
    assert accepted() == [1, 1, 3, 4, 5] and registry.aliases()["champion"] == 3
    cgan("registry", "promote", "3", "--why", "darker, bit by bit")
    assert registry.version(3).tags["champion.anchor.why"] == "darker, bit by bit"
    registry.promote(4, why="passed the gate: good")
    assert accepted() == [1, 1, 3, 3, 5]
    cgan("registry", "promote", "5", "--why", "new scanner, and light")
    registry.rollback("too grey")
    assert registry.aliases()["champion"] == 4 and accepted() == [1, 1, 3, 3, 5]
    # Made champion in MLflow: its own data.
    registry.client.delete_model_version_tag("cgan", "4", "champion.anchor")
    registry.promote(2, why="passed the gate: good")
    assert accepted() == [1, 4, 3, 4, 5]


def test_commands_list_promote_roll_back_or_refuse(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cgan("registry", "list").endswith(": 0\n")
    assert "no champion to go back to" in refusal("registry", "rollback", "--why", "x")
    add_versions(registry, 1, verdict="blocked")
    add_version(registry, 1, **{VERDICT: "passed"})
    for number, why, words in (
        ("9", "x", "has no version 9"),
        ("1", "x", "has not passed the gate"),
        ("1", " ", "--why"),
    ):
        assert words in refusal("registry", "promote", number, "--why", why)
    cgan("registry", "promote", "1", "--why", "I know", "--force")
    monkeypatch.setenv("MLFLOW_RUN_CONTEXT", json.dumps({"prefect.flow_run_id": "flow-7"}))
    cgan("registry", "promote", "2", "--why", "much\n  sharper")
    _, *rows, champion = cgan("registry", "list").splitlines()
    assert [row.split()[:3] for row in rows] == [
        ["2", "champion", "passed"],
        ["1", "-", "blocked"],
    ]
    words = r"Champion: version 2, since 2.*Z, by .+, flow run flow-7: much sharper$"
    assert re.match(words, champion)
    cgan("registry", "rollback", "--why", "too grey")
    assert registry.aliases() == {"champion": 1}
    listed = cgan("registry", "list")
    assert "rolled back" in listed and "brought back in place of version 2: too grey" in listed


# --------------------------------------------------------------------- champions, in any order

WRITES = (
    *("set_model_version_tag", "delete_model_version_tag"),
    *("set_registered_model_alias", "delete_registered_model_alias"),
)


class Killed(BaseException):
    """The process ends here."""


@contextlib.contextmanager
def killed(nth: int) -> Iterator[None]:
    """The process ends before the nth write of MLflow's client, counted from 0."""
    writes = itertools.count()

    def mortal(real: Callable[..., Any]) -> Callable[..., Any]:
        def write(*arguments: Any) -> Any:
            if next(writes) == nth:
                raise Killed
            return real(*arguments)

        return write

    with pytest.MonkeyPatch.context() as patch, contextlib.suppress(Killed):
        for name in WRITES:
            patch.setattr(MlflowClient, name, mortal(getattr(MlflowClient, name)))
        yield


def test_champions_are_a_stack_whatever_is_killed(registry: Registry) -> None:
    add_versions(registry, 4)

    def promote(number: int) -> None:
        registry.promote(number, why="good")

    def is_marked(number: int) -> bool:
        return ROLLED_BACK in registry.version(number).tags

    for number in (1, 2, 3):
        promote(number)
    assert [registry.rollback("too grey") for _ in range(2)] == [(2, 3), (1, 2)]
    for nth in (4, 7):
        promote(2)
        registry.client.set_registered_model_alias("cgan", CHALLENGER, "3")
        with killed(nth):
            promote(3)
        assert registry.aliases()["champion"] == 2, "the alias moves last"
        promote(3)
        assert registry.aliases() == {"champion": 3} and not is_marked(3)
        with killed(nth):
            registry.rollback("too grey")
        assert is_marked(3), "a gate would promote it again"
        if registry.aliases()["champion"] == 3:
            promote(4)
            assert registry.rollback("too dark") == (2, 4), "never one that was left"
        assert registry.aliases() == {"champion": 2}


@pytest.mark.parametrize(
    ("before", "champion", "former"),
    [
        ({}, 4, None),  # set by hand in MLflow
        ({1: "2", 2: "1"}, 1, 2),  # promoted again by hand
        ({1: "none", 2: "1", 3: "9"}, 3, None),  # the one before was deleted
    ],
)
def test_a_former_champion_is_found_after_changes_in_mlflow(
    before: dict[int, str], champion: int, former: int | None
) -> None:
    tags = [{PREVIOUS_CHAMPION: before[n]} if n in before else {} for n in range(1, 5)]
    versions = [Version(number, "", each) for number, each in enumerate(tags, 1)]
    assert former_champion(versions, champion) == former
