"""Drawings without training: the ideal denoiser of images, by windows."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from cgan.models import local_score
from cgan.models.local_score import LocalScoreSampler, LocalScoreSettings, Windows, denoise

SETTINGS = LocalScoreSettings(steps=8, sigma_max=10.0)
WHOLE = replace(SETTINGS, window_scale=100.0, cap=1.0)
COUNTS = (7, 1, 2, 5)  # images a class


def images_of(count: int, height: int = 10, width: int = 14, channels: int = 3) -> Tensor:
    """Smooth random pictures, uint8 [N, C, H, W]."""
    random = torch.Generator().manual_seed(count)
    coarse = torch.rand(count, channels, 3, 4, generator=random)
    fine = torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear")
    return (fine * 255).to(torch.uint8)


def unequal_sampler(settings: LocalScoreSettings = SETTINGS) -> LocalScoreSampler:
    """Classes of COUNTS images, shuffled; those of class c lie between 60c and 60c + 50."""
    labels = torch.arange(len(COUNTS)).repeat_interleave(torch.tensor(COUNTS))
    labels = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))]
    images = images_of(len(labels)).float().mul(50 / 255) + 60 * labels[:, None, None, None]
    return LocalScoreSampler(images.to(torch.uint8), labels, settings)


def test_windows_that_see_all_give_the_mean_of_the_posterior() -> None:
    sources, sigma = images_of(9), 6.0
    pixels = sources.double() / 127.5 - 1
    noisy = pixels[4] + sigma * torch.randn(3, 10, 14, generator=torch.Generator().manual_seed(1))
    squares = (noisy - pixels).square().sum(dim=(1, 2, 3))
    weights = torch.softmax(-squares / (2 * sigma**2), dim=0)
    assert 0.05 < weights.max() < 0.95, "no case in point"
    expected = (weights[:, None, None, None] * pixels).sum(dim=0)
    found = denoise(noisy.float(), sources, local_score.pixel_variance(sources), sigma, WHOLE)
    torch.testing.assert_close(found, expected.float(), atol=2e-4, rtol=0)


def test_windows_sum_what_they_see_and_are_cut_at_the_ends() -> None:
    sources, noisy = images_of(4), torch.randn(3, 10, 14)
    down, across = Windows(10, 5, noisy.device), Windows(14, 5, noisy.device)
    assert (len(down.in_window), len(across.in_window)) == (10, 14)  # a window at each pixel
    found = local_score.window_distances(noisy, sources, down, across)
    squares = (noisy - (sources / 127.5 - 1)).square()
    for source, y, x in [(0, 0, 0), (1, 9, 13), (2, 4, 6), (3, 1, 12)]:
        window = squares[source, :, max(0, y - 2) : y + 3, max(0, x - 2) : x + 3]
        torch.testing.assert_close(found[source, y, x], window.sum(), rtol=1e-4, atol=1e-4)


def test_windows_overlap_and_every_pixel_is_made_by_some() -> None:
    for length, side in [(64, 47), (28, 5), (17, 33), (3, 1), (256, 53)]:
        windows = Windows(length, side, torch.device("cpu"))
        torch.testing.assert_close(windows.mixing.sum(dim=0), torch.ones(length))
        assert (windows.in_window.sum(dim=0) >= 1).all()
        assert len(windows.in_window) <= 2 + length / max(1, side // 4)


def test_parts_of_several_images_become_new_images() -> None:
    """Left and right halves vary independently: of 6 × 6 pairs, 6 are there."""
    left, right = torch.tensor([4, 0, 5, 2, 1, 3]), torch.tensor([1, 4, 2, 5, 0, 3])
    sources = torch.zeros(6, 1, 8, 24, dtype=torch.uint8)
    sources[:, :, :, :6] = (20 + 40 * left.to(torch.uint8))[:, None, None, None]
    sources[:, :, :, 18:] = (20 + 40 * right.to(torch.uint8))[:, None, None, None]
    labels = torch.zeros(40, dtype=torch.long)

    def pairs(settings: LocalScoreSettings) -> Tensor:
        sampler = LocalScoreSampler(sources, labels[:6], settings)
        drawn = sampler.draw(labels, seed=1).float()
        return (drawn[:, 0, 4][:, [1, 22]] - 20) / 40

    local = pairs(replace(SETTINGS, cap=1.0, window_scale=1.0))
    assert ((local - local.round()).abs() < 0.05).double().mean() > 0.5  # by chance 0.1
    known = {(int(a), int(b)) for a, b in zip(left, right, strict=True)}
    new = [tuple(pair) not in known for pair in local.round().int().tolist()]
    assert sum(new) > 20
    assert all(tuple(pair) in known for pair in pairs(WHOLE).round().int().tolist())


def test_an_image_depends_on_seed_position_and_label_alone() -> None:
    sampler = unequal_sampler()
    labels = torch.tensor([3, 0, 2, 0, 1, 3, 0])
    drawn = sampler.draw(labels, seed=5)
    assert drawn.shape == (7, 3, 10, 14) and drawn.dtype == torch.uint8
    of_own_class = drawn.flatten(1).int() - 60 * labels[:, None]
    assert of_own_class.min() >= -1 and of_own_class.max() <= 51
    assert torch.equal(sampler.draw(labels[:4], seed=5), drawn[:4])
    others = torch.tensor([0, 0, 0, 0, 1, 2, 0])
    assert torch.equal(sampler.draw(others, seed=5)[[1, 3, 4, 6]], drawn[[1, 3, 4, 6]])
    assert not torch.equal(drawn[1], drawn[3])
    assert not torch.equal(sampler.draw(labels, seed=6)[0], drawn[0])


@pytest.mark.parametrize(("count", "allowed"), [(30, 0.3), (5, 0.3), (3, 0.5), (2, 0.75)])
def test_no_image_makes_more_of_a_drawing_than_the_cap(count: int, allowed: float) -> None:
    """The noisy image is a source itself: without a cap it is given back."""
    sources = images_of(count, 24, 20)
    noisy, even = sources[0] / 127.5 - 1, torch.ones(24, 20)
    settings = replace(SETTINGS, window_scale=1.0)

    def part_of_first(cap: float) -> float:
        clean = denoise(noisy, sources, even, 0.03, replace(settings, cap=cap))
        return ((clean - noisy).abs().amax(dim=0) < 2e-3).double().mean().item()

    assert part_of_first(1.0) == 1
    assert part_of_first(0.3) < allowed + 0.05
    random = torch.Generator().manual_seed(count)
    logits = 40 * torch.randn(count, 6, 5, generator=random)
    logits[0] += 60
    parts = torch.rand(6, 5, generator=random)
    parts /= parts.sum()
    rows, weights = local_score.capped_softmax(logits, 0.3, parts)
    assert (weights * parts).sum(dim=(1, 2)).max() <= allowed * 1.03
    assert len(rows) <= count
    torch.testing.assert_close(weights.sum(dim=0), torch.ones(6, 5))


def test_the_cap_counts_what_differs_and_no_common_ground() -> None:
    """Ink in a fifth of the picture: by area its image could own all of it."""
    sources = torch.full((30, 3, 24, 20), 17, dtype=torch.uint8)
    sources[:, :, 6:14, 5:17] = images_of(30, 8, 12)
    noisy = sources[0] / 127.5 - 1
    settings = replace(SETTINGS, window_scale=1.0, cap=0.3)

    def part_of_ink(differences: Tensor) -> float:
        clean = denoise(noisy, sources, differences, 0.03, settings)
        ink = (clean - noisy)[:, 6:14, 5:17].abs().amax(dim=0)
        return (ink < 2e-3).double().mean().item()

    differences = local_score.pixel_variance(sources)
    assert part_of_ink(torch.ones(24, 20)) > 0.6 and part_of_ink(differences) < 0.35
    assert differences[0, 0] == 0 and (local_score.pixel_variance(sources[:1]) == 1).all()


def test_windows_and_noise_grow_with_the_image() -> None:
    for side, scale, noise in ((32, 1.35, 20), (47, 1.35, 29.4), (48, 1.9, 30), (16, 1.35, 20)):
        settings = local_score.suitable_settings(side, side)
        assert (settings.window_scale, settings.sigma_max) == (scale, noise)


def test_fine_steps_take_the_sources_that_fit_some_window() -> None:
    """One is the best on the left, one on the right; the others are far everywhere."""
    sources = torch.full((90, 1, 8, 24), 200, dtype=torch.uint8)
    sources[30:] += torch.arange(60, dtype=torch.uint8).div(2).to(torch.uint8)[:, None, None, None]
    sources[71, :, :, :12], sources[88, :, :, 12:] = 20, 20
    noisy = torch.full((1, 8, 24), 20 / 127.5 - 1)
    kept = local_score.nearest_sources(noisy, sources, 0.1, SETTINGS)
    assert len(kept) == local_score.FINE_SOURCES
    assert kept[-2:].amin(dim=(1, 2, 3)).tolist() == [20, 20]


def test_the_noise_falls_from_the_most_to_the_least() -> None:
    noises = local_score.noise_levels(SETTINGS)
    assert noises[0] == pytest.approx(10) and noises[-1] == pytest.approx(0.03)
    assert noises == sorted(noises, reverse=True) and len(noises) == 8
    middle = (10 ** (1 / 7) + 3 / 7 * (0.03 ** (1 / 7) - 10 ** (1 / 7))) ** 7
    assert noises[3] == pytest.approx(middle)  # Karras et al., equation 5


def test_a_window_has_bounds_and_its_middle_alone_makes_pixels() -> None:
    """At most 72 % and at least 15 % of the image's side, in whole odd pixels."""
    assert [local_score.window_side(sigma, 32, 32, 1.0) for sigma in (1e-3, 20.0)] == [5, 23]
    for length, side, middle in ((64, 33, 17), (10, 3, 3)):
        windows = Windows(length, side, torch.device("cpu"))
        assert windows.in_window.sum(dim=1).max() == side
        assert (windows.mixing > 0).sum(dim=1).max() == middle, "it reaches to the next centre"


def test_a_drawing_has_so_many_sources_and_takes_their_time() -> None:
    sampler = unequal_sampler(replace(SETTINGS, sources=1, cap=1.0))
    drawn = sampler.draw(torch.zeros(12, dtype=torch.long), seed=3)
    images = sampler.images[sampler.labels == 0]
    apart = (drawn[:, None].int() - images.int()).abs().flatten(2).amax(dim=2)
    assert (apart.amin(dim=1) <= 1).all() and len(apart.argmin(dim=1).unique()) > 2
    samplers = (unequal_sampler(replace(SETTINGS, sources=n)) for n in (2, 7, 999))
    two, seven, many = (sampler.seconds_per_drawing for sampler in samplers)
    assert two < seven == many, "the largest class has seven"
