"""No code path unpickles what a file says, and a hostile file leaves no trace."""

import pickle
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT
from tracked import root as root

from cgan.drawing.generator import Generator
from cgan.errors import ModelError
from cgan.pipeline.registry.client import generator_file, open_registry
from cgan.training.checkpoints import load_checkpoint

# What bandit, in `make check`, lets pass or takes for a small matter.
UNPICKLING = re.compile(
    r"(import|from) (_?pickle|joblib|marshal|dill|cloudpickle|shelve)\b|allow_pickle=True"
    r"|\b(torch(\.jit|\.hub)?\.load|torch\.package|(np|numpy)\.(load|fromfile|memmap))\b"
    r"|from (torch|numpy) import .*\bload\b|mlflow\.(pytorch|sklearn)"
    r"|(?<![.\w])(eval|exec)\(|shell=True|os\.(system|popen)\("
)


def test_no_code_of_ours_unpickles() -> None:
    folders = [ROOT / name for name in ("cgan", "flows", "benchmarks")]
    sources = [path for folder in folders for path in folder.rglob("*.py")]
    assert len(sources) > 50
    # The weights of an installed package, and nothing but tensors.
    allowed = "torch.load(path, weights_only=True)", ROOT / "cgan/downstream/pretrained.py"
    texts = {path: path.read_text() for path in sources}
    texts[allowed[1]] = texts[allowed[1]].replace(allowed[0], "")
    assert [str(path) for path, text in texts.items() if UNPICKLING.search(text)] == []
    for code in ("import pickle\n", "x = torch.load(path, weights_only=True)", "np.load(path)"):
        assert UNPICKLING.search(code)


@pytest.fixture
def hostile(tmp_path: Path) -> Iterator[bytes]:
    """The bytes of a file that would leave a trace if anybody unpickled it; nobody may."""
    trace = tmp_path / "trace"

    class Hostile:
        def __reduce__(self) -> tuple[Any, ...]:
            return trace.touch, ()

    file = pickle.dumps(Hostile())
    yield file
    assert not trace.exists()
    pickle.loads(file)
    assert trace.exists(), "it would leave one"


def test_f39_hostile_checkpoint_is_left_out(hostile: bytes, tmp_path: Path) -> None:
    (tmp_path / "step-000000250.safetensors").write_bytes(hostile)
    assert load_checkpoint(tmp_path) is None


def test_f39_hostile_file_in_a_store_is_refused(hostile: bytes, root: Path) -> None:
    with open_registry("cgan") as registry:
        experiment = registry.client.create_experiment("cgan", (root / "artifacts").as_uri())
        run = registry.client.create_run(experiment).info.run_id
        (root / "generator.safetensors").write_bytes(hostile)
        registry.client.log_artifact(run, str(root / "generator.safetensors"), "generator")
    with generator_file(f"runs:/{run}/generator") as path:
        assert path.read_bytes() == hostile
    with pytest.raises(ModelError, match="not a readable safetensors file"):
        Generator.load(f"runs:/{run}/generator")
