"""A champion that cannot be read, and data or labels that are not those that the champion learnt."""

import shutil
from collections.abc import Callable
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
from cgan.pipeline.registry import data_checks
from cgan.pipeline.registry.client import open_registry
from cgan.pipeline.registry.data_checks import KeptData
from cgan.verdict import Check

LIMITS = load_params(ROOT / "params.yaml").gate
SHIFT, MIX, AGREE = "class_shift", "class_mix", ["label_agreement", "class_agreement"]


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
    refused_for("the champion of `cgan`, version 1, cannot be read, .*: models:/cgan/1/")
    shutil.rmtree(path.parents[1])
    refused_for("the champion of `cgan`, version 1, cannot be read")
    with open_registry("cgan") as registry:
        registry.client.delete_registered_model_alias("cgan", "champion")
    assert gated()[0]["verdict"] == "promoted"


def test_swapped_labels_are_seen_by_the_champions_own_judge(copied: Project) -> None:
    """Today's judge learnt the swap: it finds the new generator good, and the champion poor."""
    remade(swapped(new()))
    fit_again("swapped", 60)
    report, _ = gated()
    assert report["verdict"] == "blocked" and "unlike the champion's" in report["summary"]
    failed = [check["name"] for check in report["checks"] if not check["passed"]]
    assert {SHIFT, *AGREE} <= {*failed}
    assert "images labelled" in report["summary"], report["summary"]
    assert "## Today's data" in Path("reports/gate.md").read_text()
    assert "measured" not in report, "nothing was drawn in vain"
    assert "registry promote 2 --force" in report["summary"]


def test_new_data_of_its_kind_count_against_nobody(copied: Project) -> None:
    """But where nobody can compare them, nobody is promoted."""
    remade(new())
    write_params(copied.folder, gate={"against_champion": "not_worse"})
    fit_again("second", 150)
    kept = of_store("*/artifacts/gate/training_data.safetensors")
    whole = kept.read_bytes()
    kept.write_bytes(b"damaged")
    refused_for("cannot tell whether .*delete the alias `champion`")
    kept.write_bytes(whole)
    report, _ = gated()
    assert report["verdict"] == "promoted", report["reasons"]
    assert "on other data" in (reasons := str(report["reasons"])) and "unlike" not in reasons


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
    assert "unlike version 1's" in report["summary"]
    assert "unlike the champion's" not in report["summary"]
    for key in ("name", "what"):
        found = [check[key] for check in report["checks"]]
        assert len({*found}) == len(found) == 8, "each says with whose data it compares"


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
    monkeypatch.setattr(data_checks, "MAX_JUDGED", 90)
    with open_registry("cgan") as registry:
        kept = KeptData.load(registry, registry.version(1))
    change, failed, words = CASES[name]
    data = change()
    today = SimpleNamespace(train=data.at(slice(20, None)), held_out=data.at(slice(20)))
    checks = data_checks.data_checks(kept, cast(Inputs, today), LIMITS)
    assert [check.name for check in checks if not check.passed] == failed
    assert words in "; ".join(check.why for check in checks)
    assert [check.name for check in checks if check.why] == failed


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
    kept = SimpleNamespace(correct=torch.tensor(right), held_out=torch.tensor([250, 250]))
    seen, names = torch.tensor(confusion), ["a", "b"]
    checks = data_checks.agreement_checks(seen, cast(KeptData, kept), 0.03, names, "its")
    assert [check.name for check in checks if not check.passed] == failed


def lost(now: list[int], before: list[int], group_size: float = 1.0) -> Check:
    counts, former = (torch.tensor(each).double() for each in (now, before))
    names = [*map(str, range(len(now)))]
    return data_checks.class_mix_check(counts, former, names, group_size, "its")


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
        assert data_checks.mean_group_size(inputs) == pytest.approx(size)
