"""`cgan reevaluate`: the champion on the data of today, in a real MLflow store."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import MLFLOWS_OWN_WARNINGS
from gated import champion as champion
from gated import change_params, copied, digits, of_store
from mlflow import MlflowClient
from synthetic import write_csv
from typer.testing import CliRunner

from cgan.cli import app
from cgan.errors import CganError
from cgan.registry.reevaluation import WORDS, _chosen, fingerprints

pytestmark = MLFLOWS_OWN_WARNINGS
FRESH = 7  # seed of images that the champion never saw
Labelled = tuple[np.ndarray, np.ndarray]


@pytest.fixture
def root(champion: Path, tmp_path: Path) -> Iterator[Path]:
    with copied(champion, tmp_path / "project") as target:
        # The distance is judged by features of 54 blobs: far noisier than with real data.
        change_params(target, "reevaluate", max_feature_distance=25.0)
        yield target


def reevaluated(images: np.ndarray, labels: np.ndarray) -> tuple[dict[str, Any], int, str]:
    """Report, exit code and what was said, with these images as the data of today."""
    write_csv(Path("data/raw/train.csv"), images, labels)
    result = CliRunner().invoke(app, ["reevaluate"])
    if result.exception is not None:
        assert isinstance(result.exception, CganError), result.exception
    report = json.loads(Path("reports/reevaluation.json").read_text())
    return report, result.exit_code, result.output


def quality(report: dict[str, Any], name: str) -> dict[str, Any]:
    return next(row for row in report["quality"] if row["name"] == name)


def failed(report: dict[str, Any]) -> list[str]:
    return [row["name"] for row in report["drift"] if not row["passed"]]


@pytest.mark.parametrize("seed", [0, FRESH])
def test_champion_is_healthy_on_its_own_data_and_on_new_data_like_it(root: Path, seed: int) -> None:
    report, code, output = reevaluated(*digits(seed=seed))
    assert (report["verdict"], code) == ("healthy", 0), report
    assert "HEALTHY: Version 1, the champion, is as good as the gate asks" in output
    assert [row["name"] for row in report["drift"]] == list(WORDS)[1:]
    assert quality(report, "conditional_accuracy")["value"] > 0.95
    assert report["champion"]["version"] == 1


# What is done to images and labels, and the statistic that shows it.
CHANGES: dict[str, tuple[Callable[[np.ndarray, np.ndarray], Labelled], str]] = {
    "inverted": (lambda images, labels: (255 - images, labels), "pixel_values"),
    "moved": (lambda images, labels: (np.roll(images, 2, axis=3), labels), "position"),
    "rescaled": (lambda images, labels: (images // 3, labels), "pixel_values"),
    "few of class 0": (lambda images, labels: (images[KEPT], labels[KEPT]), "class_mix"),
    "shuffled": (lambda images, labels: (images, np.roll(labels, 1)), "label_agreement"),
    "swapped": (lambda images, labels: (images, np.array([1, 0, 2])[labels]), "class_agreement"),
}
KEPT = [n for n in range(180) if n % 3 or n % 6 == 0]


@pytest.mark.parametrize(("change", "named"), CHANGES.values(), ids=CHANGES)
def test_f19_drifted_data_is_named_with_its_statistic(
    root: Path, change: Callable[[np.ndarray, np.ndarray], Labelled], named: str
) -> None:
    report, code, _ = reevaluated(*change(*digits(seed=FRESH)))
    assert (report["verdict"], code) == ("drifted", 1)
    assert named in failed(report), report["drift"]
    row = next(row for row in report["drift"] if row["name"] == named)
    assert row["value"] > row["limit"]
    assert any(reason.startswith(f"{WORDS[named]}: ") for reason in report["reasons"])


def test_f19_pictures_of_another_kind_are_far_away_in_the_judges_features(root: Path) -> None:
    images, labels = digits(seed=FRESH)
    order = np.random.default_rng(0).permutation(64)
    pixels = images.reshape(len(images), -1)[:, order].reshape(images.shape)
    near, far = (
        next(row["value"] for row in report["drift"] if row["name"] == "judge_features")
        for report in (reevaluated(each, labels)[0] for each in (images, pixels))
    )
    assert far > 2 * max(near, 1.0)


def test_images_of_another_shape_are_drift_and_nothing_is_judged_on_them(root: Path) -> None:
    images, labels = digits(seed=FRESH)
    report, code, _ = reevaluated(np.pad(images, ((0, 0), (0, 0), (2, 2), (2, 2))), labels)
    assert (report["verdict"], code, report["quality"]) == ("drifted", 1, [])
    assert failed(report) == ["shape_and_classes"] and "`shape` is" in report["summary"]


def test_images_that_the_champion_learnt_from_are_left_out_while_the_others_suffice() -> None:
    images = torch.from_numpy(digits()[0])[:40]
    seen = fingerprints(images[:25])
    assert min(_chosen(images, seen, 15, seed=1)) >= 25
    assert len(_chosen(images, seen, 15, seed=1)) == 15
    mixed = _chosen(images, seen, 16, seed=1).tolist()
    assert len(set(mixed)) == 16
    assert min(mixed) < 25


def test_champion_that_misses_a_bar_is_degraded(root: Path) -> None:
    change_params(root, "gate", min_coverage_of_floor=1.0)
    report, code, output = reevaluated(*digits(seed=FRESH))
    assert (report["verdict"], code) == ("degraded", 1)
    assert not quality(report, "coverage_of_floor")["passed"]
    assert "misses a bar on new data" in output


def test_f89_verdict_stands_at_the_version_and_the_run_once_a_day(root: Path) -> None:
    for _ in range(2):
        reevaluated(*CHANGES["shuffled"][0](*digits(seed=FRESH)))
    client = MlflowClient(f"sqlite:///{root / 'mlflow.db'}")
    version = client.get_model_version_by_alias("cgan", "champion")
    assert version.tags["reevaluation.verdict"] == "drifted"
    assert WORDS["label_agreement"] in version.tags["reevaluation.summary"]
    assert len(client.list_artifacts(version.run_id, "reevaluation")) == 2
    assert Path("reports/reevaluation.md").read_text().startswith("# Re-evaluation: drifted\n")
    keys = [key for key in client.get_run(version.run_id).data.metrics if "reevaluation/" in key]
    told = [client.get_metric_history(version.run_id, key) for key in keys]
    assert len(told) > 4 and {len(points) for points in told} == {1}


def test_without_data_champion_or_what_was_kept_of_it_one_message_says_what_to_do(
    root: Path,
) -> None:
    def refused() -> str:
        return str(CliRunner().invoke(app, ["reevaluate"]).exception)

    Path("data/raw/train.csv").unlink()
    assert "Fetch the data first" in refused()
    write_csv(Path("data/raw/train.csv"), *digits())
    of_store("*/artifacts/gate/validation.json").write_text("{")
    assert "missing or damaged (validation.json: not" in refused()
    change_params(root, "gate", model="another")
    assert "`another` has no champion yet" in refused()
    assert not Path("reports/reevaluation.json").exists()
