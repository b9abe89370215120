"""A generator's model card, as the Hub reads it, and the folder of `cgan card`."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from finished_project import finish
from hypothesis import example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from short_reports import json_form
from typer.testing import CliRunner

from cgan.cli import app
from cgan.drawing.card import model_card
from cgan.drawing.class_names import names_in
from cgan.errors import CganError
from cgan.evaluation import Evaluation
from cgan.project import EVALUATION, GENERATOR
from cgan.quality.table import tracked_values

HEAD = re.compile(r"^---\n([\S\s]*?)\n---[ \t]*\n")  # as the Hub's server finds it
REPORT: dict[str, Any] = {
    "conditional_accuracy": {
        **{"value": 0.9, "by_class": [0.9, None, 0.8]},
        **{"floor": 1.0, "floor_by_class": [1.0, 1.0, 1.0]},
    },
    "fid_judge": {"value": float("nan"), "floor": 0.05},
    "copies": {"value": 1e-5, "interval_95": [0.0, float("inf")], "floor": 0.01},
    "kid_judge": {"value": float("-inf")},
    "measurement_context": {"seed": 3},
}
NASTY = [
    *("---", "a\n---\n", "'\"", ": {x}", "|a|", "<script>alert(1)</script>", "![](http://x.y)"),
    *("# a", "&amp;", "\\", "`", "*a*", "\u2028", "😀", "\ud800", "{0} %s", "- a", "$$x$$", "~~~"),
]


def card_of(names: list[str], data: str, run: str) -> str:
    shape = {"classes": 3, "channels": 1, "height": 8, "width": 8}
    origin = {"data": data, "commit": "c" * 40}
    facts = {"architecture": shape, "class_names": names}
    report = REPORT | {"class_names": names_in(facts, 3), "heldout_by_class": [9, 9, 9]}
    return model_card(
        facts,
        Evaluation.of_json(json_form(report)),
        {"run_name": run, "origin": origin},
        "grid.png",
    )


def read(card: str) -> tuple[dict[str, Any], tuple[str, str], list[str], str]:
    """The metadata; the names in it, taken out; of what the Markdown is made, texts aside; its texts."""
    match = HEAD.match(card.encode().decode())
    assert match
    parts, text = [], ""
    for token in MarkdownIt("commonmark").enable("table").parse(card[match.end() :]):
        inner = [each for each in token.children or () if not each.type.startswith("text")]
        parts += [token.type, *(f"{each.type} {each.content} {each.attrs}" for each in inner)]
        text += "".join(each.content for each in token.children or ())
    metadata = yaml.safe_load(match[1])
    index = metadata.get("model-index", [{"name": "", "results": [{"dataset": {"name": ""}}]}])[0]
    names = index.pop("name"), index["results"][0]["dataset"].pop("name")
    return metadata, names, parts, text


PLAIN = read(card_of(["a", "b", "c"], "d", "e"))
WORDS = st.text() | st.sampled_from(NASTY)


@given(st.lists(WORDS, min_size=3, max_size=3), WORDS, WORDS)
@example(NASTY[:3], "😀", "---")
@settings(deadline=None)
def test_names_stay_text_whatever_they_hold(names: list[str], data: str, run: str) -> None:
    found, (run_in_card, data_in_card), parts, text = read(card_of(names, data, run))
    assert (found, parts) == (PLAIN[0], PLAIN[2])
    known = names_in({"class_names": names}, 3) or list("012")
    assert f"classes: {', '.join(' '.join(name.split()) for name in known)}." in text
    for asked, name in ((run, run_in_card), (data, data_in_card)):
        assert name == asked or not asked or not asked.isprintable()


def test_the_metadata_has_each_metric_that_is_a_number() -> None:
    metrics = PLAIN[0]["model-index"][0]["results"][0]["metrics"]
    assert {each["type"]: each["value"] for each in metrics} == {
        "conditional_accuracy": 0.9,
        "copies": 1e-5,
    }
    assert metrics[0]["name"] == "conditional accuracy (real images: 1)"


def test_the_three_classes_that_are_least_often_recognized_are_named_the_worst_first() -> None:
    shares = [0.9, 0.99, 0.3, None, 0.98, 0.97, 0.4, 0.96, 0.95, 0.2]
    facts = {"architecture": {"classes": 10, "channels": 1, "height": 8, "width": 8}}
    report = REPORT | {"conditional_accuracy": {"value": 0.7, "by_class": shares}}
    card = model_card(facts, Evaluation.of_json(json_form(report)), {}, "")
    assert "recognized: 9 (20.0 %), 2 (30.0 %), 6 (40.0 %).\n" in card


def card(*words: str) -> str:
    return CliRunner().invoke(app, ["card", *words], catch_exceptions=False).output


def test_the_folder_holds_generator_card_and_picture_and_numbers_of_no_other(project: Path) -> None:
    finish(project / "inbox/digits.csv")
    assert card("hub") == "hub: README.md, generator.safetensors, grid.png\n"
    assert Path("hub", GENERATOR.name).read_bytes() == GENERATOR.read_bytes()
    evaluation = Evaluation.read(EVALUATION)
    metrics = read(Path("hub/README.md").read_text())[0]["model-index"][0]["results"][0]["metrics"]
    assert {f"quality/{each['type']}": each["value"] for each in metrics} == tracked_values(
        evaluation
    )
    assert Path("hub/grid.png").read_bytes()[:4] == b"\x89PNG"
    context = {**evaluation.context, "generator_digest": "another"}
    replace(evaluation, context=context).write(EVALUATION)
    assert "the card has no numbers" in card("other")
    assert "model-index" not in Path("other/README.md").read_text()
    with pytest.raises(CganError, match="not empty"):
        card("hub")
