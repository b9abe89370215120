"""A card trains, judges and draws: the same bytes twice, and what a CPU draws but for rounding.

`make test-gpu`. `CGAN_TEST_DEVICE=cpu make test-gpu` tries these tests themselves where there is no card.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import digest, params_of, plain, stop_after, uneven

from cgan.models.hardware import choose_hardware, deterministic
from cgan.models.local_score import LocalScoreSampler, LocalScoreSettings
from cgan.models.model_file import digest_of
from cgan.models.networks import Architecture, build_generator
from cgan.params.sections import JudgeParams, TrainParams
from cgan.quality.evaluate import evaluate
from cgan.quality.evaluation import Evaluation
from cgan.quality.judge import Judge, train_judge
from cgan.training.loop import train

pytestmark = pytest.mark.gpu

NAME = os.environ.get("CGAN_TEST_DEVICE", "cuda")
STEPS = 200
DATA, HELD = (uneven(times, channels=3, seed=times) for times in (5, 3))


@pytest.fixture(autouse=True)
def equal_bits() -> Iterator[None]:
    with deterministic():
        yield


def chosen(**changes: Any) -> TrainParams:
    length = {"batch_size": 16, "total_kimg": STEPS * 16 / 1000}
    return params_of(**{"probes": 0, "device": NAME, "lr": 1e-3, **length, **changes})


def judge_of(precision: str = "float32", **options: Any) -> Judge:
    return train_judge(
        DATA, JudgeParams(total_kimg=8.0), choose_hardware(NAME, precision), **options
    )


KINDS: list[dict[str, Any]] = [
    {},
    {"generator": "upsample", "max_shift": 2},
    {"updates": "two_passes", "max_shift": 2},
    {"updates": "two_passes", "generator": "upsample"},
    {"generator": "demo", "lr": 1.0},
]


@pytest.mark.parametrize("changes", KINDS, ids=str)
def test_two_trainings_have_equal_bytes(changes: dict[str, Any]) -> None:
    precision = choose_hardware(NAME, "auto").precision_name
    params = chosen(precision=precision, **changes)
    data = plain(uneven(5, height=28, width=28)) if params.is_demo else DATA
    first, second = (train(data, params) for _ in range(2))
    assert digest(first) == digest(second) and len(first.history) == STEPS // 2


@pytest.mark.parametrize("device", [NAME, "cpu"])
def test_a_training_goes_on_where_it_began(device: str, tmp_path: Path) -> None:
    """Also on the CPU, beside a card."""
    params = chosen(device=device)
    train(DATA, params, folder=tmp_path, should_stop=stop_after(78))
    resumed = train(DATA, params, folder=tmp_path)
    assert resumed.resumed_from == 78 and digest(resumed) == digest(train(DATA, params))


@pytest.mark.parametrize("precision", ["float32", "auto"])
def test_a_judge_has_equal_bytes(precision: str) -> None:
    weights = torch.tensor([1.0, 2.0, 0.5])
    first, second = (judge_of(precision, class_weights=weights).state_dict() for _ in range(2))
    assert digest_of(first) == digest_of(second)


def test_what_is_measured_is_what_the_cpu_measures() -> None:
    torch.manual_seed(0)
    kind = Architecture("upsample", 3, *DATA.shape, features=8, latent_dim=4)
    network, judge = build_generator(kind).eval(), judge_of()
    params: dict[str, Any] = {"samples": 900, "gan_train_kimg": 0.0, "seed": 3}

    def measured(device: torch.device) -> Evaluation:
        return evaluate(network.to(device), DATA, HELD, judge=judge.to(device), **params)

    there, here = measured(choose_hardware(NAME, "float32").device), measured(torch.device("cpu"))
    for key, score in here.metrics.items():
        assert there.score(key).value == pytest.approx(score.value, rel=0.02, abs=0.02), key
    assert there.context["device"] == torch.device(NAME).type


def test_the_local_score_sampler_draws_what_the_cpu_draws() -> None:
    sampler = LocalScoreSampler(DATA.tensors.pixels, DATA.tensors.labels, LocalScoreSettings())
    labels = torch.arange(12) % 3
    here = sampler.draw(labels, 5)
    there = sampler.to(choose_hardware(NAME, "float32").device).draw(labels, 5)
    apart = (there.int() - here.int()).abs()
    assert (apart <= 2).double().mean() > 0.98
    assert torch.equal(sampler.draw(labels, 5), there)
