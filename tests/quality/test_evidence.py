"""Do drawings help a classifier? The sets, the interval, and verdicts on cases whose answer is known."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from cgan.data.dataset import Dataset
from cgan.data.sources import mnist_sample
from cgan.errors import CganError
from cgan.model.hardware import choose_hardware
from cgan.model.networks import Architecture, build_generator
from cgan.params.sections import JudgeParams
from cgan.quality.evidence import (
    SETS,
    Right,
    default_per_class,
    effect,
    fill,
    in_words,
    mean_of_classes,
    measure,
    missing,
    repeated,
)
from cgan.quality.judge import Judge, look

PARAMS = JudgeParams(total_kimg=2.0, batch_size=32, peak_lr=0.2, width=8, seed=1)
CPU = choose_hardware("cpu", "float32")


def test_classes_are_filled_up_to_the_largest_or_to_twice_that_if_all_are_alike() -> None:
    assert default_per_class(torch.tensor([50, 20, 45])) == 50
    assert default_per_class(torch.tensor([50, 45, 48])) == 100
    assert missing(torch.tensor([3, 1, 5]), 4).tolist() == [0, 1, 1, 1]
    with pytest.raises(CganError, match=r"--per-class 4.*smallest 5"):
        missing(torch.tensor([6, 5]), 4)


def test_each_real_image_is_repeated_as_often_as_the_others_of_its_class() -> None:
    labels = torch.tensor([0, 1, 0, 1, 0])
    rows = repeated(labels, torch.tensor([1] * 4 + [0] * 6), seed=3)
    assert Counter(rows.tolist()) == {1: 2, 3: 2, 0: 2, 2: 2, 4: 2}


def test_what_the_judge_does_not_believe_is_drawn_again_or_refused() -> None:
    torch.manual_seed(0)
    network = build_generator(Architecture("deconv", 3, 1, 8, 8, 4, 4)).eval()
    judge = Judge(3, 1, 4).eval().requires_grad_(False)
    asked = torch.arange(30) % 3
    images, sure = fill(network, judge, asked, seed=5)
    seen = look(judge, images).logits.softmax(dim=1)[torch.arange(30), asked]
    torch.testing.assert_close(sure, seen)
    limit = min(float(sure[asked == label].median()) for label in range(3))
    assert bool((sure < limit).any())
    again, sure_now = fill(network, judge, asked, seed=5, believed=limit)
    kept = sure >= limit
    assert bool((sure_now >= limit).all()) and torch.equal(again[kept], images[kept])
    with pytest.raises(CganError, match=r"--believed 0\.99: of class \d, \d+ drawings"):
        fill(network, judge, asked, seed=5, believed=0.99)


def outcomes(rates: dict[str, float], count: int, seeds: int, random: torch.Generator) -> Right:
    """Classifiers that are right on an image as often as these rates say; the images differ, too."""
    easy = torch.rand(count, generator=random) * 0.1 - 0.05
    luck = torch.randn(len(SETS), seeds, 1, generator=random) * 0.004
    return {
        (name, True): torch.rand(seeds, count, generator=random) < rates[name] + easy + luck[n]
        for n, name in enumerate(SETS)
    }


def test_equal_classifiers_are_called_different_in_at_most_one_of_twenty() -> None:
    random, labels = torch.Generator().manual_seed(1), torch.arange(1000) % 10
    rates = {"real": 0.8, "repeated": 0.9, "drawn": 0.9}
    found = [effect(outcomes(rates, 1000, 3, random), labels, True) for _ in range(400)]
    assert {each.base for each in found} == {"repeated"}  # the better of what costs nothing
    assert sum(each.verdict.startswith("make no") for each in found) >= 380
    for better, verdict in ((0.05, "help"), (-0.05, "harm")):
        planted = outcomes(rates | {"drawn": 0.9 + better}, 1000, 5, random)
        assert effect(planted, labels, True).verdict == verdict
    few = {key: torch.ones(3, 6, dtype=torch.bool) for key in planted}
    few["drawn", True][:, :2] = False  # both images of a class
    assert effect(few, torch.tensor([0, 0, 1, 1, 2, 2]), True).verdict.startswith("make no")


def test_every_class_counts_alike() -> None:
    right = torch.tensor([[True] * 9 + [False], [True] * 8 + [False, True]])
    labels = torch.tensor([0] * 9 + [1])
    torch.testing.assert_close(
        mean_of_classes(right, labels), torch.tensor([0.5, 17 / 18]).double()
    )


@pytest.mark.slow
def test_new_images_of_a_rare_class_help_and_those_of_another_harm() -> None:
    pixels, labels = (torch.from_numpy(each) for each in mnist_sample())
    images, labels = pixels.view(-1, 1, 28, 28), labels.long()
    of = [(labels == digit).nonzero()[:, 0] for digit in (3, 5, 8)]

    def taken(*rows: torch.Tensor) -> Dataset:
        where = torch.cat(rows)
        names = torch.cat([torch.full((len(part),), n) for n, part in enumerate(rows)])
        return Dataset(images[where], names, {"classes": 3})

    training = taken(of[0][:100], of[1][:100], of[2][:5])
    test = taken(*(rows[300:] for rows in of))
    found = {}
    for word, rows in (("true", of[2][5:100]), ("false", of[0][100:195])):
        drawn = Dataset(images[rows], torch.full((95,), 2), {"classes": 3})
        right = measure(training, drawn, test, PARAMS, 3, CPU)
        found[word] = [effect(right, test.labels, augmented) for augmented in (True, False)]
    assert [each.verdict for each in found["true"]] == ["help", "help"]
    assert found["false"][0].verdict == "harm"
    text = in_words(found["true"])
    assert (
        text.startswith("Drawn images help: with augmentation ")
        and "Without augmentation they help:" in text
    )
