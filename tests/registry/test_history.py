"""Who was champion, against a list: whatever is promoted, rolled back and killed, in any order."""

from __future__ import annotations

import itertools
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mlflow import MlflowClient

from cgan.errors import ModelError
from cgan.registry.client import (
    CHALLENGER,
    INSTEAD_OF,
    ROLLED_BACK,
    Registry,
    Version,
    lineage,
)

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

    def written(self) -> None:
        if self.left == 0:
            raise Killed
        self.left -= 1

    def search_registered_models(self, _: str) -> list[Any]:
        return [SimpleNamespace(aliases=dict(self.aliases))]

    def search_model_versions(self, _: str) -> list[Any]:
        return [
            SimpleNamespace(version=number, run_id="", tags=dict(tags))
            for number, tags in self.tags.items()
        ]

    def set_registered_model_alias(self, _: str, alias: str, number: str) -> None:
        self.written()
        self.aliases[alias] = number

    def delete_registered_model_alias(self, _: str, alias: str) -> None:
        self.written()
        self.aliases.pop(alias, None)

    def set_model_version_tag(self, _: str, number: str, key: str, value: str) -> None:
        self.written()
        self.tags[number][key] = value

    def delete_model_version_tag(self, _: str, number: str, key: str) -> None:
        self.written()
        self.tags[number].pop(key, None)


# What somebody does: the version to promote, 0 to roll back; whether they know who is champion; and
# before which of their writes the power goes (-1: it doesn't).
Act = tuple[int, bool, int]
ACTS = st.lists(
    st.tuples(
        st.integers(0, VERSIONS),
        st.sampled_from([True, True, True, False]),
        st.sampled_from([-1, -1, -1, *range(7)]),
    ),
    max_size=12,
)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CGAN_HOME", str(tmp_path))


def play(acts: list[Act]) -> None:
    client = InMemory()
    registry = Registry("cgan", cast(MlflowClient, client), "")
    for target, knowing, kill_at in acts:
        champion = registry.champion()
        line = lineage(registry.versions(), champion)
        wanted = target or (line[-2].number if len(line) > 1 else None)
        client.left, killed = kill_at, False
        try:
            if target:
                instead_of = champion if knowing else VERSIONS + 1
                registry.promote(target, instead_of=instead_of, why="good")
            else:
                assert registry.rollback("too grey") == (wanted, champion)
        except Killed:
            killed = True
        except ModelError:  # none to go back to; or another promotion came first
            assert wanted is None or (not knowing and target not in (0, champion))
            wanted = None
        client.left = -1
        found = registry.champion()
        assert found == (champion if killed else wanted or champion), "the alias moves last"
        if found != champion:
            agree(registry, line, champion, rolled_back=not target)


def agree(
    registry: Registry, before: list[Version], champion: int | None, *, rolled_back: bool
) -> None:
    """Does the line of champions end with the present one, and does it go on from the line before?"""
    found, versions = registry.champion(), registry.versions()
    line = [version.number for version in lineage(versions, found)]
    marked = {each.number for each in versions if ROLLED_BACK in each.tags}
    assert line[-1:] == [found] and len(line) == len(set(line)) and found not in marked
    if rolled_back:
        assert line == [version.number for version in before[:-1]]
        assert champion in marked, "a gate would promote it again"
    else:
        # The champion before stands there unless a kill left it marked as rolled back.
        assert champion is None or champion in marked or line[-2] == champion
    assert registry.aliases().get(CHALLENGER) != found


def test_f72_kill_before_each_write_of_a_move() -> None:
    first: list[Act] = [(1, True, -1), (2, True, -1), (3, True, -1)]
    for act, nth in itertools.product((0, 1, 4), range(7)):
        play([*first, (act, True, nth), (0, True, -1), (4, True, -1)])


@settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(acts=ACTS)
def test_f72_history_is_a_stack_of_champions_whatever_is_killed(acts: list[Act]) -> None:
    play(acts)


def test_lineage_follows_who_was_champion_before_whom() -> None:
    cases: list[tuple[dict[int, str], int | None, list[int]]] = [
        ({}, 4, [4]),  # set by hand in MLflow
        ({1: "none", 2: "1"}, 2, [1, 2]),
        ({1: "none", 2: "1"}, 1, [1]),  # killed before the alias call of the second
        ({1: "none", 2: "1", 3: "1"}, 3, [1, 3]),  # the same, then another promotion
        ({1: "2", 2: "1"}, 1, [2, 1]),  # promoted again by hand
        ({1: "none", 2: "1", 3: "9"}, 3, [3]),  # the one before was deleted
        ({1: "none"}, None, []),
    ]
    for before, champion, line in cases:
        versions = [
            Version(n, "", {INSTEAD_OF: before[n]} if n in before else {}, ()) for n in range(1, 5)
        ]
        assert [version.number for version in lineage(versions, champion)] == line
