"""What `cgan.sharing` finds out by: the attacker, and the test of who is copied."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from conftest import sample_digits, trifling, uneven
from torch import Tensor

from cgan.attacks import membership
from cgan.attacks.attacker import Attacker, nearness_scores
from cgan.attacks.copies import Copies, copied_p_value, typical_share
from cgan.attacks.sharing import MEMBERSHIP_LEVEL
from cgan.errors import DataError
from cgan.images import Images, joined
from cgan.quality.likeness import find_near_copies, nearest_neighbours


@pytest.fixture(autouse=True)
def few_permutations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(membership, "PERMUTATIONS", 400)


def digits(first: int, count: int) -> Images:
    pixels, labels = sample_digits()
    order = np.random.default_rng(0).permutation(len(labels))[first : first + count]
    return Images(pixels[order], labels[order])


@pytest.mark.parametrize(
    ("share", "each", "change"),
    [(0, 300, torch.clone), (0.05, 300, torch.clone), (0.5, 200, torch.clone), (1, 200, trifling)],
)
def test_copies_among_drawings_are_found_and_others_are_not(
    share: float, each: int, change: Callable[[Tensor], Tensor]
) -> None:
    """One in twenty; half of what halves of 400 digits can show; and what an overfitted generator draws."""
    train, held_out, others = digits(0, each), digits(each, each), digits(600, 800)
    copied = round(share * 800)
    copies = train.at(np.arange(copied) % each)
    changed = Images(change(copies.tensors.pixels), copies.labels, copies.class_names)
    drawn = joined(changed, others.at(slice(copied, 800)))
    found = Attacker.of(train, held_out, seed=1).attack(drawn)
    assert (found.p_value < MEMBERSHIP_LEVEL) == (found.interval[0] > 0.5) == (share > 0)


def test_the_attacker_takes_one_image_of_a_group_members_first() -> None:
    train, held_out = uneven().split(0.3, seed=2)
    attacker = Attacker.of(train, held_out, seed=3)
    assert train.groups is not None
    members = int(attacker.member.sum())
    assert members == len(np.unique(train.groups)) - 3, "in each class two groups share an image"
    assert attacker.member[:members].all()
    scores = nearness_scores(attacker.images, attacker.labels, train)
    assert scores[attacker.member].min() > scores[~attacker.member].max(), "each has its copy"
    with pytest.raises(DataError, match=r"held_out: expected at least 6 images .* found [1-4]\."):
        Attacker.of(train, held_out.at(slice(4)), seed=3)


def test_images_of_groups_of_one_size_are_compared() -> None:
    """A hold-out is filled up with small groups, and an image without look-alikes scores otherwise."""

    def grouped(large: int, single: int, first: int) -> Images:
        """Of two classes, in so many groups of four and of one."""
        groups = first + np.append(np.repeat(range(large), 4), large + np.arange(single))
        pixels = np.random.default_rng(first).integers(0, 256, (len(groups), 8, 8), np.uint8)
        return Images(pixels, groups % 2, groups=groups)

    attacker = Attacker.of(grouped(120, 30, 1), grouped(20, 60, 1000), seed=1)
    found = [np.bincount(attacker.strata[side]) for side in (attacker.member, ~attacker.member)]
    assert [*map(list, found)] == [[15, 0, 60, 15, 0, 60], [30, 0, 10, 30, 0, 10]]


def test_a_random_choice_of_classes_of_both_sides_is_attacked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The data may be sorted by class."""
    monkeypatch.setattr("cgan.attacks.attacker.MAX_PER_SIDE", 60)
    train, held_out = digits(0, 300), digits(300, 200)
    train = train.at(np.argsort(train.labels, kind="stable"))
    attacker = Attacker.of(train, held_out.at(held_out.labels != 9), seed=1)
    members = attacker.labels[torch.from_numpy(attacker.member)].bincount(minlength=10)
    assert members.sum() == 60 and (members[:9] > 0).all() and members[9] == 0


def test_an_image_is_as_near_as_by_its_own_neighbours() -> None:
    """Each beside the others of its class, itself left out; 0 where a class has no drawing or one image."""
    real, drawn = digits(0, 60), digits(60, 40)
    drawn = drawn.at(drawn.labels != 3)
    images, labels, _ = real.at((real.labels != 5) | (np.cumsum(real.labels == 5) == 1)).tensors
    scores, rows = nearness_scores(images, labels, drawn), torch.arange(len(labels))
    for row in range(len(labels)):
        asked, others = (images[row, None], labels[row, None]), rows != row
        to_real = nearest_neighbours(*asked, images[others], labels[others])[0].item()
        to_drawn = nearest_neighbours(*asked, *drawn.tensors[:2])[0].item()
        known = np.isfinite([to_real, to_drawn]).all()
        expected = np.log(to_real / to_drawn) if known else 0.0
        assert scores[row] == pytest.approx(expected, abs=1e-5), row
    assert (scores == 0).sum() == (labels == 3).sum() + (labels == 5).sum() > 1


def test_few_pictures_repeated_are_copies_if_trained_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """One picture of thirty lies near a training image by chance: 3 % of the drawings, of real images 1 %."""
    monkeypatch.setattr("cgan.quality.likeness.MIN_REAL_COMPARED", 150)
    train, held_out, others = digits(0, 400), digits(400, 150), digits(550, 150)
    near = find_near_copies(*others.tensors[:2], train, held_out, seed=1).is_copy.numpy()
    assert near.any(), "one of so many"
    thirty = [*np.flatnonzero(near)[:1], *np.flatnonzero(~near)[:29]]
    by_chance = Copies.of(others.at(np.repeat(thirty, 15)), train, held_out, seed=1)
    assert by_chance.share == pytest.approx(1 / 30) and not by_chance.leak
    memorised = Copies.of(train.at(np.repeat(range(10), 15)), train, held_out, seed=1)
    assert memorised.share == 1 and memorised.leak and memorised.copied_members == 10


def test_who_is_copied_is_tested_within_strata_and_by_nearness(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(membership, "PERMUTATIONS", 4000)
    member, strata = np.arange(30) % 3 > 0, np.arange(30) % 2
    near = np.zeros(30)
    near[np.flatnonzero(member & (strata == 0))[:5]] = 0.7
    barely = near + 0.01 * (strata == 0)  # all others of the class, at the limit
    # Five of the ten members of class 0, and of its five others none: C(10, 5) / C(15, 5).
    for nearness in (near, barely):
        found = copied_p_value(nearness, member, strata, 10**6, 0.1, 1)
        assert found == pytest.approx(2 * 252 / 3003, abs=0.03)
    assert copied_p_value(np.zeros(30), member, strata, 100, 0.1, 1) == 1
    assert copied_p_value(near, member, strata, 0, 0.1, 1) == pytest.approx(2 * 0.1**5)
    assert typical_share(0.0, 10**6) == pytest.approx(0.1)
    assert typical_share(0.05, 10**6) == pytest.approx(0.2, rel=0.02)
    assert typical_share(0.3, 100) == 1
