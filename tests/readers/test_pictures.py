"""Pictures: what becomes of them, and how they are divided; what is refused: promises/test_reading.py."""

import io
import re
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import write_params
from PIL import Image

from cgan import splitting
from cgan.errors import CganError, DataError
from cgan.files import read_json
from cgan.images import Images, load_images
from cgan.params.sections import DataParams, ValidateParams
from cgan.pipeline.whole_data import whole_data
from cgan.project import CSV, HOLDOUT_DATA, PICTURES, TEST_DATA, TRAIN_DATA, VALIDATION
from cgan.readers import pictures
from cgan.readers.sources import read_source
from cgan.stages import download, preprocess, validate

Files = dict[str, Any]  # name → bytes; a link's target


def picture(
    value: Any = 7, size: tuple[int, int] = (10, 10), kind: str = "PNG", **how: Any
) -> bytes:
    """`value`: a grey, a colour, or an image as an array or as Pillow's."""
    image, file = value, io.BytesIO()
    if isinstance(value, np.ndarray):
        image = Image.fromarray(value)
    elif not isinstance(value, Image.Image):
        image = Image.new({1: "L", 3: "RGB", 4: "RGBA"}[np.size(value)], size, value)
    image.save(file, kind, **how)
    return file.getvalue()


def palette(*colours: int) -> bytes:
    image = Image.new("P", (10, 10), 1)
    image.putpalette([0, 0, 0, *colours])
    return picture(image, kind="GIF")


def noise(seed: int) -> bytes:
    return picture(np.random.default_rng(seed).integers(0, 255, (10, 10), np.uint8))


def write(files: Files, root: str = "own") -> None:
    for name, content in files.items():
        path = Path(root, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, str):
            path.symlink_to(content)
        else:
            path.write_bytes(content)


def opened(path: str = "own", **changes: Any) -> Images:
    params = DataParams().model_copy(update={"path": path, **changes})
    return read_source(Path(path), params, ValidateParams())[0]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a hold-out of two pictures is enough."""
    monkeypatch.setattr(splitting, "MIN_HELD_OUT", 2)
    monkeypatch.chdir(tmp_path)
    return tmp_path


GOOD: Files = {
    f"{name}/{n}.png": picture(value + n)
    for name, value in (("cat", 10), ("apple", 20))
    for n in (0, 1)
}


@pytest.mark.parametrize(
    ("limit", "bytes_", "words"),
    [
        ("MAX_FILE_BYTES", 60, r"4 of 4 pictures cannot.*apple/0\.png: larger"),
        ("MAX_BYTES", 399, r"more than 0 MB of pixels.*`data\.height`"),
    ],
)
def test_large_files_and_many_pixels_are_refused(
    monkeypatch: pytest.MonkeyPatch, limit: str, bytes_: int, words: str
) -> None:
    write(GOOD)
    monkeypatch.setattr(pictures, limit, bytes_)
    with pytest.raises(CganError, match=re.compile(words, re.DOTALL)):
        opened()
    monkeypatch.setattr(pictures, limit, 400)
    assert len(opened()) == 4


@pytest.mark.parametrize("packed", [False, True])
def test_pictures_are_found_in_whatever_folder_is_around(packed: bool) -> None:
    write(GOOD | {"cat/deep/er/2.jfif": picture(12, kind="JPEG")}, "a/b")
    if packed:
        shutil.make_archive("a", "zip", ".", "a")
    Path("a/README.md").touch()  # as data/inbox has one
    found = opened("a.zip" if packed else "a")
    values = found.pixels[:, 0, 5, 5].tolist()
    assert found.class_names == ["apple", "cat"] and not found.notes
    labelled = [(0, 20), (0, 21), (1, 10), (1, 11), (1, 12)]
    assert sorted(zip(found.labels.tolist(), values, strict=True)) == labelled
    assert found.files[0].endswith("b/apple/0.png") and found.pixels.shape[1:] == (1, 10, 10)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (palette(50, 50, 50), 50),
        (picture((40, 40, 40)), 40),
        (picture((0, 0, 0, 128)), 127),
        (picture((200, 100, 50)), [200, 100, 50]),
        (palette(9, 8, 7), [9, 8, 7]),
    ],
)
def test_each_kind_of_picture_has_its_values(content: bytes, expected: Any) -> None:
    write({"a/0.png": content, "b/0.png": picture(3)})
    assert opened().pixels[0, :, 5, 5].tolist() == np.atleast_1d(expected).tolist()


def test_other_shapes_are_cropped_or_padded() -> None:
    ramp = np.tile(np.linspace(0, 255, 40).astype(np.uint8), (10, 1))
    write({f"{name}/0.png": picture(ramp) for name in "ab"})
    how = {"height": 10, "width": 10}
    cropped, padded = (opened("own", **how, fit=fit) for fit in ("crop", "pad"))
    row = cropped.pixels[0, 0, 5].astype(int)
    assert 90 < row[0] < row[-1] < 165
    assert np.ptp(padded.pixels[0, 0, 5]) > 200 and np.ptp(padded.pixels[0, 0, 0]) == 0
    bright = np.zeros((3, 10), np.uint8)  # at its edges, more than half: so is what is added
    bright[0, 5:] = bright[2] = bright[1, 9] = 200
    write({"a/0.png": picture(bright), "b/0.png": picture(bright)})
    assert (opened("own", **how, fit="pad").pixels[:, 0, [0, 9]] == 200).all()


def test_photographs_stand_upright() -> None:
    upright, exif = np.zeros((12, 9), np.uint8), Image.Exif()
    upright[:3, :3], upright[:3, -3:], exif[0x0112] = 250, 120, 6  # no two corners are alike
    photo = picture(np.ascontiguousarray(np.rot90(upright)), exif=exif)
    write({"a/0.png": photo, "b/0.png": photo})
    assert (opened().pixels == upright).all()


# --- through the stages -------------------------------------------------------------------------


def run(how: dict[str, Any] | None = None, path: str = "own", **validated: Any) -> dict[str, Any]:
    """The stages from `path` to the datasets, `how` for preprocess → the validation report."""
    Path("params.yaml").unlink(missing_ok=True)
    data, validated = {"source": "file", "path": path}, {"min_per_class": 2} | validated
    write_params(Path(), data=data, validate=validated, preprocess=how or {})
    for stage in (download, validate, preprocess):
        stage.main()
    return read_json(VALIDATION)


def sizes() -> list[int]:
    return [len(load_images(path)) for path in (TRAIN_DATA, HOLDOUT_DATA, TEST_DATA)]


def groups() -> list[int]:
    """Of the images to train on and of those held out, which share none."""
    train, held = (load_images(path).groups for path in (TRAIN_DATA, HOLDOUT_DATA))
    assert train is not None and held is not None and not np.isin(train, held).any()
    return [*train.tolist(), *held.tolist()]


def test_train_val_and_test_are_kept_and_equal_images_left_out(
    caplog: pytest.LogCaptureFixture,
) -> None:
    names = [(part, label) for part in ("train", "val", "test") for label in ("cat", "dog")]
    write(
        {f"{p}/{c}/{n}.png": noise(10 * i + n) for i, (p, c) in enumerate(names) for n in range(4)}
    )
    known = Path("own/train/dog/0.png").read_bytes()
    write({"test/dog/known.png": known})
    report = run()
    assert sizes() == [8, 8, 8] and report["rows"] == 16
    assert report["splits"] == {"train": 8, "val": 8, "test": 9}
    assert re.search(r"Left out of test: 1 \(.*dog/known\.png\)\. Train has a copy", caplog.text)
    test = load_images(TEST_DATA)
    assert test.class_names == ["cat", "dog"] and test.labels.tolist() == [0] * 4 + [1] * 4
    shutil.rmtree("own/val")
    run()
    assert sizes() == [6, 2, 9], "its copy is held out"
    write({"val/cat/0.png": noise(5)})
    with pytest.raises(DataError, match="in val; of dog one of the two has none"):
        run()
    shutil.rmtree("own/train")
    with pytest.raises(DataError, match="found val and test alone"):
        run()


LISTING = b"path,label,group,split\n"


def test_a_listing_names_classes_groups_and_splits() -> None:
    rows = [(f"{n}.png", "ab"[n % 2], str(n // 4), ("train", "test")[n > 15]) for n in range(24)]
    rows += [(f"{n}.png", "ab"[n % 2], "", "train") for n in (24, 25)]  # each of its own
    write({name: noise(n) for n, (name, *_) in enumerate(rows)} | {"other.png": noise(99)})
    lines = "".join(f"{','.join(row)}\r\n" for row in rows).encode()
    write({"labels.csv": b"\xef\xbb\xbf" + LISTING + lines})
    report = run(path="own/labels.csv")
    assert report["groups"] == 6 and report["largest_group"] == 4
    left_out, not_watched = report["warnings"][:2]
    assert left_out.endswith(": other.png.") and not_watched.startswith("Not watched")
    assert sizes()[2] == 8 and not CSV.exists()
    assert sorted(Counter(groups()).values()) == [1, 1, 4, 4, 4, 4]


def test_groups_stay_on_one_side_and_near_copies_are_named(
    caplog: pytest.LogCaptureFixture,
) -> None:
    random = np.random.default_rng(0)
    for tile in range(40):
        seen = random.integers(40, 200, (10, 10))
        for shot in range(3):
            pixels = (seen + random.integers(-5, 5, (10, 10))).astype(np.uint8)
            write({f"{'ab'[tile % 2]}/tile{tile}-{shot}.png": picture(pixels)})
    run()
    (note,) = whole_data().notes
    assert re.match(r"Near copies: 12 of 12 .*tile\d+-\d\.png like .*`preprocess\.group", note)
    assert note in caplog.text
    caplog.clear()
    run({"group": "tile(\\d+)"})
    assert len({*groups()}) == 40 and sizes() == [108, 12, 0] and "Near" not in caplog.text
    run({"group": "auto"})
    assert "Groups: 40 of 120 images, the largest of 3" in caplog.text and "Near" not in caplog.text
    for pattern, words in (("shot", "found own/"), ("tile", "smaller groups"), ("(", "lar exp")):
        with pytest.raises(CganError, match=words):
            run({"group": pattern})


def test_pictures_take_the_place_of_a_csv_with_the_folders_names() -> None:
    CSV.parent.mkdir(parents=True)
    CSV.touch()
    write({f"{label}/{n}.png": noise(n + 9 * (label == "b")) for label in "ab" for n in range(4)})
    report = run({"holdout_fraction": 0.25}, class_names=["b", "a"])
    assert PICTURES.is_file() and not CSV.exists()
    named = load_images(TRAIN_DATA).class_names
    assert named == ["a", "b"], "in the order of the folders"
    assert report["shape"] == {"channels": 1, "height": 10, "width": 10}
    renamed = run({"holdout_fraction": 0.25}, class_names=["x", "b"])["warnings"][0]
    assert renamed.endswith("names`: a is x.")
    with pytest.raises(DataError, match=r"`validate\.classes` is 3, the pictures have 2"):
        run(classes=3)
    write({"b/x.heic": b""})
    with pytest.raises(
        DataError, match=r"4 of each of 2 classes.*`validate\.min_per_.*\n.*b/x\.heic"
    ):
        run(min_per_class=9)
