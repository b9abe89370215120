"""`cgan.sharing`: what is planted among drawings is found, and what is said of it."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from synthetic import sample_digits
from uneven import uneven

import cgan
from cgan.attacks import membership
from cgan.attacks.attacker import Attacker, nearness_scores
from cgan.attacks.copies import Copies, copied_p_value, typical_share
from cgan.attacks.membership import attack
from cgan.attacks.sharing import MEMBERSHIP_LEVEL, Sharing
from cgan.disclosure import as_many_of_each_class
from cgan.downstream.effect import Difference
from cgan.downstream.sets import joined
from cgan.errors import CganError, DataError
from cgan.images import Images
from cgan.model.local_score import LocalScoreSampler, LocalScoreSettings
from cgan.model.networks import Architecture, build_generator
from cgan.params.sections import JudgeParams
from cgan.quality.judge import silent
from cgan.quality.likeness import find_near_copies, nearest_neighbours

RECIPE = JudgeParams(total_kimg=0.3, seed=1)


@pytest.fixture(autouse=True)
def few_permutations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(membership, "PERMUTATIONS", 400)


# --- the attacker ---------------------------------------------------------------------------------


def digits(first: int, count: int) -> Images:
    pixels, labels = sample_digits()
    order = np.random.default_rng(0).permutation(len(labels))[first : first + count]
    return Images(pixels[order], labels[order])


@pytest.mark.parametrize("share", [0.0, 0.05, 0.5])
def test_copies_among_drawings_are_found_and_others_are_not(share: float) -> None:
    train, held_out, others = digits(0, 300), digits(300, 300), digits(600, 800)
    copied = round(share * 800)
    drawn = joined(train.at(np.arange(copied) % 300), others.at(slice(copied, 800)))
    found = Attacker.of(train, held_out, seed=1).attack(drawn)
    assert (found.p_value < MEMBERSHIP_LEVEL) == (share > 0)
    assert (found.interval[0] > 0.5) == (share > 0)


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


def grouped(large: int, single: int, first: int) -> Images:
    """Noise of two classes, in so many groups of four and of one, numbered from `first`."""
    groups = np.concatenate([np.repeat(np.arange(large), 4), large + np.arange(single)]) + first
    pixels = np.random.default_rng(first).integers(0, 256, (len(groups), 8, 8), dtype=np.uint8)
    return Images(pixels, groups % 2, groups=groups)


@pytest.mark.parametrize("told_by, leaks", [(0.0, False), (1.2, True)])
def test_groups_of_other_sizes_on_one_side_are_no_leak(told_by: float, leaks: bool) -> None:
    """A hold-out is filled up with small groups, and an image without look-alikes scores otherwise."""
    train, held_out = grouped(120, 30, 1), grouped(20, 60, 1000)
    random, said = np.random.default_rng(8), 0
    for seed in range(10):
        attacker = Attacker.of(train, held_out, seed)
        assert attacker.member.sum() == 150 and len(np.unique(attacker.strata)) == 4
        scores = random.normal(size=230) + told_by * attacker.member
        scores[attacker.strata % 3 == 2] += 1.0  # of groups of four
        said += attack(scores, attacker.member, attacker.strata, seed).p_value < 0.05
    assert said == 10 if leaks else said <= 2, "5 % of 10, and luck"


# --- the whole ------------------------------------------------------------------------------------


def shared(generator: object, **options: object) -> Sharing:
    train, held_out = uneven(times=2).split(0.3, seed=2)
    given = {"seeds": 2, "recipe": RECIPE, "progress": silent, **options}
    return cgan.sharing(train, held_out, generator, **given)  # type: ignore[arg-type]


def assert_is_json(answer: Sharing) -> None:
    facts = json.loads(json.dumps(answer.as_json()))
    assert facts["verdict"] == answer.verdict
    assert facts["utility"]["overall"]["without"] == answer.utility.overall.without


def test_the_answer_has_both_sides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cgan.attacks.attacker.MIN_DRAWINGS", 300)
    torch.manual_seed(0)
    network = build_generator(Architecture("deconv", 3, 1, 8, 12, 8, 4)).eval()
    answer = shared(cgan.Generator(network, {}))
    assert answer.drawings % answer.train_images == 0 and answer.drawings >= 300
    assert answer.utility.overall.without > answer.utility.overall.with_drawings
    words = repr(answer)
    assert "differential privacy" in words and "Who has the generator's file has" in words
    assert_is_json(answer)
    html = answer._repr_html_()
    assert "pear" in html and "needs 100 held-out images" in html


def test_training_images_as_drawings_are_given_away() -> None:
    train, _ = uneven(times=2).split(0.3, seed=2)
    answer = shared(train)
    assert answer.verdict == "gives away" and answer.leaks and answer.attack.auc > 0.95
    assert answer.loss == 0 and answer.learnt_drawings == answer.train_images
    assert "of their number" not in repr(answer)
    assert "may be of their number" in repr(replace(answer, learnt_drawings=9))
    assert answer.sentence.startswith("These drawings give away who was in the training data (AUC ")
    safe = replace(answer.attack, auc=0.51, interval=(0.48, 0.54), p_value=MEMBERSHIP_LEVEL)
    quiet = replace(answer, attack=safe, copies=replace(answer.copies, p_value=1.0))
    assert quiet.verdict == "nothing shown" and "gave nothing away that" in quiet.sentence
    copied = replace(answer, attack=safe, copies=replace(answer.copies, p_value=0.009))
    assert copied.verdict == "gives away" and "of them are near copies" in copied.sentence
    for gain, words in (
        (-0.1, "loses 10.0 points (8.0 to 13.0)"),
        (0.1, "gains 10.0 points (7.0 to"),
    ):
        change = Difference(0.8, 0.8 + gain, (gain - 0.03, gain + 0.02), (-1.0, 1.0), 50)
        assert words in replace(answer, utility=replace(answer.utility, overall=change)).sentence


def test_a_sampler_s_file_gives_its_images_away_whatever_it_draws(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("cgan.attacks.attacker.MIN_DRAWINGS", 50)
    train, _ = uneven(times=2).split(0.3, seed=2)
    pixels, labels, _ = train.tensors
    sampler = LocalScoreSampler(pixels, labels, LocalScoreSettings(steps=4))
    answer = shared(cgan.Generator(sampler, {}))
    safe = replace(answer.attack, p_value=1.0)
    quiet = replace(answer, attack=safe, copies=replace(answer.copies, p_value=1.0))
    assert not quiet.leaks and quiet.verdict == "gives away"
    assert any("file is its training images" in reason for reason in answer.reasons)


def test_sets_that_do_not_belong_together_are_refused() -> None:
    train, _ = uneven(times=2).split(0.3, seed=2)
    with pytest.raises(CganError, match="seeds is 1, expected at least 2"):
        shared(train, seeds=1)
    with pytest.raises(DataError, match=r"train: expected .*\(3, 3, 8, 12\); found \(3, 1, 8, 12"):
        shared(uneven(channels=3))
    with pytest.raises(DataError, match=r"generator: expected drawings .* found none"):
        shared(train.at([]))
    with pytest.raises(DataError, match="generator: expected the classes of train in its order"):
        shared(replace(train, class_names=["apple", "pear", "fig"]))


def test_classes_without_drawings_are_named() -> None:
    drawn = uneven(seed=5)
    answer = shared(drawn.at(drawn.labels != 1))
    name = drawn.class_names[1]
    assert answer.not_drawn == (name,)
    assert answer.utility.classes[1].with_drawings == 0
    assert f"There are no drawings of {name}: a classifier" in repr(answer)
    assert_is_json(answer)


def test_as_many_drawings_of_each_class_as_images_stand_in() -> None:
    train, many = uneven(), uneven(times=3, seed=5)
    few_of_last = np.flatnonzero(many.labels == 2)[:3]
    lacking = many.at(np.concatenate([np.flatnonzero(many.labels != 2), few_of_last]))
    alone = as_many_of_each_class(lacking, train, seed=1)
    assert alone.counts.tolist() == [*train.counts[:2], 3]
    other = as_many_of_each_class(lacking, train, seed=2)
    assert alone.digest != other.digest, "at random"


# --- copies ---------------------------------------------------------------------------------------


def test_few_pictures_repeated_are_copies_where_all_are_training_images(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
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
    member, strata = np.arange(30) % 3 > 0, np.arange(30) % 2
    near = np.zeros(30)
    near[np.flatnonzero(member & (strata == 0))[:5]] = 0.7
    # Five of the ten members of class 0, and of its five others none: C(10, 5) / C(15, 5).
    monkeypatch.setattr(membership, "PERMUTATIONS", 4000)
    by_hand = 2 * 252 / 3003
    assert copied_p_value(near, member, strata, 10**6, 0.1, 1) == pytest.approx(by_hand, abs=0.03)
    assert copied_p_value(np.zeros(30), member, strata, 100, 0.1, 1) == 1
    assert copied_p_value(near, member, strata, 0, 0.1, 1) == pytest.approx(2 * 0.1**5)
    barely = near + 0.01 * (strata == 0)  # all others of the class, at the limit
    assert copied_p_value(barely, member, strata, 10**6, 0.1, 1) == pytest.approx(by_hand, abs=0.03)
    assert typical_share(0.0, 10**6) == pytest.approx(0.1)
    assert typical_share(0.05, 10**6) == pytest.approx(0.2, rel=0.02)
    assert typical_share(0.3, 100) == 1


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
