"""Membership inference: closed forms, error rates of the test, and what is planted."""

import json
from dataclasses import replace
from statistics import NormalDist

import numpy as np
import pytest
import torch
from synthetic import sample_digits
from uneven import uneven

import cgan
from cgan.attacks import membership
from cgan.attacks.attacker import Attacker
from cgan.attacks.membership import (
    _adjusted_p_values,
    attacks,
    auc_with_interval,
    detectable_auc,
    non_members_needed,
    one_per_unit,
    rate_at_fpr,
    standardised,
)
from cgan.attacks.membership_scores import feature_scores, pixel_scores, reconstruction_scores
from cgan.attacks.sharing import (
    FILE_LEVEL,
    MEMBERSHIP_LEVEL,
    STATISTICS_PER_SCORE,
    Copies,
    Sharing,
    copied_p_value,
    typical_share,
)
from cgan.disclosure import _nearest_members, as_many_of_each_class
from cgan.errors import CganError, DataError
from cgan.images import Images
from cgan.model.local_score import LocalScoreSampler, LocalScoreSettings
from cgan.model.networks import Architecture, build_discriminator, build_generator
from cgan.params.sections import JudgeParams
from cgan.quality.judge import silent
from cgan.quality.likeness import MIN_CLASS_IMAGES, find_near_copies

RECIPE = JudgeParams(total_kimg=0.3, batch_size=16, peak_lr=0.1, width=4, seed=1)


@pytest.fixture(autouse=True)
def few_permutations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(membership, "PERMUTATIONS", 400)
    monkeypatch.setattr(membership, "RATE_PERMUTATIONS", 200)


def auc_of(members: np.ndarray, others: np.ndarray) -> tuple[float, tuple[float, float]]:
    """Of one class."""
    both = np.concatenate([members, others])
    return auc_with_interval(both, np.arange(len(both)) < len(members), np.zeros(len(both), int))


def test_the_auc_is_how_often_a_member_scores_higher_and_ties_count_half() -> None:
    members, others = np.array([1.0, 2.0, 3.0]), np.array([0.0, 2.0])
    auc, (low, high) = auc_of(members, others)
    assert auc == pytest.approx((1 + 1.5 + 2) / 6) and 0 < low < auc < high < 1
    best, (low, high) = auc_of(np.arange(50) + 9.0, np.arange(40) - 40.0)
    assert best == 1 and high == 1 and low == pytest.approx(0.025 ** (1 / 40)), (
        "Clopper and Pearson"
    )
    assert auc_of(np.arange(40) - 40.0, np.arange(50) + 9.0)[1] == pytest.approx((0, 1 - low))
    _, narrow = auc_of(*np.random.default_rng(0).normal(size=(2, 4000)))
    error = np.sqrt(8001 / (12 * 4000**2))
    assert narrow[1] - narrow[0] == pytest.approx(2 * 1.96 * error, rel=0.03), "as Mann and Whitney"


def test_the_interval_of_the_auc_covers_the_truth() -> None:
    random, truth, covered = np.random.default_rng(1), 0.6382, 0
    for _ in range(400):  # Φ(0.5 / √2)
        members, others = random.normal(0.5, 1, 120), random.normal(0, 1, 45)
        low, high = auc_of(members, others)[1]
        covered += low <= truth <= high
    assert 0.92 <= covered / 400 <= 0.98


@pytest.mark.parametrize("mixes", [(0.3, 0.7), (0.5, 0.5)])
def test_classes_of_other_spread_and_other_shares_of_both_sides_leave_chance_at_one_half(
    mixes: tuple[float, float],
) -> None:
    """Skewed scores of one class have their median, but not their mean, where the other class has it."""
    random, covered, aucs = np.random.default_rng(9), 0, []
    for _ in range(300):
        sizes = [round(mix * 300) for mix in mixes], [round(mix * 150) for mix in mixes[::-1]]
        labels = np.concatenate([np.repeat([0, 1], each) for each in sizes])
        member = np.arange(len(labels)) < 300
        scores = np.where(
            labels == 0, random.exponential(size=len(labels)), 0.2 * random.normal(size=len(labels))
        )
        auc, (low, high) = auc_with_interval(standardised(scores, labels), member, labels)
        aucs.append(auc)
        covered += low <= 0.5 <= high
    assert np.mean(aucs) == pytest.approx(0.5, abs=0.006)
    assert 0.92 <= covered / 300 <= 0.98


def test_a_class_of_one_side_alone_says_nothing_of_the_auc() -> None:
    scores, labels = np.arange(10.0), np.repeat([0, 1], 5)
    member = np.array([0, 0, 1, 1, 1, 1, 1, 1, 1, 1], bool)
    assert auc_with_interval(scores, member, labels)[0] == 1
    assert auc_with_interval(scores, labels == 0, labels) == (0.5, (0.0, 1.0))


def test_a_class_without_drawings_says_nothing_of_the_auc_and_does_not_narrow_its_interval() -> (
    None
):
    random, member, labels = np.random.default_rng(2), np.arange(80) % 2 > 0, np.repeat([0, 1], 40)
    scores = np.where(labels == 0, random.normal(size=80) + member, 0.0)
    drawn = labels == 0
    assert auc_with_interval(scores, member, labels) == auc_with_interval(
        scores[drawn], member[drawn], labels[drawn]
    )
    assert auc_with_interval(scores[~drawn], member[~drawn], labels[~drawn]) == (0.5, (0.0, 1.0))


def test_pairs_of_one_member_and_one_other_have_the_variance_of_a_tossed_coin() -> None:
    pairs, is_second = np.repeat(np.arange(60), 2), np.arange(120) % 2
    member = is_second == np.arange(60).repeat(2) % 2  # so half of the members score higher
    auc, (low, high) = auc_with_interval(is_second.astype(float), member, pairs)
    half_width = 1.96 * np.sqrt(0.25 / 60) / 0.25  # of the logit
    assert auc == pytest.approx(0.5) and np.log(high / (1 - high)) == pytest.approx(
        half_width, rel=1e-3
    )
    assert low == pytest.approx(1 - high)


def test_scores_that_tell_nothing_are_said_to_leak_in_one_case_of_twenty() -> None:
    """Classes of other sizes on both sides and with other scores, and scores that say much the same."""
    random, said = np.random.default_rng(2), 0
    for trial in range(200):
        labels = np.repeat([0, 1, 2], [90, 40, 25])
        member = np.concatenate(
            [random.permutation(np.arange(n) < k) for n, k in ((90, 80), (40, 20), (25, 6))]
        )
        first = random.normal(3.0 * labels, 1.0 + labels)
        second = first + random.normal(size=155)
        found = attacks({"a": first, "b": second}, member, labels, trial)
        said += any(attack.p_value < 0.05 for attack in found)
    assert said <= 18, "5 % of 200, and luck"


@pytest.mark.parametrize("copied, at_least", [(0.03, 0.9), (0.2, 1.0)])
def test_copies_of_a_few_members_are_found(copied: float, at_least: float) -> None:
    random, found = np.random.default_rng(3), 0
    for trial in range(20):
        member = random.permutation(np.arange(1200) < 800)
        scores = random.normal(size=1200)
        scores[member & (random.random(1200) < copied)] += 6
        (attack,) = attacks({"a": scores}, member, np.arange(1200) % 4, trial)
        found += attack.p_value < 0.05
    assert found >= 20 * at_least


def test_members_found_at_a_low_false_positive_rate_stand_beside_chance_or_say_what_is_needed() -> (
    None
):
    random = np.random.default_rng(4)
    members, non_members = random.normal(size=900), random.normal(size=300)
    members[:90] += 20
    hundredth, thousandth = (rate_at_fpr(members, non_members, rate) for rate in (0.01, 0.001))
    assert hundredth.true_positive_rate is not None and hundredth.interval and hundredth.chance
    assert 0.1 <= hundredth.true_positive_rate < 0.14 and hundredth.chance < 0.05
    assert hundredth.interval[0] < hundredth.true_positive_rate < hundredth.interval[1]
    assert (
        thousandth.true_positive_rate is thousandth.chance is None
        and thousandth.min_non_members == 1000
    )


@pytest.mark.parametrize("shift", [0.0, 0.8])
def test_few_non_members_give_an_interval_that_covers_the_true_positive_rate(shift: float) -> None:
    """A percentile bootstrap of so extreme a quantile covers it in three cases of four."""
    random, normal, covered = np.random.default_rng(6), NormalDist(), 0
    truth = 1 - normal.cdf(normal.inv_cdf(0.99) - shift)
    for _ in range(40):
        found = rate_at_fpr(random.normal(shift, 1, 300), random.normal(size=100), 0.01)
        assert found.interval and found.true_positive_rate is not None
        assert found.interval[0] <= found.true_positive_rate <= found.interval[1]
        covered += found.interval[0] <= truth <= found.interval[1]
    assert covered >= 37, "95 % of 40, and luck"


@pytest.mark.parametrize("count", [100, 250, 1000])
def test_the_threshold_has_at_most_the_false_positive_rate_it_is_named_by(count: int) -> None:
    """Of one more non-member that is as likely to be at any rank."""
    non_members = np.arange(count) + 0.5
    ranks = np.arange(count + 1.0)
    assert rate_at_fpr(ranks, non_members, 0.01).true_positive_rate == pytest.approx(
        np.floor(0.01 * (count + 1)) / (count + 1)
    )


def test_what_chance_finds_is_of_the_class_mix_of_both_sides() -> None:
    """Most members are of a class with long tails, most non-members are not; no score tells anything."""
    random, beyond = np.random.default_rng(5), 0
    labels = np.repeat([0, 1], [300, 250])
    member = np.concatenate([np.arange(300) < 250, np.arange(250) < 50])
    for trial in range(60):
        scores = np.where(labels == 0, random.standard_t(2, 550), random.normal(size=550))
        values = standardised(scores, labels)
        order = np.concatenate([labels[member], labels[~member]])
        found = rate_at_fpr(values[member], values[~member], 0.01, trial, order)
        assert found.true_positive_rate is not None and found.chance is not None
        beyond += found.true_positive_rate > found.chance
    assert beyond <= 8, "5 % of 60, and luck"


def test_of_a_group_one_image_counts_and_scores_are_compared_within_a_class() -> None:
    units = np.array([4, 4, 4, 1, 9, 9])
    picked = [one_per_unit(units, seed) for seed in range(20)]
    assert all(units[rows].tolist() in ([4, 1, 9], [4, 9, 1]) for rows in picked)
    assert len({tuple(rows) for rows in picked}) > 2, "which one is chance"
    labels = np.repeat([0, 1], [30, 50])
    scores = np.where(labels == 1, 1000.0, 1.0) * np.arange(80)
    values = standardised(scores, labels)
    for label in (0, 1):
        of_class = values[labels == label]
        assert np.median(of_class) == 0 and np.median(np.abs(of_class)) == 1


def test_what_a_hold_out_can_show_grows_with_it() -> None:
    assert detectable_auc(1500, 500, 0.015) == pytest.approx(0.5449, abs=0.0005)
    needed = non_members_needed(0.53, 4500)
    assert needed is not None
    error = np.sqrt((4500 + needed + 1) / (12 * 4500 * needed))
    assert 2.8 * error <= 0.03 < 2.81 * error
    assert non_members_needed(0.51, 400) is None, "no number would"


def test_the_auc_that_is_said_to_be_found_four_times_of_five_is() -> None:
    """Beside a score that tells nothing, which the test has to allow for."""
    auc = detectable_auc(200, 100, MEMBERSHIP_LEVEL / (2 * STATISTICS_PER_SCORE))
    shift = NormalDist().inv_cdf(auc) * np.sqrt(2)
    random, member, labels = np.random.default_rng(7), np.arange(300) < 200, np.zeros(300, int)
    found = 0
    for trial in range(60):
        scores = random.normal(size=(2, 300))
        scores[0, member] += shift
        found += _adjusted_p_values([*scores], member, labels, trial)[0] < MEMBERSHIP_LEVEL
    assert found >= 42, "80 % of 60, and luck; without allowing for it, 35"


def test_so_many_non_members_as_needed_show_it_of_a_harmless_generator_four_times_of_five() -> None:
    needed = non_members_needed(0.58, 300)
    assert needed is not None
    random = np.random.default_rng(8)
    passed = sum(
        auc_of(random.normal(size=300), random.normal(size=needed))[1][1] <= 0.58
        for _ in range(200)
    )
    assert 145 <= passed <= 177, "half of them, were no power built in"


# --- images ---------------------------------------------------------------------------------------


def digits(first: int, count: int) -> Images:
    pixels, labels = sample_digits()
    order = np.random.default_rng(0).permutation(len(labels))[first : first + count]
    return Images(pixels[order], labels[order])


@pytest.mark.parametrize("share", [0.0, 0.05, 0.2, 0.5])
def test_copies_among_drawings_are_found_and_other_real_images_are_not(share: float) -> None:
    train, held_out, others = digits(0, 300), digits(300, 300), digits(600, 800)
    pixels, labels, _ = others.tensors
    copies = torch.arange(round(share * 800)) % 300
    pixels, labels = pixels.clone(), labels.clone()
    pixels[: len(copies)], labels[: len(copies)] = (
        part[copies] for part in (train.tensors.pixels, train.tensors.labels)
    )
    drawn = Images(pixels, labels, train.class_names)
    attacker = Attacker.of(train, held_out, seed=1)
    (attack,) = attacker.on_drawings(attacker.drawing_scores(drawn, pretrained=False))
    assert (attack.p_value < 0.05) == (share > 0)
    assert (attack.interval[0] > 0.5) == (share > 0)
    by_plain_pixels = feature_scores(
        attacker.images.flatten(1).float(), attacker.labels, pixels.flatten(1).float(), labels
    )
    (other,) = attacks({"plain": by_plain_pixels}, attacker.member, attacker.strata)
    assert (other.p_value < 0.05) == (share > 0)


def test_the_attacker_takes_one_image_of_a_group_and_the_members_first() -> None:
    train, held_out = uneven().split(0.3, seed=2)
    attacker = Attacker.of(train, held_out, seed=3)
    rows = attacker.member_rows.numpy()
    assert attacker.member.sum() == len(rows) < len(train)
    assert torch.equal(attacker.images[: len(rows)], train.tensors.pixels[rows])
    assert train.groups is not None and len(np.unique(train.groups[rows])) == len(rows)
    scores = pixel_scores(attacker.images, attacker.labels, *train.tensors[:2])
    assert scores[attacker.member].min() > scores[~attacker.member].max(), "each has its copy"
    with pytest.raises(
        DataError, match=r"held_out: expected at least 6 images of different groups"
    ):
        Attacker.of(train, held_out.at(slice(4)), seed=3)
    with pytest.raises(DataError, match=r"held_out: expected at least 6 .* found 0"):
        Attacker.of(train, held_out.at([]), seed=3)


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
        scores[np.r_[:120, 150:170]] += 1.0  # of groups of four
        (attack,) = attacker.on_drawings({"planted": scores})
        said += attack.p_value < 0.05
    assert said == 10 if leaks else said <= 2, "5 % of 10, and luck"


def test_an_image_that_the_network_drew_is_reconstructed_better_than_others() -> None:
    torch.manual_seed(0)
    network = build_generator(Architecture("deconv", 3, 1, 8, 12, 8, 4)).eval()
    real = uneven()
    drawn = network.draw(real.tensors.labels, seed=5)
    images, labels = torch.cat([drawn, real.tensors.pixels]), real.tensors.labels.repeat(2)
    scores = reconstruction_scores(network, images, labels, seed=1)
    auc, _ = auc_of(scores[: len(drawn)], scores[len(drawn) :])
    assert auc > 0.9


# --- the whole ------------------------------------------------------------------------------------


def shared(generator: object, **options: object) -> Sharing:
    train, held_out = uneven(times=2).split(0.3, seed=2)
    given = {"seeds": 2, "recipe": RECIPE, "pretrained": False, "progress": silent, **options}
    return cgan.sharing(train, held_out, generator, **given)  # type: ignore[arg-type]


def assert_is_json(answer: Sharing) -> None:
    facts = json.loads(json.dumps(answer.as_json()))
    assert facts["verdict"] == answer.verdict and "picture" not in facts
    assert facts["utility"]["overall"]["without"] == answer.utility.overall.without


def test_the_answer_has_both_sides_and_travels_as_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cgan.attacks.attacker.MIN_DRAWINGS", 300)
    torch.manual_seed(0)
    network = build_generator(Architecture("deconv", 3, 1, 8, 12, 8, 4)).eval()
    critic = build_discriminator(Architecture("projection", 3, 1, 8, 12, 8))
    answer = shared(cgan.Generator(network, {}), discriminator=critic.eval())
    assert answer.drawings % answer.train_images == 0 and answer.drawings >= 300
    assert [attack.name for attack in answer.drawing_attacks] == ["drawings, by pixels"]
    assert answer.generator_attack is not None and answer.discriminator_attack is not None
    assert "No discriminator was" not in repr(answer)
    assert "No discriminator was at hand" in repr(replace(answer, discriminator_attack=None))
    assert answer.utility.overall.without > answer.utility.overall.with_drawings
    assert "differential privacy" in repr(answer) and "anonym" not in repr(answer)
    assert_is_json(answer)
    html = answer._repr_html_()
    assert "data:image/png" in html and "pear" in html and "needs 100 held-out images" in html
    assert [each.class_name for each in answer.nearest_members] and len(
        answer.nearest_members
    ) == 10


def test_training_images_as_drawings_are_given_away_and_stand_in_for_themselves() -> None:
    train, _ = uneven(times=2).split(0.3, seed=2)
    answer = shared(train)
    assert answer.verdict == "gives away" and answer.leaks and answer.worst.auc > 0.95
    assert answer.loss == 0 and answer.generator_attack is None
    assert answer.learnt_drawings == answer.train_images and "of their number" not in repr(answer)
    assert "may be of their number" in repr(replace(answer, learnt_drawings=9))
    assert answer.sentence.startswith("These drawings give away who was in the training data (AUC ")
    assert "Train on more images, stop earlier, or do not share them." in answer.sentence
    assert all(train.place(each.row) == each.place for each in answer.nearest_members)
    safe = replace(answer.worst, auc=0.51, interval=(0.48, 0.54), p_value=0.3)
    copies = replace(answer.copies, share=0.0, p_value=1.0)
    quiet = replace(answer, drawing_attacks=(safe,), copies=copies)
    assert quiet.verdict == "nothing shown"
    for p_value, leaks in ((0.9 * FILE_LEVEL, True), (FILE_LEVEL, False)):
        file = replace(safe, p_value=p_value)
        assert replace(quiet, generator_attack=file).verdict == (
            "gives away" if leaks else "nothing shown"
        )
    for told, has_caution in ((answer, True), (quiet, False)):
        reasons = " ".join(replace(told, generator_attack=safe).reasons)
        assert ("who has the file has its drawings" in reasons) == has_caution
    two = replace(quiet, drawing_attacks=(safe, safe))
    assert two.detectable_auc > quiet.detectable_auc
    assert ["of 2:" in " ".join(each.reasons) for each in (quiet, two)] == [False, True]
    assert (
        "gave nothing away that" in quiet.sentence and "held-out images can show" in quiet.sentence
    )


def test_a_sampler_s_file_gives_its_training_images_away_whatever_its_drawings_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("cgan.attacks.attacker.MIN_DRAWINGS", 50)
    train, _ = uneven(times=2).split(0.3, seed=2)
    pixels, labels, _ = train.tensors
    sampler = LocalScoreSampler(pixels, labels, LocalScoreSettings(steps=4))
    answer = shared(cgan.Generator(sampler, {}))
    assert answer.file_leaks and answer.verdict == "gives away" and answer.generator_attack is None
    assert any("file holds its training images" in reason for reason in answer.reasons)


def test_sets_that_do_not_belong_together_are_refused_in_words() -> None:
    train, held_out = uneven(times=2).split(0.3, seed=2)
    with pytest.raises(CganError, match="seeds is 1, expected at least 2"):
        shared(train, seeds=1)
    with pytest.raises(DataError, match="generator: expected the classes, channels"):
        shared(uneven(channels=3))
    with pytest.raises(DataError, match="held_out: expected images that are not in train"):
        cgan.sharing(train, train, train)
    with pytest.raises(CganError, match="expected a generator or drawings third, found int"):
        cgan.sharing(train, held_out, 3)  # type: ignore[arg-type]
    with pytest.raises(CganError, match="expected labelled images as held_out, found ndarray"):
        cgan.sharing(train, held_out.pixels, train)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="generator: expected drawings, found none"):
        shared(train.at([]))
    with pytest.raises(CganError, match=r"expected `run.discriminator`, found str"):
        shared(train, discriminator="networks.safetensors")
    other = build_discriminator(Architecture("projection", 3, 1, 16, 12, 8))
    with pytest.raises(
        DataError, match=r"discriminator: expected .*\(3, 1, 8, 12\); found \(3, 1, 16,"
    ):
        shared(train, discriminator=other)


def test_classes_without_drawings_are_named() -> None:
    drawn = uneven(seed=5)
    answer = shared(drawn.at(drawn.labels != 1))
    name = drawn.class_names[1]
    assert answer.not_drawn == (name,)
    assert answer.utility.classes[1].with_drawings == 0
    assert f"There are no drawings of {name}: a classifier" in repr(answer)
    assert_is_json(answer)


def test_the_nearest_images_are_compared_within_a_class_and_those_without_drawings_are_left_out() -> (
    None
):
    """Of class 1, without drawings, nothing is known: its scores are 0, and all others below."""
    drawn, random = uneven(seed=5), np.random.default_rng(1)
    known = drawn.at(drawn.labels != 1)
    train, held_out = uneven(times=2).split(0.3, seed=2)
    attacker = Attacker.of(train, held_out, seed=1)
    labels = attacker.labels.numpy()
    scores = np.where(labels == 1, 0.0, -5.0 - 9 * labels - random.random(len(labels)))
    nearest_members, picture = _nearest_members(train, attacker, scores, known)
    names = {each.class_name for each in nearest_members}
    assert len(nearest_members) == 10 and names == {train.class_names[0], train.class_names[2]}
    assert picture.startswith(b"\x89PNG")
    assert _nearest_members(train, attacker, scores, drawn.at([])) == ((), b"")


def test_of_many_drawings_as_many_of_each_class_as_images_stand_in_for_these() -> None:
    train, many = uneven(), uneven(times=3, seed=5)
    lacking = many.at(
        np.concatenate([np.flatnonzero(many.labels != 2), np.flatnonzero(many.labels == 2)[:3]])
    )
    alone = as_many_of_each_class(lacking, train, seed=1)
    assert alone.counts.tolist() == [*train.counts[:2], 3]
    other = as_many_of_each_class(lacking, train, seed=2)
    assert alone.digest != other.digest, "at random"
    with pytest.raises(DataError, match=f"found only {train.class_names[2]}\\."):
        as_many_of_each_class(many.at(many.labels == 2), train.at(train.labels != 2), seed=1)


def test_few_pictures_repeated_are_no_copies_by_chance_but_where_all_are_training_images(
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


def test_drawings_are_no_copies_where_as_many_real_images_have_twins() -> None:
    """A fifth of the held-out images and of the drawings is of a picture that the others have, too."""
    train, fresh, others = digits(0, 500), digits(500, 80), digits(580, 240)

    def joined(*parts: Images) -> Images:
        pixels = np.concatenate([part.pixels for part in parts])
        return Images(pixels, np.concatenate([part.labels for part in parts]))

    held_out = joined(fresh, train.at(slice(20)))
    of_both = joined(others, train.at(slice(100, 150)), fresh.at(slice(10)))
    honest = Copies.of(of_both, train, held_out, seed=1)
    assert honest.share > 0.15 and honest.real > 0.02 and not honest.leak
    assert typical_share(0.0, 10**6) == pytest.approx(0.1)
    assert typical_share(0.05, 10**6) == pytest.approx(0.2, rel=0.02)
    assert typical_share(0.3, 100) == 1


def test_a_drawing_of_a_class_without_training_images_is_no_copy_and_no_other_image_is() -> None:
    """Of so many held-out images, none of which has a training image, there is no usual distance."""
    train, held_out = uneven(times=8).split(0.5, seed=2)
    train, of_class = train.at(train.labels != 1), np.flatnonzero(held_out.labels == 1)
    assert len(of_class) >= MIN_CLASS_IMAGES
    others = np.flatnonzero(held_out.labels != 1)
    held_out = held_out.at(np.concatenate([of_class, others]))
    none = Copies.of(held_out.at(held_out.labels == 1), train, held_out, seed=1)
    assert none.copied_members == none.copied_non_members == 0 and none.p_value == 1
    last = held_out.at([*range(len(of_class)), len(held_out) - 1])
    assert Copies.of(last, train, held_out, seed=1).copied_non_members == 1


def test_who_is_copied_is_tested_within_strata_and_a_nearer_copy_counts_more(
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
