"""The statistics of an attack: closed forms, error rates, and planted cases."""

import numpy as np
import pytest

from cgan.privacy import membership
from cgan.privacy.membership import attack, auc_with_interval, least_epsilon


@pytest.fixture(autouse=True)
def few_permutations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(membership, "PERMUTATIONS", 400)


def test_the_auc_is_how_often_a_member_scores_higher() -> None:
    auc, (low, high) = auc_with_interval(np.array([1.0, 2.0, 3.0]), np.array([0.0, 2.0]))
    assert auc == pytest.approx((1 + 1.5 + 2) / 6), "ties count half"
    assert 0 < low < auc < high < 1
    best, (low, high) = auc_with_interval(np.arange(9.0, 59), np.arange(-40.0, 0))
    assert (best, high) == (1, 1) and low == pytest.approx(0.025 ** (1 / 40), abs=0.01)
    worst, interval = auc_with_interval(np.arange(-40.0, 0), np.arange(9.0, 59))
    assert worst == 0 and interval == pytest.approx((0, 1 - low))
    _, narrow = auc_with_interval(*np.random.default_rng(0).normal(size=(2, 4000)))
    error = np.sqrt(8001 / (12 * 4000**2))
    assert narrow[1] - narrow[0] == pytest.approx(2 * 1.96 * error, rel=0.03), "as Mann and Whitney"


def test_the_interval_of_the_auc_covers_the_truth() -> None:
    random, truth, covered = np.random.default_rng(1), 0.6382, 0
    for _ in range(300):  # Φ(0.5 / √2)
        members, others = random.normal(0.5, 1, 120), random.normal(0, 1, 45)
        low, high = auc_with_interval(members, others)[1]
        covered += low <= truth <= high
    assert 0.92 <= covered / 300 <= 0.98


def test_scores_that_tell_nothing_leak_in_one_case_of_twenty() -> None:
    """Classes of other sizes on both sides and with other scores; and no ε is claimed."""
    random, said, claimed = np.random.default_rng(2), 0, 0
    counts = ((90, 80), (40, 20), (25, 6))
    labels = np.repeat([0, 1, 2], [count for count, _ in counts])
    for trial in range(200):
        member = np.concatenate([random.permutation(np.arange(n) < k) for n, k in counts])
        found = attack(random.normal(3.0 * labels, 1.0 + labels), member, labels, trial)
        said, claimed = said + found.leaks, claimed + (found.epsilon > 0)
    assert 2 <= said <= 16 and claimed <= 16, "at most 5 % of 200, and luck"


@pytest.mark.parametrize(("shift", "copied"), [(0.6, 0), (0.0, 8)])
def test_all_a_little_or_a_few_clearly_is_seen(shift: float, copied: int) -> None:
    """Each by one of the two statistics alone; sorted, and with all members first."""
    member = np.arange(200) < 120
    scores = np.random.default_rng(3).normal(shift * member, 1)
    scores[:copied] = 9.0
    found = attack(scores, member, np.zeros(200, int), seed=1)
    assert found.leaks and (found.interval[0] > 0.5) == (shift > 0)
    assert 0 < found.chance < 0.06 and (found.true_positive_rate > found.chance or not copied)


@pytest.mark.parametrize(("count", "above"), [(30, 0), (100, 0), (250, 1)])
def test_the_threshold_has_its_false_positive_rate(count: int, above: int) -> None:
    """Of members that lie between non-members: `above` of these are passed, and one more is not."""
    scores = np.concatenate([np.arange(count + 1.0), np.arange(count) + 0.5])
    found = attack(scores, np.arange(len(scores)) <= count, np.zeros(len(scores), int), seed=1)
    expected = pytest.approx((above + 1) / (count + 1))
    assert found.true_positive_rate == found.false_positive_rate == expected


@pytest.mark.parametrize("epsilon", [0.5, 2.0])
def test_the_audit_claims_no_more_than_the_epsilon_there_is(epsilon: float) -> None:
    """Randomised response: of each pair the right one scores higher with probability e^ε / (1 + e^ε)."""
    random, claims = np.random.default_rng(5), list[float]()
    member, strata = np.arange(400) % 2 > 0, np.arange(400) // 2
    for _ in range(300):
        right = random.random(200) < 1 / (1 + np.exp(-epsilon))
        scores = (member == right.repeat(2)) * random.random(200).repeat(2)
        claims.append(least_epsilon(scores, member, strata, random))
    assert np.mean(np.array(claims) > epsilon) < 0.07 and np.median(claims) > 0.3 * epsilon


def test_equal_scores_tell_nothing_and_the_detectable_auc_is_known() -> None:
    found = attack(np.zeros(2000), np.arange(2000) < 1500, np.zeros(2000, int), seed=1)
    assert found.auc == 0.5 and not found.leaks and found.epsilon == 0
    assert found.detectable_auc == pytest.approx(0.5 + (1.960 + 0.842) * 0.01491, abs=2e-4)
