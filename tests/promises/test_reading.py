"""Promises 1 to 4 and 8, by commands and the public API: what becomes images, what is refused in which words,
and that nothing of it harms the machine."""

import gzip
import io
import os
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import (
    GROUP_IN_NAME,
    HEIGHT,
    NAMES,
    ROOT,
    WIDTH,
    csv_lines,
    many,
    plain,
    uneven,
    write_csv,
    write_folder,
    write_params,
    zip_of,
)
from numpy.typing import NDArray
from PIL import Image

import cgan
from cgan.base.errors import CganError

Files = dict[str, Any]  # a name → bytes, the target of a link, or what puts something at this path
Case = tuple[str, Files, str]  # the path to validate, what stands there, what is said

# --- A CSV --------------------------------------------------------------------------------------

HEADER, *ROWS = csv_lines(plain(uneven(counts=[12, 12, 12], width=HEIGHT)))
ROWS.sort(key=lambda row: row[0] != "2")  # class 2 begins
GOOD = "\n".join([HEADER, *ROWS, ""])


def field(row: int, column: int, text: str) -> str:
    """The good CSV with one value changed; rows count from 1, column 0 is the label."""
    fields = ROWS[row - 1].split(",")
    fields[column] = text
    return GOOD.replace(ROWS[row - 1], ",".join(fields))


def csv(content: str | bytes, words: str, **validate: Any) -> Case:
    """With these params of `validate`."""
    files: Files = {"train.csv": content if isinstance(content, bytes) else content.encode()}
    return "train.csv", files | params(validate=validate), rf"train\.csv: {words}"


def params(**sections: dict[str, Any]) -> Files:
    """The params of a project, with changes."""
    return {"params.yaml": lambda path: write_params(path.parent, **sections)}


NO_VALUES = ("256", "-1", "nan", "x", "", "1 0", '"1', '"', "3\x1f", "3\r", "9" * 23)
PLACE = r"\n  - row 17 \(line 18\), column pixel12: expected a whole number from 0 to 255, found '"
CSVS: list[Case] = [
    csv(
        GOOD.replace("label", "digit"),
        "expected a header such as `label,.* Put the column `label` first",
    ),
    csv(
        re.sub(",[^,]*$", "", GOOD, flags=re.M),
        r"expected channels.* = 1 × a square .* found 63\. .*`validate\.height`",
    ),
    csv(GOOD.replace("l2,pixel3", "l3,pixel2"), "column 5: .* than `pixel3`, found `pixel2`. Put"),
    *(csv(field(17, 13, text), rf"{PLACE}.*\nFix or remove these rows") for text in NO_VALUES),
    csv(field(17, 0, "0,0"), r"\n  - row 17 \(line 18\): expected 65 values, found 66"),
    csv(
        GOOD.replace("\n2", "\n7"),
        r"\n  - row 1 \(line 2\), column label: .* from 0 to 2, found '7'(\n  - row.*){4}\nFix"
        r".*numpy\.unique",
        classes=3,
    ),
    csv(GOOD.replace("\n2", "\n\x1b[2J1"), r"\n  - row 1 .*found '\\x1b\[2J1'"),
    csv(GOOD, r"expected 13 images.*found 12 of each of 3 classes\. Add", min_per_class=13),
    csv(GOOD, r"no image of class 3; 3 classes are found: 0, 1, 2\. Add", classes=4),
    csv(GOOD.replace("\n2", "\n5"), "no image of class 2, 3, 4; .*numpy.unique"),
    csv(GOOD, r"\n  - row 1 .* from 0 to 1, found '2'.*`class_names`", class_names=["a", "b"]),
    csv(GOOD.encode("utf-16"), "expected a CSV in UTF-8.* save it as “CSV UTF-8”"),
    csv(b"\x89PNG\r\n\x1a\n" + bytes(100), "expected a CSV.* binary"),
    csv(b"label" + b",a0" * 1_000_000 + b"\n", ".*found 1,000,000"),
    csv(GOOD.replace("\n2", "\n" + " " * 5_000_000 + "2"), r"row 1 \(line 2\): .*found more"),
    csv("<!DOCTYPE html><html>log in</html>", ".* begins with `<!DOCTYPE html>"),
    csv("", "expected a CSV.* blank"),
    csv(HEADER, r"0 rows after the header\. Download"),
]

# --- Archives, and what is no file --------------------------------------------------------------

PLAIN = GOOD.encode()
ZIP, GZIP = zip_of({"train.csv": PLAIN}), gzip.compress(PLAIN, mtime=0)


LOCKED = bytearray(ZIP)
LOCKED[6] = LOCKED[ZIP.rindex(b"PK\x01\x02") + 8] = 1  # its member's flags
OUTSIDE = ("../train.csv", "/etc/train.csv", "C:\\train.csv", "..\\train.csv")
ARCHIVES: list[Case] = [
    (name, {name: content}, rf"{re.escape(name)}( \(unpacked\))?: {words}")
    for name, content, words in (
        ("start.zip", ZIP[: len(ZIP) // 3], "a damaged .zip archive.* Download it again"),
        ("byte.zip", ZIP[:200] + b"x" + ZIP[201:], "a damaged"),
        ("locked.zip", bytes(LOCKED), "a damaged .*is encrypted"),
        ("half.gz", GZIP[: len(GZIP) // 2], "a damaged .gz"),
        ("twice.gz", gzip.compress(GZIP, mtime=0), "expected a CSV"),
        *(
            ("out.zip", zip_of({"train.csv": PLAIN, name: b"x"}), "member .* points outside")
            for name in OUTSIDE
        ),
        ("link.zip", zip_of({"train.csv": "/etc/passwd"}), "member 'train.csv' is a link"),
        ("two.zip", zip_of({"a/train.csv": b"", "b/train.csv": b""}), ".*found a/train.csv, b/t"),
        ("terminal.zip", zip_of({"\x1b[2J\n\n.csv": PLAIN}), ".*found"),
    )
]


def huge(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(10**12)


NEITHER = "x does not exist, or is neither a file nor a folder"
STRANGE: list[Case] = [
    *(("x", {"x": made}, NEITHER) for made in (os.mkfifo, "x", "/dev/zero")),  # "x": a loop
    ("x", {"x": huge}, "x: expected a CSV"),
]

# --- Pictures -----------------------------------------------------------------------------------


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


def noise(seed: int) -> bytes:
    return picture(np.random.default_rng(seed).integers(0, 255, (10, 10), np.uint8))


ALBUM = {f"{'ab'[n % 2]}/{n}.png": noise(n) for n in range(24)}
ANIMATED = picture(1, kind="GIF", save_all=True, append_images=[Image.new("L", (10, 10), 9)])


def album(files: Files, words: str, packed: bool = False) -> Case:
    """With those of ALBUM beside it."""
    if packed:
        return "own.zip", {"own.zip": zip_of(ALBUM | files)}, words
    return "own", below("own", ALBUM | files), words


def below(folder: str, files: Files) -> Files:
    return {f"{folder}/{name}": content for name, content in files.items()}


FOLDERS: list[Case] = [
    album(
        {f"a/{n}.png": b"<html>" for n in range(7)} | {"a/cut.jpg": noise(1)[:90]},
        r"own: 8 of 28 pictures cannot be read:(\n  - a/[\dcut]+\.\w+: .*){5}\nRemove or replace",
    ),
    album({"a/0.png": picture(np.full((10, 10), 999, np.uint16))}, r"a/0\.png: 16 bits.* 8 bit"),
    album({"a/0.pgm": b"P5 12000 9000 255\n"}, r"a/0\.pgm: .*sion bomb"),
    album({"a,b/0.png": picture()}, "own: classes are named 'a,b'; .*no comma.*Rename"),
    ("own", {"own/0.png": picture()}, r"own: expected one \.csv.*; found neither\. Put"),
    album({"../a/0.png": picture()}, "points outside", packed=True),
    album({"a/x.png": "/etc/passwd"}, "'a/x.png' is a link", packed=True),
]
HEAD = "path,label,group,split\n"
LISTINGS: list[Case] = [
    ("own/list.csv", below("own", {**ALBUM, "list.csv": content.encode()}), rf"list\.csv:{words}")
    for content, words in (
        (HEAD, r" 0 rows\."),
        (HEAD + "a/9.png,a,,train\n", r"\n  - row 1: expected a picture .*`a/9\.png`\nGive"),
        (HEAD + "a/0.png,a,,train\n" * 2, "\n  - row 2: expected a picture that is there once"),
        (HEAD + "a/0.png,,,train\n", "\n  - row 1: expected a label, and"),
        (HEAD + "a/0.png,a,,best\n", "\n  - row 1: .*found `a/0.png,a,,best`"),
        (HEAD + 'a/0.png,"a\n', " expected a CSV of `path,label`; "),
    )
]

# --- params.yaml --------------------------------------------------------------------------------

TEXT = (ROOT / "params.yaml").read_text()


def written(key: str, value: str) -> str:
    """params.yaml with another value at the first key of this name, character by character."""
    return re.sub(rf"(?m)^  {key}: .*", f"  {key}: {value}", TEXT, count=1)


TWO = "2 problems:\n  - `train.latent_dim`: .* greater than 0, found 0.\n  - `train.lr`: "
PARAMS: list[Case] = [
    ("train.csv", {"train.csv": PLAIN, "params.yaml": text.encode()}, rf"params\.yaml{words}")
    for text, words in (
        (written("lr", "1\n  laten_dim: 1"), ": unknown key `train.laten_dim`.*`train.latent_dim`"),
        (written("generator", "deconf"), ": `train.generator`: 'deconf' is none of .* deconv, "),
        (written("latent_dim", "0").replace("\n  lr: 0", "\n  lr: -0"), f": {TWO}"),
        (written("lr", '!!python/object/apply:os.mkdir ["ran"]'), r", line \d+.*not valid YAML"),
        ("# nothing yet\n", ": expected sections with keys, found None"),
        (f"<<<<<<< HEAD\n{TEXT}=======\n{TEXT}>>>>>>> x\n", ", line 6, column 1: not valid YAML"),
        (TEXT + '"\\e[2J": 1\n', r": unknown key `\\x1b\[2J`; remove it"),
        (TEXT + "train.lr: 3\n", ": .*write `lr` under `train:`"),
        (TEXT + TEXT[TEXT.index("\ntracking:") :], '.* found duplicate key "tracking"'),
    )
]

# --- What is accepted ---------------------------------------------------------------------------

BY_PLACE = ",".join(["label", *(f"{y}x{x}" for y in range(1, 9) for x in range(1, 9))])
FORMS: list[Case] = [
    (
        name.partition("/")[0],
        {name: content},
        "is valid: 36 images of 8 × 8 pixels, 3 classes of 12 images",
    )
    for name, content in (
        ("as it is.csv", PLAIN),
        ("1x1.csv", GOOD.replace(HEADER, BY_PLACE).encode()),
        ("byte order mark.csv", b"\xef\xbb\xbf" + PLAIN),
        ("Windows.csv", GOOD.replace("\n", "\r\n").encode()),
        ("digits.csv.gz", GZIP),
        ("top.zip", zip_of({"train.csv": PLAIN, "test.csv": b"x", "old/train.csv": b"x"})),
        ("inside.zip", zip_of({"digits/train.csv": PLAIN, "__MACOSX/._train.csv": b"x"})),
        ("no suffix", ZIP),
        ("inbox/mine.csv", PLAIN),
    )
]
PARTS = [*["val"] * 5, "train", "val", *["train"] * 13, *["test"] * 4]
LISTING = HEAD + "".join(f"{n},{n[0]},,{PARTS[int(n[2:-4])]}\n" for n in ALBUM)
FORMS += [  # and what will become of it
    (name, files | params(data=data, preprocess={"holdout_fraction": 0.25}), words)
    for name, files, data, words in (
        (
            "c.csv",
            {"c.csv": PLAIN},
            {},
            r"Held out: 3 of each .*Fewer than 20 are held out of \d, \d.* is \*doubtful\*.*"
            "Next: set .*source.*path: c.csv` in",
        ),
        ("data/inbox", {"data/inbox/c.csv": PLAIN}, {}, "Next: set `data.source: file` in params"),
        ("c", {"c/c.csv": PLAIN}, {"source": "file", "path": "c"}, "Next: `dvc repro`; it makes"),
        (
            "own/list.csv",
            below("own", {**ALBUM, "list.csv": LISTING.encode()}),
            {},
            "To train on: 6 of a, 8 of b.\nHeld out: 4 of a, 2 of b.\nTo test on: 2 of each",
        ),
    )
]
TWICE = [*ROWS, ROWS[0], "0" + ROWS[1][1:], "1" + ",7" * 64, "1" + ",9" * 64, ""]
ODD: list[Case] = [
    (
        "odd.csv",
        {"odd.csv": "\n".join([HEADER, *TWICE]).encode()},
        r"40 images of 8 × 8 pixels, 3 classes of 13 to 14 .*Few images: 13 of 0, 13 of 2, 14 of 1\. "
        r".*Duplicates: 5 \(line \d+ is.*Conflicting labels: 1 \(line 39 is line 3\).*"
        r"Constant images: 2 \(line 40, line 41\)\.",
    ),
    album(
        {"a/.x.png": b"", "a/x.txt": b"", "x.png": picture(), "a/up": "..", "a/y": b""},
        r"Left out: 4, .*: a/\.x\.png, a/x\.txt, a/y, x\.png\.\n",
    ),
    album({"__MACOSX/a/0.png": b""}, r"Left out: 1, .*: __MACOSX/a/0\.png\.", packed=True),
    album({"a/x.gif": ANIMATED}, r"Several frames: 1, .*: a/x\.gif"),
    album(
        {"a/wide.png": picture(size=(30, 20)), "b/4.png": picture(size=(12, 15))},
        r"26 images of 10 × 10 pixels.*Sizes: 10 × 10 \(a/0\.png\), 30 × 20 \(a/wide\.png\), 12 × 15 .*"
        r"`data\.height: 10` and `data\.width: 10` to keep.*over a quarter in 1 of 26 .* in class a\. `data"
        r"\.fit: pad`",
    ),
    (
        "own",
        {f"own/{'ab'[n % 2]}/{n}.png": picture(n, size=(400, 533)) for n in range(20)},
        r"20 images of 48 × 64 .*Sizes: 400 × 533 \(a/0\.png\)\. All",
    ),
    album({"a/red.png": picture((9, 0, 0))}, r"Colour: 1, .*: a/red\.png"),
    album(
        {"b/again.png": ALBUM["a/0.png"]},
        r"Duplicates: 1 \(own/b/again\.png is own/a/0\.png\)\. "
        r".*Conflicting labels: 1 \(own/b/again\.png is own/a/0\.png\)\. ",
    ),
]


def put(folder: Path, files: Files) -> None:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            path.write_bytes(content)
        elif isinstance(content, str):
            path.symlink_to(content)
        else:
            content(path)


def states(folder: Path) -> dict[Path, tuple[int, int]]:
    """When each file or folder was changed last, and its size."""
    found = {path: path.lstat() for path in folder.rglob("*")}
    return {path: (stat.st_mtime_ns, stat.st_size) for path, stat in found.items()}


def validated(folder: Path, cases: list[Case]) -> list[tuple[int, str]]:
    """Exit code and words of `cgan validate`, for each; it must change nothing."""
    folders = [folder / str(number) for number in range(len(cases))]
    for each, (_, files, _) in zip(folders, cases, strict=True):
        put(each, files)
    before = states(folder)
    said = many([(f, ["validate", path]) for f, (path, *_) in zip(folders, cases, strict=True)])
    assert states(folder) == before
    return said


@pytest.mark.parametrize(
    "cases",
    [CSVS, ARCHIVES, STRANGE, FOLDERS, LISTINGS, PARAMS],
    ids=["csv", "archives", "no_files", "folders", "listings", "params"],
)
def test_what_cannot_be_used_is_refused_with_place_and_advice(
    cases: list[Case], tmp_path: Path
) -> None:
    for (_, _, words), (code, said) in zip(cases, validated(tmp_path, cases), strict=True):
        expected = rf"(Reading [^\n]*\n)?Error: .*{words}"
        assert code == 1 and re.match(expected, said, re.DOTALL), f"{words}\n{said}"
        assert "Traceback" not in said and "\n\n" not in said and len(said) < 4000
        assert all(sign.isprintable() or sign == "\n" for sign in said)


@pytest.mark.parametrize("cases", [FORMS, ODD], ids=["forms", "odd"])
def test_what_is_odd_is_counted_and_its_first_are_named(cases: list[Case], tmp_path: Path) -> None:
    for (_, _, words), (code, said) in zip(cases, validated(tmp_path, cases), strict=True):
        assert code == 0 and re.search(words, said, re.DOTALL), f"{words}\n{said}"


# --- The public API -----------------------------------------------------------------------------

SIDES: dict[str, Any] = {"height": HEIGHT, "width": WIDTH}
COLOUR = uneven(channels=3)
PIXELS, LABELS = COLOUR.pixels, COLOUR.labels


def with_nan(values: NDArray[Any]) -> NDArray[np.float64]:
    """Those of image 7."""
    return np.where(np.arange(56).reshape(-1, *[1] * (values.ndim - 1)) == 7, np.nan, values)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"pixels": PIXELS / 255}, r"found float64 from 0 to 1\. .*`\(pixels \* 255\)\.round"),
        ({"pixels": PIXELS / 127.5 - 1}, r"from -1 to 1\. .*`\(\(pixels \+ 1\) \* 127\.5\)"),
        ({"pixels": PIXELS * 1.0}, r"found float64 from 0 to 255\. .*`pixels\.round"),
        ({"pixels": PIXELS.astype(int) * 257}, "found int64 from 0 to 65535. Scale them"),
        ({"pixels": PIXELS // 255}, "found none above 1"),
        ({"pixels": with_nan(PIXELS)}, "pixels: .* 288 of 16,128 to be NaN or None, in image 7 "),
        ({"pixels": PIXELS[:0], "labels": []}, "found none"),
        ({"labels": with_nan(LABELS)}, "labels: .* 1 of 56 to be NaN or None, in image 7 "),
        ({"labels": [None, *"ab" * 27, None]}, "2 of 56 to be NaN or None, in image 0, 55 "),
        ({"labels": LABELS * 1.0}, "found float64"),
        ({"labels": LABELS * 3}, "no image is of class 1, 2, 4, 5.*return_inverse.*`class_names`"),
        ({"label": LABELS}, "cgan.Images: unknown keyword `label`; did you mean `labels`"),
        ({"pixels": PIXELS.reshape(56, -1)}, r"found \[56, 288\].*reshape\(-1, height, width\)"),
        ({"pixels": PIXELS[:, :2]}, r"found \[56, 2, 8, 12\]"),
        ({"pixels": PIXELS[:, :, :7]}, r"8 to 256; found \[56, 3, 7, 12\]"),
        ({"labels": LABELS[1:]}, r"labels: expected \[56\].* \[55\]"),
        ({"groups": [*LABELS, 1]}, r"groups: expected \[56\], .* found \[57\]"),
        ({"labels": LABELS - 1}, "from 0 to 999; found -1 to 1"),
        ({"class_names": NAMES[:2]}, "from 0 to 1; found 0 to 2"),
        ({"labels": [*"ab" * 28], "class_names": ["a", "c"]}, "a, c; found b"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(CganError, match=words):
        cgan.Images(**{"pixels": PIXELS, "labels": LABELS, **changes})


def test_arrays_have_the_notes_of_a_file(tmp_path: Path) -> None:
    data = uneven()
    table, plain_rows = write_csv(tmp_path / "a.csv", plain(data)), plain(data)
    given = cgan.Images(plain_rows.pixels, plain_rows.labels)
    read = cgan.read(table, **SIDES)
    assert given.notes[0] == read.notes[0] and given.notes[0].startswith("Few images: 12 of 1, 20")
    assert given.notes[1] == re.sub(
        r"line (\d+)", lambda n: f"image {int(n[1]) - 2}", read.notes[1]
    )
    assert cgan.Images(PIXELS, LABELS * 0).notes[0].startswith("One class: ")
    train, held = given.split(0.25)
    assert train.notes == given.notes and not held.notes
    with pytest.raises(CganError, match=r"cgan\.Images\.split: .*did you mean `fraction`"):
        given.split(fracton=0.1)  # type: ignore[call-arg]


def test_read_names_its_keywords(tmp_path: Path) -> None:
    write_csv(tmp_path / "a.csv", uneven())
    cases: list[tuple[str, dict[str, Any], str]] = [
        ("gone", {}, "gone does not exist"),
        ("a.csv", {}, r"a\.csv: .*found 96\. .*`channels=3`"),
        ("a.csv", {"heigth": 16}, r"^cgan\.read: .*`heigth`.*`height`"),
        ("a.csv", {"height": 4, "width": 9}, "^cgan.read: `height`: .*found 4"),
    ]
    for path, options, words in cases:
        with pytest.raises(CganError, match=words):
            cgan.read(tmp_path / path, **options)


# --- Pictures by the public API -----------------------------------------------------------------


@pytest.fixture
def own(tmp_path: Path) -> Path:
    return tmp_path / "own"


def opened(own: Path, files: Files, **options: Any) -> cgan.Images:
    """What is read where these files are put."""
    put(own, files)
    return cgan.read(own, min_per_class=2, **options)


def pairs(content: bytes) -> Files:
    return {f"{label}/{n}.png": content for label in "ab" for n in (0, 1)}


@pytest.mark.parametrize("packed", [False, True])
def test_pictures_are_found_in_whatever_folder_is_around(tmp_path: Path, packed: bool) -> None:
    files = below("x/y", {**ALBUM, "a/deep/er/24.jfif": picture(12, kind="JPEG")})
    root = tmp_path / ("own.zip" if packed else "own")
    beside = files | {"README.md": b""}  # as data/inbox has one
    put(tmp_path, {"own.zip": zip_of(beside)} if packed else below("own", beside))
    images = cgan.read(root)
    assert images.class_names == ["a", "b"] and not any("Left out" in n for n in images.notes)
    found = {file.removeprefix(f"{root}/"): row for row, file in enumerate(images.files)}
    assert found.keys() == files.keys()
    for name, row in found.items():
        expected = Image.open(io.BytesIO(files[name]))
        assert np.array_equal(images.pixels[row, 0], np.asarray(expected))
        assert images.labels[row] == "ab".index(name[4])


def palette(*colours: int) -> bytes:
    image = Image.new("P", (10, 10), 1)
    image.putpalette([0, 0, 0, *colours])
    return picture(image, kind="GIF")


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
def test_each_kind_of_picture_has_its_values(own: Path, content: bytes, expected: Any) -> None:
    images = opened(own, {**pairs(picture(3)), "a/0.png": content})
    assert images.pixels[0, :, 5, 5].tolist() == np.atleast_1d(expected).tolist()


def test_pictures_are_turned_upright_and_cropped_or_padded(own: Path) -> None:
    upright, exif = np.zeros((12, 9), np.uint8), Image.Exif()
    upright[:3, :3], upright[:3, -3:], exif[0x0112] = 250, 120, 6  # no two corners are alike
    photo = picture(np.ascontiguousarray(np.rot90(upright)), exif=exif)
    images = opened(own, pairs(photo))
    assert (images.pixels == upright).all() and images.sizes is not None
    assert (images.sizes == [9, 12]).all()
    ramp = np.tile(np.linspace(0, 255, 400).astype(np.uint8), (100, 1))
    photos = pairs(picture(ramp, kind="JPEG"))  # which may be made smaller while it is unpacked
    images, other = (opened(own, photos, height=10, width=10, fit=fit) for fit in ("crop", "pad"))
    assert images.sizes is not None and (images.sizes == [400, 100]).all()
    cropped, padded = images.pixels[0, 0], other.pixels[0, 0]
    row = cropped[5].astype(int)
    assert 90 < row[0] < row[-1] < 165
    assert np.ptp(padded[5]) > 200 and np.ptp(padded[0]) == 0
    bright = np.zeros((3, 10), np.uint8)  # at its edges, more than half: so is what is added
    bright[0, 5:] = bright[2] = bright[1, 9] = 200
    images = opened(own, pairs(picture(bright)), height=10, width=10, fit="pad")
    assert (images.pixels[:, 0, [0, 9]] == 200).all()


def test_class_names_may_be_those_of_the_folders_or_others(own: Path) -> None:
    files = {f"{label}/{n}.png": noise(n + 9 * (label == "b")) for label in "ab" for n in range(4)}
    assert opened(own, files, class_names=["b", "a"]).class_names == ["a", "b"], "as the folders"
    images = opened(own, {}, class_names=["x", "b"])
    assert images.class_names == ["x", "b"] and images.notes[0].endswith("names`: a is x.")
    with pytest.raises(CganError, match="expected 3 classes, by `classes`; found 2, a, b"):
        opened(own, {}, classes=3)
    put(own, {"b/x.heic": b""})
    with pytest.raises(CganError, match=r"4 of each of 2 classes.*`min_per_.*\n.*b/x\.heic"):
        cgan.read(own, min_per_class=9)


def test_a_listing_names_classes_groups_and_splits(own: Path) -> None:
    rows = [(f"{n}.png", "ab"[n % 2], str(n // 4), ("train", "test")[n > 15]) for n in range(24)]
    rows += [(f"{n}.png", "ab"[n % 2], "", "train") for n in (24, 25)]  # each of its own
    put(own, {name: noise(n) for n, (name, *_) in enumerate(rows)} | {"other.png": noise(99)})
    lines = HEAD + "".join(f"{','.join(row)}\r\n" for row in rows)
    (own / "labels.csv").write_text(lines, encoding="utf-8-sig")
    images = cgan.read(own / "labels.csv", min_per_class=2)
    assert images.groups is not None
    assert sorted(np.bincount(images.groups)) == [1, 1, *[4] * 6]
    assert images.notes[0].endswith(": other.png.")


# --- The split ----------------------------------------------------------------------------------


def test_train_val_and_test_are_kept_and_equal_images_left_out(own: Path) -> None:
    names = [(part, label) for part in ("train", "val", "test") for label in ("cat", "dog")]
    files: Files = {
        f"{part}/{label}/{n}.png": noise(10 * i + n)
        for i, (part, label) in enumerate(names)
        for n in range(4)
    }
    images = opened(own, files | {"test/dog/known.png": files["train/dog/0.png"]})
    assert images.splits is not None and np.bincount(images.splits).tolist() == [8, 8, 9]
    train, held = images.split()
    for part, name in ((train, "train"), (held, "val")):
        assert sorted(part.files) == sorted(f"{own}/{file}" for file in files if name in file)
    (note,) = [note for note in held.notes if "Left out" in note]
    assert re.match(r"Left out of test: 1 \(.*dog/known\.png\)\. Train has a copy", note)
    shutil.rmtree(own / "val/dog")
    with pytest.raises(CganError, match=r"all of dog are on one side, .*or remove val"):
        opened(own, {}).split()
    shutil.rmtree(own / "train")
    with pytest.raises(CganError, match="found val and test alone"):
        opened(own, {})


def test_near_copies_are_named_and_groups_keep_them_together(own: Path) -> None:
    random = np.random.default_rng(0)
    for tile in range(40):
        seen = random.integers(40, 200, (10, 10))
        for shot in range(3):
            pixels = (seen + random.integers(-5, 5, (10, 10))).astype(np.uint8)
            put(own, {f"{'ab'[tile % 2]}/tile{tile}-{shot}.png": picture(pixels)})
    _, held = cgan.read(own).split()
    near = r"Near copies: 12 of 12 .*tile\d+-\d\.png like .*`group="
    assert len(held) == 12 and re.match(near, held.notes[-1])
    for group in (r"tile(\d+)", "auto"):
        images = cgan.read(own, group=group)
        assert images.groups is not None and len(np.unique(images.groups)) == 40
        train, held = images.split()
        assert len(held) == 12 and not any("Near" in note for note in held.notes)
        tiles = [{Path(file).stem[:-2] for file in part.files} for part in (train, held)]
        assert not tiles[0] & tiles[1] and len(tiles[1]) == 4
    for group, words in (("shot", "found .*own/"), ("tile", "smaller groups")):
        with pytest.raises(CganError, match=words):
            cgan.read(own, group=group).split()


def test_copies_and_groups_are_on_one_side_of_the_split(tmp_path: Path) -> None:
    data = uneven()
    table = write_csv(tmp_path / "a.csv", data)
    zipped = tmp_path / "a.zip"
    zipped.write_bytes(zip_of({"b/fruit.csv": table.read_bytes()}))
    write_folder(tmp_path / "own", data)
    for images in (
        cgan.Images(data.pixels, data.labels, NAMES, data.groups),
        cgan.read(table, **SIDES, class_names=NAMES),
        cgan.read(str(zipped), **SIDES, class_names=NAMES, member="fruit.csv"),
        cgan.read(tmp_path / "own", group=GROUP_IN_NAME),
    ):
        assert sorted(map(bytes, images.pixels)) == sorted(map(bytes, data.pixels))
        assert sorted(images.class_names) == sorted(NAMES)
        train, held = images.split(0.25, seed=2)
        assert sorted([*train.lines, *held.lines]) == sorted(images.lines)
        assert train.groups is not None and held.groups is not None
        assert not {*train.groups} & {*held.groups}
        assert not {*map(bytes, train.pixels)} & {*map(bytes, held.pixels)}
        again, other = images.split(0.25, seed=2)[1], images.split(0.25, seed=3)[1]
        assert again.digest == held.digest != other.digest
    for fraction, words in ((30, "found 30"), (0.01, "at least 6.*`fraction`")):
        with pytest.raises(CganError, match=words):
            images.split(fraction)
