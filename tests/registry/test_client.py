"""The registry in a real MLflow store: who is champion, who brings whom back, and what goes wrong."""

import json
import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from synthetic import a_model
from tracked import add_version
from tracked import root as root
from typer.testing import CliRunner

from cgan.cli import app
from cgan.drawing.generator import Generator
from cgan.errors import CganError, ModelError
from cgan.model.model_file import load_generator
from cgan.pipeline.registry.client import Registry, generator_file, open_registry
from cgan.pipeline.registry.version import VERDICT


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


def test_f72_of_two_promoters_one_wins_and_the_other_says_so(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On one machine, which share a lock; on another the loser's judgement is of a former champion too."""
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
    monkeypatch.setenv("CGAN_HOME", str(tmp_path / "another machine's"))
    with pytest.raises(ModelError, match="another promotion came first"):
        registry.promote(loser, previous=1, why="good")
    assert registry.champion_number() == winner


@pytest.mark.parametrize("moment", ["claimed", "set before", "set after"])
def test_f72_a_promotion_on_another_machine_in_the_same_moment_is_seen(
    registry: Registry, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """Its lock is elsewhere. One of the two is champion in the end, and the other says so."""
    add_versions(registry, 3)
    registry.promote(1, previous=None, why="good")
    client = registry.client
    set_tag, set_alias = client.set_registered_model_tag, client.set_registered_model_alias

    def tagged(model: str, key: str, value: str) -> None:
        set_tag(model, key, value)
        if moment == "claimed":
            set_tag(model, key, "version 3 of another machine")
        elif moment == "set before":
            set_alias(model, "champion", "3")

    def moved(model: str, alias: str, number: str) -> None:
        set_alias(model, alias, number)
        if moment == "set after" and alias == "champion":
            set_alias(model, alias, "3")

    monkeypatch.setattr(client, "set_registered_model_tag", tagged)
    monkeypatch.setattr(client, "set_registered_model_alias", moved)
    with pytest.raises(
        ModelError, match=r"version 2 of `cgan` was not promoted, .* another machine"
    ):
        registry.promote(2, previous=1, why="good")
    assert registry.champion_number() == (1 if moment == "claimed" else 3)


def test_data_are_compared_with_those_that_a_person_accepted_last(registry: Registry) -> None:
    add_versions(registry, 5)

    def accepted() -> list[int]:
        return [version.accepted_data for version in reversed(registry.versions())]

    registry.promote(1, previous=None, why="passed the gate: good")
    registry.promote(2, previous=1, why="passed the gate: good")
    registry.promote(3, previous=2, why="passed the gate: good")
    assert accepted() == [1, 1, 1, 4, 5]
    assert "new data are compared with its data now" in run(
        "registry", "promote", "3", "--why", "new scanner"
    )
    assert accepted() == [1, 1, 3, 4, 5] and registry.champion_number() == 3
    assert "is already the champion" in refusal("registry", "promote", "3", "--why", "again")
    registry.promote(4, previous=3, why="passed the gate: good")
    assert accepted() == [1, 1, 3, 3, 5]
    run("registry", "promote", "5", "--why", "new scanner, and light")
    assert accepted()[4] == 5
    registry.rollback("too grey")
    assert registry.champion_number() == 4 and accepted() == [1, 1, 3, 3, 5]
    # Of an older cgan, or made champion in MLflow: its own data.
    registry.client.delete_model_version_tag("cgan", "4", "champion.anchor")
    registry.promote(2, previous=4, why="passed the gate: good")
    assert accepted() == [1, 4, 3, 4, 5]


def test_a_promotion_ends_its_own_version_s_time_as_challenger_alone(registry: Registry) -> None:
    add_versions(registry, 2)
    registry.client.set_registered_model_alias("cgan", "challenger", "2")
    registry.promote(1, previous=None, why="good")
    assert registry.aliases() == {"champion": 1, "challenger": 2}
    registry.promote(2, previous=1, why="better")
    assert registry.aliases() == {"champion": 2}


def pixels(model: Path | str) -> bytes:
    return Generator.load(model).draw("2024", seed=7).tobytes()


def test_f73_draw_follows_the_aliases_and_a_version_that_cannot_be_read_is_replaced_by_none(
    registry: Registry,
) -> None:
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


def test_f75_names_that_lead_outside_are_refused(registry: Registry, root: Path) -> None:
    (root.parent / "secret").mkdir(exist_ok=True)
    a_model(root.parent / "secret/generator.safetensors")
    for uri in (
        "models:/../../etc@champion",
        "models:/cgan/../../../etc/passwd",
        "models:/cgan%2f..%2f..@champion",
        "runs:/../../../../etc/generator",
        "runs:/0123456789abcdef0123456789abcdef/../../secret",
        "runs:/0123456789abcdef0123456789abcdef/%252e%252e/secret",
        "runs:/x/..\\..\\secret",
        "mlflow-artifacts:/../../secret",
    ):
        with pytest.raises(ModelError, match="leads outside"), generator_file(uri) as path:
            load_generator(path)


def test_commands_list_promote_and_roll_back(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_versions(registry, 2)
    run("registry", "promote", "1", "--why", "the first")
    monkeypatch.setenv("MLFLOW_RUN_CONTEXT", json.dumps({"prefect.flow_run_id": "flow-7"}))
    run("registry", "promote", "2", "--why", "much\n  sharper")
    listed = run("registry", "list")
    rows = [line.split()[:3] for line in listed.splitlines() if line.startswith("  ")]
    assert rows[:2] == [["2", "champion", "passed"], ["1", "-", "passed"]]
    reigns = listed.partition("Champions, the latest first:\n")[2].splitlines()
    assert re.match(r"  version 2, since 2.* UTC, by .+, flow run flow-7: much sharper$", reigns[0])
    assert (
        re.match(r"  version 1, since 2.* UTC, by .+: the first$", reigns[1]) and len(reigns) == 2
    )
    run("registry", "rollback", "--why", "too grey")
    assert registry.aliases() == {"champion": 1}
    listed = run("registry", "list")
    assert "rolled back" in listed and "brought back in place of version 2: too grey" in listed
    *_, last = listed.splitlines()
    assert re.search(r"version 2, since .*: much sharper; rolled back 2.*Z: too grey$", last)
    registry.client.delete_registered_model_alias("cgan", "champion")
    listed = run("registry", "list")
    assert "Champions, the latest first (there is none now):\n  version 2, since" in listed
    assert "none yet" not in listed


def test_commands_refuse_in_one_message(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "has no versions yet" in run("registry", "list")
    assert "no champion to go back to" in refusal("registry", "rollback", "--why", "x")
    add_versions(registry, 1, verdict="blocked")
    assert run("registry", "list").endswith("  none yet\n")
    assert "has no version 9" in refusal("registry", "promote", "9", "--why", "x")
    assert "has not passed the gate" in refusal("registry", "promote", "1", "--why", "x")
    assert "--why" in refusal("registry", "promote", "1", "--why", " ")
    run("registry", "promote", "1", "--why", "I know", "--force")
    assert "already the champion" in refusal("registry", "promote", "1", "--why", "x")
    assert "does not have that: Run with id=00" in refusal("compare", "0" * 32, ".")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "mssql://a/b")  # of which there is no driver
    assert "cannot be used: No module named 'pyodbc'" in refusal("registry", "list")
