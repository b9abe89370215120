"""What tells the classes without the form: brightness, contrast, sharpness, size and shape of pictures."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import write_params
from PIL import Image, ImageFilter

import cgan
from cgan.cli import app
from cgan.files import read_json, write_json
from cgan.images import Images
from cgan.params.sections import DataParams, ValidateParams
from cgan.project import CSV, DATA_SOURCE, PICTURES, VALIDATION
from cgan.readers import csv_report, sources
from cgan.readers.spurious_correlations import notes_on, spurious_correlations
from cgan.stages import validate

NAMES = ["pear", "apple", "fig", "date"]
COUNTS = [90, 60, 130, 40]


def noise(seed: int = 0, group_size: int = 0) -> Images:
    """Blobs of four unequal classes, 9 pixels high and 14 wide, whose numbers have nothing to do with the
    class. In groups of images of one class that are about equally bright, if `group_size` is given."""
    random = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(COUNTS)), COUNTS)
    groups = np.arange(len(labels)) // group_size if group_size else None
    if groups is not None:
        labels = labels[np.minimum(groups * group_size, len(labels) - 1)]
    bright = random.normal(130, 20, len(labels))
    if groups is not None:
        bright = bright[groups] + random.normal(0, 1, len(labels))
    spread = random.uniform(10, 40, (len(labels), 1, 1))
    pixels = bright[:, None, None] + spread * random.normal(size=(len(labels), 9, 14))
    order = random.permutation(len(labels))
    sizes = random.integers(300, 500, (len(labels), 2))
    made = Images(pixels.clip(0, 255).astype(np.uint8), labels, NAMES, groups, sizes=sizes)
    return made.at(order)


def found(images: Images) -> dict[str, str]:
    """The class that is predicted best, by quantity."""
    every = np.arange(len(images))
    return {each.quantity: each.best_class for each in spurious_correlations(images, every)}


def changed(images: Images, label: int, change: str) -> Images:
    pixels, sizes, rows = images.pixels.copy(), images.sizes.copy(), images.labels == label
    of_class = pixels[rows].astype(float)
    if change == "brightness":
        of_class = of_class + 60
    elif change == "contrast":
        mean = of_class.mean(axis=(2, 3), keepdims=True)
        of_class = mean + (of_class - mean) * 0.2
    elif change == "sharpness":
        soft = [Image.fromarray(p[0]).filter(ImageFilter.GaussianBlur(2)) for p in pixels[rows]]
        mean = of_class.mean(axis=(2, 3), keepdims=True)
        deviation = of_class.std(axis=(2, 3), keepdims=True)
        of_class = np.stack([np.asarray(p, float)[None] for p in soft])
        of_class -= of_class.mean(axis=(2, 3), keepdims=True)
        of_class = mean + of_class * deviation / of_class.std(axis=(2, 3), keepdims=True)
    elif change == "size":
        sizes[rows] = sizes[rows] // 2
    elif change == "aspect":
        sizes[rows] = sizes[rows] * [3, 1] // [1, 3]
    pixels[rows] = of_class.clip(0, 255).round().astype(np.uint8)
    return replace(images, pixels=pixels, sizes=sizes)


@pytest.mark.parametrize("quantity", ["brightness", "contrast", "sharpness", "size", "aspect"])
@pytest.mark.parametrize("label", [1, 3])
def test_a_class_that_differs_in_one_quantity_is_named(quantity: str, label: int) -> None:
    assert found(changed(noise(), label, quantity)) == {quantity: NAMES[label]}


def test_the_numbers_are_those_of_a_rule_that_has_not_seen_the_image() -> None:
    images = changed(noise(), 2, "brightness")
    (one,) = spurious_correlations(images, np.arange(len(images)))
    means = images.pixels.mean(axis=(1, 2, 3))
    assert one.median == pytest.approx(np.median(means))
    assert one.class_median == pytest.approx(np.median(means[images.labels == 2]))
    assert one.chance == 0.25 and one.true_positive_rate > 0.8 > 0.2 > one.false_positive_rate
    assert one.youden_j == pytest.approx(one.true_positive_rate - one.false_positive_rate)
    # Of one class all and of three others a third each, at most, and some luck.
    assert one.true_positive_rate / 4 < one.accuracy < 0.6


def test_of_data_without_any_relation_at_most_a_twentieth_gets_a_note(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By the permutation test alone, whatever the effect; 8 or more of 60 would be at 1 % by chance."""
    module = "cgan.readers.spurious_correlations.MIN_MEAN_J"
    monkeypatch.setattr(module, -1.0)
    assert sum(bool(found(noise(seed))) for seed in range(60)) < 8


def test_groups_that_differ_are_no_classes_that_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sixteen photographs of each thing are about equally bright: the class can be told by the thing."""
    monkeypatch.setattr("cgan.readers.spurious_correlations.MIN_MEAN_J", -1.0)
    every = [noise(seed, group_size=16) for seed in range(20)]
    assert sum(bool(found(images)) for images in every) < 5
    ungrouped = [replace(images, groups=None) for images in every]
    assert sum(bool(found(images)) for images in ungrouped) > 15


def test_copies_do_not_tell_each_other_s_class() -> None:
    """Each image is there eight times, so that others as bright are its copies."""
    images = noise().at(np.arange(0, 320, 8))
    images = images.at(np.arange(len(images)).repeat(8))
    firsts = np.arange(len(images)) // 8 * 8
    assert not spurious_correlations(images, firsts)
    assert spurious_correlations(images, np.arange(len(images)))


def test_images_that_are_all_alike_in_a_number_are_no_error() -> None:
    pixels = np.tile(np.arange(126, dtype=np.uint8).reshape(9, 14), (40, 1, 1))
    assert not found(Images(pixels, np.arange(40) % 3))
    assert not found(Images(np.full((40, 9, 14), 9, np.uint8), np.arange(40) % 3))


def test_the_note_is_in_words_and_no_warning() -> None:
    images = changed(noise(), 3, "aspect")
    report = csv_report.report_on(images, ValidateParams(), "own.csv")
    (note,) = report["notes"]
    start = "The shape of the original picture alone tells the classes in "
    words = " of the images, as a mean over the classes (chance 25 %). The shape of the original "
    assert note.startswith(start) and words in note
    assert " of the images of class date, and takes " in note
    assert "(median width ÷ height 9." in note
    assert report["warnings"] == ["Few images: 40 of date. " + report["warnings"][0][24:]]
    assert [each["quantity"] for each in report["spurious_correlations"]] == ["aspect"]
    summary = csv_report.summary(report).splitlines()
    assert summary[-1] == note and f"Warning: {note}" not in summary
    assert notes_on([]) == []


def test_two_numbers_stand_in_one_sentence_the_more_accurate_first() -> None:
    images = changed(changed(noise(), 2, "size"), 1, "brightness")
    correlations = spurious_correlations(images, np.arange(len(images)))
    assert {each.quantity for each in correlations} == {"brightness", "size"}
    assert correlations[0].accuracy >= correlations[1].accuracy
    (note,) = notes_on(correlations)
    assert note.count("alone tells the classes in") == 1 and note.count(" alone in ") == 1


def test_the_sample_says_that_ones_have_less_ink() -> None:
    pixels, labels = sources.mnist_sample()
    images = Images(pixels.reshape(-1, 28, 28), labels)
    brightness, contrast = spurious_correlations(images, np.arange(len(images)))
    assert (brightness.quantity, contrast.quantity) == ("brightness", "contrast")
    assert 0.2 < contrast.accuracy < brightness.accuracy < 0.27
    assert brightness.best_class == contrast.best_class == "1"


def write_pictures(folder: Path, smaller: str) -> None:
    """Photographs of three named classes as a camera writes them: large, some turned by a tag; those of one
    class are smaller."""
    random = np.random.default_rng(5)
    for name, count in (("pear", 22), ("apple", 14), ("fig", 30)):
        (folder / name).mkdir(parents=True)
        for n in range(count):
            height, width = random.integers(600, 700), random.integers(900, 1000)
            if name == smaller:
                height, width = height // 2, width // 2
            picture = Image.fromarray(random.integers(0, 255, (8, 12), np.uint8))
            picture = picture.resize((int(width), int(height)))
            exif = Image.Exif()
            if n % 2:
                picture = picture.transpose(Image.Transpose.ROTATE_90)
                exif[0x0112] = 6  # to be turned by 90° to the right
            picture.save(folder / name / f"{n}.jpg", exif=exif)


def test_pictures_of_a_smaller_size_are_seen_before_they_are_fitted(tmp_path: Path) -> None:
    """A JPEG may be made smaller while it is unpacked, and is turned: neither changes its size."""
    write_pictures(tmp_path / "own", smaller="fig")
    images = cgan.read(tmp_path / "own", height=16, width=24)
    of_figs = images.labels == images.class_names.index("fig")
    assert images.sizes[of_figs].max() < 500 < 599 < images.sizes[~of_figs].min()
    assert (images.sizes[:, 0] > images.sizes[:, 1]).all()
    (note,) = [note for note in images.notes if "alone tells" in note]
    assert note.startswith("The size of the original picture alone tells the classes in ")
    assert "of the images of class fig, and takes" in note
    train, held_out = images.split(0.3)
    assert train.sizes is held_out.sizes is None


def write_things(folder: Path) -> None:
    """Six photographs each of 24 things, which are differently bright. Of three named classes, by turns."""
    random = np.random.default_rng(3)
    for thing in range(24):
        pattern = random.normal(random.integers(50, 200), 12, (9, 14))
        into = folder / ("pear", "apple", "fig", "pear")[thing % 4]
        into.mkdir(parents=True, exist_ok=True)
        for shot in range(6):
            pixels = (pattern + random.normal(0, 1, pattern.shape)).clip(0, 255).round()
            Image.fromarray(pixels.astype(np.uint8)).save(into / f"thing{thing}-{shot}.png")


@pytest.mark.parametrize("group", ["auto", "thing(\\d+)"])
def test_groups_by_a_param_are_known_to_every_report(
    group: str, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The class can be told by the thing, and then by nothing else."""
    write_things(project / "own")

    def notes(images: Images) -> int:
        return sum("alone tells" in note for note in images.notes)

    assert notes(cgan.read(project / "own")) == 1
    grouped = cgan.read(project / "own", group=group)
    assert notes(grouped) == 0 and len(np.unique(grouped.groups)) == 24
    assert sum(note.startswith("Groups: 24 of 144 images") for note in grouped.notes) == 1
    params = DataParams(source="file", path="own")
    write_json(DATA_SOURCE, sources.fetch(params, CSV, PICTURES))
    for chosen, count, groups in ((None, 1, 0), (group, 0, 24)):
        write_params(project, preprocess={"group": chosen})
        validate.main()
        report = read_json(VALIDATION)
        assert (len(report["notes"]), report["groups"]) == (count, groups)
        assert not any("Groups" in warning for warning in report["warnings"]), "said once, later"
        capsys.readouterr()
        app(["validate", "own"], standalone_mode=False)
        said = capsys.readouterr().out
        assert said.count("alone tells") == count and said.count("Groups: 24 of") == bool(groups)


def test_the_stage_knows_the_sizes_of_pictures(project: Path) -> None:
    write_pictures(project / "own", smaller="apple")
    params = DataParams(source="file", path="own", height=16, width=24)
    write_json(DATA_SOURCE, sources.fetch(params, CSV, PICTURES))
    validate.main()
    (one,) = read_json(VALIDATION)["spurious_correlations"]
    assert (one["quantity"], one["best_class"]) == ("size", "apple")
