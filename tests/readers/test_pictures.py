"""Pictures: which are read, what becomes of them, what is said of the rest, and what is refused."""

import io
import os
import re
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import write_params
from PIL import Image
from synthetic import csv_lines, make_images, zip_of

from cgan import splitting
from cgan.errors import CganError, DataError
from cgan.files import read_json
from cgan.images import Images, load_images
from cgan.params.sections import DataParams, ValidateParams
from cgan.pipeline.params_file import load_params
from cgan.pipeline.whole_data import whole_data
from cgan.project import CSV, HOLDOUT_DATA, PICTURES, TEST_DATA, TRAIN_DATA, VALIDATION
from cgan.readers import csv_report, pictures
from cgan.readers.sources import fetch, read_source
from cgan.stages import download, preprocess, validate

Files = dict[str, Any]  # name → bytes; a link's target; None: a folder


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
        if content is None:
            path.mkdir()
        elif isinstance(content, str):
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
TABLE = b"path,label\n" + b"".join(f"{name},{name[:3]}\n".encode() for name in GOOD)
FRACTIONS = np.full((10, 10), 0.5, np.float32)
ANIMATED = picture(1, kind="GIF", save_all=True, append_images=[Image.new("L", (10, 10), 9)])
BLANK_ALPHA = picture((9, 9, 9, 0))

# Beside GOOD unless alone, in a folder or a .zip → what is said: "refused" first, or else one warning.
FOLDERS: dict[str, tuple[Files, str]] = {
    "hidden": ({"cat/.x.png": picture()}, r"Left out: 1\. Hidden: cat/\.x\.png\.$"),
    "a hidden folder": ({".thumbs/0.png": picture()}, r"Left out: 1\. Hidden: \.thumbs\.$"),
    "of a Mac": ({"__MACOSX/cat/0.png": b""}, r".*A system file: __MACOSX\."),
    "of a Mac, in a zip": ({"__MACOSX/0.png": b""}, r".* system file: __MACOSX/0.png\."),
    "not UTF-8": ({os.fsdecode(b"cat/\xfc.png"): b""}, r"refused: own: .* 1: cat/\\udcfc.* Rename"),
    "no picture": ({"cat/notes.txt": b"x"}, r"Left out: 1\. No PNG, JPEG.*TIFF: cat/notes\.txt"),
    "no class": ({"x.png": picture()}, r"Left out: 1\. Not in a class's folder: x\.png"),
    "around, alone": (
        {f"own/{name}": content for name, content in GOOD.items()} | {"x.txt": b"x"},
        r"Left out: 1\. No PNG, .*: x\.txt\.",
    ),
    "a table": ({"x.csv": b"a,b\n" + b"1,2\n" * 99}, r"Left out: 1\. No PNG, .*: x\.csv\."),
    "a dangling link": ({"cat/x.png": "nowhere"}, r".*A dangling link: cat/x\.png"),
    "a loop of links": ({"cat/up": ".."}, ".*A link to something that is read already: cat/up"),
    "an empty class": ({"dog": None}, r"Left out: 1\. An empty folder: dog\.$"),
    "an empty class in a zip": ({"dog/": b""}, r"Left out: 1\. An empty folder: dog/\.$"),
    "a class of notes": ({"dog/x.txt": b""}, ".*1.*x.txt.\nFolders that become no class: dog.*PNG"),
    "seven of them": ({f"cat/{n}.txt": b"" for n in range(7)}, "Left out: 7.* and 2 more"),
    "second frames": ({"cat/x.gif": ANIMATED}, r"Several frames: 1 of 5 .*: cat/x\.gif"),
    "transparent": ({"cat/x.png": BLANK_ALPHA}, r"Transparent: 1 .*white: cat/x\.png"),
    "one in colour": (
        {f"cat/{n}.jpg": picture(5) for n in range(9)} | {"cat/red.png": picture((9, 0, 0))},
        r"Colour: 1 of 14 .*cat/red\.png",
    ),
    "not in the table": ({"x.csv": TABLE, "cat/x.png": picture()}, ".*1. Not in x.csv: cat/x.png"),
    "a column": ({"x.csv": TABLE.replace(b"l\n", b"l,y\n")}, r".*A column .*without a use: y\.$"),
    "damaged": (
        {f"cat/{n}.png": b"<html>" for n in range(7)} | {"cat/cut.jpg": noise(1)[:90]},
        r"refused: own: 8 of 10 pictures cannot be read:(\n  - cat/.*){5}",
    ),
    "another size": (
        {"cat/wide.png": picture(size=(30, 20))},
        r"refused: .* 30 × 20 \(cat/wide.*one size.*`data\.height: 32` and `data\.width: 32`.*pad`",
    ),
    "too large": ({"cat/0.png": picture(size=(400, 300))}, r"refused: .*sides of 8 to 256"),
    "photographs, alone": (
        {"a/0.png": picture(size=(400, 533))},
        r"refused: .*: 32` and .*: 24`, or, to see more, 64 and 48, .* to cut off nothing\.$",
    ),
    "too small, alone": ({"a/0.png": picture(size=(60, 7))}, "refused: .*60 × 7 .*of 8 to 256"),
    "classes in a class": ({"a/b/0.png": picture()}, r"Folders in folders: 1 of 5 .*: a/b/0\.png"),
    "a bomb": ({"cat/0.png": picture(size=(12_000, 9000))}, "refused: .*0.png: .*sion bomb"),
    "claims gigabytes": ({"cat/x.png": bytes(10_000)}, r"refused: .*1 of 5 .*x\.png: larger"),
    "claims gigabytes in a zip": ({"cat/x.png": bytes(10_000)}, r"refused: .*x\.png: larger"),
    "a comma in a name": ({"a,b/0.png": picture()}, "refused: own: .*named 'a,b'; .*no comma"),
    "a long name": ({"x" * 61 + "/0.png": picture()}, r"refused: .*named 'x+'; .*60 characters"),
    "values beyond all scales": (
        {"cat/0.tif": picture(FRACTIONS * -9, kind="TIFF")},
        r"refused: .*cat/0\.tif: values from -4\.5",
    ),
    "two scales": (
        {f"cat/{n}.tif": picture(FRACTIONS * (1 + n), kind="TIFF") for n in (0, 99)},
        r"refused: .*differ in scale \(0–1: cat/0\.tif, 0–255: cat/99\.tif\)",
    ),
    "NaN": ({"cat/0.tif": picture(FRACTIONS * np.nan, kind="TIFF")}, "refused: .*from nan to nan"),
    "a table of what is not there": (
        {"x.csv": TABLE + b"cat/9.png,cat\n../x.png,cat\n"},
        r"refused: .*x\.csv: .*2 of 6 lines.*:\n  - line 6, `cat/9\.png,cat`: .*no such.*\n.*line 7",
    ),
    "two tables": ({"a.csv": TABLE, "b.csv": TABLE}, r"refused: .*found a\.csv, b\.csv .*split"),
    "a table without paths": (
        {"labels.csv": b"Image;Label\ncat/0.png;a\n"},
        r"refused: own: .*path and label.*found labels\.csv \(image, label\)\. Correct its first",
    ),
    "groups without labels": (
        {"x.csv": b"path,group\ncat/0.png,1\n"},
        r"refused: .*x\.csv \(path, group\)",
    ),
    "a second table": (
        {"x.csv": TABLE, "y.csv": b"id|group\n"},
        r"refused: .*x\.csv, y\.csv \(id, g",
    ),
    "a table too deep": (
        {"cat/x.csv": TABLE},
        r"refused: .*found cat/x\.csv \(path, label\).*place",
    ),
    "a table in a zip": ({"x.CSV": b"label\tpath\n"}, r"refused: .*x\.CSV: .* 0 of 0 lines"),
    "a table in UTF-16": (
        {"x.csv": TABLE.decode().encode("utf-16")},
        "refused: .*save it again as",
    ),
    "a column twice": ({"x.csv": b"path,label,Path"}, "refused: .*two columns have one name"),
    "a path twice": ({"x.csv": TABLE + b"cat/0.png,app\n"}, "refused: .*listed a second time"),
    "no label": ({"x.csv": TABLE.replace(b",cat", b",")}, "refused: .*no label"),
    "a short line": ({"x.csv": TABLE.replace(b",cat", b"")}, "refused: .*no label"),
    "another split": (
        {"x.csv": TABLE.replace(b"label\n", b"label,split\n").replace(b"cat\n", b"cat,best\n")},
        r"refused: .*cat/0\.png,cat,best`: its split",
    ),
    "a table of nothing": ({"x.csv": b"path,label\n"}, "refused: .*x.csv: .* 0 of 0 lines.* none"),
    "a long line": ({"x.csv": TABLE + b"\na,b,c\n"}, "refused: .*line 7, `a,b,c`: 3.*, expected 2"),
    "an open quote": ({"x.csv": TABLE + b'"a'}, "refused: .*expected a CSV of `path,label`; it"),
    "no folders, alone": ({"0.png": picture()}, r"refused: .*PNG.*neither\."),
    "nothing, alone": ({"cat": None}, r"refused: own: expected one \.csv"),
    "to test on, alone": (
        {"train/cat/0.png": picture(), "test/dog/0.png": picture()},
        r"refused: .*to train on; of dog",
    ),
    "up, in a zip": ({"../cat/0.png": picture()}, "refused: .*points outside"),
    "absolute, in a zip": ({"/etc/0.png": picture()}, "refused: .*points outside"),
    "of Windows, in a zip": ({"C:\\0.png": picture()}, "refused: .*points outside"),
    "a link in a zip": ({"cat/x.png": "/etc/passwd"}, "refused: .*x.png' is a link"),
}


@pytest.mark.parametrize("name", FOLDERS)
def test_f27_f28_f99_f100_what_is_wrong_with_a_folder_is_said_by_name_with_the_reason(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    files, words = FOLDERS[name]
    files = files if "alone" in name else GOOD | files
    if packed := name.endswith("in a zip"):
        Path("own.zip").write_bytes(zip_of(files))
    else:
        write(files)
    if "gigabytes" in name:
        monkeypatch.setattr(pictures, "MAX_BYTES", 9_000)
    try:
        found = opened("own.zip" if packed else "own")
    except CganError as error:
        messages = [f"refused: {error}"]
    else:
        messages = [*found.notes]
        assert len(found.labels) >= 4
    assert len(messages) == 1 + (name == "a class of notes"), messages
    assert re.match(words, "\n".join(messages), re.DOTALL), messages
    assert not list(Path().rglob("*.safetensors"))


def test_f28_more_pixels_than_the_limit_are_refused() -> None:
    write(GOOD)
    with pytest.raises(CganError, match=r"0 MB.*`data\.height`"):
        opened(max_megabytes=0)


@pytest.mark.parametrize("packed", [False, True])
def test_pictures_are_arrays_with_their_names_in_whatever_folder_around(packed: bool) -> None:
    write(
        GOOD | {"cat/deep/er/2.jfif": picture(12, kind="JPEG"), "cat/no_suffix": picture(13)}, "a/b"
    )
    write({"cat/link.png": str(Path("a/b/cat/0.png").resolve())} if not packed else {}, "a/b")
    if packed:
        shutil.make_archive("a", "zip", ".", "a")
    found = opened("a.zip" if packed else "a")
    values = found.pixels[:, 0, 5, 5].tolist()
    assert found.class_names == ["apple", "cat"] and "2.jfif. If" in "".join(found.notes)
    assert sorted(zip(found.labels.tolist(), values, strict=True)) == [
        (0, 20), (0, 21), (1, 10), *([(1, 10)] * (not packed)), (1, 11), (1, 12), (1, 13)
    ]  # fmt: skip
    assert found.files[0].endswith("b/apple/0.png") and found.pixels.shape[1:] == (1, 10, 10)


def test_what_a_folder_means_is_the_table_of_pixels_or_of_paths_in_it_before_its_pictures() -> None:
    write(GOOD | {"README.md": b"ours"}, "inbox")
    assert opened("inbox").notes == ()
    write(GOOD | {"loose.png": picture(), "sizes.csv": b"name,size\na,1\n"})
    assert len(opened().labels) == 4
    Path("own/sizes.csv").unlink()
    write({"train.csv": "\n".join(csv_lines(*make_images())).encode()})
    assert len(opened().labels) == 36
    Path("own/train.csv").unlink()
    by_r = b'"","Path","label"\n"1","./cat/0.png","a"\n"2","loose.png","b"\n'
    write({"labels.csv": by_r, "far/away.png": picture()})
    found = opened()
    assert found.class_names == ["a", "b"]
    assert re.match(r"Left out: 2\. Not .*: cat/1\.png\. A column .*: no name\.$", *found.notes)
    assert "DVC" not in "".join(opened("own/labels.csv").notes), "a caller in Python has none"
    fetch(DataParams(source="file", path="own/labels.csv"), Path("a.csv"), Path("a.safetensors"))
    assert load_images("a.safetensors").notes[-1].startswith("Not watched")


def test_numbers_stand_in_their_order_and_names_may_begin_with_underscores() -> None:
    write({f"{n}/a.png": picture(n) for n in range(11)}, "digits")
    found = opened("digits")
    assert not found.is_named and found.pixels[:, 0, 0, 0].tolist() == [*range(11)]
    assert np.array_equal(found.labels, np.arange(11))
    write({f"{name}/0.PGM": picture(kind="PPM") for name in ("__a", "b")}, "names")
    assert opened("names").class_names == ["__a", "b"]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (picture(np.full((10, 10), 0x8000, np.uint16)), 128),
        (picture(np.full((10, 10), 0x8000, np.uint16), kind="TIFF"), 128),
        (picture(FRACTIONS, kind="TIFF"), 128),
        (picture(FRACTIONS * 200, kind="TIFF"), 100),
        (palette(50, 50, 50), 50),
        (picture((40, 40, 40)), 40),
        (picture((0, 0, 0, 0)), 255),
        (picture((0, 0, 0, 128)), 127),
        (picture((200, 100, 50)), [200, 100, 50]),
        (palette(9, 8, 7), [9, 8, 7]),
        (picture((200, 100, 50, 255)), [200, 100, 50]),
    ],
)
def test_each_kind_of_picture_has_its_values(content: bytes, expected: Any) -> None:
    write({"a/0.png": content, "b/0.png": picture(3)})
    assert opened().pixels[0, :, 5, 5].tolist() == np.atleast_1d(expected).tolist()


def test_other_shapes_are_cropped_padded_or_stretched_and_what_is_lost_is_said() -> None:
    ramp = np.tile(np.linspace(0, 255, 40).astype(np.uint8), (10, 1))
    write({f"{name}/0.png": picture(ramp) for name in "ab"})
    how = {"height": 10, "width": 10}
    cropped, padded, stretched = (opened(**how, fit=fit) for fit in ("crop", "pad", "stretch"))
    rows = [found.pixels[0, 0, 5].astype(int) for found in (cropped, padded, stretched)]
    assert 90 < rows[0][0] < rows[0][-1] < 165 and rows[2][0] < 20 < 230 < rows[2][-1]
    assert np.ptp(padded.pixels[0, 0, 5]) > 200 and np.ptp(padded.pixels[0, 0, 0]) == 0
    bright = np.zeros((3, 10), np.uint8)  # at its edges, more than half: so is what is added
    bright[0, 5:] = bright[2] = bright[1, 9] = 200
    write({"a/0.png": picture(bright), "b/0.png": picture(bright)})
    assert (opened(**how, fit="pad").pixels[:, 0, [0, 9]] == 200).all()
    (warning,) = cropped.notes
    assert re.search(
        r"fit 10 × 10.*a 75 % \(at most 75 %; over.*1 of 1\), b 75 %.*`data\.fit: pad`", warning
    )
    assert padded.notes == stretched.notes == ()
    assert "fit 9 × 8, " in opened(height=8, width=9).notes[0]


def test_how_many_pictures_of_a_class_lose_much_is_said_the_worst_class_first() -> None:
    wide, square, tall = ((w, h) for w, h in ((20, 10), (10, 10), (9, 10)))
    write({f"all/{n}.png": picture(n, tall) for n in range(4)})
    write({f"some/{n}.png": picture(n, wide if n < 2 else square) for n in range(7)})
    (warning,) = opened(height=10, width=10).notes
    assert "some 0 % (at most 50 %; over a quarter in 2 of 7), all 10 % (at most 10 %). " in warning


def test_photographs_stand_upright() -> None:
    upright, exif = np.zeros((12, 9), np.uint8), Image.Exif()
    upright[:3, :3], upright[:3, -3:], exif[0x0112] = 250, 120, 6  # no two corners are alike
    photo = picture(np.ascontiguousarray(np.rot90(upright)), exif=exif)
    write({"a/0.png": photo, "b/0.png": photo})
    assert (opened().pixels == upright).all()


# --- through the stages -------------------------------------------------------------------------


def run(how: dict[str, Any] | None = None, **validated: Any) -> dict[str, Any]:
    """The stages from `own` to the datasets, `how` for preprocess → the validation report."""
    Path("params.yaml").unlink(missing_ok=True)
    data, validated = {"source": "file", "path": "own"}, {"min_per_class": 2} | validated
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


def test_torchvisions_layout_is_kept_and_equal_images_are_left_out(
    caplog: pytest.LogCaptureFixture,
) -> None:
    names = [(part, label) for part in ("train", "val", "Testing") for label in ("cat", "dog")]
    write(
        {f"{p}/{c}/{n}.png": noise(10 * i + n) for i, (p, c) in enumerate(names) for n in range(4)}
    )
    known = Path("own/train/dog/0.png").read_bytes()
    write({"Testing/dog/known.png": known, "boxes/0.xml": b"<"})
    report = run()
    assert sizes() == [8, 8, 8] and report["rows"] == 16
    assert report["splits"] == {"train": 8, "val": 8, "test": 9}
    assert re.search(r"Left out of test: 1 \(.*dog/known\.png\)\. Train has a copy", caplog.text)
    test = load_images(TEST_DATA)
    assert test.class_names == ["cat", "dog"] and test.labels.tolist() == [0] * 4 + [1] * 4
    shutil.rmtree("own/val")
    run()
    assert sizes() == [6, 2, 9], "its copy is held out"
    for name in ("cat", "dog"):  # without the folder train
        Path("own/train", name).rename(Path("own", name))
    Path("own/train").rmdir()
    run()
    assert sizes() == [6, 2, 9]
    write({"val/cat/0.png": noise(5)})
    with pytest.raises(DataError, match="val has no image of class dog"):
        run()


def test_a_folder_with_test_or_val_alone_is_read_and_refused_for_training() -> None:
    write({f"test/{c}/{n}.png": noise(9 * (c == "b") + n) for c in "ab" for n in range(8)})
    found = opened()
    assert found.class_names == ["a", "b"] and found.splits is not None
    assert found.splits.tolist() == [2] * 16, "as `cgan evidence --test` may be given them"
    with pytest.raises(DataError, match=r"val or test.*train/"):
        run()
    write({f"valid/{c}/{n}.png": noise(99 + n) for c in "ab" for n in range(8)})
    assert opened().class_names == ["a", "b"]
    with pytest.raises(DataError, match="all images are in val or test"):
        run()
    assert opened("own/test").splits is None


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_a_table_beside_pictures_names_classes_groups_and_splits(separator: str) -> None:
    rows = [(f"{n}.png", "ab"[n % 2], n // 4, "TEST" if n > 15 else "Training") for n in range(24)]
    rows += [(f"{n}.png", "ab"[n % 2], "", "train") for n in (24, 25)]  # each of its own
    write({name: noise(n) for n, (name, *_) in enumerate(rows)})
    rows.insert(0, ("Path", "Label", "Group", "split"))  # as a person writes it
    lines = "".join(f"{separator.join(map(str, row))}\r\n" for row in rows)
    name = "labels.tsv" if separator == "\t" else "labels.csv"
    write({name: lines.encode("utf-8-sig")})
    report = run()
    assert report["groups"] == 6 and "In 6 groups, the largest of 4" in csv_report.summary(report)
    assert sizes()[2] == 8 and not CSV.exists()
    assert sorted(Counter(groups()).values()) == [1, 1, 4, 4, 4, 4]


def test_f101_images_of_a_group_stay_on_one_side_and_without_it_near_copies_are_named(
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
    assert re.match(r"Near copies: 12 of 12 .*tile\d+-\d\.png like .*`preprocess\.group`", note)
    assert note in caplog.text
    caplog.clear()
    run({"group": "tile(\\d+)"})
    assert len({*groups()}) == 40 and sizes() == [108, 12, 0] and "Near" not in caplog.text
    run({"group": "auto"})
    assert "Groups: 40 of 120 images, the largest of 3" in caplog.text and "Near" not in caplog.text
    for pattern, words in (("shot", "such as own/"), ("tile", "make smaller"), ("(", "lar exp")):
        with pytest.raises(CganError, match=words):
            run({"group": pattern})


def test_pictures_take_the_place_of_a_csv_and_the_names_are_those_of_the_folders() -> None:
    CSV.parent.mkdir(parents=True)
    CSV.touch()
    write({f"{label}/{n}.png": noise(n + 9 * (label == "b")) for label in "ab" for n in range(4)})
    report = run({"holdout_fraction": 0.25}, class_names=["b", "a"])
    assert PICTURES.is_file() and not CSV.exists()
    named = load_images(TRAIN_DATA).class_names
    assert named == ["a", "b"], "in the order of the folders"
    assert report["shape"] == {"channels": 1, "height": 10, "width": 10}
    assert (
        "names`: a is x. " in run({"holdout_fraction": 0.25}, class_names=["x", "b"])["warnings"][0]
    )
    write({"b/again.png": Path("own/a/0.png").read_bytes()})
    messages = "\n".join(run({"holdout_fraction": 0.25})["warnings"])
    assert "Duplicates: 1 (own/b/again.png is own/a/0.png)" in messages
    assert "are of another class (own/b/again.png is own/a/0.png)" in messages
    with pytest.raises(DataError, match=r"`validate\.classes` is 3, the pictures have 2"):
        run(classes=3)
    assert load_params().validation.classes == 3
    write({"b/x.heic": b""})
    with pytest.raises(DataError, match=r"b has 5.*`validate\.min_per_.*\n.*b/x\.heic") as caught:
        run(min_per_class=9)
    assert "validate.classes" not in str(caught.value)
