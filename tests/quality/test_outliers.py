"""What a part of the drawings has, and no real image, is seen in its class; what chance does is not."""

import math
from collections.abc import Callable

import pytest
import torch
from conftest import sample_digits
from scipy.stats import binomtest
from torch import Tensor
from torch.nn.functional import avg_pool2d, pad

from cgan.proportions import joint_z
from cgan.quality.outliers import MARGINS, Excess, Samples, excesses, outliers, tones_of

DIGITS, LABELS = sample_digits()
ORDER = torch.randperm(5000, generator=torch.Generator().manual_seed(0))
LIMIT = 0.02


def rows(images: Tensor, labels: Tensor) -> Samples:
    """Not square; in place of what a judge sees, every fourth pixel."""
    images = images[:, :, :, 2:26]
    return Samples.of(images, images[:, 0, ::2, ::2].flatten(1).float(), labels)


def found(drawn: Tensor, labels: Tensor, known: Tensor, heldout: Tensor) -> list[Excess]:
    training, others = (rows(DIGITS[part], LABELS[part]) for part in (known, heldout))
    return outliers(rows(drawn, labels), training, training.labels, others, (1, 28, 24), 10)


def in_part(change: Callable[[Tensor], Tensor], part: float, label: int | None) -> list[Excess]:
    """2,000 real images in the drawings' place, a part of them, or of those of a class, changed."""
    picked = ORDER[:2000]
    images, labels = DIGITS[picked].clone(), LABELS[picked]
    marked = torch.rand(2000, generator=torch.Generator().manual_seed(1)) < part
    marked &= labels == label if label is not None else True
    images[marked] = change(images[marked])
    return found(images, labels, ORDER[2000:4500], ORDER[4500:])


def square(images: Tensor) -> Tensor:
    images[:, :, 2:6, 4:8] = 255
    return images


def two_levels(images: Tensor) -> Tensor:
    return torch.where(images > 127, 255, 0).to(torch.uint8)


@pytest.mark.parametrize(
    ("change", "part", "label", "kind"),
    [
        (square, 0.3, 7, "numbers"),
        (lambda images: pad(images[:, :, 1:-1], (0, 0, 1, 1), value=255), 0.1, None, "features"),
        (two_levels, 0.1, None, "tones"),
        (two_levels, 0.3, 7, "tones"),
        (lambda images: images // 2, 0.3, 4, "numbers"),
        (lambda images: images.transpose(2, 3).flip(2), 0.2, None, "features"),
    ],
)
def test_what_a_part_of_the_drawings_has_is_seen(
    change: Callable[[Tensor], Tensor], part: float, label: int | None, kind: str
) -> None:
    found = in_part(change, part, label)
    assert found[0].low > LIMIT and any(each.kind == kind and each.low > LIMIT for each in found)
    assert label is None or {each.label for each in found if each.low > LIMIT} <= {label, None}
    assert [each.low for each in found] == sorted((each.low for each in found), reverse=True)


def test_tones_are_the_part_of_the_variance_of_two_levels() -> None:
    """All of it where there are two, whatever levels these are, less of others, and none of one."""
    images = torch.zeros(4, 3, 2, 6, dtype=torch.uint8)
    images[0, :, 0, :5], images[1, :, 1, 0] = 200, 9
    images[2] = torch.tensor([0, 100, 200, 0, 100, 200])
    assert tones_of(images)[:, 0].tolist() == pytest.approx([100, 100, 100 * 2 / 3, 0], abs=1e-3)


def test_real_images_that_nobody_has_seen_are_no_outliers() -> None:
    for seed in range(4):
        order = torch.randperm(5000, generator=torch.Generator().manual_seed(seed))
        drawn, known, heldout = order.split([2000, 2600, 400])
        shown = found(DIGITS[drawn], LABELS[drawn], known, heldout)
        assert shown[0].low < LIMIT / 2
        shares = [each.share for each in shown if each.label is None]
        assert max(shares) < LIMIT, "training images are scored by models that lack them"


def test_few_images_are_judged_where_that_says_something() -> None:
    rare = LABELS[ORDER] == 2
    drawn = ORDER[rare][100:]
    of_nine, of_twenty = (
        found(DIGITS[drawn], LABELS[drawn], torch.cat([ORDER[~rare][:2000], few]), ORDER[-200:])
        for few in (ORDER[rare][:9], ORDER[rare][:20])
    )
    assert of_nine == [] and of_twenty[0].low < LIMIT


# Training, drawn and held-out images of ten classes.
TOTAL = torch.tensor([450, 1000, 50]).expand(10, 3)
Z = joint_z(len(MARGINS) * 11)  # of three kinds, ten classes and all together


def test_what_the_judge_memorised_is_taken_off_the_features() -> None:
    """Alone. Ten times as many held-out images as training images are unusual in its eyes; drawings are as
    those. Elsewhere held-out images are real ones like any. The ends are Wilson's."""
    counts = torch.stack([torch.tensor([4, 100, 5]).expand(10, 3), TOTAL], dim=2)

    def width(outliers: int, images: int, end: str) -> float:
        found = binomtest(outliers, images).proportion_ci(1 - 0.05 / 33, "wilson")
        return abs(float(getattr(found, end)) - outliers / images)

    for kind, real, widths in (
        ("features", 0.1, [width(4, 450, "high"), width(50, 500, "high")]),
        ("tones", 9 / 500, [width(9, 500, "high")]),
    ):
        found = excesses(kind, counts, Z)[4]
        assert (found.label, found.share) == (3, 0.1) and found.real == pytest.approx(real)
        reach = math.hypot(width(100, 1000, "low"), *widths)
        assert found.low == pytest.approx(0.1 - real - reach)


def test_one_honest_generator_of_twenty_has_outliers_at_most() -> None:
    """Drawings have 1 % of them, as real images; all kinds and classes together, which vary independently."""
    random = torch.Generator().manual_seed(0)
    share = torch.full_like(TOTAL, 0.01, dtype=torch.float64)

    def has_outliers(kind: str) -> bool:
        outside = torch.binomial(TOTAL.double(), share, generator=random).long()
        return any(each.low > 0 for each in excesses(kind, torch.stack([outside, TOTAL], 2), Z))

    assert sum(any(has_outliers(kind) for kind in MARGINS) for _ in range(300)) <= 15


@pytest.mark.parametrize("first", [0, 4])
def test_outliers_are_seen_at_every_fifth_place_too(first: int) -> None:
    """Which of the five folds' models scores a drawing depends on its place."""
    picked = ORDER[LABELS[ORDER] == 7][:200]
    images = DIGITS[picked].clone()
    images[first::5] = square(images[first::5])
    assert found(images, LABELS[picked], ORDER[2000:4500], ORDER[4500:])[0].low > LIMIT


def test_soft_drawings_have_no_tones_of_their_own() -> None:
    """What a short training makes is seen elsewhere."""
    soft = in_part(lambda images: avg_pool2d(images.float(), 5, 1, 2).byte(), 0.3, None)
    assert all(each.low < LIMIT for each in soft if each.kind == "tones")
