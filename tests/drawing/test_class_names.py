"""What is no class, in words. Which text asks for which: page/test_play.py."""

from pathlib import Path

import pytest
from conftest import a_model

from cgan.base.errors import CganError
from cgan.drawing.class_names import Classes
from cgan.drawing.generator import Generator


@pytest.mark.parametrize(
    ("text", "count", "names", "words"),
    [
        ("20x4", 10, None, "'20x4' is not .* 0 to 9"),
        ("12,47", 47, None, "'47' is not .* 0 to 46"),
        (" , ", 47, None, "empty"),
        ("dress, skirt", 3, ["T-shirt/top", "Dress", "Coat"], "'skirt' .* T-shirt/top, Dress, "),
        ("A?", 26, list("ABCDEFGHIJKLMNOPQRSTUVWXYZ"), r"L, … \(26 in all\), or .* 0 to 25"),
        ("new york city", 3, ["New", "York", "New York"], "'city'"),
    ],
)
def test_what_is_no_class_is_named_with_the_classes_there_are(
    text: str, count: int, names: list[str] | None, words: str
) -> None:
    with pytest.raises(CganError, match=words):
        Classes(count, names).labels(text)


@pytest.mark.parametrize("names", [["<b>x</b>", "`née` | *x*", "猫"], None])
def test_a_generator_takes_names_and_numbers_for_labels(
    names: list[str] | None, tmp_path: Path
) -> None:
    path = a_model(tmp_path / "g.safetensors", "deconv", 3, 1, 8, 8, 4, 2, class_names=names)
    generator = Generator.load(path)
    assert generator.class_names == (names or ["0", "1", "2"])
    assert generator.labels("0 2,1") == generator.labels([0, 2, 1]) == [0, 2, 1]
    if names:
        assert generator.labels("猫, <B>x</b> 1") == [2, 0, 1]
        assert generator.labels(["猫", 1, "0"]) == [2, 1, 0]
    for wrong in ("x" * 50_000, 3, -1, "", "猫 猫" if names else "2"):
        with pytest.raises(CganError, match="at index 1 is not a class") as error:
            generator.labels([0, wrong])
        assert len(str(error.value)) < 200
