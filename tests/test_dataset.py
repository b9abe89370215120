from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from conftest import ROOT, peak_bytes
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.numpy import save_file
from synthetic import make_images

from cgan import dataset
from cgan.errors import DataError
from cgan.files import sha256_of
from cgan.stages import download, preprocess, validate

IMAGES, LABELS = make_images(per_class=20)
FACTS = {"part": "train", "classes": 3, "csv_sha256": "ab"}


def test_saved_dataset_loads_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "train.safetensors"
    dataset.save_dataset(path, IMAGES, LABELS, FACTS)
    loaded = dataset.load_dataset(path)
    assert loaded.images.dtype == torch.uint8 and loaded.labels.dtype == torch.int64
    assert np.array_equal(loaded.images.numpy(), IMAGES)
    assert np.array_equal(loaded.labels.numpy(), LABELS)
    assert len(loaded) == loaded.metadata["count"] == 60 and loaded.classes == 3
    assert loaded.metadata["shape"] == [1, 8, 8] and loaded.metadata["csv_sha256"] == "ab"


def test_loaded_tensors_do_not_lean_on_the_file(tmp_path: Path) -> None:
    path = tmp_path / "train.safetensors"
    dataset.save_dataset(path, IMAGES, LABELS, FACTS)
    loaded = dataset.load_dataset(path)
    path.write_bytes(b"\0" * path.stat().st_size)
    loaded.images[0] = 7  # writable, too
    assert np.array_equal(loaded.images.numpy()[1:], IMAGES[1:])


def test_equal_content_gives_equal_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        dataset.save_dataset(tmp_path / name, IMAGES[::2], LABELS[::2], FACTS)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda content: content[:-10], id="truncated"),
        pytest.param(lambda content: content[:20], id="header cut"),
        pytest.param(lambda content: b"", id="empty"),
        pytest.param(lambda content: b"label,pixel0\n" * 99, id="a CSV"),
        pytest.param(lambda content: content[:-9] + b"\xff" + content[-8:], id="bit flip"),
    ],
)
def test_damaged_file_is_refused_in_one_line(
    tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    path = tmp_path / "train.safetensors"
    dataset.save_dataset(path, IMAGES, LABELS, FACTS)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError) as caught:
        dataset.load_dataset(path)
    assert str(path) in str(caught.value) and "dvc" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_foreign_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    with pytest.raises(DataError, match=r"not found. Make it with `dvc repro preprocess`"):
        dataset.load_dataset(path)
    save_file({"images": IMAGES, "labels": LABELS}, path)
    with pytest.raises(DataError, match="not a dataset that cgan wrote"):
        dataset.load_dataset(path)
    dataset.save_dataset(path, IMAGES, LABELS, {**FACTS, "format": 99})
    with pytest.raises(
        DataError, match="expected a dataset of format 1, found 'dataset' of format 99"
    ):
        dataset.load_dataset(path)
    dataset.save_dataset(path, IMAGES[:, 0], LABELS, FACTS)
    with pytest.raises(DataError, match="expected `images` uint8"):
        dataset.load_dataset(path)
    dataset.save_dataset(path, IMAGES, LABELS, {**FACTS, "classes": 2})
    with pytest.raises(DataError, match="damaged"):
        dataset.load_dataset(path)


# --- the hold-out -------------------------------------------------------------------------------


def test_holdout_is_stratified_and_parts_are_disjoint_and_complete() -> None:
    images, labels = make_images(per_class=40)
    keep = (labels != 2) | (np.cumsum(labels == 2) <= 10)
    images, labels = images[keep], labels[keep]
    train, holdout = dataset.split(images, labels, 0.1, seed=1)
    assert np.bincount(labels[holdout]).tolist() == [4, 4, 1]
    assert sorted([*train, *holdout]) == list(range(len(labels)))
    assert list(train) == sorted(train) and list(holdout) == sorted(holdout)


def test_holdout_depends_on_the_seed_alone() -> None:
    one, same, other = (dataset.split(IMAGES, LABELS, 0.2, seed)[1] for seed in (1, 1, 2))
    assert np.array_equal(one, same) and not np.array_equal(one, other)


@given(
    kinds=st.lists(st.integers(0, 9), min_size=12, max_size=60),
    fraction=st.floats(0.02, 0.98),
    seed=st.integers(0, 99),
)
@example(kinds=list(range(10)), fraction=0.98, seed=0)  # the share rounds up to the whole class
@settings(max_examples=100, deadline=None)
def test_f15_identical_images_stay_on_one_side(
    kinds: list[int], fraction: float, seed: int
) -> None:
    kinds = [*kinds, 0, 1, 2, 3]
    images = np.array(kinds, np.uint8).reshape(-1, 1, 1, 1).repeat(8, 2).repeat(8, 3)
    labels = np.array(kinds, np.int64) % 2
    train, holdout = dataset.split(images, labels, fraction, seed)
    assert not {kinds[i] for i in train} & {kinds[i] for i in holdout}
    assert set(labels[train]) == set(labels[holdout]) == {0, 1}
    assert len(train) + len(holdout) == len(kinds)


def test_f15_copies_with_another_label_stay_on_one_side() -> None:
    images = np.concatenate([IMAGES, IMAGES[:30]])
    labels = np.concatenate([LABELS, (LABELS[:30] + 1) % 3])
    _, holdout = dataset.split(images, labels, 0.3, seed=5)
    held = {image.tobytes() for image in images[holdout]}
    assert all((image.tobytes() in held) == (i in holdout) for i, image in enumerate(images))


def test_class_of_one_distinct_image_cannot_be_held_out() -> None:
    images = IMAGES.copy()
    images[LABELS == 1] = 5
    with pytest.raises(DataError, match="class 1: 1 distinct image, a hold-out needs at least 2"):
        dataset.split(images, LABELS, 0.1, seed=1)


@given(kept=st.lists(st.booleans(), max_size=50), block=st.integers(1, 20))
@settings(max_examples=50, deadline=None)
def test_f88_rows_moved_to_the_front_are_those_that_indexing_gives(
    kept: list[bool], block: int
) -> None:
    rows = np.flatnonzero(kept)
    array = np.arange(len(kept) * 3, dtype=np.int64).reshape(-1, 3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dataset, "MOVED", 3 * block)
        expected, moved = array[rows], dataset.move_to_front(array, rows)
    assert np.array_equal(moved, expected)
    assert np.shares_memory(moved, array) or not len(rows)


# --- the stages ---------------------------------------------------------------------------------


def test_stages_turn_a_csv_into_datasets_reports_and_a_contact_sheet(project: Path) -> None:
    for stage in (download, validate, preprocess):
        stage.main()
    train = dataset.load_dataset("data/processed/train.safetensors")
    holdout = dataset.load_dataset("data/processed/holdout.safetensors")
    assert (len(train), len(holdout)) == (27, 9)
    assert (train.metadata["part"], holdout.metadata["part"]) == ("train", "holdout")
    assert train.metadata["csv_sha256"] == sha256_of("data/raw/train.csv")
    with Image.open("reports/real_samples.png") as sheet:
        assert sheet.size == (80, 24) and sheet.mode == "L"
        first = np.asarray(sheet)[:8, :8]
    assert np.array_equal(first, train.images[train.labels == 0][0, 0].numpy())
    assert "# Validation of `data/raw/train.csv`" in Path("reports/validation.md").read_text()


def test_stages_write_the_same_bytes_again(project: Path) -> None:
    outputs = [
        "reports/validation.json",
        "reports/validation.md",
        "data/processed/train.safetensors",
        "data/processed/holdout.safetensors",
        "reports/real_samples.png",
    ]
    hashes = []
    download.main()
    for _ in range(2):
        validate.main()
        preprocess.main()
        hashes.append([sha256_of(path) for path in outputs])
    assert hashes[0] == hashes[1]


def test_f20_csv_that_changed_after_validation_is_refused(project: Path) -> None:
    download.main()
    validate.main()
    with Path("data/raw/train.csv").open("a") as file:
        file.write("0," + ",".join(["9"] * 64) + "\n")
    with pytest.raises(DataError, match=r"changed since reports/validation.json was written"):
        preprocess.main()
    assert not Path("data/processed").exists()


def test_preprocess_without_a_report_says_which_stage_is_missing(project: Path) -> None:
    with pytest.raises(DataError, match="Make it with `dvc repro validate`"):
        preprocess.main()
    report = Path("reports/validation.json")
    report.parent.mkdir()
    for content in ("{", "[]", json.dumps({"format": 99})):
        report.write_text(content)
        with pytest.raises(DataError, match="Make it with `dvc repro validate`"):
            preprocess.main()


@pytest.mark.parametrize("fraction", [0.25, 0.75])
def test_f88_both_parts_are_whole_whichever_is_the_larger(project: Path, fraction: float) -> None:
    params = yaml.safe_load(Path("params.yaml").read_text())
    params["preprocess"]["holdout_fraction"] = fraction
    Path("params.yaml").write_text(yaml.safe_dump(params))
    for stage in (download, validate, preprocess):
        stage.main()
    images, labels = make_images()
    parts = dataset.split(images, labels, fraction, params["preprocess"]["seed"])
    for name, rows in zip(("train", "holdout"), parts, strict=True):
        loaded = dataset.load_dataset(f"data/processed/{name}.safetensors")
        assert loaded.metadata["part"] == name
        assert np.array_equal(loaded.images.numpy(), images[rows])
        assert np.array_equal(loaded.labels.numpy(), labels[rows])


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_f88_stages_take_at_most_twice_the_memory_of_the_images(tmp_path: Path) -> None:
    count, pixels = 40_000, 784
    random = np.random.default_rng(0)
    # Two digits and a comma a value, whole rows at once: quick to write.
    rows = np.empty((count, pixels + 1, 3), np.uint8)
    rows[:, :, :2] = random.integers(48, 58, (count, pixels + 1, 2), dtype=np.uint8)
    rows[:, 0, 0], rows[:, :, 2], rows[:, -1, 2] = ord("0"), ord(","), ord("\n")
    (tmp_path / "data/raw").mkdir(parents=True)
    with (tmp_path / "data/raw/train.csv").open("wb") as file:
        file.write(",".join(["label", *(f"pixel{i}" for i in range(pixels))]).encode() + b"\n")
        file.write(rows.data)
    del rows
    shutil.copy(ROOT / "params.yaml", tmp_path)
    load = "from cgan.dataset import load_dataset; import torch\n"
    work = {
        f"import cgan.stages.{stage}": f"import runpy\n"
        f"runpy.run_module('cgan.stages.{stage}', run_name='__main__')\n"
        for stage in ("validate", "preprocess")
    }
    work[load] = load + (
        "train = load_dataset('data/processed/train.safetensors')\n"
        "holdout = load_dataset('data/processed/holdout.safetensors')\n"
        f"assert len(train) + len(holdout) == {count}\n"
    )
    for imports, code in work.items():
        taken = peak_bytes(code, tmp_path) - peak_bytes(imports, tmp_path)
        assert taken <= 2 * count * pixels, f"{imports}: {taken / count / pixels:.2f} times"
