import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from conftest import write_params
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.numpy import save_file
from synthetic import make_images, write_csv

from cgan.data import dataset
from cgan.data.parts import split
from cgan.errors import CganError, DataError, ModelError
from cgan.files import sha256_of
from cgan.model import file_facts
from cgan.params.reading import load_params
from cgan.stages import download, preprocess, validate
from cgan.training.fitting import filled
from cgan.training.loop import train

IMAGES, LABELS = make_images(per_class=20)
LINES = np.arange(2, 62)
FACTS = {"part": "train", "classes": 3, "csv_sha256": "ab"}


def test_saved_dataset_loads_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "train.safetensors"
    dataset.save_dataset(path, IMAGES, LABELS, LINES, FACTS)
    loaded = dataset.load_dataset(path)
    assert loaded.images.dtype == torch.uint8 and loaded.labels.dtype == torch.int64
    assert np.array_equal(loaded.images.numpy(), IMAGES)
    assert np.array_equal(loaded.labels.numpy(), LABELS)
    assert loaded.lines is not None and loaded.lines.tolist() == LINES.tolist()
    assert len(loaded) == loaded.metadata["count"] == 60 and loaded.classes == 3
    assert loaded.metadata["shape"] == [1, 8, 8] and loaded.metadata["csv_sha256"] == "ab"
    path.write_bytes(b"\0" * path.stat().st_size)
    loaded.images[0] = 7  # writable, and no part of the file
    assert np.array_equal(loaded.images.numpy()[1:], IMAGES[1:])


@pytest.mark.parametrize("damage", ["images", "labels", "shape"])
def test_a_dataset_that_does_not_fit_its_digest_is_refused(tmp_path: Path, damage: str) -> None:
    tensors = {"images": IMAGES.copy(), "labels": LABELS.copy()}
    facts = {"kind": "dataset", "classes": 3, "digest": dataset.digest_of(IMAGES, LABELS)}
    if damage == "shape":
        tensors["images"] = IMAGES.reshape(60, 1, 4, 16)
    else:
        tensors[damage].flat[0] ^= 1
    save_file(tensors, tmp_path / "x", file_facts.metadata_of(facts))
    with pytest.raises(ModelError, match=rf"{tmp_path / 'x'}: the file is damaged"):
        dataset.load_dataset(tmp_path / "x")


# --- the hold-out -------------------------------------------------------------------------------


def test_holdout_is_stratified_depends_on_the_seed_and_parts_are_disjoint_and_complete() -> None:
    images, labels = make_images(per_class=40)
    keep = (labels != 2) | (np.cumsum(labels == 2) <= 10)
    images, labels = images[keep], labels[keep]
    train, holdout = split(images, labels, 0.1, seed=1)
    assert np.bincount(labels[holdout]).tolist() == [4, 4, 1]
    assert sorted([*train, *holdout]) == list(range(len(labels)))
    assert list(train) == sorted(train) and list(holdout) == sorted(holdout)
    again, other = (split(images, labels, 0.1, seed)[1] for seed in (1, 2))
    assert np.array_equal(holdout, again) and not np.array_equal(holdout, other)
    exact = [len(split(IMAGES, LABELS, part, 0)[1]) for part in (0.01, 0.1, 0.125, 0.98)]
    assert exact == [3, 6, 6, 57], "at least one, rounded to even, never all twenty"


@given(
    kinds=st.lists(st.integers(0, 9), min_size=12, max_size=60),
    fraction=st.floats(0.02, 0.98),
    seed=st.integers(0, 99),
)
@example(kinds=list(range(10)), fraction=0.98, seed=0)  # the share rounds up to the whole class
@settings(max_examples=100, deadline=None)
def test_f15_equal_images_stay_on_one_side(kinds: list[int], fraction: float, seed: int) -> None:
    kinds = [*kinds, 0, 1, 2, 3]
    images = np.array(kinds, np.uint8).reshape(-1, 1, 1, 1).repeat(8, 2).repeat(8, 3)
    labels = np.array(kinds, np.int64) % 2
    train, holdout = split(images, labels, fraction, seed)
    assert not {kinds[i] for i in train} & {kinds[i] for i in holdout}
    assert set(labels[train]) == set(labels[holdout]) == {0, 1}
    assert len(train) + len(holdout) == len(kinds)


def test_f15_copies_with_another_label_stay_on_one_side() -> None:
    images = np.concatenate([IMAGES, IMAGES[:30]])
    labels = np.concatenate([LABELS, (LABELS[:30] + 1) % 3])
    _, holdout = split(images, labels, 0.3, seed=5)
    held = {image.tobytes() for image in images[holdout]}
    assert all((image.tobytes() in held) == (i in holdout) for i, image in enumerate(images))


def test_class_of_one_distinct_image_cannot_be_held_out() -> None:
    images = IMAGES.copy()
    images[LABELS == 1] = 5
    with pytest.raises(DataError, match="class 1: distinct images: 1; a hold-out needs at least 2"):
        split(images, LABELS, 0.1, seed=1)


# --- the stages ---------------------------------------------------------------------------------


def test_f88_stages_turn_a_csv_into_datasets_reports_and_a_contact_sheet(project: Path) -> None:
    for stage in (download, validate, preprocess):
        stage.main()
    params = yaml.safe_load(Path("params.yaml").read_text())["preprocess"]
    images, labels = make_images()
    rows = split(images, labels, params["holdout_fraction"], params["seed"])
    for name, mine in zip(("train", "holdout"), rows, strict=True):
        part = dataset.load_dataset(f"data/processed/{name}.safetensors")
        assert np.array_equal(part.images.numpy(), images[mine])
        assert np.array_equal(part.labels.numpy(), labels[mine])
        assert part.metadata["part"] == name
        assert part.metadata["csv_sha256"] == sha256_of("data/raw/train.csv")
    with Image.open("reports/real_samples.png") as sheet:
        assert sheet.mode == "L" and sheet.height == 3 * (6 * 8 + 2) + 2
        shown = np.asarray(sheet)[2:50, -500:-452][::6, ::6]
    mine = images[rows[0]][labels[rows[0]] == 0][:, 0]
    assert any(np.array_equal(shown, image) for image in mine), "a row a class"
    source = json.loads(Path("data/raw/source.json").read_text())
    assert source["sha256"] == sha256_of("data/raw/train.csv")
    folders = ("data/raw", "reports", "data/processed")
    outputs = [path for folder in folders for path in Path(folder).iterdir()]
    before = {path: sha256_of(path) for path in outputs}
    for stage in (download, validate, preprocess):
        stage.main()
    assert len(before) == 7 and {path: sha256_of(path) for path in outputs} == before


def test_previews_and_contact_sheet_show_the_first_50_of_many_classes(project: Path) -> None:
    images, labels = make_images(per_class=3, classes=52)
    write_csv(project / "inbox/digits.csv", images, labels)
    write_params(project, validate={"min_per_class": 2})
    for stage in (download, validate, preprocess):
        stage.main()
    with Image.open("reports/real_samples.png") as sheet:
        assert sheet.height == (6 * 8 + 2) * 50 + 2
    chosen = filled(load_params().train.model_copy(update={"previews": 1}))
    previews = train(dataset.load_dataset("data/processed/train.safetensors"), chosen).previews
    with Image.open(io.BytesIO(previews[0])) as picture:
        assert picture.height == 50 * 9 + 1 and picture.width > 8 * 9 + 1


def test_f20_csv_that_changed_after_validation_is_refused(project: Path) -> None:
    download.main()
    validate.main()
    with Path("data/raw/train.csv").open("a") as file:
        file.write("0," + ",".join(["9"] * 64) + "\n")
    with pytest.raises(DataError, match=r"changed since reports/validation.json was written"):
        preprocess.main()
    assert not Path("data/processed").exists()


def test_preprocess_without_a_report_says_which_stage_is_missing(project: Path) -> None:
    with pytest.raises(CganError, match="Make it with `dvc repro`"):
        preprocess.main()
    report = Path("reports/validation.json")
    report.parent.mkdir()
    for content in ("{", "[]", '{"format": 1}', '{"params": {"classes": "x"}, "csv": {}}'):
        report.write_text(content)
        with pytest.raises(CganError, match=r"Make it (with|again)"):
            preprocess.main()
