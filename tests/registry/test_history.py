"""The registry's history against a list: whatever is promoted, rolled back and killed, in any order."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cgan.errors import ModelError
from cgan.registry.client import PromotionConflictError, Registry
from cgan.registry.history import (
    CHALLENGER,
    CHAMPION,
    PREVIOUS,
    ROLLED_BACK,
    Version,
    describe_version,
    lineage,
)

pytestmark = [  # MLflow's own: connections left to the garbage collector, hints of its own classes
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]

VERSIONS = 4
WRITES = {
    "set_registered_model_tag",
    "set_registered_model_alias",
    "delete_registered_model_alias",
    "update_registered_model",
    "set_model_version_tag",
    "delete_model_version_tag",
}


class Killed(BaseException):
    """The process ends here."""


class Mortal:
    """A client whose owner is killed before its `nth` write from now on."""

    def __init__(self, client: Any) -> None:
        self.client, self.left = client, -1

    def __getattr__(self, name: str) -> Any:
        real = getattr(self.client, name)
        if name not in WRITES:
            return real

        def write(*arguments: Any) -> Any:
            if self.left == 0:
                raise Killed
            self.left -= 1
            return real(*arguments)

        return write


class InMemory:
    """What the registry uses of MLflow's client, without a store."""

    def __init__(self) -> None:
        self.page = ""
        self.aliases: dict[str, str] = {}
        self.tags: dict[str, str] = {}
        self.version_tags: dict[str, dict[str, str]] = {
            str(number): {} for number in range(1, VERSIONS + 1)
        }

    def get_registered_model(self, name: str) -> Any:
        return SimpleNamespace(aliases=dict(self.aliases), tags=dict(self.tags))

    def search_model_versions(self, _: str, page_token: str | None = None) -> Any:
        class Page(list[Any]):
            token = None

        return Page(
            SimpleNamespace(version=number, run_id="", creation_timestamp=0, tags=dict(tags))
            for number, tags in self.version_tags.items()
        )

    def set_registered_model_tag(self, _: str, key: str, value: str) -> None:
        self.tags[key] = value

    def set_registered_model_alias(self, _: str, alias: str, number: str) -> None:
        self.aliases[alias] = number

    def delete_registered_model_alias(self, _: str, alias: str) -> None:
        self.aliases.pop(alias, None)

    def update_registered_model(self, _: str, page: str) -> None:
        self.page = page

    def set_model_version_tag(self, _: str, number: str, key: str, value: str) -> None:
        self.version_tags[number][key] = value

    def delete_model_version_tag(self, _: str, number: str, key: str) -> None:
        del self.version_tags[number][key]


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


class Model:
    """A list used as a stack: the champions, and who was rolled back."""

    def __init__(self) -> None:
        self.line: list[int] = []
        self.left: set[int] = set()

    def carried_out(self, target: int, rollback: bool) -> None:
        if rollback:
            self.left.add(self.line.pop())
        else:
            self.line.append(target)
            self.left.discard(target)


def play(registry: Registry, acts: list[Act]) -> None:
    """Act after act; after each one the registry has to say what the list says."""
    mortal = Mortal(registry.client)
    registry.client = mortal  # type: ignore[assignment]
    model = Model()
    for target, knowing, kill_at in acts:
        before = list(model.line)
        champion = before[-1] if before else None
        wanted = target or (before[-2] if len(before) > 1 else None)
        mortal.left = kill_at
        killed = False
        try:
            if not target:
                registry.rollback("too grey")
            else:
                known = champion if knowing else VERSIONS + 1
                registry.promote(target, instead_of=known, why="good")
        except Killed:
            killed = True
        except ModelError:
            assert not target
            assert wanted is None, "there is one to go back to"
        except PromotionConflictError:
            assert target not in (0, champion)
            assert not knowing
            wanted = None
        mortal.left = -1
        found = registry.champion()
        if wanted not in (None, champion):
            if not killed:
                assert found == wanted
            if found == wanted:
                model.carried_out(wanted, rollback=not target)
        settled = not killed and model.line != before
        agree(registry, model, settled=settled, promoted=settled and target > 0)


def agree(registry: Registry, model: Model, *, settled: bool, promoted: bool) -> None:
    """`settled`: the last act ended well, so that what follows from the champion does too."""
    aliases = registry.aliases()
    assert aliases.get(CHAMPION) == (model.line[-1] if model.line else None)
    assert lineage(registry.history(), aliases.get(CHAMPION)) == model.line
    if settled:
        assert aliases.get(PREVIOUS) == (model.line[-2] if len(model.line) > 1 else None)
        assert aliases.get(CHALLENGER) != aliases[CHAMPION]
    marked = {each.number for each in registry.versions() if ROLLED_BACK in each.tags}
    assert model.left <= marked, "a gate would promote it again"
    if promoted:
        assert model.line[-1] not in marked


def registry_of(client: Any, folder: Path, model: str = "cgan") -> Registry:
    registry = Registry.__new__(Registry)  # without the client that it would make: it makes tables
    registry.model, registry.uri = model, f"sqlite:///{folder / 'mlflow.db'}"
    registry.client = client
    client.set_registered_model_alias(model, CHALLENGER, "3")
    return registry


KILLED_EVERYWHERE: list[list[Act]] = [
    [(1, True, -1), (2, True, -1), (3, True, -1), (act, True, nth), (0, True, -1), (4, True, -1)]
    for act, nth in itertools.product((0, 1, 4), range(7))
]
BACK_AND_FORTH: list[Act] = [
    (1, True, -1), (2, True, -1), (1, True, -1), (0, True, 2), (0, True, -1), (0, True, -1),
    (2, False, -1), (3, True, 1), (3, True, -1), (0, True, 1), (2, True, -1), (0, True, -1),
]  # fmt: skip


@settings(max_examples=150, deadline=None, derandomize=True, database=None)
@given(acts=ACTS)
@example(acts=BACK_AND_FORTH)
def test_f72_history_is_a_stack_of_champions_whatever_is_killed(
    acts: list[Act], tmp_path_factory: pytest.TempPathFactory
) -> None:
    play(registry_of(InMemory(), tmp_path_factory.getbasetemp()), acts)


@pytest.mark.parametrize("acts", KILLED_EVERYWHERE)
def test_f72_kill_before_each_write_of_a_move(acts: list[Act], tmp_path: Path) -> None:
    play(registry_of(InMemory(), tmp_path), acts)


@pytest.fixture(scope="module")
def new_model(
    tmp_path_factory: pytest.TempPathFactory, empty_store: Path
) -> Callable[[], Registry]:
    """Registered models in one real store, with four versions each."""
    folder = tmp_path_factory.mktemp("real")
    shutil.copyfile(empty_store, folder / "mlflow.db")
    names = itertools.count()

    def make() -> Registry:
        from mlflow import MlflowClient

        client, name = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}"), f"model{next(names)}"
        client.create_registered_model(name)
        for _ in range(VERSIONS):
            client.create_model_version(name, folder.as_uri())
        return registry_of(client, folder, name)

    return make


def state(registry: Registry) -> dict[str, Any]:
    """All of it but the times."""
    return {
        "aliases": registry.aliases(),
        "history": [(move.action, move.source, move.target) for move in registry.history()],
        "marked": sorted(v.number for v in registry.versions() if ROLLED_BACK in v.tags),
    }


@pytest.mark.parametrize("acts", [BACK_AND_FORTH, KILLED_EVERYWHERE[2]])
def test_f72_real_store_does_the_same_as_the_one_in_memory(
    acts: list[Act], new_model: Callable[[], Registry], tmp_path: Path
) -> None:
    real, light = new_model(), registry_of(InMemory(), tmp_path)
    play(real, acts)
    play(light, acts)
    assert state(real) == state(light)


def test_a_version_is_described_by_its_quality_before_its_hashes() -> None:
    tags = {"data.sha256": "d" * 64, "gate.verdict": "promoted", "mine": "kept", "run.name": "fit"}
    measured = {
        "gate/conditional_accuracy": 0.97,
        "quality/fid_judge": 0.7945,
        "quality/conditional_accuracy": 0.9935,
        "loss/generator": 1.0,
    }
    real = {"conditional_accuracy": 0.984, "fid_judge": 0.73}
    version = Version(3, "run7", 0, tags, ("champion",))
    assert describe_version("cgan", version, measured, real).splitlines() == [
        "Version 3 of `cgan`:",
        "  aliases     champion",
        "  verdict     promoted",
        "  registered  1970-01-01 00:00",
        "",
        "Quality:",
        "                        evaluated  at the gate  real images",
        "  conditional accuracy  0.9935     0.97         0.984        higher is better",
        "  Fréchet distance      0.7945                  0.73         lower is better",
        "",
        "Its run and tags:",
        "  run           run7",
        f"  data.sha256   {'d' * 64}",
        "  gate.verdict  promoted",
        "  mine          kept",
        "  run.name      fit",
    ]
    bare = Version(4, "run8", 0, {ROLLED_BACK: "2026: too grey", "gate.verdict": "promoted"}, ())
    assert "  verdict     rolled back\n" in describe_version("cgan", bare, {}, {})
