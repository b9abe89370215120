"""Which classes a text asks for, by number or name; what a generator says of itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from cgan.errors import CganError
from cgan.model.model_file import save_network
from cgan.model.networks import Architecture, build_generator
from cgan.serving.class_names import names_in, parse_text
from cgan.serving.generator import Generator

CLOTHES = ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"]
CLOTHES += ["Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"]
LETTERS = list("ABCDEFGHIJKLMNOPQRSTUVWXYZ")


def test_a_generator_says_what_it_draws_and_where_it_is_from(tmp_path: Path) -> None:
    network = build_generator(Architecture("embed", 12, 3, 10, 14, 4, 6))
    save_network(tmp_path / "g.safetensors", network, {})
    loaded = Generator.load(tmp_path / "g.safetensors")
    assert repr(loaded) == (
        "<Generator: 12 classes, 14×10 pixels, colour, network embed, latents of 6, "
        f"from {tmp_path}/g.safetensors>"
    )
    assert repr(Generator(network.eval(), {})).endswith(", from memory>")


@pytest.mark.parametrize(
    ("text", "classes", "words"),
    [
        ("20x4", 10, "'x', character 3"),
        ("019", 9, "'9', character 3"),
        ("1٣", 10, "'٣', character 2"),
        ("12,47", 47, "'47', number 2"),
        ("9" * 5000, 47, "number 1"),
        (" , ", 47, "empty"),
    ],
)
def test_a_character_that_is_no_class_is_named_with_its_place_and_the_classes(
    text: str, classes: int, words: str
) -> None:
    with pytest.raises(CganError, match=words) as error:
        parse_text(text, classes)
    assert f"0 to {classes - 1}" in str(error.value) and len(str(error.value)) < 200


@pytest.mark.parametrize(
    ("text", "names", "told"),
    [
        ("dress, skirt", CLOTHES, "'skirt' is not a class. The classes are T-shirt/top, Trouser, "),
        ("dress hat bag", CLOTHES, "'hat' is not a class"),
        ("ankle", CLOTHES, "'ankle' is not a class"),
        ("dress 2x", CLOTHES, "'2x' is not a class. "),
        (" ,", CLOTHES, "empty. The classes are T-shirt/top, "),
        ("26", LETTERS, "'26' is not a class. The classes are A, B, C, "),
        ("A1", LETTERS, "'A1' is not a class"),
        ("A?", LETTERS, "L, … (26 in all), or their numbers, 0 to 25"),
        ("0", ["3", "7"], "'0' is not a class. The classes are 3, 7; put commas"),
        ("Ab", ["ab", "AB"], "'Ab' is not a class. The classes are ab, AB"),
        ("new york x", ["New", "York", "New York", "x"], "several lists of classes. Put commas"),
    ],
)
def test_what_is_no_class_is_named_with_the_classes_there_are(
    text: str, names: list[str], told: str
) -> None:
    with pytest.raises(CganError) as error:
        parse_text(text, len(names), names)
    assert told in str(error.value)


def test_a_long_text_is_read_in_no_time_whatever_it_holds() -> None:
    assert len(parse_text("ankle boot " * 20_000, 10, CLOTHES)) == 20_000
    with pytest.raises(CganError):
        parse_text("ankle " * 20_000, 10, CLOTHES)


@pytest.mark.parametrize(
    "names", [["a", "b"], ["a", "b", 3], "abc", None, {"a": 0}, ["a", "b", " "]]
)
def test_names_that_do_not_fit_the_classes_are_not_taken(names: object) -> None:
    assert names_in({"class_names": names}, 3) is None


def save(path: Path, names: list[str] | None) -> Path:
    network = build_generator(Architecture("embed", 3, 1, 8, 8, 4, 2))
    save_network(path, network, {"class_names": names} if names else {})
    return path


def test_a_generator_knows_its_names_and_takes_them_wherever_it_takes_labels(
    tmp_path: Path,
) -> None:
    odd = ["<b>x</b>", "`née` | *x*", "猫"]
    generator = Generator.load(save(tmp_path / "g.safetensors", odd))
    assert generator.class_names == odd
    assert generator.labels("猫, <B>x</b> 1") == [2, 0, 1]
    assert generator.labels(["猫", 1, "0"]) == [2, 1, 0]
    assert (generator.draw(["猫", 1]) == generator.draw([2, 1])).all()
    for wrong in ("猫 猫", "dog", ""):
        with pytest.raises(CganError, match="at index 1 is not a class"):
            generator.labels([0, wrong])


def test_classes_without_names_are_called_by_their_numbers(tmp_path: Path) -> None:
    generator = Generator.load(save(tmp_path / "g.safetensors", None))
    assert generator.class_names == ["0", "1", "2"]
    assert generator.labels("021") == [0, 2, 1]
    for wrong in (["2"], ["x" * 50_000], [3], [-1]):
        with pytest.raises(
            CganError, match=r"at index 0 is not a class\. The classes are 0 to 2"
        ) as e:
            generator.labels(wrong)
        assert len(str(e.value)) < 200
