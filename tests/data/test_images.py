"""The public type: arrays in, some of them out; its file; and the stages that make it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import GROUP_IN_NAME, HEIGHT, NAMES, uneven, write_csv, write_folder, write_params
from PIL import Image
from safetensors.numpy import save_file

import cgan
from cgan.base.errors import ModelError
from cgan.data.images import load_images, save_images
from cgan.models.file_facts import facts_metadata, read_facts
from cgan.pipeline.project import HOLDOUT_DATA, TRAIN_DATA
from cgan.stages import download, page, preprocess, validate

COLOUR = uneven(channels=3)
PIXELS, LABELS = COLOUR.pixels, COLOUR.labels


def test_arrays_are_copied_only_where_they_must_be() -> None:
    planes, labels = PIXELS, LABELS
    last = planes.transpose(0, 2, 3, 1)
    for pixels in (planes, last, torch.from_numpy(planes), planes.astype(np.int64)):
        images = cgan.Images(pixels, torch.from_numpy(labels), NAMES)
        assert np.array_equal(images.pixels, planes) and images.shape == COLOUR.shape
        assert images.pixels.dtype == np.uint8 and images.pixels.flags.c_contiguous
        assert images.digest == COLOUR.digest and images.counts.tolist() == [24, 12, 20]
    grey = cgan.Images(planes[:, 0], labels)
    assert np.array_equal(grey.pixels, planes[:, :1]) and grey.class_names == ["0", "1", "2"]
    assert not grey.is_named and COLOUR.is_named
    images = cgan.Images(planes, labels)
    assert np.shares_memory(images.pixels, planes) and np.shares_memory(images.labels, labels)
    assert np.shares_memory(images.tensors.pixels.numpy(), planes)
    frozen = planes.copy()
    frozen.flags.writeable = False  # torch would warn
    assert cgan.Images(frozen, labels).tensors.pixels.equal(images.tensors.pixels)


def test_labels_are_numbers_or_names_and_groups_or_texts() -> None:
    pixels, texts = COLOUR.pixels, np.array(NAMES)[COLOUR.labels]
    for labels in (texts, texts.tolist()):
        images = cgan.Images(pixels, labels)
        assert images.class_names == sorted(NAMES)
        assert [images.class_names[n] for n in images.labels] == texts.tolist()
        assert np.array_equal(cgan.Images(pixels, labels, NAMES).labels, COLOUR.labels)
    numbers = np.array(["10", "9", "111"])[COLOUR.labels]
    assert cgan.Images(pixels, numbers).class_names == ["9", "10", "111"], "as numbers"
    assert COLOUR.groups is not None
    groups = [f"g{number}" * bool(number > 2) for number in COLOUR.groups]
    numbered = [float(text[1:]) if text else float("nan") for text in groups]
    given: Any  # also with None, which numpy's type of such lists leaves out
    for given in (groups, [text or None for text in groups], numbered):
        found = cgan.Images(pixels, COLOUR.labels, groups=given).groups
        assert found is not None and len(np.unique(found)) == len({*groups}) - 1 + groups.count("")


@pytest.mark.parametrize(
    "rows", [[5, 0, 7], torch.tensor([5, 0, 7]), COLOUR.labels == 1, slice(3, 20, 4), []]
)
def test_some_of_the_images_keep_all_that_is_known(rows: Any) -> None:
    splits, files = (LABELS % 2).astype(np.uint8), [f"{n}.png" for n in range(56)]
    known: dict[str, Any] = {"splits": splits, "files": files}
    known |= {"source_sha256": "ab", "notes": ("dark",), "lines": COLOUR.lines}
    images = cgan.Images(PIXELS, LABELS, NAMES, COLOUR.groups, **known)
    index = rows if isinstance(rows, slice) else np.array(rows, bool if len(rows) == 56 else int)
    some, chosen = images.at(rows), np.arange(56)[index]
    for name in ("pixels", "labels", "groups", "splits", "lines"):
        assert np.array_equal(getattr(some, name), getattr(images, name)[chosen]), name
    assert some.files == [files[row] for row in chosen] and len(some) == len(chosen)
    assert (some.class_names, some.source_sha256, some.notes) == (NAMES, "ab", ("dark",))
    if len(some):
        assert some.place(0) == files[chosen[0]]


@pytest.mark.parametrize("pictures", [False, True])
def test_what_is_read_and_split_is_what_the_stages_make(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pictures: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    data, path = uneven(), "inbox/digits.csv"
    write_csv(tmp_path / path, data)
    options: dict[str, Any] = {"height": HEIGHT, "width": COLOUR.shape[2], "class_names": NAMES}
    split = {"holdout_fraction": 0.3, "seed": 4}
    write_params(
        tmp_path, data={"source": "file", "path": path}, preprocess=split, validate=options
    )
    if pictures:
        write_folder(tmp_path / "own", data)
        write_params(tmp_path, data={"path": "own"}, preprocess={"group": GROUP_IN_NAME})
        write_params(tmp_path, validate={"class_names": None})
        path, options = "own", {"group": GROUP_IN_NAME}
    for stage in (download, validate, preprocess):
        stage.main()
    images = cgan.read(path, **options)
    parts = images.split(0.3, seed=4)
    for part, stored in zip(parts, map(load_images, (TRAIN_DATA, HOLDOUT_DATA)), strict=True):
        assert part.digest == stored.digest and part.class_names == stored.class_names
        assert np.array_equal(part.lines, stored.lines)
        assert part.source_sha256 == stored.source_sha256
        assert part.groups is not None and stored.groups is not None
        assert np.array_equal(part.groups, stored.groups)
    assert parts[0].notes == images.notes and not parts[1].notes
    assert repr(images).endswith("3 classes of 12 to 24 images, 23 groups, the largest of 5)")
    whole = page.all_images()
    assert whole.groups is not None and images.groups is not None
    assert np.array_equal(whole.pixels, images.pixels) and whole.files == images.files
    pairs = {*zip(whole.groups.tolist(), images.groups.tolist(), strict=True)}
    assert len(pairs) == len(np.unique(images.groups)), "one number per group"
    assert whole.splits is not None
    assert np.array_equal(whole.pixels[whole.splits == 1], parts[1].pixels)
    with Image.open("reports/real_samples.png") as sheet:
        assert sheet.mode == "L" and sheet.height == 3 * (HEIGHT * 4 + 2) + 2, "a row per class"


def test_a_saved_set_loads_as_it_was(tmp_path: Path) -> None:
    path, data = tmp_path / "train.safetensors", uneven(channels=3)
    save_images(path, data, part="train")
    loaded = load_images(path)
    assert loaded.splits is None and loaded.sizes is None and not loaded.notes
    facts = read_facts(path, "dataset")
    assert (facts["part"], facts["count"], facts["shape"]) == ("train", 56, [*COLOUR.shape])
    path.write_bytes(b"\0" * path.stat().st_size)
    loaded.tensors.pixels[0] = 7  # writable, and no part of the file
    assert np.array_equal(loaded.pixels[1:], data.pixels[1:])


def test_a_set_that_does_not_fit_its_digest_is_refused(tmp_path: Path) -> None:
    facts = {"kind": "dataset", "classes": 4, "digest": COLOUR.digest}
    turned = PIXELS.reshape(56, 3, -1, HEIGHT)
    for damage in ({"images": PIXELS ^ 1}, {"labels": LABELS ^ 1}, {"images": turned}):
        tensors: dict[str, Any] = {"images": PIXELS, "labels": LABELS, **damage}
        save_file(tensors, tmp_path / "x", facts_metadata(facts))
        with pytest.raises(ModelError, match=rf"{tmp_path / 'x'}: the file is damaged"):
            load_images(tmp_path / "x")


def test_a_notebook_shows_every_name_escaped() -> None:
    images = cgan.Images(PIXELS, LABELS, ["a <b>", "c", "d"], notes=("5 > 4",))
    html = images._repr_html_()
    assert "a &lt;b&gt;" in html and ">24</td>" in html
    assert "data:image/png;base64," in html and "5 &gt; 4" in html
    assert (
        repr(images) == "Images(56 images of 12 × 8 pixels in colour, 3 classes of 12 to 24 images)"
    )
    assert "base64" not in images.at([])._repr_html_()
