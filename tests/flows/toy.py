"""A project whose stages take a moment, or are slow or fail on demand, with the gate that a test names."""

import shutil
from pathlib import Path

import pytest
from conftest import commit, new_project

STAGE = '''
"""In the place of each stage: writes its outputs. The environment makes one slow or lets it fail."""
import json, os, signal, sys, time
from pathlib import Path
import yaml

def last_words(*_):
    Path("saved").touch()
    sys.exit(130)

name = sys.argv[1]
signal.signal(signal.SIGINT, signal.SIG_IGN if os.environ.get("DEAF") else last_words)
with open("attempts.log", "a") as log:
    print(name, os.environ.get("MLFLOW_RUN_CONTEXT"), file=log)
print(f"{name}: process {os.getpid()}")
if os.environ.get("SLOW") == name:
    for step in range(10 * int(os.environ.get("SECONDS", 300))):
        print(f"{name}: step {step}", flush=True)
        time.sleep(0.1)
if os.environ.get("FAIL") == name:
    sys.exit("Error: data/raw/train.csv, row 17, column pixel12: 256 is outside 0–255.")
train = yaml.safe_load(Path("params.yaml").read_text())["train"]
# The best rate is 3e-3, and seeds have luck.
distance = 1000 * abs(train["lr"] - 3e-3) + train["seed"] / 100
made = {"metrics": {"fid_judge": {"value": distance, "real": 1.0}}, "context": {}}
made |= {"run_id": "abc", "experiment_id": "1", "tracking_uri": "sqlite:///mlflow.db"}
stage = yaml.safe_load(Path("dvc.yaml").read_text())["stages"][name]
for out in [out for kind in ("outs", "metrics", "plots") for out in stage.get(kind, [])]:
    path = Path(out) if Path(out).suffix else Path(out, "source.json")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(made))
'''
GATE = '''
"""In the place of `cgan gate`: the flow runs the code of the working directory."""
import json, os, sys
from pathlib import Path

verdict = os.environ.get("VERDICT", "promoted")
report = {"verdict": verdict, "sentence": f"version 3 is {verdict}"}
Path("reports/gate.json").write_text(json.dumps(report))
Path("reports/gate.md").write_text(f"# version 3 is {verdict}")
sys.exit(3 if verdict == "blocked" else 0)
'''


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project, to copy; all of it is committed."""
    folder = new_project(tmp_path_factory.mktemp("toy") / "project").folder
    (folder / "toy.py").write_text(STAGE)
    (folder / "cgan/cli.py").write_text(GATE)
    stages = (folder / "dvc.yaml").read_text()
    (folder / "dvc.yaml").write_text(stages.replace("python -m cgan.stages.", "python toy.py "))
    (folder / "dvc.lock").unlink()
    commit(folder)
    return folder


@pytest.fixture
def repo(toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it; the working directory."""
    folder = shutil.copytree(toy, tmp_path / "50% of it")
    monkeypatch.chdir(folder)
    # DVC finds `python` for the stages by PATH: the flow has to put its own in front.
    monkeypatch.setenv("PATH", "/usr/local/bin:/usr/bin:/bin")
    return folder
