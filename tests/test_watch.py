"""Sabotaged trainings: the watch stops them, or the metrics show it, in words."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from gated import CLASSES, digits
from test_training import params_of
from torch import Tensor

from cgan import steps
from cgan.dataset import Dataset
from cgan.judge import Judge, look, train_judge
from cgan.metrics import conditional_accuracy
from cgan.networks import Generator
from cgan.params import JudgeParams
from cgan.sampling import draw
from cgan.training import Diverged, Trained, train
from cgan.watch import BAD_PROBES, WARM_UP_KIMG, Watch

# One pass drew a class of these 300 images all alike with one seed in three, and was stopped for it.
STRONG = {
    "generator_width": 8,
    "discriminator_width": 8,
    "batch_size": 64,
    "lr": 3.0e-3,
    "updates": "two_passes",
    "auxiliary_discriminator": 1.0,
    "auxiliary_generator": 0.2,
    "class_logit_weight": 0.0,
    "adam_beta1": 0.3,
}
ONE_PASS = {"updates": "one_pass", "auxiliary_generator": 0.0, "class_logit_weight": 1.25}
LENGTH = {
    "total_kimg": 51.2,
    "log_every": 50,
    "save_every": 200,
    "previews": 0,
    "ema_half_life_kimg": 2.0,
    "r1_every": 8,
}


@pytest.fixture(scope="module")
def data() -> Dataset:
    images, labels = digits(per_class=100)
    return Dataset(torch.from_numpy(images), torch.from_numpy(labels), {"classes": CLASSES})


@pytest.fixture(scope="module")
def judge(data: Dataset) -> Judge:
    recipe = JudgeParams(total_kimg=9.0, batch_size=32, lr=3.0e-3, width=4, seed=0)
    return train_judge(data, recipe, torch.device("cpu"), torch.float32)


def trained(data: Dataset, judge: Judge, **changes: Any) -> Trained:
    params = params_of(**{**STRONG, **LENGTH, "probes": 8, **changes})
    return train(data, params, watch=Watch(judge, data, 1))


def accuracy_by_class(judge: Judge, generator: Generator) -> list[float]:
    asked = torch.arange(600) % CLASSES
    seen = look(judge, draw(generator, asked, 5))
    return list(conditional_accuracy(seen.classes, asked, CLASSES).by_class)


def test_a_training_as_it_should_be_is_left_alone(data: Dataset, judge: Judge) -> None:
    assert min(accuracy_by_class(judge, trained(data, judge).generator)) > 0.9


@pytest.mark.parametrize("changes", [{}, ONE_PASS], ids=["two_passes", "one_pass"])
def test_f52_a_generator_that_is_never_updated_stops_the_training_in_words(
    data: Dataset, judge: Judge, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    apply = steps.TrainState.apply

    def discriminator_only(state: steps.TrainState, optimizer: Any, by_part: Any) -> None:
        gradients = list(by_part)  # computed all the same, and with them the losses
        if optimizer is state.discriminator_optimizer:
            apply(state, optimizer, gradients)

    monkeypatch.setattr(steps.TrainState, "apply", discriminator_only)
    with pytest.raises(Diverged, match=r"chance alone gives 33|tells fakes from reals") as caught:
        trained(data, judge, **changes)
    assert caught.value.step > 500, "young generators are given time"


def test_f52_a_rate_thirty_times_too_high_stops_the_training_in_words(
    data: Dataset, judge: Judge
) -> None:
    words = r"chance alone gives 33|tells fakes from reals|mode collapse|not a finite number"
    with pytest.raises(Diverged, match=words):
        trained(data, judge, lr=30 * STRONG["lr"])


def test_a_class_of_noise_in_the_data_is_named_by_a_judge_of_good_data(
    data: Dataset, judge: Judge
) -> None:
    images = data.images.clone()
    noise = np.random.default_rng(0).integers(0, 256, images[data.labels == 1].shape)
    images[data.labels == 1] = torch.from_numpy(noise.astype(np.uint8))
    spoilt = Dataset(images, data.labels, data.metadata)
    by_class = accuracy_by_class(judge, trained(spoilt, judge, probes=0).generator)
    assert by_class[1] < 0.6 < 0.9 < min(by_class[0], by_class[2])


class OnePicture(Generator):
    """Draws the mean image of the class, whatever the latents are."""

    def __init__(self, like: Generator, data: Dataset) -> None:
        super().__init__(like.architecture)
        means = [data.images[data.labels == label].float().mean(0) for label in range(CLASSES)]
        self.means = torch.nn.Parameter(torch.stack(means) / 127.5 - 1)

    def from_condition(self, latents: Tensor, condition: Tensor) -> Tensor:
        return torch.einsum("nk,kchw->nchw", condition, self.means)


def test_f52_one_picture_a_class_is_seen_by_the_second_probe_after_the_warm_up(
    data: Dataset, judge: Judge
) -> None:
    state = steps.TrainState(
        data, params_of(**STRONG), steps.Hardware(torch.device("cpu"), torch.float32)
    )
    watch = Watch(judge, data, 1)
    found = watch.probe(OnePicture(state.generator, data).eval())
    assert found["probe/conditional_accuracy"] == 1.0, "accuracy alone does not see it"
    assert watch.problem(found, WARM_UP_KIMG, 160.0) is None
    said = [watch.problem(found, WARM_UP_KIMG + 1, 160.0) for _ in range(BAD_PROBES)]
    assert said[:-1] == [None] * (BAD_PROBES - 1)
    assert "mode collapse: drawings of class" in str(said[-1])


def test_chance_is_no_sign_in_the_first_half_of_a_training(data: Dataset, judge: Judge) -> None:
    state = steps.TrainState(
        data, params_of(**STRONG), steps.Hardware(torch.device("cpu"), torch.float32)
    )
    watch = Watch(judge, data, 1)
    found = watch.probe(state.generator.eval()) | {"probe/diversity_worst_class": 1.0}
    assert found["probe/conditional_accuracy"] < 0.5
    assert [watch.problem(found, 79.0, 160.0) for _ in range(3)] == [None] * 3
    assert watch.problem(found, 81.0, 160.0) is None
