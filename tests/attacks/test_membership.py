"""Membership inference: closed forms, and the error rates of the test."""

import numpy as np
import pytest

from cgan.attacks import membership
from cgan.attacks.membership import attack, auc_with_interval, detectable_auc, permuted_members


@pytest.fixture(autouse=True)
def few_permutations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(membership, "PERMUTATIONS", 400)


def auc_of(members: np.ndarray, others: np.ndarray) -> tuple[float, tuple[float, float]]:
    """Of one class."""
    both = np.concatenate([members, others])
    return auc_with_interval(both, np.arange(len(both)) < len(members), np.zeros(len(both), int))


def test_the_auc_is_how_often_a_member_scores_higher() -> None:
    members, others = np.array([1.0, 2.0, 3.0]), np.array([0.0, 2.0])
    auc, (low, high) = auc_of(members, others)
    assert auc == pytest.approx((1 + 1.5 + 2) / 6), "ties count half"
    assert 0 < low < auc < high < 1
    # Clopper and Pearson's.
    best, (low, high) = auc_of(np.arange(50) + 9.0, np.arange(40) - 40.0)
    assert (best, high) == (1, 1) and low == pytest.approx(0.025 ** (1 / 40))
    assert auc_of(np.arange(40) - 40.0, np.arange(50) + 9.0)[1] == pytest.approx((0, 1 - low))
    _, narrow = auc_of(*np.random.default_rng(0).normal(size=(2, 4000)))
    error = np.sqrt(8001 / (12 * 4000**2))
    assert narrow[1] - narrow[0] == pytest.approx(2 * 1.96 * error, rel=0.03), "as Mann and Whitney"


def test_the_interval_of_the_auc_covers_the_truth() -> None:
    random, truth, covered = np.random.default_rng(1), 0.6382, 0
    for _ in range(300):  # Φ(0.5 / √2)
        members, others = random.normal(0.5, 1, 120), random.normal(0, 1, 45)
        low, high = auc_of(members, others)[1]
        covered += low <= truth <= high
    assert 0.92 <= covered / 300 <= 0.98


def test_classes_of_one_side_or_without_drawings_say_nothing() -> None:
    labels, member = np.repeat([0, 1], 5), np.arange(10) > 1
    assert auc_with_interval(np.arange(10.0), member, labels)[0] == 1
    assert auc_with_interval(np.arange(10.0), labels == 0, labels) == (0.5, (0.0, 1.0))
    labels, member = np.repeat([0, 1], 40), np.arange(80) % 2 > 0
    scores, drawn = np.random.default_rng(2).normal(size=80) + member, labels == 0
    alone = auc_with_interval(scores[drawn], member[drawn], labels[drawn])
    assert auc_with_interval(np.where(drawn, scores, 0.0), member, labels) == alone


def test_pairs_have_the_variance_of_a_tossed_coin() -> None:
    pairs, is_second = np.repeat(np.arange(60), 2), np.arange(120) % 2
    member = is_second == np.arange(60).repeat(2) % 2  # so half of the members score higher
    auc, (low, high) = auc_with_interval(is_second.astype(float), member, pairs)
    half_width = 1.96 * np.sqrt(0.25 / 60) / 0.25  # of the logit
    assert np.log(high / (1 - high)) == pytest.approx(half_width, rel=1e-3)
    assert (auc, low) == pytest.approx((0.5, 1 - high))


def test_scores_that_tell_nothing_leak_in_one_case_of_twenty() -> None:
    """Classes of other sizes on both sides and with other scores."""
    random, said = np.random.default_rng(2), 0
    counts = ((90, 80), (40, 20), (25, 6))
    labels = np.repeat([0, 1, 2], [count for count, _ in counts])
    for trial in range(200):
        member = np.concatenate([random.permutation(np.arange(n) < k) for n, k in counts])
        scores = random.normal(3.0 * labels, 1.0 + labels)
        said += attack(scores, member, labels, trial).p_value < 0.05
    assert 3 <= said <= 18, "5 % of 200, and luck"


def test_members_found_at_one_percent_stand_beside_chance() -> None:
    member, scores = np.arange(1200) < 900, np.random.default_rng(4).normal(size=1200)
    strata = np.zeros(1200, int)
    scores[:90] += 20
    found = attack(scores, member, strata)
    assert 0.1 <= (found.true_positive_rate or 0) < 0.14 and (found.chance or 1) < 0.05
    assert (found.members, found.non_members) == (900, 300)
    few = attack(scores[:999], member[:999], strata[:999])
    assert few.non_members == 99 and few.true_positive_rate is few.chance is None


@pytest.mark.parametrize("count", [100, 250])
def test_the_threshold_has_at_most_its_false_positive_rate(count: int) -> None:
    """Of one more non-member that is as likely to be at any rank."""
    scores = np.concatenate([np.arange(count + 1.0), np.arange(count) + 0.5])
    member = np.arange(len(scores)) <= count
    permuted = permuted_members(member, np.zeros(len(scores), int), 1)
    expected = np.floor(0.01 * (count + 1)) / (count + 1)
    assert membership.rate_and_chance(scores, member, permuted)[0] == pytest.approx(expected)


def test_of_a_group_one_counts_and_classes_are_compared_within() -> None:
    units = np.array([4, 4, 4, 1, 9, 9])
    picked = [membership.one_per_unit(units, seed) for seed in range(20)]
    assert all(units[rows].tolist() in ([4, 1, 9], [4, 9, 1]) for rows in picked)
    assert len({tuple(rows) for rows in picked}) > 2, "which one is chance"
    labels = np.repeat([0, 1], [30, 50])
    scores = np.where(labels == 1, 1000.0, 1.0) * np.arange(80.0)
    values = membership.standardised(scores, labels)
    for label in (0, 1):
        of_class = values[labels == label]
        assert np.median(of_class) == 0 and np.median(np.abs(of_class)) == 1


def test_the_detectable_auc_is_that_of_four_times_of_five() -> None:
    assert detectable_auc(1500, 500, 0.015) == pytest.approx(0.5449, abs=0.0005)
