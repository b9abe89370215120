"""A champion that cannot be read, and data or labels that are not those that the champion learnt."""

import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from conftest import ROOT, write_params
from gated import digits, gated, make_project, of_store, train
from gated import second as second

from cgan.errors import ModelError
from cgan.images import Images
from cgan.pipeline.inputs import Inputs
from cgan.pipeline.params_file import load_params
from cgan.pipeline.registry import judging
from cgan.pipeline.registry.client import open_registry
from cgan.pipeline.registry.data_checks import (
    KeptData,
    agreement_checks,
    class_mix_check,
    data_checks,
    mean_group_size,
)
from cgan.verdict import Check

LIMITS = load_params(ROOT / "params.yaml").gate


def new_data(images: np.ndarray, labels: np.ndarray) -> None:
    """A new CSV, and the parts and the judge made from it."""
    make_project(Path(), (images, labels))
    write_params(Path(), gate={"against_champion": "not_worse"})


def swapped(images: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return images, np.array([1, 0, 2])[labels]


def refused_for(words: str) -> None:
    """The gate ends without a verdict, and nobody is promoted or registered."""
    with pytest.raises(ModelError, match=words):
        gated()
    with open_registry("cgan") as registry:
        assert (
            [version.number for version in registry.versions()]
            == [registry.champion_number()]
            == [1]
        )


def test_a_champion_that_cannot_be_read_is_replaced_by_nobody(second: Path) -> None:
    path = of_store("models/*/artifacts/**/generator.safetensors")
    train(second, "second", 60)  # good enough by the bars alone
    path.write_bytes(b"damaged")
    refused_for("the champion of `cgan`, version 1, cannot be read, .*: models:/cgan/1/")
    shutil.rmtree(path.parents[1])
    refused_for("the champion of `cgan`, version 1, cannot be read")
    with open_registry("cgan") as registry:
        registry.client.delete_registered_model_alias("cgan", "champion")
    assert gated()[0]["verdict"] == "promoted"


def test_swapped_labels_are_seen_by_the_champion_s_own_judge(second: Path) -> None:
    """Today's judge learnt the swap: it finds the new generator good, and the champion poor. A person who
    knows better promotes it, and the next gate compares data with its own."""
    new_data(*swapped(*digits(seed=5)))
    train(second, "swapped", 60)
    report, _ = gated()
    assert report["verdict"] == "blocked" and "unlike the champion's" in report["summary"]
    assert "33.3 % of the new labels" in report["summary"]
    assert "1 in 100 % of the 60 images labelled 0" in report["summary"]
    failed = [check["name"] for check in report["checks"] if not check["passed"]]
    assert failed == [SHIFT, *AGREE] and "## Today's data" in Path("reports/gate.md").read_text()
    assert "measured" not in report, "nothing was drawn in vain"
    assert "registry promote 2 --force" in report["summary"]
    with open_registry("cgan") as registry:
        registry.promote(2, previous=1, why="a new catalogue")
    train(second, "again", 90)
    assert "unlike" not in str(gated()[0]["reasons"])


def test_data_that_nobody_can_compare_promote_nobody(second: Path) -> None:
    new_data(*swapped(*digits(seed=5)))
    train(second, "swapped", 60)
    kept = of_store("*/artifacts/gate")
    for harm in (
        lambda: (kept / "training_data.safetensors").write_bytes(b"damaged"),
        lambda: shutil.rmtree(kept),
    ):
        harm()
        refused_for("cannot tell whether .*delete the alias `champion`")


def patched(images: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    images[labels == 1, :, 5:7, 5:7] = 255
    return images, labels


def among_its_own(images: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A tenth of them is new."""
    own = digits(per_class=60)
    return np.concatenate([own[0], images[:36]]), np.concatenate([own[1], labels[:36]])


SHIFT, AGREE = "class_shift", ["label_agreement", "class_agreement"]


def mislabelled(images: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """2 % of them, as many data have."""
    wrong = np.random.default_rng(0).permutation(len(labels))[:4]
    labels[wrong] = (labels[wrong] + 1) % 3
    return images, labels


CASES: dict[str, tuple[Callable[..., tuple[np.ndarray, ...]], list[str], str]] = {
    "new images": (lambda i, n: (i, n), [], ""),
    "a few wrong labels": (mislabelled, [], ""),
    "new among its own": (among_its_own, [], ""),
    "a half of its own": (lambda i, n: tuple(part[:90] for part in digits()), [], ""),
    "a class darker": (
        lambda i, n: (np.where(n[:, None, None, None] == 2, i * 0.8, i).astype(np.uint8), n),
        [SHIFT],
        "class 2 differs in ",
    ),
    "a class with a patch": (patched, [SHIFT], "class 1 differs in brightness"),
    "a patch in the new ones": (
        lambda i, n: among_its_own(*patched(i, n)),
        [SHIFT],
        "class 1 differs in brightness",
    ),
    "other labels for its own": (lambda i, n: swapped(*digits()), [SHIFT, *AGREE], "labelled 0"),
    "a class gone": (
        lambda i, n: (i[n > 0], n[n > 0]),
        ["class_mix"],
        "of the images 0.0 % are of class 0, of the champion's 33.3 %",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_data_are_compared_with_the_champion_s_class_by_class(second: Path, name: str) -> None:
    change, failed, words = CASES[name]
    images, labels = map(torch.from_numpy, change(*digits(seed=5)))
    parts = [
        Images(images[part], labels[part], list("012")) for part in (slice(20, None), slice(20))
    ]
    with open_registry("cgan") as registry:
        champion = registry.version(1)
        kept = KeptData.load(registry, champion)
    # Only the data are looked at.
    inputs = SimpleNamespace(train=parts[0], held_out=parts[1])
    checks = data_checks(kept, cast(Any, inputs), LIMITS)
    assert [check.name for check in checks if not check.passed] == failed
    assert words in "; ".join(check.why for check in checks)
    assert [check.name for check in checks if check.why] == failed


def test_of_many_new_images_a_random_part_is_looked_at(
    second: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sorted by class, as a folder of pictures is; the labels of the last class are wrong."""
    monkeypatch.setattr("cgan.pipeline.registry.data_checks.MAX_JUDGED", 90)
    images, labels = map(torch.from_numpy, digits(seed=5))
    order = labels.argsort(stable=True)
    labels = labels[order].where(labels[order] < 2, 1 - torch.arange(len(labels)) % 2)
    parts = [Images(images[order], labels, list("012")) for _ in range(2)]
    with open_registry("cgan") as registry:
        kept = KeptData.load(registry, registry.version(1))
    inputs = SimpleNamespace(train=parts[0], held_out=parts[1].at(torch.arange(0)))
    checks = data_checks(kept, cast(Any, inputs), LIMITS)
    assert {"label_agreement", "class_agreement"} <= {c.name for c in checks if not c.passed}


def test_what_a_generator_draws_is_told_as_height_by_width() -> None:
    model = cast(Any, SimpleNamespace(classes=3, shape=(1, 8, 12)))
    assert judging._classes_in_words(model, {}, named=True) == "3 classes of 8 × 12 × 1"


def test_new_data_of_the_same_kind_are_no_sign_against_anything(second: Path) -> None:
    new_data(*digits(seed=5))
    write_params(second, gate={"min_judge_accuracy": 0.8})
    train(second, "second", 60)
    report, _ = gated()
    assert report["verdict"] == "promoted", report["reasons"]
    assert "on other data" in (reasons := str(report["reasons"])) and "unlike" not in reasons


@pytest.mark.slow
def test_what_drifts_each_night_is_compared_with_what_was_accepted(
    second: Path,
) -> None:
    """Darker by a twentieth a night: like the champion's each time, and less and less like the first ones."""
    for night, verdict in ((1, "promoted"), (2, "blocked")):
        images, labels = digits(seed=4 + night)
        new_data((images * 0.95**night).astype(np.uint8), labels)
        limits = {"max_class_shift": 2.0, "min_judge_accuracy": 0.8}
        write_params(second, gate={"against_champion": "not_worse", **limits})
        train(second, f"night{night}", 60)
        report, _ = gated()
        assert report["verdict"] == verdict, report["reasons"]
    assert "unlike version 1's" in report["summary"]
    assert "unlike the champion's" not in report["summary"]
    for key in ("name", "what"):
        found = [check[key] for check in report["checks"]]
        assert len({*found}) == len(found) == 8, "each says with whose data it compares"


@pytest.mark.parametrize(
    ("confusion", "right", "failed"),
    [
        pytest.param([[500, 0], [3, 0]], [250, 250], [], id="three images prove nothing"),
        pytest.param([[970, 0], [30, 0]], [250, 0], [], id="a class that it never knew"),
        pytest.param([[960, 0], [24, 6]], [250, 75], [], id="a class that is hard to tell"),
        pytest.param([[980, 0], [20, 0]], [250, 250], AGREE, id="a rare class"),
        pytest.param([[460, 40], [40, 460]], [250, 250], AGREE[:1], id="8 % of all"),
        pytest.param([[490, 10], [10, 490]], [250, 250], [], id="2 % of all"),
    ],
)
def test_agreement_falls_by_more_than_noise(
    confusion: list[list[int]], right: list[int], failed: list[str]
) -> None:
    asked = torch.tensor([250, 250])
    kept = cast(KeptData, SimpleNamespace(correct=torch.tensor(right), held_out=asked))
    checks = agreement_checks(torch.tensor(confusion), kept, 0.03, ["a", "b"], "its")
    assert [check.name for check in checks if not check.passed] == failed
    assert [check.name for check in checks if check.why] == failed


def lost(now: list[int], before: list[int], group_size: float = 1.0) -> Check:
    counts, former = (torch.tensor(each).double() for each in (now, before))
    return class_mix_check(counts, former, [*map(str, range(len(now)))], group_size, "its")


def test_a_class_s_loss_is_relative_and_less_what_chance_explains() -> None:
    check = lost([30_000, 10_000], [20_000, 20_000])
    deviation = (0.375 * (1 / 40_000 + 1 / 40_000)) ** 0.5
    assert check.value == pytest.approx((0.25 - 2.2414 * deviation) / 0.5, abs=1e-5)
    assert not check.passed and "25.0 % are of class 1, of its 50.0 %" in check.why
    assert lost([20_000, 20_000], [30_000, 10_000]).value == pytest.approx(0.3166, abs=1e-4)
    assert lost([20, 20], [20, 20]).value == 0.0


@pytest.mark.parametrize(
    ("left", "passed"), [(0.0, False), (0.1, False), (0.5, False), (0.8, True), (2.0, True)]
)
def test_a_class_that_is_gone_or_halved_is_seen(left: float, passed: bool) -> None:
    assert lost([450] * 9 + [int(450 * left)], [450] * 10).passed is passed


def test_chance_loses_no_class_and_of_things_photographed_often_it_may() -> None:
    dice = np.random.default_rng(0)
    for images, of_group in ((270, 1), (4500, 1), (270, 10), (4500, 30)):
        for _ in range(200):
            draws = dice.multinomial(images // of_group, [0.1] * 10, 2) * of_group
            assert lost(draws[0].tolist(), draws[1].tolist(), of_group).passed
    assert not lost([6, 60, 60], [60] * 3).passed and lost([6, 60, 60], [60] * 3, 6.0).passed


def test_a_group_s_size_is_the_mean_over_its_images() -> None:
    pixels, labels = map(torch.from_numpy, digits(per_class=2))
    groups = np.array([0, 0, 0, 1, 2, 2])
    parts = [Images(pixels, labels), Images(pixels, labels, groups=groups)]
    for part, size in zip(parts, (1.0, 14 / 6), strict=True):
        inputs = cast(Inputs, SimpleNamespace(train=part, held_out=part))
        assert mean_group_size(inputs) == pytest.approx(size)
