"""A DVC project with stages of a moment, and what stands there in the place of `cgan gate`."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, run

TOY = '''
"""A stage: says some lines, writes its outputs. The environment makes it slow or fail."""
import builtins, contextlib, json, os, signal, sys, time
from pathlib import Path
import yaml

def print(*words, **options):  # a stage does not end with whoever read its words
    with contextlib.suppress(BrokenPipeError):
        builtins.print(*words, **options)

stage, *outs = sys.argv[1:]
if os.environ.get("DEAF"):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
else:
    def last_words(*_):
        Path("saved").touch()
        print(f"{stage}: saved a checkpoint", flush=True)
        sys.exit(130)
    signal.signal(signal.SIGINT, last_words)
with open("attempts.log", "a") as log:
    print(stage, os.environ.get("MLFLOW_RUN_CONTEXT", "{}"), file=log)
print(f"{stage}: process {os.getpid()} of {sys.executable}")
if os.environ.get("SLOW") == stage:
    for second in range(int(os.environ.get("SECONDS", 300)) * 10):
        print(f"{stage}: step {second}")
        time.sleep(0.1)
        if Path("enough").exists():
            break
if os.environ.get("FAIL") == stage:
    sys.exit("Error: data/raw/train.csv, row 17, column pixel12: 256 is outside 0–255.")
for out in outs:
    path = Path(out)
    path.parent.mkdir(parents=True, exist_ok=True)
    accuracy = {"value": 0.9941, "real": 1.0}
    train = yaml.safe_load(Path("params.yaml").read_text())["train"]
    # The best rate is 3e-3, and seeds have luck.
    distance = {"value": 1000 * abs(train["lr"] - 3e-3) + train["seed"] / 100, "real": 1.0}
    metrics = {"conditional_accuracy": accuracy, "fid_judge": distance}
    found = {"metrics": metrics, "context": {}}
    if stage == "train":
        found = train
    path.write_text(json.dumps(found))
if stage == "train":
    origin = json.loads(os.environ.get("MLFLOW_RUN_CONTEXT", "{}"))
    Path("models/mlflow_run.json").write_text(json.dumps({"run_key": "toy", "origin": origin}))
'''
# What stands in the place of `cgan gate`: the flow runs the code of the working directory.
CLI = '''
"""The verdict that the environment names."""
import json, os, sys
from pathlib import Path

verdict = os.environ.get("VERDICT", "promoted")
if verdict == "away":
    sys.exit("Error: the store is away. Start it.")
print(f"{sys.argv[1]}: {verdict}, for {os.environ['MLFLOW_RUN_CONTEXT']}")
summary = f"version 3 is {verdict}: accuracy is 99.4 %"
Path("reports").mkdir(exist_ok=True)
Path("reports/gate.json").write_text(json.dumps({"verdict": verdict, "summary": summary}))
Path("reports/gate.md").write_text(f"# {summary}")
sys.exit(3 if verdict == "blocked" else 0)
'''
STAGES = {  # deps and outs
    "params": ("params.yaml", "reports/params.json"),
    "download": ("${data.path}", "data/raw/train.csv"),
    "validate": ("data/raw/train.csv", "reports/validation.json"),
    "preprocess": ("reports/validation.json", "data/processed/train.safetensors"),
    "train_judge": ("data/processed/train.safetensors", "models/judge.safetensors"),
    "train": ("models/judge.safetensors", "models/generator.safetensors"),
    "evaluate": ("models/generator.safetensors", "reports/evaluation.json reports/metrics.json"),
    "render": ("reports/evaluation.json", "samples/grid.png"),
    "page": ("samples/grid.png", "reports/run.html"),
    "record": ("reports/run.html", "reports/recorded.json"),
}


def dvc_yaml() -> str:
    text = "stages:\n"
    for name, (dep, outs) in STAGES.items():
        params = f"    params: [{name}]\n" if name in ("train", "evaluate") else ""
        text += f"  {name}:\n    cmd: python toy.py {name} {outs}\n    deps: ['{dep}']\n{params}"
        text += f"    outs: [{', '.join(outs.split())}]\n"
    return text


def git(folder: Path, *arguments: str) -> str:
    return run("git", "-c", "user.name=t", "-c", "user.email=t@t", *arguments, cwd=folder).strip()


def commit(folder: Path) -> None:
    """All that lies there, in a repository that is made where there is none."""
    git(folder, "init", "--quiet", "-b", "main")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "-m", "all of it")


def copy_code(folder: Path) -> None:
    """The packages of this repository."""
    ignored = shutil.ignore_patterns("__pycache__")
    for package in ("cgan", "flows", "deploy"):
        shutil.copytree(ROOT / package, folder / package, ignore=ignored, dirs_exist_ok=True)


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("template")
    (folder / "data/inbox").mkdir(parents=True)
    (folder / "data/inbox/digits.csv").write_text("label,pixel0\n")
    (folder / "toy.py").write_text(TOY)
    (folder / "dvc.yaml").write_text(dvc_yaml())
    (folder / "cgan").mkdir()
    (folder / "cgan/__init__.py").touch()
    (folder / "cgan/cli.py").write_text(CLI)
    (folder / "cgan/stages").mkdir()
    (folder / "cgan/stages/record.py").touch()  # a sweep's trial calls it
    shutil.copy(ROOT / "params.yaml", folder)
    shutil.copy(ROOT / "prefect.yaml", folder)
    git(folder, "init", "--quiet", ".")
    run(sys.executable, "-m", "dvc", "init", "--quiet", cwd=folder)
    commit(folder)
    shutil.copy(ROOT / ".dvc/config", folder / ".dvc/config")
    return folder


@pytest.fixture
def repo(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A DVC repository with the ten stages; the working directory."""
    folder = tmp_path / "repo"
    shutil.copytree(template, folder)
    monkeypatch.chdir(folder)
    # DVC finds `python` for the stages by PATH: the flow has to put its own in front.
    monkeypatch.setenv("PATH", "/usr/local/bin:/usr/bin:/bin")
    return folder


def attempts() -> list[str]:
    """The stages whose command started in the working directory, in order."""
    log = Path("attempts.log")
    return [line.split()[0] for line in log.read_text().splitlines()] if log.exists() else []


def python(*arguments: str, **environment: str) -> subprocess.Popen[str]:
    """A process of ours in a session of its own, whose output can be read."""
    return subprocess.Popen(
        [sys.executable, *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
