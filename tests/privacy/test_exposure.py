"""Which images an attacker asks about, and what drawings and shadows tell him of each."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import moved, noise, sample_digits, trifling, uneven
from numpy.typing import NDArray
from torch import Tensor

from cgan.base.errors import DataError
from cgan.base.progress import silent
from cgan.data.images import Images, joined
from cgan.params.sections import AutoTrainParams
from cgan.privacy.candidates import Candidates
from cgan.privacy.exposure import exposure, log_distances, may_be_mirrored, pixel_distances


def digits(first: int, count: int) -> Images:
    pixels, labels = sample_digits()
    order = np.random.default_rng(0).permutation(len(labels))[first : first + count]
    return Images(pixels[order], labels[order], [*map(str, range(10))])


@pytest.mark.parametrize(
    ("share", "change"), [(0.0, torch.clone), (0.05, torch.clone), (0.05, trifling), (1, trifling)]
)
def test_copies_among_drawings_are_found_and_others_are_not(
    share: float, change: Callable[[Tensor], Tensor]
) -> None:
    """Other digits in place of all drawings; one in twenty is a copy, or what an overfitted one draws."""
    train, held_out, others = digits(0, 200), digits(200, 200), digits(400, 1200)
    copied = round(share * 400)
    copies = train.at(np.arange(copied) % 200)
    changed = Images(change(copies.tensors.pixels), copies.labels, copies.class_names)
    drawn = joined(changed, others.at(slice(copied, 400)))
    candidates, unseen = Candidates.choose(train, held_out, seed=1), np.arange(400) % 2 > 0
    shadows = (others.at(slice(400, 800)), unseen), (others.at(slice(800, 1200)), ~unseen)
    found = candidates.attack(exposure(candidates.images, drawn, shadows))
    assert found.leaks == (share > 0)


def test_what_a_shadow_has_seen_is_no_leak() -> None:
    """It draws its own half of the images with noise, whoever else was trained on them."""
    data, random = digits(0, 400), np.random.default_rng(1)
    first, member = random.random(400) < 0.5, random.permutation(400) < 200

    def noisy(rows: NDArray[np.bool_], deviation: float) -> Images:
        some = data.at(rows)
        return Images(noise(some.tensors.pixels, deviation), some.labels, some.class_names)

    shadows = (noisy(first, 40), ~first), (noisy(~first, 40), first)
    harmless, own = (exposure(data, d, shadows) for d in (digits(400, 400), noisy(member, 60)))
    assert abs(harmless[first].mean() - harmless[~first].mean()) < 0.3
    assert own[member].mean() > own[~member].mean() + 1
    assert abs(own.mean()) < 1e-6 and own.std() == pytest.approx(1)


def test_an_image_is_as_near_as_its_three_nearest_drawings() -> None:
    """Of its class; moved by two pixels, or mirrored where that may be; NaN without any."""
    images, drawn = digits(0, 30), digits(30, 60)
    drawn, pixels = drawn.at(drawn.labels != 3), images.tensors.pixels
    found = log_distances(images, drawn)
    for row, label in enumerate(images.labels):
        pool = drawn.tensors.pixels[drawn.labels == label]
        nearest = pixel_distances(pixels[row, None], pool)[0].sort()[0][:3]
        expected = nearest.log().mean().item() if len(pool) else np.nan
        assert found[row] == pytest.approx(expected, abs=1e-4, nan_ok=True)
    assert pixel_distances(pixels, moved(pixels, 2)).diagonal().max() < 0.06
    plain = torch.full((1, 1, 8, 12), 51, dtype=torch.uint8)
    assert pixel_distances(plain, 3 * plain).item() == pytest.approx(0.4), "a share of the range"
    flipped = Images(drawn.tensors.pixels.flip(3), drawn.labels, drawn.class_names)
    least = np.fmin(found, log_distances(images, flipped)) + 1e-4
    assert np.nanmax(log_distances(images, drawn, mirrored=True) - least) <= 0


def test_mirrored_images_count_where_they_are_as_near() -> None:
    some = digits(0, 300)
    flipped = Images(some.tensors.pixels.flip(3), some.labels, some.class_names)
    assert not may_be_mirrored(some) and may_be_mirrored(joined(some, flipped))


def test_groups_are_asked_about_as_one_and_members_first() -> None:
    train, held_out = uneven().split(0.3, seed=2)
    candidates = Candidates.choose(train, held_out, seed=3)
    assert train.groups is not None
    assert candidates.member.sum() == len(np.unique(train.groups)) - 3, "two groups share an image"
    scores = np.random.default_rng(0).normal(size=len(candidates.rows))
    exposed = candidates.most_exposed(scores, 5)
    assert (
        len({*candidates.unit_of[exposed]}) == 5 and (candidates.rows[exposed] < len(train)).all()
    )
    assert scores[exposed[0]] == scores[candidates.rows < len(train)].max()
    certain = candidates.attack(np.where(candidates.rows < len(train), 1.0, 0.0) + 0.1 * scores)
    assert certain.auc > 0.99 and certain.members == candidates.member.sum()
    with pytest.raises(DataError, match=r"held_out: expected at least 6 images .* found [1-4]\."):
        Candidates.choose(train, held_out.at(slice(4)), seed=3)


def test_groups_of_one_size_are_compared() -> None:
    """A hold-out is filled up with small groups: of two classes, in groups of four and of one."""

    def grouped(large: int, single: int, first: int) -> Images:
        groups = first + np.append(np.repeat(range(large), 4), large + np.arange(single))
        pixels = np.random.default_rng(first).integers(0, 256, (len(groups), 8, 8), np.uint8)
        return Images(pixels, groups % 2, groups=groups)

    candidates = Candidates.choose(grouped(120, 30, 1), grouped(20, 60, 1000), seed=1)
    found = [
        np.bincount(candidates.strata[side]) for side in (candidates.member, ~candidates.member)
    ]
    assert [*map(list, found)] == [[15, 0, 60, 15, 0, 60], [30, 0, 10, 30, 0, 10]]


def test_some_of_both_sides_are_asked_about(monkeypatch: pytest.MonkeyPatch) -> None:
    """The data may be sorted by class."""
    monkeypatch.setattr("cgan.privacy.candidates.MAX_PER_SIDE", 60)
    train, held_out = digits(0, 300), digits(300, 200)
    train = train.at(np.argsort(train.labels, kind="stable"))
    candidates = Candidates.choose(train, held_out.at(held_out.labels != 9), seed=1)
    members = np.bincount(candidates.images.labels[candidates.rows < 300], minlength=10)
    assert members.sum() == 60 and (members[:9] > 0).all() and members[9] == 0


def test_the_two_shadows_of_a_division_share_no_group(tmp_path: Path) -> None:
    parts = uneven(times=2).split(0.3, seed=2)
    candidates = Candidates.choose(*parts, seed=1)
    made = candidates.shadows(AutoTrainParams(seed=5), 4, parts[0].labels, tmp_path, silent)
    groups = candidates.images.groups
    assert groups is not None and (made[0][1] != made[2][1]).any()
    for (one, unseen), (other, seen) in (made[:2], made[2:]):
        assert (unseen != seen).all()
        assert not {*groups[unseen]} & {*groups[~unseen]}
        assert np.abs(one.images.counts - other.images.counts).max() <= 5
    assert [each.choice.params.seed for each, _ in made] == [6, 7, 8, 9]
