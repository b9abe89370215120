"""Copies that a shift or their brightness would hide, and how many different drawings a class has."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from cgan.data.dataset import Dataset
from cgan.data.sources import mnist_sample
from cgan.quality import likeness
from cgan.quality.evaluation import near_copies
from cgan.quality.likeness import copies, different, distances, nearest

ASKED = torch.arange(1000) % 10


@pytest.fixture(scope="module")
def digits() -> tuple[Dataset, Dataset]:
    """Training part and hold-out, 2,000 and 1,000 digits, sorted by class."""
    pixels, labels = mnist_sample()
    images, classes = torch.from_numpy(pixels).view(-1, 1, 28, 28), torch.from_numpy(labels).long()
    place = torch.arange(5000) % 500  # within the class
    parts = place < 200, place >= 400
    train, held = (Dataset(images[p], classes[p], {"classes": 10}) for p in parts)
    return train, held


def drawings(data: Dataset, per_class: int) -> Tensor:
    """Of the classes ASKED: the first `per_class` images of each, again and again."""
    by_class = [data.images[data.labels == label][:per_class] for label in range(10)]
    return torch.stack([by_class[n % 10][n // 10 % per_class] for n in range(len(ASKED))])


def moved(images: Tensor, pixels: int) -> Tensor:
    """Each another way, `pixels` at most, with black where it leaves room."""
    random = torch.Generator().manual_seed(0)
    ways = torch.randint(-pixels, pixels + 1, (len(images), 2), generator=random)
    ways[:, 0] = pixels  # none stays where it was
    wide = F.pad(images, [pixels] * 4)
    side = images.shape[2]
    return torch.stack(
        [
            image[:, pixels - y :, pixels - x :][:, :side, :side]
            for image, (y, x) in zip(wide, ways.tolist(), strict=True)
        ]
    )


def trifling(images: Tensor) -> Tensor:
    """The same with trifles: a pixel aside, darker or brighter, and noise."""
    random = torch.Generator().manual_seed(0)
    brightness = 0.7 + 0.6 * torch.rand(len(images), 1, 1, 1, generator=random)
    noise = 10 * torch.randn(images.shape, generator=random)
    return (moved(images, 1) * brightness + noise).round().clamp(0, 255).to(torch.uint8)


# -- Distances -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 256, 256), (1, 16, 40), (1, 8, 8)])
def test_an_image_moved_or_brightened_is_the_same_and_another_is_not(
    shape: tuple[int, int, int],
) -> None:
    random = torch.Generator().manual_seed(0)
    rough = torch.randint(40, 180, (4, shape[0], 7, 7), generator=random).float()
    images = F.interpolate(rough, size=shape[1:], mode="bicubic").clamp(0, 255)
    pixels = min(2, min(shape[1:]) // 8)
    same = (images.roll((pixels, -pixels), (2, 3)) * 0.8 + 30).to(torch.uint8)
    found = distances(same, images.to(torch.uint8))
    assert found.diagonal().max() < 0.3  # a part of a pixel, where large images are made smaller
    assert found.fill_diagonal_(1).min() > 0.5


def test_a_distance_is_the_part_of_the_contrast_that_remains_and_flat_images_are_alike() -> None:
    # Two columns pattern, orthogonal and of zero mean: at an angle, the rest is its sine.
    one = torch.tensor([1.0, -1.0]).repeat(12, 6)
    other = one.T
    images = torch.stack([128 + 80 * one, 128 + 80 * (0.8 * one + 0.6 * other), 128 + 80 * other])
    found = distances(images[:, None].to(torch.uint8), images[:, None].to(torch.uint8))
    assert found[0].tolist() == pytest.approx([0, 0.6, 1], abs=0.02)
    flat = torch.tensor([0, 90, 255], dtype=torch.uint8)[:, None, None, None].expand(-1, 1, 9, 9)
    digit = torch.eye(9, dtype=torch.uint8)[None, None] * 200
    assert distances(flat, flat).max() < 0.01
    assert distances(flat, digit).min() > 0.99 and distances(digit, flat).min() > 0.99


def test_f88_the_nearest_are_of_the_same_class_whatever_the_blocks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    random = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (30, 1, 8, 8), dtype=torch.uint8, generator=random)
    reference = torch.randint(0, 256, (70, 1, 8, 8), dtype=torch.uint8, generator=random)
    labels, theirs = torch.arange(30) % 4, torch.arange(70) % 3
    theirs[0] = 3  # the only one of its class
    apart = distances(images, reference)
    apart[labels[:, None] != theirs] = math.inf
    by, at = apart.topk(2, dim=1, largest=False)
    at[by.isinf()] = -1
    for block in (64 * 7, 10**9):
        monkeypatch.setattr(likeness, "_BLOCK", block)
        found = nearest(images, labels, reference, theirs, 2)
        torch.testing.assert_close(found[0], by)
        assert torch.equal(found[1], at)


# -- Copies --------------------------------------------------------------------------------------------


def test_copies_are_found_also_where_moved_darkened_or_noisy(
    digits: tuple[Dataset, Dataset],
) -> None:
    train, held = digits
    images = drawings(train, 100)
    for hidden in (images, moved(images, 2), trifling(images)):
        assert near_copies(hidden, ASKED, train, held, seed=0).closer.double().mean() > 0.9


def test_held_out_images_are_at_the_floor_of_copies(digits: tuple[Dataset, Dataset]) -> None:
    train, held = digits
    random = torch.randperm(1000, generator=torch.Generator().manual_seed(0))
    first, second = (
        Dataset(held.images[rows], held.labels[rows], {}) for rows in random.split(500)
    )
    found = copies(first.images, first.labels, second, train)
    back = copies(second.images, second.labels, first, train)
    assert torch.cat([found.closer, back.closer]).double().mean() == pytest.approx(0.01, abs=0.01)
    assert copies(held.images, held.labels, held, train).closer.double().mean() == 0.01


# -- Different drawings --------------------------------------------------------------------------------


@pytest.mark.parametrize(("pictures", "with_trifles"), [(1, False), (3, True), (10, True)])
def test_a_few_pictures_of_a_class_are_counted_whatever_trifles_are_added(
    pictures: int, with_trifles: bool, digits: tuple[Dataset, Dataset]
) -> None:
    images = drawings(digits[1], pictures)
    if with_trifles:
        images = trifling(images)
    # 100 drawings of ten pictures have ten of each: two at random are the same in 1 of 11 pairs.
    for pair in different(images, ASKED, digits[0]):
        assert pair and 0.7 * pictures < pair[0] < 1.3 * pictures
        assert pair[1] == pytest.approx(1000, rel=0.01)


def test_real_images_are_a_multitude_and_only_the_class_with_few_pictures_has_few(
    digits: tuple[Dataset, Dataset],
) -> None:
    images, one = drawings(digits[1], 100), drawings(digits[1], 1)
    images[ASKED == 4] = one[ASKED == 4]
    found = different(images, ASKED, digits[0])
    assert all(pair and (pair[0] < 30 if n == 4 else pair[0] > 200) for n, pair in enumerate(found))
