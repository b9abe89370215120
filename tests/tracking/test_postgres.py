"""Runs in PostgreSQL: a server of our own, with a password. See tests/postgres.py."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import MLFLOWS_OWN_WARNINGS
from postgres import PASSWORD, Postgres
from postgres import postgres as postgres
from tracked import STEPS, log_model, log_steps, training

from cgan.files import sha256_of
from cgan.registry.client import generator_file, open_registry
from cgan.tracking.records import waiting
from cgan.tracking.runs import flush

pytestmark = [pytest.mark.slow, *MLFLOWS_OWN_WARNINGS]


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project without a store of its own."""
    for name in ("MLFLOW_RUN_ID", "DVC_EXP_NAME", "MLFLOW_RUN_CONTEXT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_run_is_kept_in_postgresql_with_its_model(
    postgres: Postgres, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database is empty at first."""
    name = postgres.create()
    address = postgres.uri(name).replace("postgresql:", "postgresql+psycopg2:")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    with training(root) as tracker:
        log_steps(tracker)
        log_model(tracker, root)
    flush()
    assert waiting() == []
    steps = "select step from metrics where key = 'loss/generator' order by step"
    assert postgres.rows(name, steps) == [[str(step)] for step in STEPS]
    runs = postgres.rows(name, "select run_uuid, status from runs")
    assert [status for _, status in runs] == ["FINISHED"]
    assert len(list((root / "mlartifacts").rglob("images/*.png"))) == 1
    with open_registry("cgan") as registry:
        assert registry.shown == f"postgresql+psycopg2://127.0.0.1:{postgres.port}/{name}"
        version = registry.register(runs[0][0], {"generator.digest": "d"})
        registry.promote(version.number, instead_of=None, why="the first")
    with generator_file("models:/cgan@champion") as path:
        assert sha256_of(path) == sha256_of(root / "generator.safetensors")
    reference = (root / "models/mlflow_run.json").read_text()
    assert f'"postgresql+psycopg2://127.0.0.1:{postgres.port}/{name}"' in reference
    written = [path.read_bytes() for path in root.rglob("*") if path.is_file()]
    for secret in (PASSWORD, postgres.uri(name).split(":")[2].split("@")[0]):
        assert not any(secret.encode() in content for content in written)
        assert secret not in postgres.dump(name)
