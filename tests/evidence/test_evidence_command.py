"""`cgan evidence`: folds, seeds, other test sets and others' drawings; report, page and MLflow."""

import html
import json
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from finished_project import finish_uneven
from synthetic import write_csv
from uneven import NAMES, uneven, write_uneven_csv, write_uneven_folder

from cgan.downstream.effect import DRAWN, Difference, Effect, Outcome
from cgan.downstream.rounds import (
    folds_of,
    near_to_training,
    rounds_by_fold,
    rounds_by_seed,
    units_of,
)
from cgan.downstream.sets import default_per_class, fill_classes, missing_labels
from cgan.drawing.drawings import write_folder
from cgan.errors import CganError
from cgan.files import locked
from cgan.images import Images, first_copies, image_digests, load_images, save_images
from cgan.model.hardware import choose_hardware
from cgan.model.networks import GeneratorNetwork
from cgan.model.sampling import picture_of
from cgan.pipeline.evidence import experiment as command
from cgan.pipeline.evidence.experiment import Options, find_evidence
from cgan.pipeline.evidence.report import _classes, _doubts, _methods, _verdict
from cgan.pipeline.inputs import Inputs
from cgan.pipeline.params_file import load_params, set_params
from cgan.pipeline.whole_data import whole_data
from cgan.project import (
    CSV,
    EVIDENCE,
    EVIDENCE_PAGE,
    EVIDENCE_TEXT,
    HOLDOUT_DATA,
    TEST_DATA,
    TRAIN_DATA,
)
from cgan.readers.csv_reader import read_csv


@pytest.fixture
def rare(uneven_project: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A finished project whose class 1, `apple`, is rare."""
    finish_uneven()
    set_params({"train_judge.total_kimg": 0.1})  # of the classifiers; the judge has learnt
    shutil.copyfile(empty_store, "mlflow.db")
    monkeypatch.setattr(
        "cgan.downstream.rounds.is_settled", lambda *_: False
    )  # tests/downstream/test_early.py
    monkeypatch.setenv("DVC_ROOT", str(uneven_project))
    return uneven_project


@pytest.fixture
def no_pretrained(monkeypatch: pytest.MonkeyPatch) -> None:
    """One test with the pretrained network is enough: it takes a second."""
    monkeypatch.setattr("cgan.downstream.pretrained.is_installed", lambda: False)


def found(**options: object) -> tuple[dict[str, object], list[str]]:
    said: list[str] = []
    find_evidence(load_params(), Options(**options), said.append)  # type: ignore[arg-type]
    path = EVIDENCE.with_stem("evidence-drawn") if options.get("drawn") else EVIDENCE
    # A slow machine says how far it is, too.
    return json.loads(path.read_text()), [line for line in said if ": step " not in line]


def test_each_image_is_tested_once_and_what_was_trained_is_not_trained_again(
    rare: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report, said = found()
    assert report["rounds"] == {"count": 5, "folds": True, "planned": 5}, "few are held out"
    first = whole_data().at(folds_of(whole_data(), 5, load_params()) != 0)
    drawn = len(missing_labels(first.tensors.counts))
    assert report["images"] == {"training": len(first), "drawn": drawn, "tested": 56}
    assert said[0].startswith("The hold-out has only") and "`--seeds 5`" in said[0]
    assert "5 generators and 30 classifiers" in said[1] and said[2].startswith("Fold 1 of 5: ")
    assert len(said) >= 7 and str(EVIDENCE_PAGE) in said[-1]
    page = html.unescape(EVIDENCE_PAGE.read_text())
    assert str(report["summary"]) in page and "filled up with drawings" in page
    (about, words, *drawn), *methods = re.findall(
        r'<figcaption>(.*?): <strong>(.*?)</strong>.*?"reach" d="M(.*?) 2h(.*?)"/>.*?"value" d="M(.*?) 0',
        page,
        re.DOTALL,
    )
    assert about == "apple (10 images)" and "points (95 %: " in words and len(methods) >= 7
    for start, length, value in (map(float, each) for each in (drawn, *(m[2:] for m in methods))):
        assert -0.01 <= start <= value <= start + length + 0.01 <= 100.02
    sent = {path.name for path in (rare / "mlartifacts").rglob("evidence.*")}
    assert sent == {"evidence.json", "evidence.md", "evidence.html"}
    places = list(Path(".cgan/evidence").glob("*/fold-*"))
    assert len(places) == 5 and not list(Path(".cgan/evidence").glob("*/*/training"))
    generators = {(place / "generator.safetensors").read_bytes() for place in places}
    assert len(generators) == 5, "each has its own images and its own seed"

    monkeypatch.setattr("cgan.downstream.classifiers.train_judge", lambda *_, **__: pytest.fail())
    again, _ = found()
    assert {**again, "time": ""} == {**report, "time": ""}
    asked_for, _ = found(folds=5)
    assert asked_for["effect"] == report["effect"]


@pytest.mark.usefixtures("rare", "no_pretrained")
def test_rounds_end_when_more_could_not_change_the_verdict_unless_all_were_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []

    def settled(outcomes: list[Outcome], _: object, planned: int, folded: bool) -> bool:
        asked.append((len(outcomes), planned, folded))
        return len(outcomes) == 2

    monkeypatch.setattr("cgan.downstream.rounds.is_settled", settled)
    monkeypatch.setattr(command, "MIN_HELD_OUT", 1)  # enough for seeds
    report, said = found()
    assert asked == [(1, 5, False), (2, 5, False)]
    assert report["rounds"] == {"count": 2, "folds": False, "planned": 5}
    assert any("Ended after 2 of 5 rounds" in line for line in report["reasons"])  # type: ignore[attr-defined]
    assert any("; so far " in line and "points (95 %)" in line for line in said)
    report, _ = found(seeds=3)
    assert len(asked) == 2 and report["rounds"] == {"count": 3, "folds": False, "planned": 3}
    (folder,) = (path for path in Path(".cgan/evidence").iterdir() if path.is_dir())
    assert len([*folder.iterdir()]) == 3, "two were trained before"


@pytest.mark.usefixtures("rare", "no_pretrained")
def test_a_quick_answer_says_its_width_first_and_trains_shorter(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(command, "seconds_of_judge", lambda *_: 75.0)
    report, said = found(quick=True)
    assert said[0].startswith("A quick answer: 18 classifiers of 0.1 thousand images each")
    assert "expect an interval of ±" in said[0] and "where the seeds differ, more" in said[0]
    assert report["rounds"] == {"count": 3, "folds": False, "planned": 3}
    assert any("quick answer" in line for line in report["reasons"])  # type: ignore[attr-defined]
    with pytest.raises(CganError, match="--quick trains with three seeds"):
        found(quick=True, folds=3)


@pytest.mark.usefixtures("rare", "no_pretrained")
def test_a_quick_answer_draws_no_longer_than_a_minute_of_a_core_and_says_how_much_is_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(GeneratorNetwork, "seconds_per_drawing", 6.0)  # a local score sampler's
    wanted = len(missing_labels(load_images(TRAIN_DATA).tensors.counts))
    report, said = found(quick=True)
    assert report["images"]["drawn"] == 10 < wanted  # type: ignore[index]
    assert any(line.startswith("Drawing 10 images, about ") for line in said)
    assert any(f"with 10 of {wanted} drawings" in line for line in report["reasons"])  # type: ignore[attr-defined]
    labels = command.some_of(torch.tensor([0] * 20 + [1] * 10 + [2] * 5), 7)
    assert labels.tolist() == [0, 0, 0, 0, 1, 1, 2]


def test_f55_reports_that_cannot_be_written_are_refused_before_anything_is_trained(
    project: Path,
) -> None:
    EVIDENCE.parent.write_text("a file where a folder should be")
    with pytest.raises(OSError, match="reports"):
        find_evidence(load_params(), Options(), print)


def test_classifiers_of_this_answer_and_the_two_before_are_kept_and_those_that_are_at_work(
    tmp_path: Path,
) -> None:
    def kept() -> set[str]:
        return {path.name for path in tmp_path.iterdir() if path.is_dir()}

    for n in range(5):
        (tmp_path / f"{n}").mkdir()
        os.utime(tmp_path / f"{n}", (n, n))
    with locked(tmp_path / "1.lock"):
        command.tidy(tmp_path / "0")
        assert kept() == {"0", "1", "3", "4"}
    command.tidy(tmp_path / "0")
    assert kept() == {"0", "3", "4"}


@pytest.mark.usefixtures("rare", "no_pretrained")
def test_drawings_by_folder_give_the_verdict_of_the_generator_that_drew_them() -> None:
    params, inputs = load_params(), Inputs.load()
    own, _ = found(seeds=2)
    assert "<code>--folds 5</code> tests on all images" in EVIDENCE_PAGE.read_text()
    places = Path(".cgan/evidence").glob("*/*/augmented.safetensors")
    assert len({path.read_bytes() for path in places}) == 2, "each has its own seed"
    for options, module in (
        ({"seeds": 2}, "pipeline.evidence.experiment"),
        ({"folds": 2}, "downstream.rounds"),
    ):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                f"cgan.{module}.fill_classes", lambda *given: pytest.fail(f"believed {given[4]}")
            )
            with pytest.raises(pytest.fail.Exception, match=r"believed 0\.99"):
                found(believed=0.99, **options)
    asked = missing_labels(counts := inputs.train.tensors.counts, default_per_class(counts))
    images, _ = fill_classes(inputs.model, inputs.judge, asked, params.evaluate.seed)
    pictures = picture_of(images)
    names = [f"{NAMES[label]}/{n:03d}.png" for n, label in enumerate(asked.tolist())]
    write_folder(Path("theirs"), pictures, names)
    before = EVIDENCE.read_bytes()
    from_folder, _ = found(seeds=2, drawn=Path("theirs"))
    assert EVIDENCE.read_bytes() == before, "what is said of the project's own drawings stays"
    assert from_folder["reasons"].pop() == "The drawings are those in theirs."  # type: ignore[attr-defined]
    assert {**from_folder, "time": ""} == {**own, "time": ""}


@pytest.mark.usefixtures("rare", "no_pretrained")
def test_drawings_of_others_are_judged_by_folds() -> None:
    data, fold_of = whole_data(), folds_of(whole_data(), 3, load_params()).numpy()
    assert data.groups is not None
    for units in (data.groups, first_copies(image_digests(data.pixels))):
        pairs = {*zip(units.tolist(), fold_of.tolist(), strict=True)}
        assert len(pairs) == len(np.unique(units)), "groups, and equal images, are in one fold"
    with pytest.raises(CganError, match=r"theirs/fold-1: not found.*--seeds 5"):
        found(folds=3, drawn=Path("theirs"))
    with pytest.raises(CganError, match="--believed"):
        found(believed=0.5, drawn=Path("theirs"))
    more = uneven(seed=9)
    rows = np.flatnonzero(more.labels == 1)[:10].tolist() * 3
    names = [f"fold-{n // 10 + 1}/apple/{n % 10}.png" for n in range(30)]
    write_folder(Path("theirs"), more.pixels[rows][:, 0], names)
    report, said = found(folds=3, drawn=Path("theirs"))
    assert sum("no drawings of fig, so" in line for line in said) == 3, "in each fold"
    learnt = int((fold_of != 0).sum())
    assert report["images"] == {"training": learnt, "drawn": 10, "tested": 56}
    assert "3 rounds: 18 classifiers" in said[3]


def test_a_wide_interval_cannot_tell_and_a_pretrained_network_that_is_better_is_named() -> None:
    wide = Difference(0.5, 0.4, (-0.4, 0.2), (-0.5, 0.3), 10)
    narrow = Difference(0.5, 0.49, (-0.05, 0.03), (-0.06, 0.04), 10)
    clear = Difference(0.5, 0.2, (-0.5, -0.1), (-0.55, -0.05), 10)
    assert [*map(_verdict, (wide, narrow, clear))] == ["cannot tell", "no difference", "harm"]
    effect = Effect("augmented", narrow, {0: replace(narrow, tested=30), 1: narrow})
    for pretrained, named in ((0.9, True), (0.51, False), (None, False)):
        doubts = _doubts(effect, ["a", "b"], True, "each fold", pretrained)
        assert (
            any("pretrained network's features gets 90.0 % right" in line for line in doubts)
            is named
        )
        assert any("pretrained network" in line for line in doubts) is named
        assert any("Class b is tested on only 10 images" in line for line in doubts)
    # A class that got no drawings shows nothing about them.
    table = _classes(effect, ["a", "b"], torch.tensor([9, 3]), torch.tensor([0, 6]))
    assert [row[-1] for row in table.rows] == ["no difference", "–"]


def test_intervals_over_the_tested_images_count_an_image_once() -> None:
    labels, right = torch.arange(400) // 200, torch.arange(400) >= 40
    answers = Outcome(labels, labels, dict.fromkeys(("real", DRAWN), right))
    row = _methods(answers, 2, ["a", "b"]).rows[0]
    assert row[1:] == ["90.0 %", "85.2 to 93.3 %", "80.0 %, a"]


@pytest.mark.usefixtures("rare", "no_pretrained")
def test_other_images_are_tested_on_but_for_those_that_were_trained_on() -> None:
    own, others = read_csv(CSV, load_params().validation), uneven(seed=9)
    both = [
        np.concatenate([getattr(each, n) for each in (own, others)]) for n in ("pixels", "labels")
    ]
    more = write_csv(Path("more.csv"), *both)
    trained, held = (len(load_images(path)) for path in (TRAIN_DATA, HOLDOUT_DATA))
    report, said = found(seeds=2, test=more)
    # The training part of `more` is left out; the hold-out may be tested on.
    assert report["images"]["tested"] == held + len(others.labels)  # type: ignore[index]
    assert f"{trained} images" in said[0] and "2 rounds: 12" in said[1]
    # A folder without apples: its pictures are of those classes that its names say, in another order.
    kept = others.at(np.flatnonzero(others.labels != 1))
    write_uneven_folder(Path("more"), kept)
    report, _ = found(seeds=2, test=Path("more"))
    rows = re.findall(r"^\| (\w+) \| \d+ \| \d+ \| (\d+)", EVIDENCE_TEXT.read_text(), re.MULTILINE)
    assert sorted(rows) == [("apple", "0"), ("fig", "20"), ("pear", "24")]
    Path("more/fig").rename(Path("more/figs"))
    with pytest.raises(CganError, match=r"the project's classes, pear, apple, fig; found 'figs'"):
        found(test=Path("more"))
    known = load_images(TRAIN_DATA)
    few = write_csv(Path("few.csv"), known.pixels, known.labels)
    with pytest.raises(CganError, match=r"few\.csv: all images are in the training part"):
        found(test=few)
    with pytest.raises(CganError, match=r"--folds .*excludes --seeds and --test"):
        found(folds=5, test=few)
    save_images(TEST_DATA, replace(others, source_sha256=known.source_sha256), part="test")
    report, _ = found(seeds=2)
    assert report["tested_on"] == "the test set" and report["images"]["tested"] == 56  # type: ignore[index]
    # So few show little: all images are tested on, those of the test set among them.
    given: list[Images] = []

    def stop(data: Images, *_: object) -> None:
        given.append(data)
        pytest.fail("folds")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(command, "folds_of", stop)
        with pytest.raises(pytest.fail.Exception, match="folds"):
            found()
    assert len(given[0]) == trained + held + 56 and given[0].groups is not None
    assert np.array_equal(given[0].labels[trained + held :], others.labels)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(command, "MIN_HELD_OUT", 12)
        patch.setattr(command, "rounds_by_seed", lambda *_: pytest.fail("enough images"))
        with pytest.raises(pytest.fail.Exception, match="enough images"):
            found()


@pytest.mark.usefixtures("uneven_project")
def test_labelled_images_keep_their_classes_and_groups_whatever_order_their_source_has() -> None:
    data, others = uneven(), uneven(channels=1, seed=9)
    write_uneven_folder(Path("pictures"), others)
    write_uneven_csv(Path("images.csv"), others)
    for source in ("pictures", "images.csv"):
        found = command.read_labelled(Path(source), load_params(), data)
        assert found.class_names == NAMES and found.labels.tolist() == sorted(others.labels)
        expected = image_digests(others.pixels)
        digests = image_digests(found.pixels)
        for label in range(3):
            of_class = digests[found.labels == label]
            assert sorted(of_class) == sorted(expected[others.labels == label]), NAMES[label]
        if source == "images.csv":
            assert found.groups is not None and found.at(torch.arange(9)).groups is not None
            units = [
                len(np.unique(groups[found.labels == 1]))
                for groups in (found.groups, units_of(found))
            ]
            assert units == [5, 4], "two groups have an image in common"


@pytest.mark.usefixtures("rare")
def test_whatever_decides_a_classifier_and_nothing_else_names_its_folder(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folders = list[Path]()

    def stop_at(lock: Path) -> None:
        folders.append(lock)
        raise CganError("found")

    monkeypatch.setattr(command, "locked", stop_at)

    def folder(**how: Any) -> Path:
        with pytest.raises(CganError, match=r"^found$"):
            find_evidence(load_params(), Options(**how), print)
        return folders[-1]

    write_uneven_csv(Path("others.csv"), uneven(seed=9))
    by_seed, by_fold = folder(seeds=3), folder()
    assert by_seed == folder(seeds=5) == folder(seeds=3, test=Path("others.csv"))
    assert by_fold == folder(folds=5)
    different = [by_seed, by_fold, folder(folds=3)]
    different += [folder(per_class=30, **how) for how in ({"seeds": 3}, {"folds": 5})]
    different += [folder(believed=0.01)]
    for name in ("evaluate.seed", "train_judge.width", "train.total_kimg", "preprocess.seed"):
        set_params({name: 9})
        different.append(folder())
    monkeypatch.setattr(torch, "__version__", "2.0.0")
    different.append(folder())
    assert len({*different}) == len(different)
    for drawing in (b"a", b"b"):
        write_folder(
            Path("theirs"),
            np.full((3, 8, 12), drawing[0], np.uint8),
            [f"{name}/1.png" for name in NAMES],
        )
        different.append(folder(seeds=3, drawn=Path("theirs")))
        shutil.rmtree("theirs")
    assert len({*different}) == len(different)


@pytest.mark.usefixtures("uneven_project")
def test_near_copies_of_tested_images_are_counted_and_named() -> None:
    """Each group of `uneven` becomes pictures of one thing, and folds do not know the groups."""
    data, random = uneven(times=3), np.random.default_rng(1)
    groups = data.groups
    firsts = data.pixels[first_copies(groups)].astype(int)
    near = np.clip(firsts + random.integers(-9, 10, firsts.shape), 0, 255).astype(np.uint8)
    alike = replace(data, pixels=near)
    params, cpu = load_params(), choose_hardware("cpu", "float32")
    ungrouped, counts = replace(alike, groups=None), {}
    for name, images in (("grouped", alike), ("ungrouped", ungrouped), ("others", data)):
        rounds = rounds_by_fold(
            images, folds_of(images, 5, params), params, None, 0.0, [], Path("x"), cpu
        )
        counts[name] = near_to_training(rounds, folded=True)
    assert {looked for _, looked in counts.values()} == {len(data)}
    assert counts["ungrouped"][0] > 100 > 9 > max(counts["grouped"][0], counts["others"][0]), counts
    # Three pictures of one that was learnt from, among others.
    learnt, others = uneven(times=3), uneven(seed=9)
    thing = learnt.pixels[:1].astype(int) + random.integers(0, 9, (3, 1, 8, 12))
    test = Images(
        np.concatenate([others.pixels, thing.clip(0, 255).astype(np.uint8)]),
        np.concatenate([others.labels, learnt.labels[:1].repeat(3)]),
        NAMES,
    )
    rounds = rounds_by_seed(learnt, others, test, params.train_judge, 2, Path("x"), cpu)
    assert near_to_training(rounds, folded=False) == (3, 59)
    change = Difference(0.5, 0.49, (-0.05, 0.03), (-0.06, 0.04), 90)
    effect = Effect("augmented", change, {0: change})
    for near, named in (((9, 90), True), ((4, 90), False), ((2, 9), False)):
        doubts = " ".join(_doubts(effect, ["a"], True, "each fold", None, near))
        assert (" tested images look much like one that was learnt from" in doubts) is named
        assert ("9 of 90 tested" in doubts) is named
        assert "tested on only" not in doubts and "hardly recognises" in doubts, (
            "no better than guessing"
        )
