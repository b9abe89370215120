import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from conftest import write_params
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from safetensors.numpy import save_file
from synthetic import csv_lines, make_images, write_csv
from uneven import GROUP_IN_NAME, NAMES, uneven, write_uneven_folder

from cgan.errors import DataError, ModelError
from cgan.files import sha256_of
from cgan.images import Images, image_digests, load_images, pixels_digest, save_images
from cgan.model import file_facts
from cgan.page.data_facts import place_facts, rows_of
from cgan.pipeline.params_file import load_params
from cgan.pipeline.whole_data import whole_data
from cgan.project import HOLDOUT_DATA, TRAIN_DATA
from cgan.splitting import split_images, stratified_split
from cgan.stages import download, preprocess, validate
from cgan.training.auto import resolve
from cgan.training.loop import train

IMAGES, LABELS = make_images(per_class=20)
LINES = np.arange(2, 62)


def test_saved_dataset_loads_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "train.safetensors"
    save_images(path, Images(IMAGES, LABELS, lines=LINES, source_sha256="ab"), part="train")
    loaded = load_images(path)
    assert loaded.tensors.pixels.dtype == torch.uint8
    assert loaded.tensors.labels.dtype == torch.int64
    assert np.array_equal(loaded.tensors.pixels, IMAGES)
    assert np.array_equal(loaded.labels, LABELS)
    assert loaded.lines.tolist() == LINES.tolist()
    assert len(loaded) == 60 and loaded.classes == 3 and not loaded.is_named
    assert loaded.shape == (1, 8, 8) and loaded.source_sha256 == "ab"
    facts = file_facts.read_facts(path, "dataset")
    assert (facts["part"], facts["count"], facts["shape"]) == ("train", 60, [1, 8, 8])
    path.write_bytes(b"\0" * path.stat().st_size)
    loaded.tensors.pixels[0] = 7  # writable, and no part of the file
    assert np.array_equal(loaded.pixels[1:], IMAGES[1:])


@pytest.mark.parametrize("damage", ["images", "labels", "shape"])
def test_a_dataset_that_does_not_fit_its_digest_is_refused(tmp_path: Path, damage: str) -> None:
    tensors = {"images": IMAGES.copy(), "labels": LABELS.copy()}
    facts = {"kind": "dataset", "classes": 3, "digest": pixels_digest(IMAGES, LABELS)}
    if damage == "shape":
        tensors["images"] = IMAGES.reshape(60, 1, 4, 16)
    else:
        tensors[damage].flat[0] ^= 1
    save_file(tensors, tmp_path / "x", file_facts.facts_metadata(facts))
    with pytest.raises(ModelError, match=rf"{tmp_path / 'x'}: the file is damaged"):
        load_images(tmp_path / "x")


# --- the hold-out -------------------------------------------------------------------------------


def test_holdout_is_stratified_depends_on_the_seed_and_parts_are_disjoint_and_complete() -> None:
    images, labels = make_images(per_class=40)
    keep = (labels != 2) | (np.cumsum(labels == 2) <= 10)
    images, labels = images[keep], labels[keep]
    train, holdout = stratified_split(images, labels, 0.1, seed=1)
    assert np.bincount(labels[holdout]).tolist() == [4, 4, 1]
    assert sorted([*train, *holdout]) == list(range(len(labels)))
    assert list(train) == sorted(train) and list(holdout) == sorted(holdout)
    again, other = (stratified_split(images, labels, 0.1, seed)[1] for seed in (1, 2))
    assert np.array_equal(holdout, again) and not np.array_equal(holdout, other)
    exact = [len(stratified_split(IMAGES, LABELS, part, 0)[1]) for part in (0.01, 0.1, 0.125, 0.98)]
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
    train, holdout = stratified_split(images, labels, fraction, seed)
    assert not {kinds[i] for i in train} & {kinds[i] for i in holdout}
    assert set(labels[train]) == set(labels[holdout]) == {0, 1}
    assert len(train) + len(holdout) == len(kinds)


def test_f15_copies_with_another_label_stay_on_one_side() -> None:
    images = np.concatenate([IMAGES, IMAGES[:30]])
    labels = np.concatenate([LABELS, (LABELS[:30] + 1) % 3])
    _, holdout = stratified_split(images, labels, 0.3, seed=5)
    held = {image.tobytes() for image in images[holdout]}
    assert all((image.tobytes() in held) == (i in holdout) for i, image in enumerate(images))


def test_class_of_one_distinct_image_cannot_be_held_out() -> None:
    images = IMAGES.copy()
    images[LABELS == 1] = 5
    with pytest.raises(DataError, match=r"class 1: .* 1; .*at least 2"):
        stratified_split(images, LABELS, 0.1, seed=1)


def distinct(count: int, seed: int = 0) -> NDArray[np.uint8]:
    """Images that are not square."""
    return np.random.default_rng(seed).integers(0, 256, (count, 1, 4, 6), dtype=np.uint8)


def test_the_holdout_of_grouped_images_is_near_its_share_with_every_seed() -> None:
    """Of a class of 40, in one group of 30 and ten of one image; of one in groups of 7, of which two are
    nearest to 16; and of one in three groups, of which the smallest is."""
    groups = np.concatenate(
        [[0] * 30, range(1, 11), np.arange(161) // 7 + 100, [200, 201] * 9, [202] * 8]
    )
    labels = np.repeat([2, 0, 1], [40, 161, 26])
    order = np.random.default_rng(1).permutation(len(labels))
    labels, groups, images = labels[order], groups[order], distinct(len(labels))
    chosen = set()
    for seed in range(300):
        train, holdout = stratified_split(images, labels, 0.1, seed, groups)
        assert not {*groups[train]} & {*groups[holdout]}
        assert np.bincount(labels[holdout]).tolist() == [14, 8, 4]
        chosen |= {*groups[holdout]}
    assert {*range(1, 11), *range(100, 123)} < chosen, "any of those that fit"
    # A share that rounds to all of a class leaves one to train on.
    assert np.bincount(labels[stratified_split(images, labels, 0.99, 0, groups)[0]]).min() >= 1


def test_the_holdout_of_groups_with_several_classes_is_near_the_share_of_each() -> None:
    for seed in range(30):
        random = np.random.default_rng(seed)
        sizes = random.integers(3, 30, 40)
        groups = np.repeat(np.arange(40), sizes)
        mixes = random.dirichlet([1.0, 0.5, 0.3], 40)
        labels = np.concatenate(
            [random.choice(3, n, p=p) for n, p in zip(sizes, mixes, strict=True)]
        )
        order = random.permutation(len(labels))
        labels, groups = labels[order], groups[order]
        _, holdout = stratified_split(distinct(len(labels)), labels, 0.2, seed, groups)
        shares = np.bincount(labels[holdout]) / np.bincount(labels)
        assert shares.min() > 0.1 and shares.max() < 0.3


def test_groups_with_an_equal_image_are_on_one_side() -> None:
    images, labels = distinct(60), np.random.default_rng(2).permutation(np.arange(60) % 3)
    groups = np.arange(60) // 2
    images[41] = images[10]  # of groups 5 and 20, and by the next of 7 too
    images[15] = images[40]
    for seed in range(30):
        holdout = stratified_split(images, labels, 0.3, seed, groups)[1]
        assert len({row in holdout for row in (10, 11, 14, 15, 40, 41)}) == 1


def test_without_groups_the_holdout_is_that_of_earlier_versions() -> None:
    """Also where there are copies, with the same label and with another."""
    random = np.random.default_rng(3)
    images, labels = distinct(90), random.choice(3, 90, p=[0.6, 0.3, 0.1])
    images[60:75], labels[60:72] = images[:15], labels[:12]
    found = [stratified_split(images, labels, part, 5)[1].tolist() for part in (0.1, 0.4)]
    assert found == [
        [4, 7, 21, 29, 31, 48, 64, 67, 88],
        [
            3,
            4,
            5,
            7,
            8,
            11,
            16,
            19,
            21,
            23,
            26,
            29,
            31,
            33,
            34,
            35,
            37,
            38,
            42,
            43,
            47,
            48,
            50,
            52,
            54,
            57,
            63,
            64,
            65,
            67,
            68,
            71,
            79,
            82,
            86,
            88,
        ],
    ]


# --- the stages ---------------------------------------------------------------------------------


def test_f88_stages_turn_a_csv_into_datasets_reports_and_a_contact_sheet(project: Path) -> None:
    for stage in (download, validate, preprocess):
        stage.main()
    params = yaml.safe_load(Path("params.yaml").read_text())["preprocess"]
    images, labels = make_images()
    rows = stratified_split(images, labels, params["holdout_fraction"], params["seed"])
    for name, expected in zip(("train", "holdout"), rows, strict=True):
        part = load_images(f"data/processed/{name}.safetensors")
        assert np.array_equal(part.pixels, images[expected])
        assert np.array_equal(part.labels, labels[expected])
        assert part.source_sha256 == sha256_of("data/raw/train.csv")
    with Image.open("reports/real_samples.png") as sheet:
        assert sheet.mode == "L" and sheet.height == 3 * (6 * 8 + 2) + 2
        shown = np.asarray(sheet)[2:50, -500:-452][::6, ::6]
    expected = images[rows[0]][labels[rows[0]] == 0][:, 0]
    assert any(np.array_equal(shown, image) for image in expected), "a row a class"
    source = json.loads(Path("data/raw/source.json").read_text())
    assert source["sha256"] == sha256_of("data/raw/train.csv")
    folders = ("data/raw", "reports", "data/processed")
    outputs = [path for folder in folders for path in Path(folder).iterdir()]
    before = {path: sha256_of(path) for path in outputs}
    for stage in (download, validate, preprocess):
        stage.main()
    assert len(before) == 7 and {path: sha256_of(path) for path in outputs} == before


def test_groups_of_a_csv_stay_with_their_images_whatever_the_order_of_its_lines(
    project: Path,
) -> None:
    """Lines in order of neither class nor group, images that are not square; the first two pixels of each
    say its group and its class."""
    random = np.random.default_rng(4)
    groups, labels = random.integers(0, 40, 150), random.choice(3, 150, p=[0.2, 0.5, 0.3])
    images = random.integers(0, 256, (150, 1, 9, 11), dtype=np.uint8)
    images[:, 0, 0, 0], images[:, 0, 0, 1] = groups, labels
    header, *lines = csv_lines(images, labels)
    rows = [line.replace(",", f",tile {n},", 1) for line, n in zip(lines, groups, strict=True)]
    header = header.replace(",", ",group,", 1)
    (project / "inbox/digits.csv").write_text("\n".join([header, *rows]))
    write_params(project, validate={"height": 9, "width": 11}, preprocess={"seed": 3})
    for stage in (download, validate, preprocess):
        stage.main()
    parts = [load_images(path) for path in (TRAIN_DATA, HOLDOUT_DATA)]
    for part in (*parts, whole_data()):
        assert part.groups is not None
        pixels = part.pixels[:, 0, 0].astype(np.int64)
        assert np.array_equal(part.labels, pixels[:, 1])
        assert [*pixels[:, 0]] == [groups[line - 2] for line in part.lines]
        assert len({*zip(part.groups.tolist(), pixels[:, 0].tolist(), strict=True)}) == len(
            np.unique(part.groups)
        ), "one number a group"
    trained, held = ({*part.pixels[:, 0, 0, 0].tolist()} for part in parts)
    assert not trained & held and len(trained | held) == len(np.unique(groups))
    share = parts[1].counts / np.bincount(labels)
    assert share.min() > 0.2 and share.max() < 0.3


def test_previews_and_contact_sheet_show_the_first_50_of_many_classes(project: Path) -> None:
    images, labels = make_images(per_class=3, classes=52)
    write_csv(project / "inbox/digits.csv", images, labels)
    write_params(project, validate={"min_per_class": 2})
    for stage in (download, validate, preprocess):
        stage.main()
    with Image.open("reports/real_samples.png") as sheet:
        assert sheet.height == (6 * 8 + 2) * 50 + 2
    chosen = resolve(load_params().train)
    previews = train(load_images("data/processed/train.safetensors"), chosen).previews
    with Image.open(io.BytesIO(previews[0])) as picture:
        assert picture.height == 50 * 9 + 1 and picture.width > 8 * 9 + 1


@pytest.mark.parametrize("pictures", [False, True])
def test_each_image_keeps_its_class_group_and_side_through_the_stages(
    uneven_project: Path, pictures: bool
) -> None:
    """Rows are in no order; of pictures the classes' names are sorted, and so are the files."""
    data = uneven()
    if pictures:
        write_uneven_folder(uneven_project / "own", data)
        write_params(uneven_project, data={"path": "own"}, preprocess={"group": GROUP_IN_NAME})
        write_params(uneven_project, validate={"class_names": None})
    for stage in (download, validate, preprocess):
        stage.main()
    rows = whole_data()
    assert rows.class_names == (sorted(NAMES) if pictures else NAMES)
    assert rows.groups is not None and data.groups is not None
    row_of, pairs = {image.tobytes(): row for row, image in enumerate(data.pixels)}, set()
    for image, label, group in zip(rows.pixels, rows.labels, rows.groups, strict=True):
        row = row_of[image.tobytes()]
        assert rows.class_names[label] == NAMES[data.labels[row]]
        if (data.pixels == image).all((1, 2, 3)).sum() == 1:
            pairs.add((int(group), int(data.groups[row])))
    assert [len({*side}) for side in zip(*pairs, strict=True)] == [20, 20] and len(pairs) == 20
    assert rows.shape == (1, 8, 12)
    if not pictures:
        assert np.array_equal(rows.pixels, data.pixels)
        assert place_facts(rows, 5) == {"row": 6, "line": 7}
    held, learnt = (rows.at(rows_of(rows, split)) for split in ("val", "train"))
    assert held.groups is not None and learnt.groups is not None
    assert not np.isin(held.groups, learnt.groups).any()
    digests = [image_digests(part.pixels) for part in (held, learnt)]
    assert not np.isin(*digests).any(), "equal images of two groups, too"


@pytest.mark.parametrize(("count", "refused"), [(5, True), (6, False)])
def test_a_hold_out_that_no_metric_can_be_had_from_is_refused_before_anything_is_trained(
    count: int, refused: bool
) -> None:
    data = uneven()
    first_of_each = [int(np.flatnonzero(data.labels == label)[0]) for label in range(3)]
    held = [*first_of_each, *np.flatnonzero(data.labels == 0)[5 : 2 + count].tolist()]
    splits = np.isin(np.arange(len(data.labels)), held).astype(np.int64)
    assert splits.sum() == count
    parted = replace(data, splits=splits, groups=None)
    if refused:
        with pytest.raises(
            DataError, match=r"^5 images are held out, expected at least 6: .*to val"
        ):
            split_images(parted, 0.1, 1)
    else:
        assert len(split_images(parted, 0.1, 1)[1]) == count
