"""Which classes a text asks for, and what a generator says of itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from cgan.errors import CganError
from cgan.model.model_file import save_network
from cgan.model.networks import Architecture, build_generator
from cgan.serving.generator import Generator, parse_text


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


NUMBERS = "The classes are 0 to 2."


@pytest.mark.parametrize(
    ("names", "label", "words"),
    [
        (None, "cat", f"label 'cat' at index 1 is not a class. {NUMBERS}"),
        (None, "x" * 50_000, f"label '{'x' * 40}'… at index 1 is not a class. {NUMBERS}"),
        (None, 10**5000, f"label of very many digits at index 1 is not a class. {NUMBERS}"),
        (["cat", "dog", "bird"], "fish", "are cat, dog, bird, or their numbers, 0 to 2."),
        (["cat", "dog", "bird"], 3, "are cat, dog, bird, or their numbers"),
    ],
    ids=["word", "long", "many digits", "names", "names, number"],
)
def test_a_label_that_is_no_class_is_cut_short_and_told_which_there_are(
    names: list[str] | None, label: str | int, words: str
) -> None:
    network = build_generator(Architecture("deconv", 3, 1, 8, 8, 8, 8))
    generator = Generator(network, {"class_names": names} if names else {})
    with pytest.raises(CganError) as caught:
        generator.labels([0, label])
    assert words in str(caught.value) and len(str(caught.value)) < 200
