"""A generator's model card, and the folder of `cgan card`."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from markdown_it import MarkdownIt
from typer.testing import CliRunner

from cgan.base.errors import CganError
from cgan.base.report import in_markdown
from cgan.cli import app
from cgan.drawing.card import model_card
from cgan.drawing.class_names import names_in
from cgan.pipeline.project import EVALUATION, GENERATOR
from cgan.quality.evaluation import Evaluation, Score

HEAD = re.compile(r"^---\n([\S\s]*?)\n---[ \t]*\n")  # as the Hub's server finds it
NASTY = [
    *("---", "a\n---\n", "|a|", "<script>alert(1)</script>", "![](http://x.y)", "# a", "&amp;"),
    *("\\", "`", "*a*", "\u2028", "😀", "{0} %s", "- a", "~~~"),
]


def parts_of(names: list[str], data: str, sharing: str) -> tuple[dict[str, Any], list[str], str]:
    """Of a card with these texts: its metadata; of what its Markdown is made, texts aside; its texts."""
    shape = {"kind": "deconv", "classes": 3, "channels": 1, "height": 8, "width": 8}
    facts = {"architecture": shape, "class_names": names, "data": data}
    evaluation = Evaluation(metrics={"conditional_accuracy": Score(value=0.9, real=1.0)})
    card = model_card(facts, evaluation, "grid.png", sharing)
    match = HEAD.match(card)
    assert match
    parts, text = [], ""
    for token in MarkdownIt("commonmark").enable("table").parse(card[match.end() :]):
        inner = [each for each in token.children or () if not each.type.startswith("text")]
        parts += [token.type, *(f"{each.type} {each.content} {each.attrs}" for each in inner)]
        text += "".join(each.content for each in token.children or ())
    return yaml.safe_load(match[1]), parts, text


@pytest.mark.parametrize("nasty", NASTY)
def test_names_stay_text_whatever_they_hold(nasty: str) -> None:
    names = [nasty, "b", "c"]
    metadata, parts, text = parts_of(names, nasty, nasty)
    assert (metadata, parts) == parts_of(["a", "b", "c"], "d", "e")[:2]
    known = names_in({"class_names": names}, 3) or list("012")
    assert f"{', '.join(' '.join(name.split()) for name in known)}." in text


def card(*words: str) -> str:
    return CliRunner().invoke(app, ["card", *words], catch_exceptions=False).stdout


@pytest.mark.usefixtures("copied")
def test_the_folder_has_generator_card_picture_and_own_numbers() -> None:
    assert card("hub") == "hub: README.md, generator.safetensors, grid.png\n"
    assert Path("hub", GENERATOR.name).read_bytes() == GENERATOR.read_bytes()
    assert Path("hub/grid.png").read_bytes()[:4] == b"\x89PNG"
    evaluation = Evaluation.read(EVALUATION)
    assert f"**{in_markdown(evaluation.report().sentence)}**" in Path("hub/README.md").read_text()
    context = {**evaluation.context, "generator_digest": "another"}
    replace(evaluation, context=context).write(EVALUATION)
    assert "the card has no numbers" in card("other")
    with pytest.raises(CganError, match="not empty"):
        card("hub")
