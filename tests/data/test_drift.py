from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from synthetic import make_images, write_csv
from typer.testing import CliRunner

from cgan.cli import app
from cgan.data import csv_reader, csv_report
from cgan.data.dataset import LabelledImages
from cgan.data.sources import mnist_sample
from cgan.errors import DataError

Images = NDArray[np.uint8]
Labels = NDArray[np.int64]


@pytest.fixture(scope="module")
def digits() -> tuple[Images, Labels]:
    """The 5,000 real digits: images [N, 1, 28, 28] and labels, in random order."""
    images, labels = mnist_sample()
    order = np.random.default_rng(0).permutation(len(labels))
    return images[order].reshape(-1, 1, 28, 28), labels[order].astype(np.int64)


def report(images: Images, labels: Labels) -> dict[str, Any]:
    table = LabelledImages(images, labels, labels, 10, "0" * 64, 1)
    return csv_report.report_on(table, csv_reader.DEFAULTS, "x")


CHANGES = {
    "inverted": (lambda images: 255 - images, "pixel_values"),
    "moved right": (lambda images: np.roll(images, 2, axis=3), "position"),
    "moved up": (lambda images: np.roll(images, -2, axis=2), "position"),
    "rescaled": (lambda images: images // 2, "pixel_values"),
    "brighter": (lambda images: images // 2 + 60, "pixel_values"),
    "upside down": (lambda images: images[:, :, ::-1], "position"),
}


def test_f19_changed_images_fail_the_check_with_the_statistic_and_another_half_passes(
    digits: tuple[Images, Labels], tmp_path: Path
) -> None:
    images, labels = digits
    reference = tmp_path / "reference.json"
    reference.write_text(json.dumps(report(images[:2500], labels[:2500])))
    images, labels = images[2500:], labels[2500:]
    found = csv_report.check_drift(report(images, labels), reference, "mine.csv")
    assert all(0 < value < csv_report.DRIFT_LIMITS[key] / 2 for key, value in found.items()), found
    for change, named in CHANGES.values():
        changed = report(np.ascontiguousarray(change(images)), labels)
        with pytest.raises(
            DataError, match=rf"mine.csv: differs from the reference:.*{named} 0\.\d+"
        ):
            csv_report.check_drift(changed, reference, "mine.csv")
    with pytest.raises(DataError, match="drift: `shape` is"):
        csv_report.check_drift(report(images[:, :, 2:-2, 2:-2], labels), reference, "mine.csv")


def counted(counts: list[int], **profile: list[int]) -> dict[str, Any]:
    """What is read of a report; histograms that are not given are all in their first bin."""
    first = {"brightness": [1, *[0] * 31], "rows": [1, 0], "columns": [1, 0]}
    facts = {"shape": {"channels": 1, "height": 2, "width": 2}, "csv": {"sha256": "0"}}
    facts |= {"rows": sum(counts), "classes": len(counts), "class_counts": counts}
    return {**facts, "profile": first | profile}


SPOILT = [
    "{",
    "[]",
    counted([5, 5]) | {"profile": {}},
    counted([5, float("nan")]),
    counted([5, 5], columns=[1, -1]),
    counted([5, 5], columns=[1, 0, 0]),
    counted([5, 5], brightness=[1, 0]),
]


def test_f85_report_that_cannot_be_compared_is_refused(tmp_path: Path) -> None:
    """A distance to no number is within every limit."""
    path = tmp_path / "reference.json"
    with pytest.raises(DataError, match="missing, or no validation report"):
        csv_report.check_drift(counted([5, 5]), path, "x")
    for content in SPOILT:
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        with pytest.raises(DataError, match=r"no validation report of this version.*GOOD.csv"):
            csv_report.check_drift(counted([5, 5]), path, "x")


def test_command_compares_with_a_reference(
    digits_csv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    command = ["validate", str(digits_csv)]
    assert CliRunner().invoke(app, [*command, "--report", "good.json"]).exit_code == 0
    same = CliRunner().invoke(app, [*command, "--reference", "good.json"])
    assert same.exit_code == 0 and "class_mix 0.000, pixel_values 0.000" in same.output
    images, labels = make_images()
    write_csv(digits_csv, 255 - images, labels)
    drifted = CliRunner().invoke(app, [*command, "--reference", "good.json"])
    assert "differs from the reference: pixel_values" in str(drifted.exception)


def test_f19_distances_are_those_worked_out_by_hand_and_another_mix_of_classes_fails(
    tmp_path: Path,
) -> None:
    first = counted([3, 1, 0], brightness=[4, *[0] * 31], columns=[2, 0])
    second = counted([1, 1, 1], brightness=[*[0] * 24, 9, *[0] * 7], columns=[0, 3])
    # Mixes 3/4, 1/4, 0 and thirds: 5/12 must move. All brightness goes 24 of 32 bins up, all ink one column
    # of two to the right, and no ink changes its row.
    expected = {"class_mix": 0.4167, "pixel_values": 0.75, "position": 0.5}
    assert csv_report.distances(first, second) == expected
    third = counted([3, 1, 0], rows=[1, 2])
    assert csv_report.distances(first, third)["position"] == 0.3333, "rows count as columns do"
    path = tmp_path / "reference.json"
    path.write_text(json.dumps(counted([5, 5])))
    assert csv_report.check_drift(counted([6, 4]), path, "x")["class_mix"] == 0.1, "at its limit"
    path.write_text(json.dumps(counted([499, 501])))
    with pytest.raises(DataError, match=r"class_mix 0\.101 \(limit 0\.10\)"):
        csv_report.check_drift(counted([6, 4]), path, "x")
