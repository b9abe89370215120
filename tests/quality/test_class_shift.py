"""What a class's images have become is seen in the class it happened to, in words, and chance is not."""

import math
from collections.abc import Callable

import pytest
import torch
from conftest import noise, sample_digits
from torch import Tensor

from cgan.quality.class_shift import (
    MIN_IMAGES_FOR_MEAN,
    Moments,
    certain_differences,
    describe,
    largest_shifts,
)

IMAGES, LABELS = sample_digits()
ORDER = torch.randperm(5000, generator=torch.Generator().manual_seed(0))
KNOWN, NEW = ORDER[:2500], ORDER[2500:]


def moments(rows: Tensor, change: Callable[[Tensor], Tensor] = torch.clone) -> Moments:
    """With the images of class 3 changed."""
    images, labels = IMAGES[rows].clone(), LABELS[rows]
    images[labels == 3] = change(images[labels == 3])
    return Moments.of_images(images, labels, 10)


def square(images: Tensor) -> Tensor:
    images[:, :, 2:6, 20:24] = 255
    return images


def speckled(images: Tensor) -> Tensor:
    luck = torch.rand(images.shape, generator=torch.Generator().manual_seed(0))
    return images.where(luck > 0.01, (luck > 0.005).byte() * 255)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda images: images // 2, "contrast by -4"),
        (lambda images: 255 - images, "brightness by +1"),
        (square, "brightness of a part by +250.7"),
        (lambda images: images.roll(3, 3), "light further right, in pixels, by +3.0"),
        (lambda images: images.roll(-2, 2), "light further down, in pixels, by -2.0"),
        (lambda images: noise(images, 20), "edge"),
        (speckled, "specks by +0."),
    ],
)
def test_a_change_of_one_class_is_named_and_no_other(
    change: Callable[[Tensor], Tensor], words: str
) -> None:
    found = largest_shifts(moments(NEW, change), moments(KNOWN), (1, 28, 28))
    assert found[3].deviations > 1 and words in found[3].words
    assert max(each.deviations for each in found if each.label != 3) < 0.1
    back = largest_shifts(moments(KNOWN), moments(NEW, change), (1, 28, 28))
    assert back[3].deviations == pytest.approx(found[3].deviations)


def test_fewer_images_than_show_anything_show_nothing() -> None:
    for few in (MIN_IMAGES_FOR_MEAN - 1, MIN_IMAGES_FOR_MEAN):
        inverted = moments((LABELS == 3).nonzero()[:few, 0], lambda images: 255 - images)
        found = largest_shifts(inverted, moments(KNOWN), (1, 28, 28))
        assert bool(found[3].deviations) is (few == MIN_IMAGES_FOR_MEAN)


def test_moments_are_those_of_each_class() -> None:
    found = moments(KNOWN)
    rows = describe(IMAGES[KNOWN[LABELS[KNOWN] == 3]]).double()
    assert found.counts[3] == len(rows) and torch.allclose(found.means[3], rows.mean(dim=0))
    assert torch.allclose(found.variances[3], rows.var(dim=0, correction=0))


def test_a_mean_is_off_by_its_deviations_less_chance() -> None:
    def by_hand(count: float, means: list[float]) -> Moments:
        column = torch.tensor(means, dtype=torch.float64)[:, None]
        return Moments(torch.full((len(means),), count), column, torch.ones_like(column))

    # 2 columns: Student's t is 2.24 normal deviations. A difference of 3 has √(1/100² + 3² / 80,000) of one.
    known, found = by_hand(20_000, [0, 0]), by_hand(20_000, [0, 3])
    shifts = certain_differences(found, known, torch.zeros(1))[:, 0].tolist()
    assert shifts == [0, pytest.approx(3 - 2.24 * 0.01458, abs=0.001)]

    # Of ten, d is 3 / √(20 / 18), Student's t with 18 degrees of freedom 2.1009, the scale √(40 · 2 / 10).
    certain = 2.8284 * math.sinh(math.asinh(3 / math.sqrt(20 / 18) / 2.8284) - 2.1009 / 40**0.5)
    shift = float(certain_differences(by_hand(10, [3]), by_hand(10, [0]), torch.zeros(1)))
    assert shift == pytest.approx(certain, rel=1e-3)
