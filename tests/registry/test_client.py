"""The registry in a real MLflow store: who is champion, who brings whom back, and what goes wrong."""

import itertools
import json
import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from mlflow import MlflowClient
from tracked import add_version
from tracked import root as root
from typer.testing import CliRunner

from cgan.cli import app
from cgan.drawing.generator import Generator
from cgan.errors import CganError, ModelError
from cgan.pipeline.registry.client import CHALLENGER, Registry, open_registry
from cgan.pipeline.registry.version import (
    PREVIOUS_CHAMPION,
    ROLLED_BACK,
    VERDICT,
    Version,
    former_champion,
)


@pytest.fixture
def registry(root: Path) -> Iterator[Registry]:
    with open_registry("cgan") as found:
        yield found


def add_versions(registry: Registry, count: int, verdict: str = "passed") -> None:
    for number in range(count):
        add_version(registry, number, **{VERDICT: verdict})


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == 0, result.exception
    return result.output


def refusal(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments))
    assert isinstance(result.exception, CganError), result.output
    return str(result.exception)


def test_of_two_promoters_one_wins_and_the_other_says_so(registry: Registry) -> None:
    add_versions(registry, 3)
    registry.promote(1, previous=None, why="good")
    together = threading.Barrier(2)

    def promote(number: int) -> str:
        together.wait()
        try:
            registry.promote(number, previous=1, why="good")
        except ModelError as error:
            return str(error)
        return ""

    with ThreadPoolExecutor(2) as pool:
        said = dict(zip((2, 3), pool.map(promote, (2, 3)), strict=True))
    winner, loser = (3, 2) if said[2] else (2, 3)
    assert not said[winner] and registry.aliases() == {"champion": winner}
    assert f"version {loser} of `cgan` was not promoted" in said[loser]
    assert f"version 1, now: version {winner}" in said[loser]


def test_data_are_compared_with_those_that_a_person_accepted_last(registry: Registry) -> None:
    add_versions(registry, 5)

    def accepted() -> list[int]:
        return [version.accepted_data for version in reversed(registry.versions())]

    for number in (1, 2, 3):
        registry.promote(number, previous=number - 1 or None, why="passed the gate: good")
    assert accepted() == [1, 1, 1, 4, 5]
    assert "new data are compared with its data now" in run(
        "registry", "promote", "3", "--why", "new scanner"
    )
    assert accepted() == [1, 1, 3, 4, 5] and registry.champion_number() == 3
    registry.promote(4, previous=3, why="passed the gate: good")
    assert accepted() == [1, 1, 3, 3, 5]
    run("registry", "promote", "5", "--why", "new scanner, and light")
    assert accepted()[4] == 5
    registry.rollback("too grey")
    assert registry.champion_number() == 4 and accepted() == [1, 1, 3, 3, 5]
    # Made champion in MLflow: its own data.
    registry.client.delete_model_version_tag("cgan", "4", "champion.anchor")
    registry.promote(2, previous=4, why="passed the gate: good")
    assert accepted() == [1, 4, 3, 4, 5]


def pixels(model: Path | str) -> bytes:
    return Generator.load(model).draw("2024", seed=7).tobytes()


def test_draw_follows_the_aliases_and_says_what_cannot_be_read(registry: Registry) -> None:
    add_versions(registry, 2)
    files = [
        next(Path("mlartifacts", registry.version(number).run_id).rglob("generator.safetensors"))
        for number in (1, 2)
    ]
    for alias, number in (("champion", 2), ("challenger", 1)):
        registry.client.set_registered_model_alias("cgan", alias, str(number))
        assert pixels(alias) == pixels(f"models:/cgan@{alias}") == pixels(files[number - 1])
    registry.client.delete_registered_model_alias("cgan", "challenger")
    assert "has no challenger" in refusal("draw", "1", "--model", "challenger")
    for harm in (lambda: files[1].write_bytes(b"damaged"), files[1].unlink):
        harm()
        assert "generator.safetensors" in refusal("draw", "1", "--model", "champion")


def test_commands_list_promote_and_roll_back(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_versions(registry, 2)
    run("registry", "promote", "1", "--why", "the first")
    monkeypatch.setenv("MLFLOW_RUN_CONTEXT", json.dumps({"prefect.flow_run_id": "flow-7"}))
    run("registry", "promote", "2", "--why", "much\n  sharper")
    _, *rows, champion = run("registry", "list").splitlines()
    assert [row.split()[:3] for row in rows] == [
        ["2", "champion", "passed"],
        ["1", "-", "passed"],
    ]
    words = r"Champion: version 2, since 2.* UTC, by .+, flow run flow-7: much sharper$"
    assert re.match(words, champion)
    run("registry", "rollback", "--why", "too grey")
    assert registry.aliases() == {"champion": 1}
    listed = run("registry", "list")
    assert "rolled back" in listed and "brought back in place of version 2: too grey" in listed


def test_commands_refuse_in_one_message(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "has no versions yet" in run("registry", "list")
    assert "no champion to go back to" in refusal("registry", "rollback", "--why", "x")
    add_versions(registry, 1, verdict="blocked")
    assert "has no version 9" in refusal("registry", "promote", "9", "--why", "x")
    assert "has not passed the gate" in refusal("registry", "promote", "1", "--why", "x")
    assert "--why" in refusal("registry", "promote", "1", "--why", " ")
    run("registry", "promote", "1", "--why", "I know", "--force")
    assert "Run with id=00" in refusal("compare", "0" * 32, ".")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "mssql://a/b")  # of which there is no driver
    assert "No module named 'pyodbc'" in refusal("registry", "list")


# --------------------------------------------------------------------- champions, in any order

VERSIONS = 4


class Killed(BaseException):
    """The process ends here."""


class InMemory:
    """What the registry uses of MLflow's client, without a store; its owner is killed before a write, when
    `left` of them are done (-1: never)."""

    def __init__(self) -> None:
        self.left = -1
        self.aliases = {CHALLENGER: "3"}
        self.tags: dict[str, dict[str, str]] = {str(n): {} for n in range(1, VERSIONS + 1)}

    def written(self, of: dict[str, str]) -> dict[str, str]:
        if self.left == 0:
            raise Killed
        self.left -= 1
        return of

    def search_registered_models(self, _: str) -> list[Any]:
        return [SimpleNamespace(aliases=dict(self.aliases))]

    def search_model_versions(self, _: str) -> list[Any]:
        versions = self.tags.items()
        return [SimpleNamespace(version=n, run_id="", tags=dict(tags)) for n, tags in versions]

    def set_registered_model_alias(self, _: str, alias: str, number: str) -> None:
        self.written(self.aliases)[alias] = number

    def delete_registered_model_alias(self, _: str, alias: str) -> None:
        self.written(self.aliases).pop(alias, None)

    def set_model_version_tag(self, _: str, number: str, key: str, value: str) -> None:
        self.written(self.tags[number])[key] = value

    def delete_model_version_tag(self, _: str, number: str, key: str) -> None:
        self.written(self.tags[number]).pop(key, None)


def play(acts: list[tuple[int, int]]) -> None:
    """Of each: the version to promote, 0 to roll back; before which write the power goes (-1: it doesn't)."""
    client = InMemory()
    registry = Registry("cgan", cast(MlflowClient, client), "")
    for target, kill_at in acts:
        champion = registry.champion_number()
        former = former_champion(registry.versions(), champion)
        wanted, client.left = target or former, kill_at
        try:
            if target:
                registry.promote(target, previous=champion, why="good")
            else:
                assert registry.rollback("too grey") == (wanted, champion)
        except Killed:
            wanted = champion
        except ModelError:
            assert wanted is None, "there is one to go back to"
        client.left, found = -1, registry.champion_number()
        assert found == (wanted or champion), "the alias moves last"
        if found == champion:
            continue
        marked = {each.number for each in registry.versions() if ROLLED_BACK in each.tags}
        assert found not in marked and registry.aliases().get(CHALLENGER) != found
        if target:
            # Unless a killed rollback left it marked.
            known = former_champion(registry.versions(), found)
            assert champion is None or champion in marked or known == champion
        else:
            assert champion in marked, "a gate would promote it again"


def test_champions_are_a_stack_whatever_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CGAN_HOME", str(tmp_path))
    registry = Registry("cgan", cast(MlflowClient, InMemory()), "")
    for number in (1, 2, 3):
        registry.promote(number, previous=number - 1 or None, why="good")
    assert [registry.rollback("too grey") for _ in range(2)] == [(2, 3), (1, 2)]
    acts = range(VERSIONS + 1)
    for first, killed, then in itertools.product((0, 2), acts, acts):
        for nth in range(8):
            play([(1, -1), (first, -1), (3, -1), (killed, nth), (then, -1), (0, -1), (4, -1)])


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
    versions = [
        Version(n, "", {PREVIOUS_CHAMPION: before[n]} if n in before else {}) for n in range(1, 5)
    ]
    assert former_champion(versions, champion) == former
