"""A champion that cannot be read, and data or labels that are not those that the champion learnt."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
import torch
from conftest import ROOT, Project, fit_again, gated, of_store, remade, uneven, write_params

from cgan.errors import ModelError
from cgan.images import Images
from cgan.pipeline.inputs import Inputs
from cgan.pipeline.params_file import load_params
from cgan.pipeline.registry import todays_data
from cgan.pipeline.registry.checks import DATA, Check
from cgan.pipeline.registry.client import open_registry
from cgan.pipeline.registry.rows import check_group
from cgan.pipeline.registry.todays_data import Comparison, KeptData
from cgan.quality.class_shift import Shift

LIMITS = load_params(ROOT / "params.yaml").gate
SHIFT, MIX, AGREE = "class_shift", "class_mix", ["agreement_drop", "class_agreement"]


def own() -> Images:
    """The images that the champion learnt."""
    return uneven(times=3)


def new(seed: int = 5) -> Images:
    """Others of the same kind."""
    return uneven(times=3, seed=seed)


def swapped(data: Images) -> Images:
    return replace(data, labels=np.array([1, 0, 2])[data.labels])


def refused_for(words: str) -> None:
    """The gate ends without a verdict, and nobody is promoted or registered."""
    with pytest.raises(ModelError, match=words):
        gated()
    with open_registry("cgan") as registry:
        numbers = [version.number for version in registry.versions()]
        assert numbers == [registry.champion_number()] == [1]


def test_a_champion_that_cannot_be_read_is_replaced_by_nobody(copied: Project) -> None:
    path = of_store("models/*/artifacts/**/generator.safetensors")
    fit_again("second", 150)  # good enough by the bars alone
    path.write_bytes(b"damaged")
    refused_for("^models:/cgan/1/.*generator.safetensors: ")
    shutil.rmtree(path.parents[1])
    refused_for("^models:/cgan/1: contains no generator.safetensors")
    with open_registry("cgan") as registry:
        registry.client.delete_registered_model_alias("cgan", "champion")
    assert gated()[0]["verdict"] == "promoted"


def test_swapped_labels_are_seen_by_the_champions_own_judge(copied: Project) -> None:
    """Today's judge learnt the swap: it finds the new generator good, and the champion poor."""
    remade(swapped(new()))
    fit_again("swapped", 60)
    report, _ = gated()
    failed = [check["name"] for check in report["checks"] if not check["passed"]]
    assert report["verdict"] == "blocked" and {SHIFT, *AGREE} <= {*failed}
    assert "the champion's judge sees" in str(report["reasons"])
    assert "## Today's data beside the champion's" in Path("reports/gate.md").read_text()
    assert "measured" not in report, "nothing was drawn in vain"
    assert "registry promote VERSION --force" in report["reasons"][-1]


def test_new_data_of_its_kind_count_against_nobody(copied: Project) -> None:
    """But where nobody can compare them, nobody is promoted."""
    remade(new())
    write_params(copied.folder, gate={"against_champion": "not_worse"})
    fit_again("second", 150)
    kept = of_store("*/artifacts/gate/training_data.safetensors")
    whole = kept.read_bytes()
    kept.write_bytes(b"damaged")
    refused_for("^runs:/.*/gate/training_data.safetensors: ")
    kept.write_bytes(whole)
    report, _ = gated()
    assert report["verdict"] == "promoted", report["reasons"]
    assert "on other data" in report["reasons"][-1]


@pytest.mark.slow
def test_what_drifts_by_night_is_compared_with_what_was_accepted(copied: Project) -> None:
    """Darker by a tenth a night: like the champion's each time, and less and less like the first ones."""
    limits = {"against_champion": "not_worse", "max_class_shift": 2.0}
    write_params(copied.folder, gate=limits)
    for night, verdict in ((1, "promoted"), (2, "blocked")):
        data = new(seed=4 + night)
        remade(replace(data, pixels=(data.pixels * 0.9**night).astype(np.uint8)))
        fit_again(f"night{night}", 150)
        report, _ = gated()
        assert report["verdict"] == verdict, report["reasons"]
    failed = {check["group"] for check in report["checks"] if not check["passed"]}
    assert failed == {"Today's data beside version 1's"} and len(report["checks"]) == 8


# ------------------------------------------------------------------------------------- the checks


def among_its_own(data: Images) -> Images:
    """A third of them is new."""
    both, old = data.at(slice(84)), own()
    labels = np.concatenate([both.labels, old.labels])
    return Images(np.concatenate([both.pixels, old.pixels]), labels, old.class_names)


def darker(data: Images) -> Images:
    """One of the classes is."""
    faded = np.where((data.labels == 2)[:, None, None, None], data.pixels * 0.8, data.pixels)
    return replace(data, pixels=faded.astype(np.uint8))


def patched(data: Images) -> Images:
    """One of the classes is."""
    pixels = data.pixels.copy()
    pixels[data.labels == 0, :, 5:7, 5:7] = 255
    return replace(data, pixels=pixels)


def sorted_and_wrong(data: Images) -> Images:
    """Sorted by class, as a folder of pictures is; the labels of the last class are wrong."""
    data = data.at(np.argsort(data.labels, kind="stable"))
    return replace(data, labels=np.where(data.labels < 2, data.labels, np.arange(len(data)) % 2))


CASES: dict[str, tuple[Callable[[], Images], list[str], str]] = {
    "new": (new, [], ""),
    "new among its own": (lambda: among_its_own(new()), [], ""),
    "a half of its own": (lambda: own().at(slice(90)), [], ""),
    "a class darker": (lambda: darker(new()), [SHIFT], "class fig differs in "),
    "a patch in the new ones": (
        lambda: among_its_own(patched(new())),
        [SHIFT],
        "class pear differs in brightness",
    ),
    "other labels for its own": (lambda: swapped(own()), [SHIFT, *AGREE], "labelled apple"),
    "sorted, and wrong": (lambda: sorted_and_wrong(new()), [MIX, *AGREE], "labelled"),
    "a class gone": (
        lambda: new().at(new().labels > 0),
        [MIX],
        "of the images 0.0 % are of class pear, of the champion's 42.9 %",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_data_are_compared_with_the_champions_class_by_class(
    finished: Project, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Of new images the champion's judge sees a random part."""
    monkeypatch.chdir(finished.folder)
    monkeypatch.setattr(todays_data, "MAX_JUDGED", 90)
    with open_registry("cgan") as registry:
        kept = KeptData.load(registry, registry.version(1), "the champion's")
    change, failed, words = CASES[name]
    data = change()
    today = SimpleNamespace(train=data.at(slice(20, None)), held_out=data.at(slice(20)))
    checks = check_group(DATA, Comparison.of(kept, cast(Inputs, today)), LIMITS)
    missed = [check for check in checks if not check.passed]
    assert [check.name for check in missed] == failed
    assert words in "; ".join(check.why for check in missed)


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
    checks = compared([500, 500], [500, 500], seen=confusion, correct=right)
    assert [name for name, check in checks.items() if not check.passed] == failed


def compared(
    now: list[int],
    before: list[int],
    group_size: float = 1.0,
    seen: Sequence[Sequence[int]] = (),
    correct: Sequence[int] = (),
) -> dict[str, Check]:
    """So many images of each class; what the judge sees of new ones, and how often it was right of 250."""
    classes, nothing = len(now), torch.zeros(len(now))
    counts, former = (torch.tensor(each).double() for each in (now, before))
    right = torch.tensor([*correct] or [0] * classes)
    kept = SimpleNamespace(
        owner="its",
        looks=SimpleNamespace(counts=former),
        correct=right,
        held_out=torch.full_like(right, 250),
    )
    confusion = torch.tensor(seen) if seen else nothing.long().diag()
    shifts, names = [Shift(0, 0.0, "")], [*map(str, range(classes))]
    data = Comparison(cast(KeptData, kept), names, shifts, counts, group_size, confusion)
    return {check.name: check for check in check_group(DATA, data, LIMITS)}


def lost(now: list[int], before: list[int], group_size: float = 1.0) -> Check:
    return compared(now, before, group_size)[MIX]


def test_a_classs_loss_is_relative_and_less_what_chance_explains() -> None:
    check = lost([30_000, 10_000], [20_000, 20_000])
    deviation = (0.375 * (1 / 40_000 + 1 / 40_000)) ** 0.5
    assert check.value == pytest.approx((0.25 - 2.2414 * deviation) / 0.5, abs=1e-5)
    assert not check.passed and "25.0 % are of class 1, of its 50.0 %" in check.why
    assert lost([20_000, 20_000], [30_000, 10_000]).value == pytest.approx(0.3166, abs=1e-4)
    assert lost([20, 20], [20, 20]).value == 0.0
    for left, passed in ((0.0, False), (0.5, False), (0.8, True), (2.0, True)):
        assert lost([450] * 9 + [int(450 * left)], [450] * 10).passed is passed
    assert not lost([6, 60, 60], [60] * 3).passed
    assert lost([6, 60, 60], [60] * 3, group_size=6.0).passed, "more may go of large groups"


def test_a_groups_size_is_the_mean_over_its_images() -> None:
    data = uneven(counts=[2] * 3)
    for groups, size in ((None, 1.0), (np.array([0, 0, 0, 1, 2, 2]), 14 / 6)):
        part = Images(data.pixels, data.labels, groups=groups)
        inputs = cast(Inputs, SimpleNamespace(train=part, held_out=part))
        assert todays_data.mean_group_size(inputs) == pytest.approx(size)
