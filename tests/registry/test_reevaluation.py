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


def reevaluated(images: np.ndarray, labels: np.ndarray) -> tuple[dict[str, Any], str]:
    """Report and what was said, with these images as the data of today."""
    write_csv(Path("data/raw/train.csv"), images, labels)
    result = CliRunner().invoke(app, ["reevaluate"])
    assert result.exception is None or isinstance(result.exception, CganError), result.exception
    report = json.loads(Path("reports/reevaluation.json").read_text())
    assert result.exit_code == (report["verdict"] != "healthy")
    return report, result.output


def by_name(rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in rows}


def test_f19_champion_is_healthy_on_its_own_data_and_new_data_like_it_until_it_misses_a_bar(
    root: Path,
) -> None:
    for seed in (0, FRESH):
        report, output = reevaluated(*digits(seed=seed))
        assert report["verdict"] == "healthy", report
        assert "HEALTHY: Version 1, the champion, is as good as the gate asks" in output
        assert [row["name"] for row in report["drift"]] == list(WORDS)[1:]
        assert by_name(report["quality"])["conditional_accuracy"]["value"] > 0.95
        assert report["champion"]["version"] == 1
    near = by_name(report["drift"])["judge_features"]["value"]
    images, labels = digits(seed=FRESH)
    permuted = images.reshape(-1, 64)[:, np.random.default_rng(0).permutation(64)]
    report, _ = reevaluated(permuted.reshape(images.shape), labels)
    assert by_name(report["drift"])["judge_features"]["value"] > 2 * max(near, 1.0)
    change_params(root, "gate", min_coverage_of_floor=1.0)
    report, output = reevaluated(*digits(seed=FRESH))
    assert report["verdict"] == "degraded" and "misses a bar on new data" in output
    assert not by_name(report["quality"])["coverage_of_floor"]["passed"]


# What is done to images and labels, and the statistic that shows it.
CHANGES: dict[str, tuple[Callable[[np.ndarray, np.ndarray], Labelled], str]] = {
    "inverted": (lambda images, labels: (255 - images, labels), "pixel_values"),
    "few of class 0": (lambda images, labels: (images[KEPT], labels[KEPT]), "class_mix"),
    "shuffled": (lambda images, labels: (images, np.roll(labels, 1)), "label_agreement"),
    "swapped": (lambda images, labels: (images, np.array([1, 0, 2])[labels]), "class_agreement"),
    "padded": (
        lambda images, labels: (np.pad(images, ((0, 0), (0, 0), (2, 2), (2, 2))), labels),
        "shape_and_classes",
    ),
}
KEPT = [n for n in range(180) if n % 3 or n % 6 == 0]


@pytest.mark.parametrize(("change", "named"), CHANGES.values(), ids=CHANGES)
def test_f19_drifted_data_is_named_with_its_statistic(
    root: Path, change: Callable[[np.ndarray, np.ndarray], Labelled], named: str
) -> None:
    report, _ = reevaluated(*change(*digits(seed=FRESH)))
    assert report["verdict"] == "drifted"
    row = by_name(report["drift"])[named]
    assert not row["passed"] and row["value"] > row["limit"], report["drift"]
    assert any(reason.startswith(f"{WORDS[named]}: ") for reason in report["reasons"])
    assert bool(report["quality"]) == (named != "shape_and_classes"), "nothing is judged on these"


def test_images_that_the_champion_learnt_from_are_left_out_while_the_others_suffice() -> None:
    images = torch.from_numpy(digits()[0])[:40]
    seen = fingerprints(images[:25])
    assert min(_chosen(images, seen, 15, seed=1)) >= 25
    assert len(_chosen(images, seen, 15, seed=1)) == 15
    mixed = _chosen(images, seen, 16, seed=1).tolist()
    assert len(set(mixed)) == 16
    assert min(mixed) < 25


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
