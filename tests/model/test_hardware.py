"""How torch is asked to compute: optimizers without its compiler, and determinism."""

from __future__ import annotations

import pytest
from conftest import ROOT, run_python


@pytest.mark.slow
def test_no_stage_that_trains_imports_torchs_compiler() -> None:
    """It takes longer than the whole of some stages."""
    script = """
import sys, torch
from cgan.data.dataset import Dataset
from cgan.model.hardware import compute_deterministically
from cgan.params.reading import load_params
from cgan.quality.judge import train_judge
from cgan.training.fitting import filled
from cgan.training.loop import train
params = load_params()
images = torch.randint(255, (96, 1, 8, 8), dtype=torch.uint8)
data = Dataset(images, torch.arange(96) % 3, {"classes": 3})
compute_deterministically()
recipe = params.train_judge.model_copy(update={"total_kimg": 0.3, "width": 4})
train_judge(data, recipe, torch.device("cpu"), torch.float32)
small = {"total_kimg": 0.3, "generator_width": 4, "discriminator_width": 4, "previews": 0}
train(data, filled(params.train.model_copy(update={**small, "device": "cpu"})))
assert torch.are_deterministic_algorithms_enabled()
print([name for name in ("torch._dynamo", "torch._inductor") if name in sys.modules])
"""
    assert run_python(script, ROOT).splitlines()[-1] == "[]"
