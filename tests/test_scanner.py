"""No code path unpickles or evaluates what a file says, and a hostile file leaves no trace."""

from __future__ import annotations

import ast
import os
import pickle
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ROOT

from cgan import cli
from cgan.errors import ModelError
from cgan.registry.archive import generator_file
from cgan.tracking.store import store_uri
from cgan.training.checkpoints import Checkpoints

MODULES = {"pickle", "_pickle", "cPickle", "joblib", "marshal", "dill", "cloudpickle", "shelve"}
NAMES = {"eval", "exec", "compile", "__import__"}
# `ruamel`'s YAML().load builds plain values; only PyYAML's module has functions of these names.
ATTRIBUTES = {
    "torch": {"load", "jit.load", "hub.load", "package"},
    "yaml": {"load", "load_all", "full_load", "unsafe_load", "full_load_all", "unsafe_load_all"},
    "os": {"system", "popen"},
    "np": {"load", "fromfile", "memmap"},
    "numpy": {"load", "fromfile", "memmap"},
    "pandas": {"read_pickle", "eval"},
    "subprocess": {"getoutput", "getstatusoutput"},
    "mlflow": {"pytorch", "sklearn"},
}
KEYWORDS = {"allow_pickle", "shell"}


def findings(source: str) -> Iterator[str]:
    """What in this source could run what it reads: `line: what`."""
    tree = ast.parse(source)
    imported = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] in MODULES:
                    yield f"{node.lineno}: import {alias.name}"
        elif isinstance(node, ast.ImportFrom):
            top = (node.module or "").split(".")[0]
            if top in MODULES:
                yield f"{node.lineno}: from {node.module}"
            for alias in node.names:
                if alias.name in ATTRIBUTES.get(top, ()):
                    yield f"{node.lineno}: {top}.{alias.name}"
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            base = node.value.id
            if base in imported and node.attr in ATTRIBUTES.get(base, ()):
                yield f"{node.lineno}: {base}.{node.attr}"
        elif isinstance(node, ast.Call):
            if isinstance(node.func, ast.Name) and node.func.id in NAMES:
                yield f"{node.lineno}: {node.func.id}()"
            for keyword in node.keywords:
                off = isinstance(keyword.value, ast.Constant) and keyword.value.value is False
                if keyword.arg in KEYWORDS and not off:
                    yield f"{node.lineno}: {keyword.arg}="


SOURCES = sorted(
    path for folder in ("cgan", "flows", "benchmarks") for path in (ROOT / folder).rglob("*.py")
)


def test_no_code_of_ours_unpickles_evaluates_or_starts_a_shell() -> None:
    assert len(SOURCES) > 50
    found = [
        f"{path.relative_to(ROOT)}:{what}"
        for path in SOURCES
        for what in findings(path.read_text())
    ]
    assert found == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from joblib import load",
        "import dill as d",
        "import torch\ntorch.load(path, weights_only=True)",
        "from torch import load",
        "import yaml\nyaml.load(text, Loader=yaml.Loader)",
        "import numpy as np\nnp.load(path)",
        "f(path, allow_pickle=True)",
        "import subprocess\nsubprocess.run(command, shell=True)",
        "eval(text)",
        "exec(text)",
        "import os\nos.system(text)",
        "import marshal",
    ],
)
def test_scanner_sees(source: str) -> None:
    assert list(findings(source))


@pytest.mark.parametrize(
    "source",
    [
        "network.eval()",
        "yaml = YAML()\nyaml.load(text)",
        "subprocess.run(command, shell=False)",
        "import json\njson.load(file)",
        "import yaml\nyaml.safe_load(text)",
    ],
)
def test_scanner_lets_pass(source: str) -> None:
    assert not list(findings(source))


class Hostile:
    """Touches a file when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.trace}",)


@pytest.fixture(params=["pickle", "torch.save"])
def hostile(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[bytes]:
    """The bytes of a file that would leave a trace if anybody unpickled it; nobody may."""
    trace = tmp_path / "trace"
    file = tmp_path / "hostile.pkl"
    if request.param == "pickle":
        file.write_bytes(pickle.dumps(Hostile(trace)))
    else:
        torch.save(Hostile(trace), file)
    yield file.read_bytes()
    assert not trace.exists()


def test_hostile_file_would_leave_a_trace(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Hostile(tmp_path / "trace")))
    assert (tmp_path / "trace").exists()


def test_f39_hostile_file_is_drawn_by_nobody(
    hostile: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "g.safetensors").write_bytes(hostile)
    monkeypatch.setattr(
        sys, "argv", ["cgan", "draw", "1", "--model", str(tmp_path / "g.safetensors")]
    )
    with pytest.raises(SystemExit, match="1"):
        cli.main()


def test_f39_hostile_checkpoint_is_left_out(hostile: bytes, tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    (folder / "step-000000250.safetensors").write_bytes(hostile)
    assert Checkpoints(folder).load() is None


@pytest.mark.parametrize("hostile", ["pickle"], indirect=True)
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_f39_hostile_file_in_a_store_is_refused(
    hostile: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    from cgan.serving.generator import Generator

    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    client = MlflowClient(store_uri(tmp_path))
    experiment = client.create_experiment("cgan", (tmp_path / "artifacts").as_uri())
    run = client.create_run(experiment).info.run_id
    (tmp_path / "generator.safetensors").write_bytes(hostile)
    client.log_artifact(run, str(tmp_path / "generator.safetensors"), "generator")
    with generator_file(f"runs:/{run}/generator") as path:
        assert path.read_bytes() == hostile
    with pytest.raises(ModelError, match="not a readable safetensors file"):
        Generator.load(f"runs:/{run}/generator")
