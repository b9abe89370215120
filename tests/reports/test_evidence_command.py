"""`cgan evidence`: folds, seeds, other test sets and others' drawings; report, page and MLflow."""

import html
import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from finished_project import finish_with_a_rare_class
from recording import RecordingTracker, reopened
from synthetic import make_images, write_csv

from cgan.data.csv_reader import read_csv
from cgan.data.dataset import load_dataset, save_dataset
from cgan.drawing.drawings import write_folder
from cgan.errors import CganError
from cgan.evidence.classifiers import PARTS
from cgan.evidence.effect import DRAWN, Difference, Effect, Outcome
from cgan.evidence.rounds import folds_of
from cgan.evidence.sets import default_per_class, fill, missing
from cgan.model.sampling import picture_of
from cgan.page.data_facts import Rows
from cgan.params.editing import set_params
from cgan.params.reading import load_params
from cgan.project import CSV, EVIDENCE, EVIDENCE_PAGE, EVIDENCE_TEXT, TEST_DATA, TRAIN_DATA
from cgan.quality.evaluation import Inputs
from cgan.reports import evidence as command
from cgan.reports.evidence import Options, find_evidence
from cgan.reports.evidence_report import _classes, _doubts, _methods, _verdict, _worth
from cgan.reports.split import write_split


@pytest.fixture
def rare(project: Path, monkeypatch: pytest.MonkeyPatch) -> RecordingTracker:
    """In a finished project with a rare class: what goes to MLflow."""
    finish_with_a_rare_class(project)
    set_params({"train_judge.total_kimg": 0.1})  # of the classifiers; the judge has learnt
    return reopened(command, monkeypatch)


@pytest.fixture
def no_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    """One test with the pretrained network is enough: it takes a second."""
    monkeypatch.setattr("cgan.evidence.probe.is_installed", lambda: False)


def found(**options: object) -> tuple[dict[str, object], list[str]]:
    said: list[str] = []
    find_evidence(load_params(), Options(**options), said.append)  # type: ignore[arg-type]
    path = EVIDENCE.with_stem("evidence-drawn") if options.get("drawn") else EVIDENCE
    # A slow machine says how far it is, too.
    return json.loads(path.read_text()), [line for line in said if ": step " not in line]


def test_each_image_is_tested_once_and_what_was_trained_is_not_trained_again(
    rare: RecordingTracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    report, said = found()
    assert report["rounds"] == {"count": 5, "folds": True}, "few are held out"
    assert report["images"] == {"training": 48, "drawn": 12, "tested": 60}
    assert "5 generators and 40 classifiers" in said[0] and said[1].startswith("Fold 1 of 5: ")
    assert len(said) >= 7 and str(EVIDENCE_PAGE) in said[-1]
    page = html.unescape(EVIDENCE_PAGE.read_text())
    assert str(report["summary"]) in page and "filled up with drawings" in page
    (about, words, *drawn), *methods = re.findall(
        r'<figcaption>(.*?): <strong>(.*?)</strong>.*?"reach" d="M(.*?) 2h(.*?)"/>.*?"value" d="M(.*?) 0',
        page,
        re.DOTALL,
    )
    assert about == "2 (10 images)" and "points (95 %: " in words and len(methods) >= 7
    for start, length, value in (map(float, each) for each in (drawn, *(m[2:] for m in methods))):
        assert -0.01 <= start <= value <= start + length <= 100.01
    assert [name for _, name in rare.files] == ["evidence.json", "evidence.md", "evidence.html"]
    places = list(Path(".cgan/evidence").glob("*/fold-*"))
    assert len(places) == 5 and not list(Path(".cgan/evidence").glob("*/*/training"))
    generators = {(place / "generator.safetensors").read_bytes() for place in places}
    assert len(generators) == 5, "each has its own images and its own seed"

    monkeypatch.setattr("cgan.evidence.classifiers.train_judge", lambda *_, **__: pytest.fail())
    again, _ = found()
    assert {**again, "time": ""} == {**report, "time": ""}


def test_f55_reports_that_cannot_be_written_are_refused_before_anything_is_trained(
    project: Path,
) -> None:
    EVIDENCE.parent.write_text("a file where a folder should be")
    with pytest.raises(OSError, match="reports"):
        find_evidence(load_params(), Options(), print)


def test_the_classifiers_of_this_answer_and_of_the_two_before_are_kept(tmp_path: Path) -> None:
    for n in range(4):
        (tmp_path / f"{n}").mkdir()
        (tmp_path / f"{n}.lock").touch()
        os.utime(tmp_path / f"{n}", (n, n))
    command.tidy(tmp_path / "0")
    assert {path.stem for path in tmp_path.iterdir()} == {"0", "2", "3"}


@pytest.mark.usefixtures("rare", "no_probe")
def test_drawings_by_folder_give_the_verdict_of_the_generator_that_drew_them() -> None:
    params, inputs = load_params(), Inputs.load()
    own, _ = found(seeds=2)
    assert "<code>--folds 5</code> tests on all images" in EVIDENCE_PAGE.read_text()
    places = Path(".cgan/evidence").glob("*/*/augmented.safetensors")
    assert len({path.read_bytes() for path in places}) == 2, "each has its own seed"
    for options, module in (({"seeds": 2}, "reports.evidence"), ({"folds": 2}, "evidence.rounds")):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(f"cgan.{module}.fill", lambda *given: pytest.fail(f"believed {given[4]}"))
            with pytest.raises(pytest.fail.Exception, match=r"believed 0\.99"):
                found(believed=0.99, **options)
    asked = missing(counts := torch.bincount(inputs.training.labels), default_per_class(counts))
    images, _ = fill(inputs.network, inputs.judge, asked, params.evaluate.seed)
    pictures = picture_of(images)
    names = [f"{label}/{n:03d}.png" for n, label in enumerate(asked.tolist())]
    write_folder(Path("theirs"), pictures, names)
    before = EVIDENCE.read_bytes()
    theirs, _ = found(seeds=2, drawn=Path("theirs"))
    assert EVIDENCE.read_bytes() == before, "what is said of the project's own drawings stays"
    assert theirs["reasons"].pop() == "The drawings are those in theirs."  # type: ignore[attr-defined]
    assert theirs.pop("generator_digest") == "" != own.pop("generator_digest")
    assert {**theirs, "time": ""} == {**own, "time": ""}


@pytest.mark.usefixtures("rare", "no_probe")
def test_others_learn_from_the_folds_that_split_writes_and_their_drawings_are_judged() -> None:
    said: list[str] = []
    write_split(load_params(), 3, Path("parts"), said.append)
    data, fold_of = Rows.read(), folds_of(Rows.read(), 3, load_params())
    for fold in range(3):
        place = Path(f"parts/fold-{fold + 1}")
        counts = [len(list(place.glob(f"{part}/2/*.png"))) for part in ("train", "test")]
        of_two = (data.labels == 2) & (fold_of == fold)
        assert counts == [12 - int(of_two.sum()), int(of_two.sum())]
    assert "cgan evidence --folds 3 --drawn" in said[0]
    write_split(load_params(), None, Path("once"), said.append)
    sizes = {path.name: len([*path.rglob("*.png")]) for path in Path("once").iterdir()}
    assert sizes == {"train": 45, "val": 15}
    with pytest.raises(CganError, match=r"theirs/fold-1: not found.*cgan split --folds 3"):
        found(folds=3, drawn=Path("theirs"))
    for way, place in (({"folds": 3}, Path("parts")), ({"seeds": 2}, Path("parts/fold-1"))):
        with pytest.raises(CganError, match="are images that are tested on"):
            found(**way, drawn=place)
    with pytest.raises(CganError, match="--believed"):
        found(believed=0.5, drawn=Path("theirs"))
    more, labels = make_images(per_class=10, seed=9)
    rows = np.flatnonzero(labels == 2).tolist() * 3
    names = [f"fold-{n // 10 + 1}/2/{n % 10}.png" for n in range(30)]
    write_folder(Path("theirs"), more[rows][:, 0], names)
    report, said = found(folds=3, drawn=Path("theirs"))
    assert not [line for line in said if "no drawings of" in line]
    assert report["images"] == {"training": 40, "drawn": 10, "tested": 60}
    assert "3 rounds: 24 classifiers" in said[0]
    write_split(load_params(), None, Path("whole"), said.append)
    assert {path.name for path in Path("whole").iterdir()} == {"train", "val"}, "no test set"
    TRAIN_DATA.unlink()
    with pytest.raises(CganError, match=r"train.safetensors: not found.*`dvc repro`"):
        write_split(load_params(), None, Path("again"), said.append)


def test_a_wide_interval_cannot_tell_and_a_pretrained_network_that_is_better_is_named() -> None:
    wide = Difference(0.5, 0.4, (-0.4, 0.2), (-0.5, 0.3), 10)
    narrow = Difference(0.5, 0.49, (-0.05, 0.03), (-0.06, 0.04), 10)
    clear = Difference(0.5, 0.2, (-0.5, -0.1), (-0.55, -0.05), 10)
    assert [*map(_verdict, (wide, narrow, clear))] == ["cannot tell", "no difference", "harm"]
    effect = Effect("augmented", narrow, {0: narrow, 1: narrow})
    for pretrained, named in ((0.9, True), (0.51, False), (None, False)):
        told = _doubts(effect, ["a", "b"], True, "each fold", pretrained)
        assert ("pretrained network's features gets 90.0 % right" in told[0]) is named
    # A class that got no drawings shows nothing about them.
    table = _classes(effect, ["a", "b"], torch.tensor([9, 3]), torch.tensor([0, 6]))
    assert [row[-1] for row in table[2]] == ["no difference", "–"]


def test_intervals_and_what_drawings_are_worth_count_images(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    labels, right = torch.arange(400) // 200, torch.arange(400) >= 40
    answers = Outcome(labels, labels, dict.fromkeys(("real", DRAWN, *PARTS), right))
    row = _methods(answers, 2, ["a", "b"])[2][0]
    assert row[1:] == ["90.0 %", "85.2 to 93.3 %", "80.0 %, a"]
    monkeypatch.setattr("cgan.reports.evidence_report.worth", lambda *_: (3.0, (2.0, 5.0)))
    said = _worth([answers], [0, 1], True, torch.tensor([20, 10]), ["a", "b"])
    assert "of b that is 20 photographs more (10 to 40)" in said


@pytest.mark.usefixtures("rare", "no_probe")
def test_other_images_are_tested_on_but_for_those_that_were_trained_on() -> None:
    own, others = read_csv(CSV, load_params().validation), make_images(per_class=30, seed=9)
    images = np.concatenate([own.images, others[0]])
    more = write_csv(Path("more.csv"), images, np.concatenate([own.labels, others[1]]))
    report, said = found(seeds=2, test=more)
    # The training part of `more` is left out; the hold-out may be tested on.
    assert report["images"] == {"training": 45, "drawn": 9, "tested": 90 + 15}
    assert "45 images are in the training part too" in said[0] and "2 rounds: 16" in said[1]
    # A folder lacks classes: its pictures are of those that its names say.
    write_folder(Path("more"), others[0][:, 0], (f"{n % 2 + 1}/{n}.png" for n in range(90)))
    found(seeds=2, test=Path("more"))
    rows = re.findall(r"^\| (\d) \| \d+ \| \d+ \| (\d+)", EVIDENCE_TEXT.read_text(), re.MULTILINE)
    assert rows == [("2", "45"), ("0", "0"), ("1", "45")]
    Path("more/1").rename("more/one")
    with pytest.raises(CganError, match=r"the project's classes, 0, 1, 2; found 'one'"):
        found(test=Path("more"))
    known = load_dataset(TRAIN_DATA)
    few = write_csv(Path("few.csv"), known.images.numpy(), known.labels.numpy())
    with pytest.raises(CganError, match=r"few\.csv: all images are in the training part"):
        found(test=few)
    with pytest.raises(CganError, match=r"--folds .*excludes --seeds and --test"):
        found(folds=5, test=few)
    facts = {key: known.metadata[key] for key in ("classes", "csv_sha256")} | {"part": "test"}
    save_dataset(TEST_DATA, *others, np.arange(90), facts)
    report, _ = found(seeds=2)
    assert report["tested_on"] == "the test set" and report["images"]["tested"] == 90  # type: ignore[index]
