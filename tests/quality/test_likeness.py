"""Copies that a shift or their brightness would hide."""

import math
from collections.abc import Callable

import pytest
import torch
from conftest import moved, noise, sample_digits, trifling
from scipy.ndimage import rotate
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from cgan.data.images import Images
from cgan.quality import likeness
from cgan.quality.likeness import find_near_copies, nearest_neighbours, pairwise_distances

ASKED = torch.arange(1000) % 10
IMAGES, CLASSES = sample_digits()
PLACE = torch.arange(5000) % 500  # within the class
# Training part and hold-out, 2,000 and 1,000 digits, sorted by class.
TRAIN, HELD = (Images(IMAGES[rows], CLASSES[rows]) for rows in (PLACE < 200, PLACE >= 400))


def drawings(data: Images, per_class: int) -> Tensor:
    """Of the classes ASKED: the first `per_class` images of each, again and again."""
    pixels, labels, _ = data.tensors
    by_class = [pixels[labels == label][:per_class] for label in range(10)]
    return torch.stack([by_class[n % 10][n // 10 % per_class] for n in range(len(ASKED))])


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 256, 256), (1, 16, 40), (1, 8, 8)])
def test_an_image_moved_or_brightened_is_the_same(shape: tuple[int, int, int]) -> None:
    random = torch.Generator().manual_seed(0)
    rough = torch.randint(40, 180, (4, shape[0], 7, 7), generator=random).float()
    images = F.interpolate(rough, size=shape[1:], mode="bicubic").clamp(0, 255)
    pixels = min(2, min(shape[1:]) // 8)
    same = (images.roll((pixels, -pixels), (2, 3)) * 0.8 + 30).to(torch.uint8)
    found = pairwise_distances(same, images.to(torch.uint8))
    assert found.diagonal().max() < 0.3  # a part of a pixel, where large images are made smaller
    assert found.fill_diagonal_(1).min() > 0.5


def test_a_distance_is_the_part_of_the_contrast_that_remains() -> None:
    # Two columns pattern, orthogonal and of zero mean: at an angle, the rest is its sine.
    one = torch.tensor([1.0, -1.0]).repeat(12, 6)
    other = one.T
    images = torch.stack([128 + 80 * one, 128 + 80 * (0.8 * one + 0.6 * other), 128 + 80 * other])
    found = pairwise_distances(images[:, None].to(torch.uint8), images[:, None].to(torch.uint8))
    assert found[0].tolist() == pytest.approx([0, 0.6, 1], abs=0.02)
    flat = torch.tensor([0, 90, 255], dtype=torch.uint8)[:, None, None, None].expand(-1, 1, 9, 9)
    digit = torch.eye(9, dtype=torch.uint8)[None, None] * 200
    assert pairwise_distances(flat, flat).max() < 0.01, "flat images are alike"
    for one_way in (pairwise_distances(flat, digit), pairwise_distances(digit, flat)):
        assert one_way.min() > 0.99


def test_the_nearest_are_of_the_same_class_in_blocks_too(monkeypatch: pytest.MonkeyPatch) -> None:
    random = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (30, 1, 8, 8), dtype=torch.uint8, generator=random)
    reference = torch.randint(0, 256, (70, 1, 8, 8), dtype=torch.uint8, generator=random)
    labels, reference_labels = torch.arange(30) % 4, torch.arange(70) % 3
    reference_labels[0] = 3  # the only one of its class
    apart = pairwise_distances(images, reference)
    apart[labels[:, None] != reference_labels] = math.inf
    by, at = apart.topk(2, dim=1, largest=False)
    at[by.isinf()] = -1
    for block in (64 * 7, 10**9):
        monkeypatch.setattr(likeness, "MAX_BLOCK_PIXELS", block)
        found = nearest_neighbours(images, labels, reference, reference_labels, 2)
        torch.testing.assert_close(found[0], by)
        assert torch.equal(found[1], at)


@pytest.mark.parametrize(
    ("hide", "least"),
    [
        (lambda images: images, 0.99),
        (lambda images: moved(images, 2), 0.9),
        (trifling, 0.9),
        (lambda images: torch.from_numpy(rotate(images, 8, (2, 3), reshape=False, order=1)), 0.6),
        (lambda images: noise(images, 40), 0.6),
    ],
)
def test_copies_moved_turned_darkened_or_noisy_are_found(
    hide: Callable[[Tensor], Tensor], least: float
) -> None:
    found = find_near_copies(hide(drawings(TRAIN, 100)), ASKED, TRAIN, HELD, seed=0)
    assert found.is_copy.double().mean() > least
    assert found.real < 0.03


def test_real_images_are_at_the_floor_of_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    random = torch.randperm(1000, generator=torch.Generator().manual_seed(0))
    first, second = map(HELD.at, random.split(500))
    found = find_near_copies(*first.tensors[:2], TRAIN, second, seed=1)
    monkeypatch.setattr(likeness, "MIN_REAL_COMPARED", 500)  # the held-out ones alone
    back = find_near_copies(*second.tensors[:2], TRAIN, first, seed=0)
    for each in (found, back):
        assert each.real == pytest.approx(0.015, abs=0.01)
        # Of 500 images the share has a standard deviation of .006.
        assert each.is_copy.double().mean() == pytest.approx(each.real, abs=0.015)
    again = find_near_copies(*HELD.tensors[:2], TRAIN, HELD, seed=0)
    assert again.is_copy.double().mean() == again.real


def test_twins_across_the_split_hide_no_copies() -> None:
    """Four in a hundred of the held-out images are also in the training part."""
    twins, labels = HELD.tensors.pixels.clone(), HELD.tensors.labels
    for row in range(0, 1000, 25):
        twins[row] = TRAIN.tensors.pixels[TRAIN.tensors.labels == labels[row]][row % 100]
    spoilt = Images(twins, labels)
    found = find_near_copies(drawings(TRAIN, 100), ASKED, TRAIN, spoilt, seed=0)
    assert found.is_copy.all() and found.real == pytest.approx(0.05, abs=0.01)
    honest = find_near_copies(drawings(HELD, 100), ASKED, TRAIN, spoilt, seed=0)
    assert honest.is_copy.double().mean() < 0.03


def test_few_images_are_judged_by_what_is_usual_in_all() -> None:
    some = HELD.at((HELD.tensors.labels != 3) | (torch.arange(1000) % 100 < 3))
    found, unseen = (
        find_near_copies(drawings(n, 100), ASKED, TRAIN, some, 0) for n in (TRAIN, HELD)
    )
    assert found.is_copy.all() and unseen.is_copy[ASKED == 3].double().mean() < 0.05
