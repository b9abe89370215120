"""What an earlier cgan made still loads: files of 2026-11, when the package was one folder of modules.

`former/2026-11.tar.gz` was made by commit fc1db79 with tiny params: the generator of a training, that
training's journal, never delivered, with the code of its model; a generator of the demo, which was
called `seed` then; and what both draw.
"""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT

from cgan.serving.generator import Generator


@pytest.fixture
def former(tmp_path: Path) -> Path:
    with tarfile.open(ROOT / "tests/former/2026-11.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path


@pytest.mark.parametrize("name", ["generator", "seed_generator"])
def test_a_former_model_file_draws_what_it_drew(former: Path, name: str) -> None:
    expected = np.load(former / "drawings.npz")[name].astype(int)
    drawn = Generator.load(former / f"{name}.safetensors").draw([0, 1, 2], seed=7).astype(int)
    assert np.abs(drawn - expected).max() <= 1, "kinds of CPU round differently"


DRAW = """
import sys, mlflow, pandas
model = mlflow.pyfunc.load_model(sys.argv[1])
print(len(model.predict(pandas.DataFrame({"label": [0, 2]}), params={"seed": 7})))
import cgan.networks  # the code that came with it
"""


@pytest.mark.slow
def test_a_former_journal_is_delivered_and_its_model_draws_with_the_code_that_came_with_it(
    former: Path, empty_store: Path
) -> None:
    (former / "mlflow.db").write_bytes(empty_store.read_bytes())
    run = json.loads((former / "journal/run.json").read_text())
    run["tracking_uri"] = f"sqlite:///{former}/mlflow.db"
    (former / "journal/run.json").write_text(json.dumps(run))
    journal = former / ".cgan/tracking" / run["run_key"]
    journal.parent.mkdir(parents=True)
    (former / "journal").rename(journal)
    kept = {
        k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW", "DVC", "PYTHONPATH"))
    }
    flush = [sys.executable, "-m", "cgan.cli", "track", "flush"]
    subprocess.run(flush, cwd=former, env={**kept, "PYTHONPATH": str(ROOT)}, check=True)
    assert not journal.exists()
    with sqlite3.connect(former / "mlflow.db") as store:
        assert store.execute("select status from runs").fetchall() == [("FINISHED",)]
        ((model,),) = store.execute("select artifact_location from logged_models").fetchall()
    draw = [sys.executable, "-I", "-c", DRAW, model.removeprefix("file://")]
    done = subprocess.run(draw, cwd=former, env=kept, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["2"], done.stderr
