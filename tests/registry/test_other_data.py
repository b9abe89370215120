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
from conftest import (
    ROOT,
    Project,
    fit_again,
    gated,
    of_store,
    remade,
    sample_digits,
    uneven,
    write_params,
)

from cgan.base.errors import ModelError
from cgan.data.images import Images
from cgan.pipeline.inputs import Inputs
from cgan.pipeline.params_file import load_params
from cgan.pipeline.registry import measurements
from cgan.pipeline.registry.checks import DATA_GROUP, Check, check_group
from cgan.pipeline.registry.client import open_registry
from cgan.pipeline.registry.measurements import DataComparison, KeptData
from cgan.quality.class_shift import Moments
from cgan.quality.judge import Judge
from cgan.quality.outliers import OutlierModels

LIMITS = load_params(ROOT / "params.yaml").gate
SHIFT, OUTLIERS, LOSS = "class_shift", "data_outliers", "class_loss"


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
        assert numbers == [registry.aliases()["champion"]] == [1]


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


def test_swapped_labels_are_seen_by_what_is_kept_of_the_champion(copied: Project) -> None:
    """Today's judge learnt the swap: it finds the new generator good, and the champion poor."""
    remade(swapped(new()))
    fit_again("swapped", 60)
    report, _ = gated()
    failed = [check["name"] for check in report["checks"] if not check["passed"]]
    assert report["verdict"] == "blocked" and SHIFT in failed
    assert "class apple differs in" in str(report["reasons"])
    assert "## Today's data beside the champion's" in Path("reports/gate.md").read_text()
    assert not any(check["group"] == "Limits" for check in report["checks"]), "nothing was drawn"
    assert "registry promote VERSION --force" in report["reasons"][-1]


@pytest.mark.slow
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
    assert failed == {"Today's data beside version 1's"} and len(report["checks"]) == 6


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


CASES: dict[str, tuple[Callable[[], Images], list[str], str]] = {
    "new": (new, [], ""),
    "new among its own": (lambda: among_its_own(new()), [], ""),
    "a class darker": (lambda: darker(new()), [SHIFT, OUTLIERS], "class fig differs in "),
    "a patch in the new ones": (
        lambda: among_its_own(patched(new())),
        [SHIFT, OUTLIERS],
        "class pear differs in brightness",
    ),
    "other labels for its own": (lambda: swapped(own()), [SHIFT, OUTLIERS], "class apple"),
    "a class gone": (
        lambda: new().at(new().labels > 0),
        [LOSS],
        "class pear has 0.0 % of the images, 42.9 % of the champion's",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_data_are_compared_with_the_champions_class_by_class(
    finished: Project, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Of new images the champion's judge sees a random part."""
    monkeypatch.chdir(finished.folder)
    monkeypatch.setattr(measurements, "MAX_JUDGED", 90)
    with open_registry("cgan") as registry:
        kept = KeptData.load(registry, registry.version(1), "the champion's")
    change, failed, words = CASES[name]
    data = change()
    today = SimpleNamespace(train=data.at(slice(20, None)), held_out=data.at(slice(20)))
    checks = check_group(DATA_GROUP, DataComparison.measure(kept, cast(Inputs, today)), LIMITS)
    missed = [check for check in checks if not check.passed]
    assert [check.name for check in missed] == failed
    assert words in "; ".join(check.why for check in missed)


@pytest.mark.parametrize(("part", "failed"), [(0.0, []), (0.2, [OUTLIERS])])
def test_a_square_in_a_fifth_of_fresh_digits_is_seen(part: float, failed: list[str]) -> None:
    """No mean moves as far as it may. Narrower than high, and of unequal classes."""
    images, labels = sample_digits()
    images, random = images[:, :, :, 2:26].contiguous(), torch.Generator().manual_seed(0)
    order = torch.randperm(5000, generator=random)
    order = order[torch.rand(5000, generator=random) < 1 - labels[order] / 15]
    known, fresh = order[: len(order) // 2], order[len(order) // 2 :].clone()
    marked = fresh[torch.rand(len(fresh), generator=random) < part]
    images[marked, :, 2:6, 2:6] = 255
    parts = [Images(images[rows].numpy(), labels[rows].numpy()) for rows in (known, fresh)]
    torch.manual_seed(0)
    judge = Judge(10, 1, 8).eval()
    looks = Moments.of_images(*parts[0].tensors[:2], 10)
    models = OutlierModels.fit_images(judge, *parts[0].split(0.1))
    kept = KeptData("the champion's", looks, torch.zeros(0, dtype=torch.int64), judge, models)
    train, held_out = parts[1].split(0.1)
    today = cast(Inputs, SimpleNamespace(train=train, held_out=held_out))
    checks = check_group(DATA_GROUP, DataComparison.measure(kept, today), LIMITS)
    assert [check.name for check in checks if not check.passed] == failed


def lost(now: list[int], before: list[int], group_size: float = 1.0) -> Check:
    """So many images of each class."""
    looks = SimpleNamespace(counts=torch.tensor(before).double())
    kept = cast(KeptData, SimpleNamespace(owner="its", looks=looks))
    names, counts = [*map(str, range(len(now)))], torch.tensor(now).double()
    [check] = check_group(DATA_GROUP, DataComparison(kept, names, counts, group_size), LIMITS)
    return check


def test_a_classs_loss_is_relative_and_less_what_chance_explains() -> None:
    check = lost([30_000, 10_000], [20_000, 20_000])
    deviation = (0.375 * (1 / 40_000 + 1 / 40_000)) ** 0.5
    assert check.value == pytest.approx((0.25 - 2.2414 * deviation) / 0.5, abs=1e-5)
    assert not check.passed and "class 1 has 25.0 % of the images, 50.0 % of its" in check.why
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
        assert measurements.mean_group_size(inputs) == pytest.approx(size)
