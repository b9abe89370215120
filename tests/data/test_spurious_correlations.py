"""What tells the classes without the form: brightness, contrast, sharpness, size and shape of pictures."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from cgan.data import spurious_correlations as module
from cgan.data.images import Images
from cgan.data.spurious_correlations import notes_on, spurious_correlations

NAMES = ["pear", "apple", "fig", "date"]
COUNTS = [90, 60, 130, 40]


def noise(seed: int = 0, group_size: int = 1) -> Images:
    """Of four unequal classes, unrelated to the numbers. A group is of one class and about equally bright."""
    random = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(COUNTS)), COUNTS)
    groups = np.arange(len(labels)) // group_size
    labels = labels[groups * group_size]
    bright = random.normal(130, 20, len(labels))[groups] + random.normal(0, 1, len(labels))
    spread = random.uniform(10, 40, (len(labels), 1, 1))
    pixels = bright[:, None, None] + spread * random.normal(size=(len(labels), 9, 14))
    sizes = random.integers(300, 500, (len(labels), 2))
    made = Images(pixels.clip(0, 255).astype(np.uint8), labels, NAMES, groups, sizes=sizes)
    return made.at(random.permutation(len(labels)))


def found(images: Images) -> dict[str, str]:
    """The class that is predicted best, by quantity."""
    every = np.arange(len(images))
    return {each.quantity: each.class_name for each in spurious_correlations(images, every)}


def changed(images: Images, label: int, change: str) -> Images:
    assert images.sizes is not None
    pixels, sizes, rows = images.pixels.copy(), images.sizes.copy(), images.labels == label
    of_class = pixels[rows].astype(float)
    mean = of_class.mean(axis=(2, 3), keepdims=True)
    if change == "brightness":
        of_class += 60
    elif change == "contrast":
        of_class = mean + (of_class - mean) * 0.2
    elif change == "sharpness":
        blurred = gaussian_filter(of_class, (0, 0, 2, 2))
        blurred -= blurred.mean(axis=(2, 3), keepdims=True)
        deviations = (x.std(axis=(2, 3), keepdims=True) for x in (of_class, blurred))
        of_class = mean + blurred * np.divide(*deviations)
    elif change == "size":
        sizes[rows] = sizes[rows] // 2
    elif change == "aspect":
        sizes[rows] = sizes[rows] * [3, 1] // [1, 3]
    pixels[rows] = of_class.clip(0, 255).round().astype(np.uint8)
    return replace(images, pixels=pixels, sizes=sizes)


@pytest.mark.parametrize("quantity", ["brightness", "contrast", "sharpness", "size", "aspect"])
def test_a_class_that_differs_in_one_quantity_is_named(quantity: str) -> None:
    for label in (1, 3):
        assert found(changed(noise(), label, quantity)) == {quantity: NAMES[label]}


def test_the_range_has_the_class_and_few_others() -> None:
    images = noise()
    middle = images.labels == 2
    images.pixels[middle] = 100 + images.pixels[middle] % 8
    best, *_ = spurious_correlations(images, np.arange(len(images)))
    assert best.quantity == "contrast" and best.highest < 4
    assert best.of_class > 0.95 and best.of_others == 0
    (note,) = notes_on([best])
    assert "form: contrast from 2 to 2 has 98 % of fig and 0 % of the others. Where" in note


def test_unrelated_data_have_a_note_in_5_percent(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the permutation test alone, whatever the effect; 8 or more of 60 would be at 1 % by chance. Sixteen
    photographs of each thing are about equally bright: the class can be told by the thing."""
    monkeypatch.setattr(module, "MIN_YOUDEN_J", 0.0)
    assert sum(bool(found(noise(seed))) for seed in range(60)) < 8
    grouped = [noise(seed, group_size=16) for seed in range(20)]
    assert sum(bool(found(images)) for images in grouped) < 5
    assert sum(bool(found(replace(images, groups=None))) for images in grouped) > 15


def test_copies_do_not_tell_each_others_class() -> None:
    images = replace(noise(), groups=None).at(np.arange(0, 320, 8))
    images = images.at(np.arange(len(images)).repeat(8))
    assert not spurious_correlations(images, np.arange(len(images)) // 8 * 8)


def test_images_that_are_all_alike_are_no_error() -> None:
    assert not found(Images(np.full((40, 9, 14), 9, np.uint8), np.arange(40) % 3))
