"""The registry in a real MLflow store: who is champion, who brings whom back, and what goes wrong."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from conftest import MLFLOWS_OWN_WARNINGS
from tracked import root as root
from typer.testing import CliRunner

from cgan.cli import app
from cgan.drawing.generator import Generator
from cgan.errors import CganError, ModelError
from cgan.model.model_file import load_generator, save_network
from cgan.model.networks import Architecture, build_generator
from cgan.registry.archive import generator_file
from cgan.registry.client import PromotionConflictError, Registry, open_registry
from cgan.registry.history import VERDICT
from cgan.tracking.delivery import MODEL_NAME

pytestmark = MLFLOWS_OWN_WARNINGS


@pytest.fixture
def registry(root: Path) -> Iterator[Registry]:
    with open_registry("cgan") as found:
        yield found


def add_versions(registry: Registry, count: int, verdict: str = "passed") -> None:
    """Versions with a generator each, which draws differently from the others."""
    client, folder = registry.client, Path("artifacts")
    experiment = client.get_experiment_by_name("cgan")
    experiment_id = (
        experiment.experiment_id
        if experiment
        else client.create_experiment("cgan", folder.resolve().as_uri())
    )
    if not registry.versions():
        client.create_registered_model("cgan")
    for number in range(len(registry.versions()) + 1, len(registry.versions()) + 1 + count):
        torch.manual_seed(number)
        network = build_generator(Architecture("deconv", 10, 1, 28, 28, 4, 6))
        save_network("generator.safetensors", network, {"seed": number})
        run_id = client.create_run(experiment_id).info.run_id
        client.log_artifact(run_id, "generator.safetensors", "generator")
        tags = {VERDICT: verdict, "git.commit": f"commit{number}", "data.sha256": f"data{number}"}
        client.create_model_version("cgan", f"runs:/{run_id}/generator", run_id, tags=tags)


def files_of(registry: Registry, number: int) -> Path:
    [path] = Path("artifacts", registry.version(number).run_id).rglob("generator.safetensors")
    return path


def promote_in_turn(registry: Registry, *numbers: int) -> None:
    for number in numbers:
        registry.promote(number, instead_of=registry.champion(), why="good")


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == 0, result.exception
    return result.output


def refusal(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments))
    assert isinstance(result.exception, CganError), result.output
    return str(result.exception)


def test_of_a_run_s_models_the_newest_is_registered(registry: Registry) -> None:
    client, models = registry.client, []
    experiment = client.create_experiment("cgan")
    run_id = client.create_run(experiment).info.run_id
    for _ in range(3):
        model = client.create_logged_model(experiment, MODEL_NAME, source_run_id=run_id)
        models.append(model.model_id)
        time.sleep(0.002)  # the store counts milliseconds
    for model_id in models[1::-1]:
        client.finalize_logged_model(model_id, "READY")  # the last was not complete
    version = registry.register(run_id, {"generator.digest": "d"})
    assert client.get_model_version("cgan", str(version.number)).source == f"models:/{models[1]}"


# ---------------------------------------------------------------------------- two at once, and kills


def test_f72_of_two_promoters_one_wins_and_the_other_says_so(registry: Registry) -> None:
    add_versions(registry, 3)
    promote_in_turn(registry, 1)
    together = threading.Barrier(2)

    def promote(number: int) -> str:
        together.wait()
        try:
            Registry("cgan", registry.uri).promote(number, instead_of=1, why="good")
        except PromotionConflictError as error:
            return str(error)
        return ""

    with ThreadPoolExecutor(2) as pool:
        said = dict(zip((2, 3), pool.map(promote, (2, 3)), strict=True))
    winner, loser = (3, 2) if said[2] else (2, 3)
    assert not said[winner] and registry.aliases() == {"champion": winner, "previous": 1}
    assert f"version {loser} of `cgan` is not the champion: another promotion" in said[loser]
    assert f"The champion is version {winner} now, and was version 1" in said[loser]


# ------------------------------------------------------------------------------- who can be drawn with


def pixels(model: Path | str) -> bytes:
    return Generator.load(model).draw("2024", seed=7).tobytes()


def test_f73_draw_follows_the_aliases_and_a_version_that_cannot_be_read_is_replaced_by_none(
    registry: Registry,
) -> None:
    add_versions(registry, 3)
    promote_in_turn(registry, 1, 2, 3)
    registry.client.set_registered_model_alias("cgan", "challenger", "1")
    for alias, number in (("champion", 3), ("previous", 2), ("challenger", 1)):
        assert (
            pixels(alias) == pixels(f"models:/cgan@{alias}") == pixels(files_of(registry, number))
        )
    registry.client.delete_registered_model_alias("cgan", "challenger")
    files_of(registry, 3).unlink()
    files_of(registry, 2).write_bytes(b"damaged")
    for alias in ("champion", "previous"):
        assert "generator.safetensors" in refusal("draw", "1", "--model", alias)
    assert "has no challenger" in refusal("draw", "1", "--model", "challenger")


def test_f75_names_that_lead_outside_are_refused(registry: Registry, root: Path) -> None:
    (root.parent / "secret").mkdir(exist_ok=True)
    network = build_generator(Architecture("deconv", 10, 1, 28, 28, 4, 6))
    save_network(root.parent / "secret/generator.safetensors", network, {})
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


# ------------------------------------------------------------------------------------- the commands


def test_commands_list_promote_and_roll_back(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_versions(registry, 2)
    run("registry", "promote", "1", "--why", "the first")
    monkeypatch.setenv("MLFLOW_RUN_CONTEXT", json.dumps({"prefect.flow_run_id": "flow-7"}))
    run("registry", "promote", "2", "--why", "sharper")
    assert registry.aliases() == {"champion": 2, "previous": 1}
    listed = run("registry", "list")
    assert "Champions, latest last: 1 → 2" in listed
    rows = [line.split()[:3] for line in listed.splitlines() if line.startswith("  ")]
    assert ["2", "champion", "passed"] in rows and ["1", "previous", "passed"] in rows
    assert re.search(r"to now +version 2: sharper \(.+, flow run flow-7\)", listed)
    run("registry", "rollback", "--why", "too grey")
    assert registry.aliases() == {"champion": 1}
    assert "brought back in place of version 2: too grey" in run("registry", "list")


def test_commands_refuse_in_one_message(registry: Registry) -> None:
    assert "has no versions yet" in run("registry", "list")
    assert "no champion to go back to" in refusal("registry", "rollback", "--why", "x")
    add_versions(registry, 1, verdict="blocked")
    assert "has no version 9" in refusal("registry", "promote", "9", "--why", "x")
    assert "has not passed the gate" in refusal("registry", "promote", "1", "--why", "x")
    assert "--why" in refusal("registry", "promote", "1", "--why", " ")
    run("registry", "promote", "1", "--why", "I know", "--force")
    assert "the champion already" in refusal("registry", "promote", "1", "--why", "x")
