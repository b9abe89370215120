"""`cgan sharing`: report, page, MLflow; folders by other generators; the card and what it refuses."""

import html
import shutil
from pathlib import Path
from typing import Any

import pytest
from finished_project import finish_uneven
from typer.testing import CliRunner
from uneven import write_uneven_folder

from cgan.attacks import attacker, membership
from cgan.attacks.sharing import GIVES_AWAY
from cgan.cli import app
from cgan.drawing.generator import Generator
from cgan.errors import CganError
from cgan.files import read_json, write_json
from cgan.images import load_images
from cgan.pipeline.evidence.sharing import find_sharing
from cgan.pipeline.params_file import load_params, set_params
from cgan.pipeline.runs.card import write_card_folder
from cgan.project import (
    CARD,
    GENERATOR,
    SHARING,
    SHARING_PAGE,
    SHARING_TEXT,
    TRAIN_DATA,
)


@pytest.fixture
def finished(uneven_project: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A finished project, in which attacks and classifiers take no time."""
    finish_uneven()
    set_params({"train_judge.total_kimg": 0.2})
    shutil.copyfile(empty_store, "mlflow.db")
    monkeypatch.setattr("cgan.disclosure.is_installed", lambda: False)
    monkeypatch.setattr(membership, "PERMUTATIONS", 200)
    monkeypatch.setattr(membership, "RATE_PERMUTATIONS", 50)
    monkeypatch.setattr(attacker, "MIN_DRAWINGS", 150)
    monkeypatch.setattr("cgan.attacks.membership_scores.ADAM_STEPS", 3)
    return uneven_project


def found(drawn: Path | None = None) -> dict[str, Any]:
    find_sharing(load_params(), drawn, 2, lambda line: None)
    return read_json(SHARING.with_stem("sharing-drawn") if drawn else SHARING)


def test_the_report_is_an_answer_a_page_and_a_text_and_goes_to_the_run(finished: Path) -> None:
    report = found()
    assert report["generator_digest"] == Generator.load(GENERATOR).facts["digest"]
    assert report["train_images"] == len(load_images(TRAIN_DATA))
    assert report["verdict"] in (GIVES_AWAY, "nothing shown")
    assert report["summary"] == report["sentence"]
    page, text = html.unescape(SHARING_PAGE.read_text()), SHARING_TEXT.read_text()
    assert report["sentence"] in page and "data:image/png;base64," in page
    assert f"{report['drawing_attacks'][0]['auc']:.3f}</td>" in page
    for words in ("by reconstruction", "apple", "differential privacy"):
        assert words in page and words in text
    sent = {path.name for path in (finished / "mlartifacts").rglob("sharing.*")}
    assert sent == {"sharing.json", "sharing.md", "sharing.html"}


def test_a_folder_of_training_images_is_found_and_leaves_the_project_s_own_answer(
    finished: Path,
) -> None:
    write_json(SHARING, {"verdict": "nothing shown"})
    write_uneven_folder(Path("copies"), load_images(TRAIN_DATA))
    report = found(Path("copies"))
    assert report["verdict"] == GIVES_AWAY and report["generator_digest"] is None
    assert "The drawings are those in copies." in report["reasons"]
    assert read_json(SHARING) == {"verdict": "nothing shown"}
    with pytest.raises(CganError, match="nowhere"):
        found(Path("nowhere"))


def test_the_card_has_the_sentence_and_what_leaks_is_published_by_a_flag_alone(
    finished: Path,
) -> None:
    generator = Generator.load(GENERATOR)
    answer = {"generator_digest": generator.facts["digest"], "sentence": "They *give* away."}
    write_json(SHARING, answer | {"verdict": GIVES_AWAY})
    with pytest.raises(CganError, match=r"They \*give\* away\. .* add --publish-anyway"):
        write_card_folder(generator, Path("card"))
    assert not Path("card").exists()
    done = CliRunner().invoke(app, ["card", "card", "--publish-anyway"])
    assert done.exit_code == 0, done.output
    assert "They \\*give\\* away." in (Path("card") / CARD.name).read_text()
    write_json(SHARING, answer | {"verdict": GIVES_AWAY, "generator_digest": "of others"})
    write_card_folder(generator, Path("other"))
    assert "away" not in (Path("other") / CARD.name).read_text()
