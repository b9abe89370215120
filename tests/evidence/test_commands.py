"""`cgan evidence` and `cgan sharing`: what they ask, and what they write, show and send."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from finished_project import finish_uneven
from synthetic import write_csv
from typer.testing import CliRunner, Result
from uneven import NAMES, uneven, write_uneven_csv, write_uneven_folder

from cgan.attacks import GIVES_AWAY, attacker, membership
from cgan.cli import app
from cgan.downstream.sets import default_per_class, missing_labels, units_of
from cgan.drawing.drawings import write_folder
from cgan.drawing.generator import Generator
from cgan.errors import CganError
from cgan.files import read_json, write_json
from cgan.images import Images, image_digests, load_images, save_images
from cgan.model.sampling import picture_of
from cgan.pipeline.evidence import answers
from cgan.pipeline.params_file import load_params, set_params
from cgan.pipeline.runs.card import write_card_folder
from cgan.project import (
    CARD,
    CSV,
    EVIDENCE,
    GENERATOR,
    HOLDOUT_DATA,
    SHARING,
    SHARING_TEXT,
    TEST_DATA,
    TRAIN_DATA,
)
from cgan.readers.csv_reader import read_csv


@pytest.fixture(autouse=True)
def finished(uneven_project: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A finished project, in which attacks and classifiers take no time."""
    finish_uneven()
    Path("dvc.yaml").touch()  # so it is a project
    set_params({"train_judge.total_kimg": 0.1})  # of the classifiers; the judge has learnt
    shutil.copyfile(empty_store, "mlflow.db")
    monkeypatch.setenv("DVC_ROOT", str(uneven_project))
    monkeypatch.setattr("cgan.downstream.pretrained.is_installed", lambda: False)
    monkeypatch.setattr(membership, "PERMUTATIONS", 200)
    monkeypatch.setattr(attacker, "MIN_DRAWINGS", 150)
    return uneven_project


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


def found(**options: Any) -> tuple[dict[str, Any], list[str]]:
    said: list[str] = []
    answers.find_evidence(load_params(), said.append, **options)
    path = EVIDENCE.with_stem("evidence-drawn") if options.get("drawn") else EVIDENCE
    # A slow machine says how far it is, too.
    return read_json(path), [line for line in said if ": step " not in line]


def sent(project: Path) -> set[str]:
    return {path.name for path in (project / "mlartifacts").rglob("*.*") if path.suffix != ".yaml"}


# --- cgan evidence --------------------------------------------------------------------------------


def test_few_held_out_images_ask_for_folds_and_nothing_is_done_twice(
    finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = run("evidence")
    assert done.exit_code == 0, done.output
    report = read_json(EVIDENCE)
    assert "`--seeds 5` tests on the hold-out alone" in done.output
    assert "4 of 5 rounds: " in done.output and report["summary"] in done.output
    assert report["rounds"] == {"count": 5, "folds": True}, "few are held out"
    assert report["images"]["tested"] == 56
    text = EVIDENCE.with_suffix(".md").read_text()
    assert report["summary"].partition(":")[0] in text and "filled up with drawings" in text
    assert sent(finished) >= {"evidence.json", "evidence.md"}
    places = list(Path(".cgan/evidence").glob("*/fold-*"))
    assert len(places) == 5 and not list(Path(".cgan/evidence").glob("*/*/training"))
    generators = {(place / "generator.safetensors").read_bytes() for place in places}
    assert len(generators) == 5, "each has its own images and its own seed"
    monkeypatch.setattr("cgan.downstream.classifiers.train_judge", lambda *_, **__: pytest.fail())
    again, _ = found(folds=5)
    assert {**again, "time": ""} == {**report, "time": ""}


def test_reports_that_cannot_be_written_are_refused_first() -> None:
    shutil.rmtree(EVIDENCE.parent)
    EVIDENCE.parent.write_text("a file where a folder should be")
    done = run("evidence")
    assert done.exit_code == 1 and isinstance(done.exception, OSError)
    assert not Path(".cgan/evidence").exists()


def test_a_folder_of_drawings_gives_the_verdict_of_their_generator() -> None:
    own, _ = found(seeds=2)
    counts = load_images(TRAIN_DATA).tensors.counts
    asked = missing_labels(counts, default_per_class(counts))
    drawn = Generator.load(GENERATOR).model.draw(asked, load_params().evaluate.seed)
    names = [f"{NAMES[label]}/{n:03d}.png" for n, label in enumerate(asked.tolist())]
    write_folder(Path("theirs"), picture_of(drawn), names)
    before = EVIDENCE.read_bytes()
    from_folder, _ = found(seeds=2, drawn=Path("theirs"))
    assert EVIDENCE.read_bytes() == before, "what is said of the project's own drawings stays"
    assert from_folder["reasons"].pop() == "The drawings are those in theirs."
    assert from_folder["images"] == own["images"] and from_folder["classes"].keys() == {*NAMES}
    assert from_folder["accuracies"].keys() == own["accuracies"].keys()
    with pytest.raises(CganError, match="--folds tests on all images"):
        found(folds=3, drawn=Path("theirs"))


def test_other_images_are_tested_on_but_for_those_trained_on() -> None:
    own, others = read_csv(CSV, load_params().validation), uneven(seed=9)
    both = [
        np.concatenate([getattr(each, n) for each in (own, others)]) for n in ("pixels", "labels")
    ]
    more = write_csv(Path("more.csv"), *both)
    trained, held = (len(load_images(path)) for path in (TRAIN_DATA, HOLDOUT_DATA))
    report, said = found(seeds=2, test=more)
    # The training part of `more` is left out; the hold-out may be tested on.
    assert report["images"]["tested"] == held + len(others)
    assert f"{trained} images are in the training part" in said[0]
    assert report["reasons"][-1] == "Tested on more.csv."
    known = load_images(TRAIN_DATA)
    few = write_csv(Path("few.csv"), known.pixels, known.labels)
    with pytest.raises(CganError, match=r"few\.csv: all images are in the training part"):
        found(test=few)


def test_the_data_s_own_test_set_is_tested_on(monkeypatch: pytest.MonkeyPatch) -> None:
    train, held_out, others = load_images(TRAIN_DATA), load_images(HOLDOUT_DATA), uneven(seed=9)
    save_images(TEST_DATA, replace(others, source_sha256=train.source_sha256), part="test")
    given = list[Any]()

    def stop(*arguments: Any, **options: Any) -> None:
        given.append((arguments, options["folds"]))
        raise CganError("asked")

    monkeypatch.setattr(answers, "evidence", stop)
    for options, least in (({"seeds": 2}, 50), ({}, 12), ({}, 50)):
        monkeypatch.setattr(answers, "MIN_HELD_OUT", least)
        with pytest.raises(CganError, match="asked"):
            found(**options)
    *by_seed, (folded, folds) = given
    for (_, tested, generator), none in by_seed:
        assert tested.digest == others.digest and generator is not None and none is None
    _, tested, generator = folded
    assert len(tested) == len(held_out) + len(others) and generator is None and folds == 5
    assert tested.groups is not None, "groups stay together in folds"


def test_labelled_images_keep_their_classes_and_groups() -> None:
    data, others = uneven(), uneven(seed=9)
    write_uneven_folder(Path("pictures"), others)
    write_uneven_csv(Path("images.csv"), others)
    expected = image_digests(others.pixels)
    for source in ("pictures", "images.csv"):
        read = answers.read_labelled(Path(source), load_params(), data)
        digests = image_digests(read.pixels)
        assert read.class_names == NAMES
        for label in range(3):
            of_class = digests[read.labels == label]
            assert sorted(of_class) == sorted(expected[others.labels == label]), NAMES[label]
    assert others.groups is not None
    assert len(np.unique(units_of(read))) == len(np.unique(others.groups)) - 3
    shutil.rmtree("pictures/apple")
    without: Images = answers.read_labelled(Path("pictures"), load_params(), data)
    assert without.counts.tolist() == [24, 0, 20]
    Path("pictures/fig").rename("pictures/figs")
    with pytest.raises(CganError, match=r"the project's classes, pear, apple, fig; found 'figs'"):
        answers.read_labelled(Path("pictures"), load_params(), data)


# --- cgan sharing ---------------------------------------------------------------------------------


def test_sharing_is_written_shown_and_sent_to_the_run(finished: Path) -> None:
    done = run("sharing", "--seeds", "2")
    assert done.exit_code == 0, done.output
    report = read_json(SHARING)
    assert report["generator_digest"] == Generator.load(GENERATOR).facts["digest"]
    assert report["verdict"] in (GIVES_AWAY, "nothing shown")
    assert report["summary"] == report["sentence"] and report["sentence"] in done.output
    text = SHARING_TEXT.read_text()
    assert "apple" in text and "differential privacy" in text and "by drawings" in text
    assert sent(finished) >= {"sharing.json", "sharing.md"}


def test_a_folder_of_training_images_is_found() -> None:
    write_json(SHARING, {"verdict": "nothing shown"})
    write_uneven_folder(Path("copies"), load_images(TRAIN_DATA))
    assert run("sharing", "--seeds", "2", "--drawn", "copies").exit_code == 0
    report = read_json(SHARING.with_stem("sharing-drawn"))
    assert report["verdict"] == GIVES_AWAY and report["generator_digest"] is None
    assert "The drawings are those in copies." in report["reasons"]
    assert read_json(SHARING) == {"verdict": "nothing shown"}, "the project's own answer stays"


def test_what_leaks_is_published_by_a_flag_alone() -> None:
    generator = Generator.load(GENERATOR)
    answer = {"generator_digest": generator.facts["digest"], "sentence": "They *give* away."}
    write_json(SHARING, answer | {"verdict": GIVES_AWAY})
    with pytest.raises(CganError, match=r"They \*give\* away\. .* add --publish-anyway"):
        write_card_folder(generator, Path("card"))
    assert not Path("card").exists()
    done = run("card", "card", "--publish-anyway")
    assert done.exit_code == 0, done.output
    assert "They \\*give\\* away." in (Path("card") / CARD.name).read_text()
    write_json(SHARING, answer | {"verdict": GIVES_AWAY, "generator_digest": "of others"})
    write_card_folder(generator, Path("other"))
    assert "away" not in (Path("other") / CARD.name).read_text()
