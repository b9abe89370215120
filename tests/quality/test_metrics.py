"""Metrics against closed forms, worked examples, and generators whose faults are known."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from synthetic import make_images
from torch import Tensor

from cgan import project
from cgan.data.dataset import Dataset, load_dataset, save_dataset
from cgan.data.sources import mnist_sample
from cgan.errors import DataError, ModelError
from cgan.metric import METRICS
from cgan.model.hardware import choose_hardware
from cgan.model.model_file import digest_of, save_network
from cgan.model.networks import Architecture, build_generator
from cgan.model.sampling import draw
from cgan.params.sections import EvaluateParams, JudgeParams
from cgan.quality import evaluation
from cgan.quality.evaluation import (
    Entry,
    Inputs,
    Measured,
    classes_asked,
    gan_train,
    judge_generator,
)
from cgan.quality.intervals import share
from cgan.quality.judge import Judge, accuracy, look, save_judge, train_judge
from cgan.quality.likeness import copies, different
from cgan.quality.metrics import (
    NEIGHBOURS,
    conditional_accuracy,
    diversity,
    frechet_distance,
    kernel_distance,
    manifold,
    wilson_interval,
)
from cgan.quality.table import (
    class_table,
    floors,
    headline,
    leading,
    quality_table,
    tracked,
    verdict,
)


def gaussian(
    count: int, dimension: int, seed: int, mean: float = 0.0, scale: float = 1.0
) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    return torch.randn(count, dimension, generator=random) * scale + mean


def exact(points: Tensor) -> Tensor:
    """The same points with mean 0 and covariance 1 to the last digits."""
    centred = points.double() - points.double().mean(dim=0)
    root = torch.linalg.cholesky(centred.T @ centred / (len(points) - 1))
    return torch.linalg.solve_triangular(root, centred.T, upper=False).T.contiguous()


# -- Conditional accuracy -----------------------------------------------------------------------------


def test_confusion_has_a_row_for_each_class_asked_and_a_column_for_each_judged() -> None:
    asked = torch.tensor([0, 0, 0, 1, 1, 2])
    judged = torch.tensor([0, 0, 2, 1, 0, 2])
    found = conditional_accuracy(judged, asked, 4)
    assert found.confusion.tolist() == [[2, 0, 1, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]]
    assert found.by_class == [2 / 3, 0.5, 1.0, None], "the last was never asked for"
    assert found.overall == 4 / 6
    assert found.interval == wilson_interval(4, 6)


@pytest.mark.parametrize(
    ("right", "total", "low", "high"),
    [
        # Newcombe 1998 (Statistics in Medicine 17), table I, method 3
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_interval_has_published_values(
    right: int, total: int, low: float, high: float
) -> None:
    assert wilson_interval(right, total) == pytest.approx((low, high), abs=5e-5)


# -- Fréchet and kernel distance ----------------------------------------------------------------------


def test_frechet_distance_matches_the_closed_form_for_gaussians_and_rotated_covariances() -> None:
    # tr(A + B - 2(AB)^½) with A = diag(4, 1), B = diag(1, 9): 5 + 10 - 2·(2 + 3).
    points, others = exact(gaussian(400, 2, seed=0)), exact(gaussian(400, 2, seed=1))
    turn = torch.tensor([[0.6, -0.8], [0.8, 0.6]], dtype=torch.float64)
    first = points * torch.tensor([2.0, 1.0]) @ turn
    second = others * torch.tensor([1.0, 3.0]) @ turn
    assert frechet_distance(first, second) == pytest.approx(5, abs=1e-6)


def test_kernel_distance_depends_on_its_seed_alone() -> None:
    a, b = gaussian(400, 4, seed=0), gaussian(200, 4, seed=1)
    state = torch.get_rng_state()
    first = kernel_distance(a, b, seed=3)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(99)
    assert kernel_distance(a, b, seed=3) == first != kernel_distance(a, b, seed=4)


@pytest.mark.parametrize(
    ("dimension", "counts"), [(1, (50, 70)), (12, (300, 40)), (6, (1300, 1200))]
)
def test_both_distances_are_those_of_torchmetrics(dimension: int, counts: tuple[int, int]) -> None:
    """Fréchet's, and the kernel's with its 20 subsets of at most 1,000, of the same random numbers."""
    from torchmetrics.image.fid import FrechetInceptionDistance
    from torchmetrics.image.kid import KernelInceptionDistance

    class Features(torch.nn.Module):
        num_features = dimension

        def forward(self, features: Tensor) -> Tensor:
            return features

    sets = gaussian(counts[0], dimension, seed=0), gaussian(counts[1], dimension, seed=1, mean=0.5)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*save all extracted features")
        kernel = KernelInceptionDistance(Features(), subsets=20, subset_size=min(1000, *counts))
    frechet = FrechetInceptionDistance(Features())
    for metric in (frechet, kernel):
        metric.update(sets[0].double(), real=True)
        metric.update(sets[1].double(), real=False)
    assert frechet_distance(*sets) == pytest.approx(float(frechet.compute()), rel=1e-10)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        expected = tuple(map(float, kernel.compute()))
    assert kernel_distance(*sets) == pytest.approx(expected, rel=1e-10)


# -- Precision, recall, density, coverage --------------------------------------------------------------


def test_manifold_of_points_on_a_line_counts_as_worked_out_by_hand() -> None:
    # Real 0 1 2 3 (radii to the 1st neighbour: 1 each), drawn 0.5 1.5 9 (radii 1 1 7.5).
    real = torch.tensor([[0.0], [1.0], [2.0], [3.0]])
    drawn = torch.tensor([[0.5], [1.5], [9.0]])
    found = manifold(real, drawn, k=1)
    assert found.precision == 2 / 3  # 9 is in no real ball
    assert found.density == pytest.approx((2 + 2) / 3)  # 0.5 in those of 0 1; 1.5 in those of 1 2
    assert found.coverage == 3 / 4  # the ball of 3 is empty
    assert found.recall == 1.0  # 0 and 1 near 0.5, 2 near 1.5, and 3 within 7.5 of 9
    real = torch.tensor([[0.0], [1.0], [3.0]])
    # Radii to the 2nd neighbour: 3, 2, 3.
    assert manifold(real, torch.tensor([[-2.9], [-2.9], [-2.9]]), k=2).coverage == 1 / 3
    assert manifold(real, torch.tensor([[-3.1], [-3.1], [-3.1]]), k=2).coverage == 0
    # On a line, each point's fifth neighbour is three steps away. So a drawing just to the right
    # of a point is in the balls of that point, of two to its left and of three to its right.
    line = torch.arange(2100.0)[:, None] * 10
    found = manifold(line, line[50:1150] + 0.5)
    assert found.precision == 1.0
    assert found.density == pytest.approx(6 / 5)
    assert found.coverage == pytest.approx(1105 / 2100)  # from 48 to 1152
    # Radii to the 1st neighbour: 2 for the drawings 0 and 2, 5 for the real 4 and 9.
    found = manifold(torch.tensor([[4.0], [9.0]]), torch.tensor([[0.0], [2.0]]), k=1)
    assert found.recall == 0.0, "4 is 2 away from 2"
    assert (found.precision, found.coverage) == (1.0, 0.5), "0 and 2 are 4 and 2 away from 4"
    edge = manifold(torch.tensor([[4.0], [9.0]]), torch.tensor([[-1.0], [14.0]]), k=1)
    assert (edge.precision, edge.coverage, edge.density) == (0, 0, 0), "each is 5 away"


# -- Diversity -----------------------------------------------------------------------------


def test_diversity_is_the_total_deviation_of_each_class() -> None:
    features = torch.tensor([[0.0, 0.0], [2.0, 4.0], [7.0, 7.0], [7.0, 7.0], [5.0, 5.0]])
    labels = torch.tensor([0, 0, 1, 1, 2])
    # Class 0: variances 2 and 8. Class 2 has one image, class 3 none.
    assert diversity(features, labels, 4) == pytest.approx([math.sqrt(10), 0, 0, 0])


# -- Generators with known faults, through a judge of real digits ------------------------------------


@pytest.fixture(scope="module")
def digits() -> tuple[Dataset, Dataset]:
    """Training part and hold-out, 1,500 and 500 digits, both sorted by class as CSVs can be."""
    pixels, labels = mnist_sample()
    images = torch.from_numpy(pixels).view(-1, 1, 28, 28)
    place = torch.arange(5000) % 500  # within the class
    parts = (place < 150, (place >= 150) & (place < 200))
    classes = torch.from_numpy(labels).long()
    train, held = (Dataset(images[part], classes[part], {"classes": 10}) for part in parts)
    return train, held


@pytest.fixture(scope="module")
def judge(digits: tuple[Dataset, Dataset]) -> Judge:
    return train_judge(digits[0], RECIPE, torch.device("cpu"), torch.float32)


RECIPE = JudgeParams(total_kimg=6.0, batch_size=64, peak_lr=0.1, width=8, seed=1)


PARAMS = EvaluateParams(samples=100, draws=1, gan_train_kimg=0.0, seed=1)


def digit_inputs(judge: Judge, digits: tuple[Dataset, Dataset]) -> Inputs:
    network = build_generator(Architecture("deconv", 10, 1, 28, 28, features=4, latent_dim=4))
    return Inputs(network, {}, judge, {}, *digits)


def report_on(drawn: Tensor, judge: Judge, digits: tuple[Dataset, Dataset]) -> dict[str, Any]:
    report = Measured(digit_inputs(judge, digits), PARAMS, [drawn]).report()
    json.dumps(report, allow_nan=False)
    return report


def taken_from(data: Dataset, per_class: int) -> Tensor:
    """1,000 images, the first `per_class` of each class in turn."""
    by_class = [data.images[data.labels == label][:per_class] for label in range(10)]
    return torch.stack([by_class[i % 10][i // 10 % per_class] for i in range(1000)])


def test_one_picture_a_class_is_accurate_but_has_no_diversity(
    judge: Judge, digits: tuple[Dataset, Dataset]
) -> None:
    seen = look(judge, digits[0].images)
    right = seen.classes == digits[0].labels
    known = Dataset(digits[0].images[right], digits[0].labels[right], {"classes": 10})
    report = report_on(taken_from(known, 1), judge, digits)
    assert report["conditional_accuracy"]["value"] == 1.0
    assert report["diversity"]["by_class"] == pytest.approx([0] * 10, abs=1e-3)
    assert report["recall"]["value"] < 0.01
    assert report["coverage"]["value"] < 0.2
    assert report["different_drawings"]["value"] == 1
    assert report["fid_judge"]["value"] > 5 * report["fid_judge"]["floor"]


def test_noise_and_swapped_classes_are_inaccurate(
    judge: Judge, digits: tuple[Dataset, Dataset]
) -> None:
    random = torch.Generator().manual_seed(0)
    noise = torch.randint(0, 256, (1000, 1, 28, 28), dtype=torch.uint8, generator=random)
    report = report_on(noise, judge, digits)
    assert report["conditional_accuracy"]["value"] < 0.3
    assert report["coverage"]["value"] < 0.05
    assert report["fid_judge"]["value"] > 10 * report["fid_judge"]["floor"]
    swapped = report_on(taken_from(digits[1], 50).roll(1, dims=0), judge, digits)
    assert swapped["conditional_accuracy"]["value"] < 0.1
    # Without regard to the class they are perfect; class by class they aren't.
    assert swapped["fid_judge"]["value"] == pytest.approx(0, abs=1e-3)
    assert min(swapped["fid_judge"]["by_class"]) > 10


# -- The report ----------------------------------------------------------------------------------------


def untrained_judge() -> Judge:
    torch.manual_seed(0)
    return Judge(3, 1, 4).eval().requires_grad_(False)


def tiny_data(per_class: int, seed: int) -> Dataset:
    """Sorted by class, as a CSV can be."""
    images, labels = (torch.from_numpy(array) for array in make_images(per_class, seed=seed))
    order = labels.argsort(stable=True)
    return Dataset(images[order], labels[order], {"classes": 3, "digest": "0"})


def tiny_inputs(per_class: int = 40, held: int = 40) -> Inputs:
    """What the stage would load, with a short recipe of the judge's."""
    recipe = RECIPE.model_copy(update={"total_kimg": 0.5, "batch_size": 16})
    facts = {"params": recipe.model_dump(), "digest": "0"}
    generator = build_generator(Architecture("deconv", 3, 1, 8, 8, features=4, latent_dim=4)).eval()
    parts = tiny_data(per_class, 0), tiny_data(held, 1)
    return Inputs(generator, {"digest": "0"}, untrained_judge(), facts, *parts)


def draws(*seeds: int) -> list[Tensor]:
    return [torch.from_numpy(make_images(100, seed=seed)[0]) for seed in seeds]


def test_a_metric_is_a_row_and_a_method() -> None:
    """Those of no metric are the report's own."""
    written = {name for name in vars(Measured) if not name.startswith("_")}
    assert written - {"report"} == set(METRICS)


def test_gan_train_is_the_judges_own_recipe_on_drawings() -> None:
    inputs = tiny_inputs()
    training, recipe = inputs.training, JudgeParams(**inputs.judge_facts["params"])
    hardware = choose_hardware("auto", "auto")
    first = train_judge(training, recipe, hardware.device, hardware.precision)
    # The training images in the drawings' place: the second judge is the first.
    found = gan_train(training.images, training.labels, inputs, None)
    assert found == accuracy(first, inputs.heldout)
    assert found != gan_train(training.images, training.labels, inputs, 0.016)
    for facts in ({}, {"params": {"lr": 0.002}}, {"params": 3}):
        with pytest.raises(ModelError, match="--force train_judge"):
            gan_train(
                training.images, training.labels, replace(inputs, judge_facts={**facts}), None
            )


def test_progress_is_told_what_an_evaluation_does_and_changes_no_number() -> None:
    told: list[tuple[str, int]] = []

    def progress(what: str, steps: range, images_a_step: int = 0) -> Iterator[int]:
        told.append((what, len(steps) * images_a_step))
        return iter(steps)

    params = PARAMS.model_copy(update={"gan_train_kimg": 0.256, "draws": 2})
    inputs = tiny_inputs()
    watched = judge_generator(inputs, params, progress)
    assert [amount for _, amount in told] == [600, 600, 256]
    assert watched["gan_train_accuracy"]["floor"] == accuracy(inputs.judge, inputs.heldout)
    assert watched == judge_generator(inputs, params)


def test_a_class_with_one_held_out_image_has_no_distance_of_its_own() -> None:
    inputs = tiny_inputs(12, 4)
    kept = torch.tensor([0, 1, 2, 3, 4, 8, 9, 10, 11])
    few = Dataset(inputs.heldout.images[kept], inputs.heldout.labels[kept], {"classes": 3})
    report = Measured(replace(inputs, heldout=few), PARAMS, draws(5)).report()
    for name in ("fid_judge", "kid_judge"):
        assert [value is None for value in report[name]["by_class"]] == [False, True, False]
    json.dumps(report, allow_nan=False)
    assert [row[2] == "" for row in class_table(report)[1:]] == [False, True, False]


@pytest.mark.parametrize("held", [3, NEIGHBOURS])
def test_a_hold_out_too_small_for_neighbours_is_refused_with_advice(held: int) -> None:
    inputs = tiny_inputs()
    few = Dataset(inputs.heldout.images[:held], inputs.heldout.labels[:held], {"classes": 3})
    with pytest.raises(DataError, match=r"Raise `preprocess.holdout_fra"):
        Measured(replace(inputs, heldout=few), PARAMS, draws(5))


@pytest.mark.parametrize(
    ("per_class", "held"),
    [(12, 4), (120, 120)],
    ids=["more drawn than real", "fewer drawn than held out"],
)
def test_each_number_of_a_report_is_of_the_sets_it_names_at_equal_counts(
    per_class: int, held: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluation, "COPIES_SAMPLE", 8)
    inputs, params = tiny_inputs(per_class, held), PARAMS
    training, heldout, judge, drawn = inputs.training, inputs.heldout, inputs.judge, draws(5, 6)
    asked = classes_asked(3, params)
    count = min(len(asked), len(training))
    report = Measured(inputs, params, drawn).report()

    random = torch.Generator().manual_seed(params.seed)
    some = torch.randperm(len(training), generator=random)[:count]
    mixed = torch.randperm(len(heldout), generator=random)
    real, floor = look(judge, heldout.images), look(judge, training.images[some])
    first, second = (look(judge, images) for images in drawn)

    def near(expected: float) -> Any:
        return pytest.approx(expected)

    right = torch.cat([first.classes == asked, second.classes == asked]).double().mean().item()
    found = report["conditional_accuracy"]
    assert (found["value"], found["floor"]) == (right, accuracy(judge, heldout))
    assert found["interval_95"] == list(share(right, 600)), "both draws are judged"
    assert sum(map(sum, report["confusion"])) == 600
    assert report["worst_class_accuracy"] == {"value": min(found["by_class"])}

    fid, kid = report["fid_judge"], report["kid_judge"]
    distances = [frechet_distance(real.features, v.features[:count]) for v in (first, second)]
    assert fid["value"] == near(sum(distances) / 2)
    assert fid["deviation"] == near(abs(distances[0] - distances[1]) / math.sqrt(2))
    assert fid["floor"] == near(frechet_distance(real.features, floor.features))
    assert fid["interval_95"][0] < fid["value"] < fid["interval_95"][1]
    assert sum(fid["replicates"]) == pytest.approx(0, abs=0.01)
    assert (kid["value"], kid["deviation"]) == pytest.approx(
        kernel_distance(real.features, first.features[:count], params.seed)
    )
    assert kid["floor"] == near(kernel_distance(real.features, floor.features, params.seed)[0])
    for label in range(3):
        mine = first.features[:count][asked[:count] == label]
        theirs = real.features[heldout.labels == label]
        assert fid["by_class"][label] == near(frechet_distance(theirs, mine))
        assert kid["by_class"][label] == near(kernel_distance(theirs, mine, params.seed)[0])
    equal = min(count, len(heldout))
    value, reals = (
        asdict(manifold(real.features[mixed[:equal]], features[:equal]))
        for features in (first.features, floor.features)
    )
    for key in value:
        expected: Entry = {"value": value[key], "floor": reals[key]}
        if key != "density":
            expected["interval_95"] = list(share(value[key], equal))
        assert report[key] == expected
    assert report["diversity"] == {
        "by_class": diversity(first.features, asked, 3),
        "floor_by_class": diversity(real.features, heldout.labels, 3),
    }
    some_held = Dataset(heldout.images[mixed[:8]], heldout.labels[mixed[:8]], heldout.metadata)
    by_hand = copies(drawn[0][:8], asked[:8], some_held, training)
    assert report["copies"] == {
        "value": by_hand.closer,
        "interval_95": list(share(by_hand.closer, 8)),
        "floor": 0.01,
        "drawn_nearest_median": by_hand.drawn_median,
        "heldout_nearest_median": by_hand.heldout_median,
    }
    numbers, of_real = different(drawn[0], asked, training)
    assert report["different"] == {"by_class": numbers, "floor_by_class": of_real}
    fewest = numbers.index(min(numbers))  # type: ignore[type-var]
    assert report["different_drawings"]["value"] == numbers[fewest]


def test_headline_tables_and_run_page_take_each_number_from_its_row() -> None:
    report: dict[str, Any] = {
        key: {"value": n / 10 + 1e-7, "floor": n / 100} for n, key in enumerate(METRICS)
    }
    del report["gan_train_accuracy"], report["worst_class_accuracy"]["floor"]
    report["conditional_accuracy"]["by_class"] = [0.93, 0.61]
    report["fid_judge"]["by_class"] = [12.0, None]
    flat = headline(report)
    assert flat.keys() == METRICS.keys() - {"gan_train_accuracy"} | {"fid_judge_floor"}
    assert (flat["fid_judge"], flat["fid_judge_floor"]) == (0.1, 0.01)
    assert leading(report) == {"conditional_accuracy": 0, "fid_judge": 0.1, "recall": 0.3}
    assert tracked(report) == {
        f"quality/{name}": value for name, value in flat.items() if name != "fid_judge_floor"
    }
    assert floors(report).keys() == METRICS.keys() - {"gan_train_accuracy", "worst_class_accuracy"}
    table = quality_table(report)
    assert table[0][:3] == ["metric", "drawn", "real images"] and len(table) == len(METRICS)
    assert table[2][:4] == ["Fréchet distance", 0.1, 0.01, "lower"]
    assert table[5][:4] == ["accuracy of the worst class", 0.4, "", "higher"]
    assert class_table(report)[1:] == [[0, 0.93, 12.0], [1, 0.61, ""]]
    named = class_table({**report, "class_names": ["<b>", "no"]})
    assert [row[0] for row in named] == ["class", "<b>", "no"]
    numbers = {
        "conditional_accuracy": (0.91, 0.92),
        "recall": (0.32, 0.42),
        "copies": (0.015, 0.01),
    }
    told = {key: {"value": value, "floor": real} for key, (value, real) in numbers.items()}
    words = "91.0 % legible (real images 92.0 %), 76 % as varied as real images, 1.5 % near copies"
    assert verdict(told, 68.4) == f"{words}, trained in 68 s"


def test_the_stage_draws_anew_for_each_draw_and_its_passport_names_what_it_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for path, per_class, seed in ((project.TRAIN_DATA, 20, 0), (project.HOLDOUT_DATA, 4, 1)):
        save_dataset(path, *make_images(per_class, seed=seed), {"classes": 3, "csv_sha256": "aa"})
    made_from = {"data_digest": load_dataset(project.TRAIN_DATA).metadata["digest"]}
    save_judge(project.JUDGE, untrained_judge(), made_from)
    network = build_generator(Architecture("deconv", 3, 1, 8, 8, features=4, latent_dim=4)).eval()
    save_network(project.GENERATOR, network, {"steps": 77, **made_from})
    params = EvaluateParams(samples=100, draws=2, gan_train_kimg=0.0, seed=3)
    inputs = Inputs.load()
    assert inputs.facts["steps"] == 77
    report = judge_generator(inputs, params)
    drawn = [draw(network, torch.arange(300) % 3, seed) for seed in (3, 4)]
    by_hand = Measured(inputs, params, drawn).report()
    assert {key: report[key] for key in by_hand} == by_hand
    passport = report["passport"]
    assert passport["generator_digest"] == digest_of(network.state_dict())
    assert passport["extractor_digest"] == digest_of(untrained_judge().state_dict())
    assert passport["reference_digest"] == load_dataset(project.HOLDOUT_DATA).metadata["digest"]
    counts = ("reference_images", "drawn_images", "distance_images", "draws", "seed")
    assert [passport[name] for name in counts] == [12, 300, 60, 2, 3], "100 of each class at least"
