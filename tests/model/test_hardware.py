"""How torch is asked to compute: optimizers without its compiler, and determinism."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch

from cgan.model.hardware import without_compiler


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (torch.optim.Adam, {"lr": 0.1, "betas": (0.5, 0.9), "fused": True}),
        (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "nesterov": True, "fused": True}),
        (torch.optim.Adadelta, {"lr": 1.0}),
    ],
)
def test_an_optimizer_without_the_compiler_updates_as_torchs_own(
    kind: Any, options: dict[str, Any]
) -> None:
    start = torch.randn(5, generator=torch.Generator().manual_seed(0))
    found = []
    for maker in (kind, without_compiler(kind)):
        weight = start.clone().requires_grad_()
        optimizer = maker([weight], **options)
        assert isinstance(optimizer, kind)
        for _ in range(3):
            (weight.grad,) = torch.autograd.grad(weight.square().sum(), weight)
            optimizer.step()
        assert weight.requires_grad and weight.is_leaf
        found.append(weight.detach())
    assert torch.equal(*found) and not torch.equal(found[0], start)


def test_no_stage_that_trains_imports_torchs_compiler() -> None:
    """It takes longer than the whole of some stages."""
    script = """
import sys, torch
from cgan.data.dataset import Dataset
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
