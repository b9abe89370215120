"""The public type: arrays in, checked; and what `cgan.read` and `split` make of files as of arrays."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import ROOT, write_params
from synthetic import zip_of
from uneven import (
    GROUP_IN_NAME,
    HEIGHT,
    NAMES,
    WIDTH,
    uneven,
    write_uneven_csv,
    write_uneven_folder,
)

import cgan
from cgan.errors import DataError, ParamsError, SourceError
from cgan.images import load_images
from cgan.pipeline.whole_data import whole_data
from cgan.project import HOLDOUT_DATA, TRAIN_DATA
from cgan.stages import download, preprocess, validate

COLOUR = uneven(channels=3)
SIDES: dict[str, Any] = {"height": HEIGHT, "width": WIDTH}


def test_arrays_are_copied_only_where_they_must_be() -> None:
    planes, labels = COLOUR.pixels, COLOUR.labels
    last = planes.transpose(0, 2, 3, 1)
    for pixels in (planes, last, torch.from_numpy(planes), planes.astype(np.int64)):
        images = cgan.Images(pixels, torch.from_numpy(labels), NAMES)
        assert np.array_equal(images.pixels, planes) and images.shape == (3, HEIGHT, WIDTH)
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
        assert images.class_names == sorted(NAMES), "sorted"
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


PIXELS, LABELS = COLOUR.pixels, COLOUR.labels
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "fractions": ({"pixels": PIXELS / 255}, r"found float64, .*\(pixels \* 255\)"),
    "16 bits": ({"pixels": PIXELS.astype(int) * 257}, "from 0 to 255, found int64"),
    "bools": ({"pixels": PIXELS > 99}, "found bool"),
    "rows": (
        {"pixels": PIXELS.reshape(56, -1)},
        r"found \[56, 288\].*reshape\(-1, height, width\)",
    ),
    "two channels": ({"pixels": PIXELS[:, :2]}, r"found \[56, 2, 8, 12\]"),
    "tiny": ({"pixels": PIXELS[:, :, :7]}, r"8 to 256; found \[56, 3, 7, 12\]"),
    "a label too few": ({"labels": LABELS[1:]}, r"labels: expected \[56\].* \[55\]"),
    "a group too many": ({"groups": [*LABELS, 1]}, r"groups: expected \[56\], .* found \[57\]"),
    "one-hot": ({"labels": np.eye(3)[LABELS]}, r"labels: expected \[56\].* found \[56, 3\]"),
    "float labels": ({"labels": LABELS / 1}, r"found float64\."),
    "negative": ({"labels": LABELS - 1}, "from 0 to 999; found -1 to 1"),
    "without a name": ({"class_names": NAMES[:2]}, "from 0 to 1; found 0 to 2"),
    "unknown": ({"labels": [*"ab" * 28], "class_names": ["a", "c"]}, "a, c; found b"),
    "doubled": ({"class_names": ["a", "b", "a"]}, "different ones, found a, b, a"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_arrays_that_do_not_fit_are_refused(kind: str) -> None:
    changes, words = REFUSED[kind]
    with pytest.raises(DataError, match=words):
        cgan.Images(**{"pixels": PIXELS, "labels": LABELS, **changes})


@pytest.mark.parametrize(
    "rows", [[5, 0, 7], torch.tensor([5, 0, 7]), COLOUR.labels == 1, slice(3, 20, 4), []]
)
def test_some_of_the_images_keep_all_that_is_known(rows: Any) -> None:
    splits, files = (LABELS % 2).astype(np.uint8), [f"{n}.png" for n in range(56)]
    known = {"splits": splits, "files": files, "source_sha256": "ab", "notes": ("dark",)}
    images = cgan.Images(PIXELS, LABELS, NAMES, COLOUR.groups, lines=COLOUR.lines, **known)  # type: ignore[arg-type]
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
    uneven_project: Path, pictures: bool
) -> None:
    data, path = uneven(), "inbox/digits.csv"
    options: dict[str, Any] = {**SIDES, "class_names": NAMES}
    if pictures:
        write_uneven_folder(uneven_project / "own", data)
        write_params(uneven_project, data={"path": "own"}, preprocess={"group": GROUP_IN_NAME})
        write_params(uneven_project, validate={"class_names": None})
        path, options = "own", {"group": GROUP_IN_NAME}
    write_params(uneven_project, preprocess={"holdout_fraction": 0.3, "seed": 4})
    for stage in (download, validate, preprocess):
        stage.main()
    images = cgan.read(path, **options)
    parts = images.split(0.3, seed=4)
    for part, stored in zip(parts, map(load_images, (TRAIN_DATA, HOLDOUT_DATA)), strict=True):
        assert part.digest == stored.digest and part.class_names == stored.class_names
        assert np.array_equal(part.lines, stored.lines)
        assert part.groups is not None and np.array_equal(part.groups, stored.groups)  # type: ignore[arg-type]
    assert parts[1].notes == images.notes and not parts[0].notes
    assert any(note.startswith("Groups: 23 of 56") for note in images.notes) == pictures
    assert len(parts[0]) + len(parts[1]) == 56
    whole = whole_data()
    assert whole.groups is not None and images.groups is not None
    assert np.array_equal(whole.pixels, images.pixels) and whole.files == images.files
    groups_of = {*zip(whole.groups.tolist(), images.groups.tolist(), strict=True)}
    assert len(groups_of) == len(np.unique(images.groups)), "one number a group"
    assert whole.splits is not None and np.array_equal(
        whole.pixels[whole.splits == 1], parts[1].pixels
    )


def test_arrays_are_divided_by_groups_and_copies() -> None:
    data = uneven()
    plain = cgan.Images(data.pixels, data.labels, data.class_names, data.groups)
    train, held = plain.split(0.25, seed=2)
    assert not {*train.groups.tolist()} & {*held.groups.tolist()}  # type: ignore[union-attr]
    assert not {image.tobytes() for image in train.pixels} & {
        image.tobytes() for image in held.pixels
    }
    assert sorted([*train.lines, *held.lines]) == [*range(56)], "indices of the arrays"
    assert train.place(0) == f"image {train.lines[0]}"
    again, other = plain.split(0.25, seed=2)[1], plain.split(0.25, seed=3)[1]
    assert again.digest == held.digest != other.digest
    with pytest.raises(DataError, match="found 30"):
        plain.split(30)
    with pytest.raises(DataError, match=r"at least 6.*`fraction`"):
        plain.split(0.01)


def test_read_takes_a_csv_a_zip_and_a_folder(tmp_path: Path) -> None:
    data = uneven()
    table = write_uneven_csv(tmp_path / "a.csv", data)
    zipped = tmp_path / "a.zip"
    zipped.write_bytes(zip_of({"b/fruit.csv": table.read_bytes()}))
    for images in (
        cgan.read(table, **SIDES, class_names=NAMES),
        cgan.read(str(zipped), **SIDES, class_names=NAMES, member="fruit.csv"),
    ):
        assert np.array_equal(images.pixels, data.pixels) and images.class_names == NAMES
        assert images.place(3) == "row 4 (line 5)"
        assert images.notes[0].startswith("Few images: 12 of apple, 20 of fig, 24 of pear")
    write_uneven_folder(tmp_path / "own", data)
    (tmp_path / "own/apple/notes.txt").touch()
    images = cgan.read(tmp_path / "own", height=16, width=24, fit="pad")
    assert images.shape == (1, 16, 24) and images.class_names == sorted(NAMES)
    assert images.notes[0].startswith("Left out: 1, no PNG")


@pytest.mark.parametrize(
    ("path", "options", "error", "words"),
    [
        ("gone", {}, SourceError, "gone does not exist"),
        ("a.csv", {}, DataError, r"a\.csv: .*found 96\. .*`channels=3`"),
        ("a.csv", {"heigth": 16}, ParamsError, r"^cgan\.read: .*`heigth`.*`height`"),
        ("a.csv", {"source": "kaggle"}, ParamsError, "`source`"),
        ("a.csv", {"height": 4, "width": 9}, ParamsError, "^cgan.read: `height`: .*found 4"),
    ],
)
def test_read_names_its_keywords(
    tmp_path: Path, path: str, options: dict[str, Any], error: type[Exception], words: str
) -> None:
    write_uneven_csv(tmp_path / "a.csv", uneven())
    with pytest.raises(error, match=words):
        cgan.read(tmp_path / path, **options)


def test_images_are_read_and_divided_without_torch(tmp_path: Path) -> None:
    table = write_uneven_csv(tmp_path / "a.csv", uneven())
    code = f"""
import sys
import cgan
assert not {{"torch", "pandas", "numpy"}} & {{*sys.modules}}
images = cgan.read({str(table)!r}, height=8, width=12)
train, held = images.split(0.2)
assert isinstance(train, cgan.Images) and len(train) + len(held) == 56
assert "torch" not in sys.modules
assert [getattr(cgan, name) for name in cgan.__all__]
"""
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_a_notebook_shows_every_name_escaped() -> None:
    images = cgan.Images(PIXELS, LABELS, ["a <b>", "c", "d"], notes=("5 > 4",))
    html = images._repr_html_()
    assert "a &lt;b&gt;" in html and "<b>" not in html and "<td>24</td>" in html
    assert "data:image/png;base64," in html and "5 &gt; 4" in html
    assert repr(images) == "Images(56 of 12 × 8 pixels in colour, 3 classes)"
    assert "base64" not in images.at([])._repr_html_()
