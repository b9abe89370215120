"""How torch is asked to compute: optimizers without its compiler, and determinism."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.slow
def test_no_stage_that_trains_imports_torchs_compiler() -> None:
    """It takes longer than the whole of some stages."""
    script = """
import sys, torch
from cgan.data.dataset import Dataset
import pytest

from cgan.model.hardware import choose_hardware, compute_deterministically
from cgan.training.fitting import filled
from cgan.params.reading import load_params
from cgan.quality.judge import train_judge
from cgan.training.loop import train
params = load_params()
images = torch.randint(255, (96, 1, 8, 8), dtype=torch.uint8)
data = Dataset(images, torch.arange(96) % 3, {"classes": 3})
cpu = choose_hardware("cpu", "auto")
compute_deterministically()
recipe = params.train_judge.model_copy(update={"total_kimg": 0.3, "width": 4})
train_judge(data, recipe, cpu.device, cpu.precision)
small = {"total_kimg": 0.3, "generator_width": 4, "discriminator_width": 4, "previews": 0}
train(data, filled(params.train.model_copy(update={**small, "device": "cpu"})))
assert torch.are_deterministic_algorithms_enabled()
print([name for name in ("torch._dynamo", "torch._inductor") if name in sys.modules])
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.split("\n")[-2] == "[]"
