"""Who was champion, against a list: whatever is promoted, rolled back and killed, in any order."""

import itertools
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from mlflow import MlflowClient

from cgan.errors import ModelError
from cgan.pipeline.registry.client import CHALLENGER, Registry
from cgan.pipeline.registry.version import PREVIOUS_CHAMPION, ROLLED_BACK, Version, champion_history

VERSIONS = 4


class Killed(BaseException):
    """The process ends here."""


class InMemory:
    """What the registry uses of MLflow's client, without a store; its owner is killed before a write, when
    `left` of them are done (-1: never)."""

    def __init__(self) -> None:
        self.left = -1
        self.aliases = {CHALLENGER: "3"}
        self.model_tags: dict[str, str] = {}
        self.tags: dict[str, dict[str, str]] = {str(n): {} for n in range(1, VERSIONS + 1)}

    def written(self, of: dict[str, str]) -> dict[str, str]:
        if self.left == 0:
            raise Killed
        self.left -= 1
        return of

    def search_registered_models(self, _: str) -> list[Any]:
        return [SimpleNamespace(aliases=dict(self.aliases), tags=dict(self.model_tags))]

    def set_registered_model_tag(self, _: str, key: str, value: str) -> None:
        self.written(self.model_tags)[key] = value

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
        before = champion_history(registry.versions(), champion)
        wanted = target or (before[-2].number if len(before) > 1 else None)
        client.left, killed = kill_at, False
        try:
            if target:
                registry.promote(target, previous=champion, why="good")
            else:
                assert registry.rollback("too grey") == (wanted, champion)
        except Killed:
            killed = True
        except ModelError:
            assert wanted is None, "there is one to go back to"
        client.left = -1
        found, versions = registry.champion_number(), registry.versions()
        assert found == (champion if killed else wanted or champion), "the alias moves last"
        if found == champion:
            continue
        # The line of champions ends with the present one, and goes on from the line before.
        line = [version.number for version in champion_history(versions, found)]
        marked = {each.number for each in versions if ROLLED_BACK in each.tags}
        assert line[-1:] == [found] and len(line) == len(set(line)) and found not in marked
        if target:
            # The champion before stands there unless a kill left it marked as rolled back.
            assert champion is None or champion in marked or line[-2] == champion
        else:
            assert line == [version.number for version in before[:-1]]
            assert champion in marked, "a gate would promote it again"
        assert registry.aliases().get(CHALLENGER) != found


def test_f72_history_is_a_stack_of_champions_whatever_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CGAN_HOME", str(tmp_path))
    acts = range(VERSIONS + 1)
    for first, killed, then in itertools.product((0, 2), acts, acts):
        for nth in range(9):
            play([(1, -1), (first, -1), (3, -1), (killed, nth), (then, -1), (0, -1), (4, -1)])


@pytest.mark.parametrize(
    ("before", "champion", "line"),
    [
        ({}, 4, [4]),  # set by hand in MLflow
        ({1: "2", 2: "1"}, 1, [2, 1]),  # promoted again by hand
        ({1: "none", 2: "1", 3: "9"}, 3, [3]),  # the one before was deleted
    ],
)
def test_champion_history_copes_with_what_people_do_in_mlflow(
    before: dict[int, str], champion: int, line: list[int]
) -> None:
    versions = [
        Version(n, "", {PREVIOUS_CHAMPION: before[n]} if n in before else {}) for n in range(1, 5)
    ]
    assert [version.number for version in champion_history(versions, champion)] == line
