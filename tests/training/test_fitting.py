"""What `auto` becomes: by how far apart the images lie, and never in the place of a number."""

from __future__ import annotations

import pytest
import torch
from conftest import ROOT

from cgan.data.dataset import Dataset
from cgan.data.sources import mnist_sample
from cgan.params.reading import load_params
from cgan.training.fitting import FAR_APART, filled, fit, sparsity

CHOICES = load_params(ROOT / "params.yaml").train
AUTO = ("class_logit_weight", "max_shift", "total_kimg")


def digits(count: int) -> Dataset:
    pixels, labels = mnist_sample()
    rows = torch.randperm(5000, generator=torch.Generator().manual_seed(0))[:count]
    images = torch.from_numpy(pixels).view(-1, 1, 28, 28)[rows]
    return Dataset(images, torch.from_numpy(labels).long()[rows], {"classes": 10})


def noise(side: int, count: int = 60) -> Dataset:
    """No image is nearer to another than chance has it."""
    random = torch.Generator().manual_seed(0)
    images = torch.randint(256, (count, 1, side, side), dtype=torch.uint8, generator=random)
    return Dataset(images, torch.arange(count) % 3, {"classes": 3})


def chosen(data: Dataset) -> tuple[float, ...]:
    params = fit(CHOICES, data).params
    return tuple(getattr(params, name) for name in AUTO)


def test_many_digits_are_trained_as_before_and_few_with_help() -> None:
    assert chosen(digits(5000)) == (1.25, 0, 160.0)
    assert chosen(digits(1000)) == (2.5, 2, 240.0)
    assert sparsity(digits(5000)) < FAR_APART - 0.01 < FAR_APART + 0.01 < sparsity(digits(1000))


@pytest.mark.parametrize(("side", "shift"), [(8, 0), (15, 0), (16, 1), (32, 2), (64, 4)])
def test_a_shift_goes_with_the_side_and_small_images_stay_where_they_are(
    side: int, shift: int
) -> None:
    assert chosen(noise(side)) == (2.5, shift, 240.0)


def test_sparsity_is_a_median_of_0_for_copies_and_1_for_noise_whatever_contrast_and_size() -> None:
    data = noise(16)
    assert sparsity(data) == pytest.approx(1, abs=0.1)
    faint = Dataset(data.images // 8, data.labels, data.metadata)
    assert sparsity(faint) == pytest.approx(sparsity(data), abs=0.02)
    twice = Dataset(data.images.repeat(2, 1, 1, 1), data.labels.repeat(2), data.metadata)
    assert sparsity(twice) < 0.01
    blank = Dataset(torch.zeros_like(data.images), data.labels, data.metadata)
    assert sparsity(blank) == 0
    data = noise(16, 61)
    torch.manual_seed(0)
    before = torch.get_rng_state()
    few_copies = Dataset(data.images.clone(), data.labels, data.metadata)
    few_copies.images[:20] = few_copies.images[20]
    assert sparsity(few_copies) > 0.9
    assert torch.equal(torch.get_rng_state(), before)


def test_a_number_in_params_goes_before_the_rule_and_is_not_said_to_be_chosen() -> None:
    choices = CHOICES.model_copy(update={"max_shift": 1, "total_kimg": 7.0})
    found = fit(choices, noise(32))
    assert (found.params.max_shift, found.params.total_kimg) == (1, 7.0)
    assert found.params.class_logit_weight == 2.5
    assert found.choice.startswith("class_logit_weight 2.5 (images far apart: ")
    assert fit(filled(CHOICES), noise(32)).choice == ""
    assert fit(filled(CHOICES), noise(32)).params == filled(CHOICES)
    demo = {"discriminator": "demo", "updates": "in_turn", "auxiliary_discriminator": 0.0}
    found = fit(CHOICES.model_copy(update=demo), noise(28))
    assert found.params.class_logit_weight == 0
    assert found.choice.startswith("class_logit_weight 0, "), "that one has no class logits"
