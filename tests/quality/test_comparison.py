"""The ground two generators are judged on, worked out again the slow way: sample by sample."""

from __future__ import annotations

from typing import Any, cast

import pytest
import torch
from torch import Tensor

from cgan.quality import comparison
from cgan.quality.comparison import REPLICATES, Estimate, Ground
from cgan.quality.judge import Judge, Verdict
from cgan.quality.metrics import frechet_distance, manifold


def points(count: int, seed: int, dimension: int = 3, mean: float = 0.0) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    return torch.randn(count, dimension, generator=random) + mean


def ground_of(real: Tensor, floor: Tensor, asked: Tensor, seed: int = 1) -> Ground:
    """Of features made by hand: the network that makes them is not asked. 3 classes, class 0 judged."""
    logits = torch.zeros(len(real), 3)
    logits[:, 0] = 1.0
    labels = torch.arange(len(real)) % 3
    return Ground(cast(Judge, None), Verdict(real, logits), labels, floor, asked, seed)


def drawn_again(weights: Tensor, parts: tuple[Tensor, ...]) -> Tensor:
    """The sample in which each part is as often as its weight says."""
    return torch.cat([part for part, n in zip(parts, weights, strict=True) for _ in range(int(n))])


def test_a_replicate_draws_as_many_as_there_are_with_replacement() -> None:
    weights = comparison._resampled(50, torch.Generator().manual_seed(3))
    assert weights.shape == (REPLICATES, 50) and weights.dtype == torch.float64
    assert (weights.sum(dim=1) == 50).all() and (weights == weights.round()).all()
    # Binomial: each thing once on average, by variance 1 - 1/50, and none at all in 0.98⁵⁰ of cases.
    assert weights.var() == pytest.approx(0.98, abs=0.05)
    assert (weights == 0).double().mean() == pytest.approx(0.98**50, abs=0.02)
    assert (weights[:, 0] > 0).any() and (weights[:, 49] > 0).any()


def test_the_distance_is_the_metric_s_and_its_replicates_are_those_of_samples_drawn_again() -> None:
    real, other = points(40, seed=0), points(50, seed=1, mean=0.5)
    ground = ground_of(real, other, torch.arange(50) % 3)
    found = ground.distance(other, "drawn")
    assert found.value == pytest.approx(frechet_distance(real, other), rel=1e-9)
    mixed = ground._real.double().split(1)  # 40 and 50 are fewer than 200: each image is a group
    again: list[float] = []
    for a, b in zip(ground._weights["real"], ground._weights["drawn"], strict=True):
        sample = drawn_again(b, other.double().split(1))
        again.append(frechet_distance(drawn_again(a, mixed), sample))
        if len(again) == 4:
            break
    moved = found.replicates[:4] - found.replicates[0]
    expected = torch.tensor(again, dtype=torch.float64) - again[0]
    assert torch.allclose(moved, expected, atol=1e-6)
    assert found.replicates.mean() == pytest.approx(found.value)
    assert ground.fid_floor.value == pytest.approx(found.value)


def test_accuracies_and_their_replicates_are_those_of_samples_drawn_again() -> None:
    asked = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1, 2, 2])
    right = torch.tensor([1, 1, 1, 1, 1, 1, 1, 0, 0, 1], dtype=torch.bool)
    ground = ground_of(points(12, 0), points(10, 1), asked)
    overall, worst = ground._accuracies(right)
    assert overall.value == pytest.approx(0.8) and worst.value == pytest.approx(0.5)
    means, lowest = [], []
    for weights in ground._weights["asked"]:
        chosen = torch.arange(10).repeat_interleave(weights.long())
        means.append(right[chosen].double().mean().item())
        by_class = []
        for label in range(3):
            mine = right[chosen][asked[chosen] == label].double()
            by_class.append(mine.mean().item() if len(mine) else 0.0)
        lowest.append(min(by_class))
    for estimate, again in ((overall, means), (worst, lowest)):
        expected = Estimate.of(estimate.value, torch.tensor(again, dtype=torch.float64))
        assert torch.allclose(estimate.replicates, expected.replicates)


def test_coverage_is_the_mean_over_blocks_and_its_replicates_draw_blocks_and_images_again() -> None:
    real, drawn = points(12, seed=0, dimension=2), points(40, seed=1, dimension=2, mean=0.8)
    ground = ground_of(real, points(40, 2, 2), torch.arange(40) % 3)
    blocks = drawn.split(12)[:3]  # the last 4 are no whole block
    found = ground._coverage(drawn)
    expected = [manifold(real, block).coverage for block in blocks]
    assert found.value == pytest.approx(sum(expected) / 3)
    radius = torch.cdist(ground._real, ground._real).sort(dim=1).values[:, 5]
    hit = torch.stack([(torch.cdist(b, ground._real) < radius).any(dim=0) for b in blocks])
    picks = comparison._resampled(3, torch.Generator().manual_seed(ground.seed))
    again = [
        sum(
            float(picks[n, block] * ground._weights["covered"][n, image] * hit[block, image])
            for block in range(3)
            for image in range(12)
        )
        / 36
        for n in range(REPLICATES)
    ]
    moved = Estimate.of(found.value, torch.tensor(again, dtype=torch.float64))
    assert torch.allclose(found.replicates, moved.replicates)
    assert ground.coverage_floor.value == pytest.approx(ground._coverage(ground.floor).value)


def test_blocks_of_coverage_are_limited_and_few_images_have_fewer_neighbours(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real, drawn = points(4, seed=0, dimension=2), points(40, seed=1, dimension=2)
    ground = ground_of(real, points(40, 2, 2), torch.arange(40) % 3)
    # Three neighbours are all there are: the radius of each is the distance to the farthest.
    radius = torch.cdist(real, real).max(dim=1).values
    for most in (2, 20):
        monkeypatch.setattr(comparison, "MAX_BLOCKS", most)
        blocks = drawn.split(4)[:most]
        covered = [(torch.cdist(b, real) < radius).any(dim=0).double().mean() for b in blocks]
        assert ground._coverage(drawn).value == pytest.approx(float(sum(covered)) / len(blocks))


def test_drawings_are_counted_by_class_and_compared_with_what_real_images_get(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = torch.tensor([0, 1, 2] * 8)
    ground = ground_of(points(20, 0), points(24, 1), asked)
    logits = torch.eye(3)[asked].clone()
    logits[0] = torch.tensor([0.0, 1.0, 0.0])  # the first zero is taken for a one
    seen = Verdict(points(24, 2, mean=0.3), logits)
    drawings = torch.zeros(24, 1, 8, 8, dtype=torch.uint8)
    looks: dict[tuple[Any, int], Verdict] = {(ground.judge, id(drawings)): seen}
    monkeypatch.setattr(comparison, "look", lambda judge, images, **_: looks[judge, id(images)])
    judged = ground.judge_drawings(drawings)
    assert (judged.right_by_class, judged.asked_by_class) == ([7, 8, 8], [8, 8, 8])
    metrics: dict[str, Any] = {name: e.value for name, e in judged.metrics.items()}
    assert list(metrics) == list(comparison.COMPARED)
    assert metrics["conditional_accuracy"] == pytest.approx(23 / 24)
    assert metrics["worst_class_accuracy"] == pytest.approx(7 / 8)
    distance = ground.distance(seen.features, "drawn").value
    assert metrics["fid_judge"] == pytest.approx(distance)
    assert judged.fid_over_floor.value == pytest.approx(distance - ground.fid_floor.value)
    share = metrics["coverage"] / ground.coverage_floor.value
    assert judged.coverage_of_floor.value == pytest.approx(share)


def test_a_ground_depends_on_its_seed_alone() -> None:
    real, floor, asked = points(20, 0), points(24, 1), torch.arange(24) % 3
    one, same, other = (ground_of(real, floor, asked, seed) for seed in (1, 1, 2))
    assert torch.equal(one._real, same._real) and not torch.equal(one._real, other._real)
    assert torch.equal(one._real.sort(dim=0).values, real.sort(dim=0).values), (
        "mixed, and all of it"
    )
    for kind, weights in one._weights.items():
        assert torch.equal(weights, same._weights[kind]), kind
        assert not torch.equal(weights, other._weights[kind]), kind


def test_an_interval_leaves_out_a_fortieth_at_each_end() -> None:
    assert Estimate(0.0, torch.arange(201.0, dtype=torch.float64)).interval == (5.0, 195.0)
    assert Estimate(0.0, torch.arange(201.0, dtype=torch.float64).flip(0)).interval == (5.0, 195.0)


def called_different(other: Tensor, pairs: int, count: int = 400) -> tuple[int, int]:
    """How often B, which lies at `other`, is called worse and better than A, which lies at (0.3, 0, …)."""
    calls = []
    asked = torch.arange(count) % 3
    here = torch.zeros(len(other))
    here[0] = 0.3
    for pair in range(pairs):
        drawn = [points(count, seed, len(other)) for seed in (4 * pair, 4 * pair + 1)]
        real, floor = (points(count, 4 * pair + seed, len(other)) for seed in (2, 3))
        ground = ground_of(real, floor, asked, seed=pair)
        a, b = (
            ground.distance(images + at, "drawn")
            for images, at in zip(drawn, (here, other), strict=True)
        )
        calls.append((b - a).interval)
    return sum(low > 0 for low, _ in calls), sum(high < 0 for _, high in calls)


def test_of_equally_good_generators_at_most_one_in_twenty_is_called_better_or_worse() -> None:
    """They miss the truth by as much, in opposite directions: to one hold-out, one of them is nearer. An
    interval of the latents alone calls most of these pairs different."""
    worse, better = called_different(torch.tensor([-0.3, 0.0, 0.0, 0.0]), pairs=200)
    assert worse + better <= 10


def test_of_generators_that_differ_by_a_real_step_nine_in_ten_are_found() -> None:
    worse, better = called_different(torch.tensor([0.6, 0.0, 0.0, 0.0]), pairs=100)
    assert worse >= 90 and better == 0
