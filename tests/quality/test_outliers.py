"""What a part of the images has, and no real image, is seen in its class; what chance does is not."""

import math
from collections.abc import Callable

import pytest
import torch
from conftest import sample_digits
from scipy.stats import binomtest
from torch import Tensor
from torch.nn.functional import avg_pool2d, pad

from cgan.quality.outliers import (
    CROSS_FITS,
    MARGINS,
    OutlierModels,
    Samples,
    excesses,
    tones_of,
)

DIGITS, LABELS = sample_digits()
ORDER = torch.randperm(5000, generator=torch.Generator().manual_seed(0))
LIMIT = 0.02


def rows(images: Tensor, labels: Tensor) -> Samples:
    """Not square; in place of what a judge sees, every fourth pixel."""
    images = images[:, :, :, 2:26]
    return Samples.measure(images, images[:, 0, ::2, ::2].flatten(1).float(), labels)


def models(known: Tensor, heldout: Tensor) -> OutlierModels:
    training, others = (rows(DIGITS[part], LABELS[part]) for part in (known, heldout))
    return OutlierModels.fit(training, others, (1, 28, 24), 10)


@pytest.fixture(scope="module")
def real() -> OutlierModels:
    return models(ORDER[2000:4500], ORDER[4500:])


def square(images: Tensor) -> Tensor:
    images[:, :, 2:6, 4:8] = 255
    return images


def two_levels(images: Tensor) -> Tensor:
    return torch.where(images > 127, 255, 0).to(torch.uint8)


def mirrored(images: Tensor) -> Tensor:
    return images.transpose(2, 3).flip(2)


@pytest.mark.parametrize(
    ("change", "part", "label"),
    [
        (square, 0.3, 7),
        (lambda images: pad(images[:, :, 1:-1], (0, 0, 1, 1), value=255), 0.1, None),
        (two_levels, 0.1, None),
        (two_levels, 0.3, 7),
        (lambda images: images // 2, 0.3, 4),
        (mirrored, 0.2, None),
    ],
)
def test_what_a_part_of_the_drawings_has_is_seen(
    real: OutlierModels, change: Callable[[Tensor], Tensor], part: float, label: int | None
) -> None:
    """2,000 real images in the drawings' place, a part of them, or of those of a class, changed."""
    images, labels = DIGITS[ORDER[:2000]].clone(), LABELS[ORDER[:2000]]
    marked = torch.rand(2000, generator=torch.Generator().manual_seed(1)) < part
    marked &= labels == label if label is not None else True
    images[marked] = change(images[marked])
    found = real.excesses(rows(images, labels))
    assert found[0].low > LIMIT
    assert label is None or {each.label for each in found if each.low > LIMIT} <= {label, None}
    assert [each.low for each in found] == sorted((each.low for each in found), reverse=True)
    assert {each.label for each in found} == {None, *range(10)}


def test_each_distance_sees_what_it_is_of(real: OutlierModels) -> None:
    """Numbers a square, features a digit on its side, tones two levels; soft ones have no tones."""
    images, labels = DIGITS[ORDER[:300]], LABELS[ORDER[:300]]
    soft = avg_pool2d(images.float(), 5, 1, 2).byte()
    changed = (square(images.clone()), mirrored(images), two_levels(images), soft)
    far = [real.distances(rows(some, labels)) > real.limits[labels, 0] for some in changed]
    numbers, features, tones, of_soft = (each.float().mean(dim=0).tolist() for each in far)
    assert numbers[0] > 0.2 and features[1] > 0.2 and tones[2] > 0.5 and of_soft[2] == 0


def test_tones_are_the_part_of_the_variance_of_two_levels() -> None:
    """All of it where there are two, whatever levels these are, less of others, and none of one."""
    images = torch.zeros(4, 3, 2, 6, dtype=torch.uint8)
    images[0, :, 0, :5], images[1, :, 1, 0] = 200, 9
    images[2] = torch.tensor([0, 100, 200, 0, 100, 200])
    assert tones_of(images).tolist() == pytest.approx([100, 100, 100 * 2 / 3, 0], abs=1e-3)


def test_real_images_that_nobody_has_seen_are_no_outliers() -> None:
    for seed in range(2):
        order = torch.randperm(5000, generator=torch.Generator().manual_seed(seed))
        drawn, known, heldout = order.split([2000, 2600, 400])
        found = models(known, heldout)
        shown = found.excesses(rows(DIGITS[drawn], LABELS[drawn]))
        assert shown[0].low < LIMIT / 2
        shares = [each.share for each in shown if each.label is None]
        assert max(shares) < LIMIT, "training images are scored by models that lack them"
        assert found.real.sum(dim=0)[:, 1].tolist() == [3000] * 2, (
            "held-out images are real ones, too"
        )


def test_few_images_are_judged_where_that_says_something() -> None:
    rare = LABELS[ORDER] == 2
    drawn = ORDER[rare][100:]
    of_29, of_30 = (
        models(torch.cat([ORDER[~rare][:2000], few]), ORDER[-200:]).excesses(
            rows(DIGITS[drawn], LABELS[drawn])
        )
        for few in (ORDER[rare][:29], ORDER[rare][:30])
    )
    assert of_29 == [] and of_30[0].low < LIMIT


def test_what_the_judge_memorised_raises_the_limit_of_the_features() -> None:
    """Its features of training images lie nearer to each other than those of unseen ones: all others are
    as these. Numbers and tones were not learnt."""
    training, unseen = (rows(DIGITS[part], LABELS[part]) for part in ORDER[:3000].split(2500))
    mean = training.features.mean(dim=0)
    learnt = training._replace(features=mean + (training.features - mean) / 3)
    plain, memorised = (
        OutlierModels.fit(known, unseen, (1, 28, 24), 10) for known in (training, learnt)
    )
    ratio = memorised.limits / plain.limits
    assert torch.equal(ratio[:, :, ::2], torch.ones(10, 2, 2))
    assert bool((ratio[:, :, 1] > 0.5).all()), "a third without the rise"
    others = rows(DIGITS[ORDER[3000:]], LABELS[ORDER[3000:]])
    assert memorised.excesses(others)[0].low < LIMIT


@pytest.mark.parametrize("size", [1, 5])
def test_an_excess_is_less_what_chance_explains(size: int) -> None:
    """The ends are Wilson's, and hold for both classes and all together; a group counts once."""
    counts, known = torch.tensor([[100, 1000], [10, 500]]), torch.tensor([[5, 500], [10, 1000]])
    found = {each.label: each for each in excesses(counts, known, size)}
    drawn, real = (
        binomtest(outliers // size, images // size).proportion_ci(1 - 0.05 / 3, "wilson")
        for outliers, images in ((100, 1000), (5, 500))
    )
    reach = math.hypot(0.1 - drawn.low, real.high - 0.01)
    assert found[0][:3] == (0, 0.1, 0.01) and found[0].low == pytest.approx(0.09 - reach)
    assert found[None][1:3] == pytest.approx((110 / 1500, 0.01)) and found[1].low < 0


def test_real_images_count_at_the_class_mix_of_the_others() -> None:
    """A rare class with more outliers of its own is no excess where all classes are drawn alike."""
    real = torch.tensor([[0, 900], [10, 100]])
    found = {each.label: each for each in excesses(torch.tensor([[0, 500], [50, 500]]), real)}
    assert found[None][1:3] == pytest.approx((0.05, 0.05)) and found[None].low < 0
    # Weights of a half make them worth 1 / (1/4 / 900 + 1/4 / 100) = 360.
    drawn, known = (
        binomtest(outliers, images).proportion_ci(1 - 0.05 / 3, "wilson")
        for outliers, images in ((50, 1000), (18, 360))
    )
    reach = math.hypot(0.05 - drawn.low, known.high - 0.05)
    assert found[None].low == pytest.approx(-reach)


def test_a_limit_is_what_all_but_a_hundredth_keep_and_a_margin() -> None:
    """By models that lack a fifth of the images each."""
    samples = rows(DIGITS[ORDER[:600]], torch.zeros(600, dtype=torch.int64))
    distances = torch.zeros(600, 3)
    for fold in range(CROSS_FITS):
        kept = torch.arange(600) % CROSS_FITS != fold
        lacking = OutlierModels.fit(samples.at(kept), samples, (1, 28, 24), 1)
        distances[~kept] = lacking.distances(samples.at(~kept))
    limits = MARGINS * distances.quantile(0.99, dim=0, interpolation="higher")
    fitted = OutlierModels.fit(samples, samples, (1, 28, 24), 1)
    assert torch.allclose(fitted.limits[0], limits, rtol=1e-4)


def test_features_of_drawings_have_a_wider_margin(real: OutlierModels) -> None:
    """Numbers and tones have the same."""
    images, labels = DIGITS[ORDER[:2000]], LABELS[ORDER[:2000]]
    samples = rows(images, labels)
    lengths = 1.4 / 1.2 * real.limits[labels, 0, 1] / real.distances(samples)[:, 1]
    off = (samples.features - real.features_mean[labels]) * lengths[:, None]
    between = samples._replace(features=real.features_mean[labels] + off)
    shares = [real.excesses(between, drawn=drawn)[0].share for drawn in (False, True)]
    assert shares[0] == 1 and shares[1] < LIMIT
    assert real.excesses(rows(two_levels(images), labels), drawn=True)[0].share > 0.9
