"""What an evaluation, `cgan evidence` and `cgan sharing` say, and that the library says the same."""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import NAMES, TINY, Project, plain, uneven, write_csv, write_folder
from typer.testing import CliRunner, Result

import cgan
from cgan.base.errors import CganError
from cgan.base.files import read_json, write_json
from cgan.base.progress import silent
from cgan.cli import app
from cgan.data.images import Images, joined, load_images, save_images
from cgan.models.local_score import LocalScoreSampler, LocalScoreSettings
from cgan.models.networks import Architecture, build_generator
from cgan.params.sections import AutoTrainParams, JudgeParams
from cgan.pipeline.params_file import load_params
from cgan.quality import judge as judges
from cgan.quality.evaluate import METRICS
from cgan.quality.judge import Judge, load_judge
from cgan.stages import evaluate, train_judge

Ask = Callable[..., Any]  # a function of the library, asked as its users may wrongly do, too
SHORT = JudgeParams(total_kimg=0.2, seed=1)
TINY_GAN = AutoTrainParams(**TINY["train"])
CLASSIFIERS = 4  # of a round
OWN_ANSWER = Path("reports/sharing.json")
GENERATOR, JUDGE = "models/generator.safetensors", "models/judge.safetensors"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attacks and classifiers take no time."""
    monkeypatch.setattr("cgan.privacy.membership.PERMUTATIONS", 400)
    monkeypatch.setattr("cgan.privacy.sharing.ATTACKED_DRAWINGS", 150)
    monkeypatch.setattr("cgan.utility.pretrained.is_installed", lambda: False)


@pytest.fixture
def asked(copied: Project) -> Project:
    """A finished project whose classifiers, and generators of folds, have few steps."""
    copied.set(train_judge={"total_kimg": 0.1}, train={"total_kimg": 0.16})
    return copied


def parts() -> tuple[Images, Images, cgan.Generator]:
    """Training images, held-out ones and the generator of the project in the working directory."""
    train, held_out = (load_images(f"data/processed/{n}.safetensors") for n in ("train", "holdout"))
    return train, held_out, cgan.Generator.load(GENERATOR)


def untrained(seed: int = 0) -> cgan.Generator:
    torch.manual_seed(seed)
    return cgan.Generator(build_generator(Architecture("deconv", 3, 1, 8, 12, 8, 4)).eval(), {})


def command(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


def reported(name: str, *arguments: str) -> dict[str, Any]:
    """What a command that ends well writes into a report of this name."""
    done, path = command(*arguments), Path(f"reports/{name}.json")
    assert done.exit_code == 0, done.output
    report: dict[str, Any] = read_json(path)
    assert report["sentence"] in done.output
    assert report["question"] in path.with_suffix(".md").read_text()
    sent = {path.name for path in Path("mlartifacts").rglob("*.*")}
    assert sent >= {f"{name}.json", f"{name}.md"}
    return report


def as_asked() -> dict[str, Any]:
    """What the commands give the functions of the library."""
    params = load_params()
    given = {"seeds": 2, "recipe": params.train_judge, "seed": params.evaluate.seed}
    return {**given, "progress": silent}


def says_the_same(name: str, answer: cgan.Evidence | cgan.Sharing) -> bool:
    """Has a report of this name the bytes that the library's answer writes?"""
    answer.report().write(Path(f"own/{name}.json"))
    files = [path.read_bytes() for path in Path().glob(f"*/{name}.*")]
    return len(files) == 4 and len({*files}) == 2


# --- evaluate -------------------------------------------------------------------------------------


def test_the_stage_reports_what_cgan_evaluate_says(
    finished: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(finished.folder)
    (train, held_out, generator), (judge, facts) = parts(), load_judge(JUDGE)
    params = load_params().evaluate.model_dump()
    report = cgan.Evaluation.read(Path("reports/evaluation.json"))
    found = cgan.evaluate(generator, train, held_out, judge=judge, progress=silent, **params)
    assert report == replace(found, min_judge_accuracy=load_params().gate.min_judge_accuracy)
    scores = {**report.metrics}
    assert scores.pop("gan_train_accuracy").value is None, "0 kimg: not asked for"
    numbers = finished.read("reports/metrics.json")["quality"]
    assert numbers.keys() == scores.keys() and len(scores) == len(METRICS) - 1
    for key, score in scores.items():
        assert score.value is not None and score.real is not None
        assert score.value == pytest.approx(numbers[key], abs=1e-5)
        low, high = score.interval or (score.value, score.value)
        assert low <= score.value <= high and (score.interval or key.startswith("worst"))
    expected = {"generator_digest": generator.facts["digest"], "extractor_digest": facts["digest"]}
    expected |= {"reference_digest": held_out.digest, "reference_images": len(held_out)}
    assert report.context.items() >= expected.items()


def test_a_judge_that_knows_nothing_calls_nothing_good(
    copied: Project, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It names one class whatever it sees: words say that it cannot tell, and no class is good or weak."""
    judge, _ = load_judge(JUDGE)
    monkeypatch.setattr(train_judge, "train_judge", lambda *_: judge)
    copied.set(gate={"min_judge_accuracy": 1.0})
    train_judge.main()  # right on all, few as they are
    assert "promotes nothing" not in caplog.text
    judge.head.weight.zero_()
    judge.head.bias.copy_(torch.tensor([1.0, 0.0, 0.0]))
    with caplog.at_level("INFO"):
        train_judge.main()
        evaluate.main()
    found = cgan.Evaluation.read(Path("reports/evaluation.json"))
    assert "promotes nothing" in caplog.text
    assert found.score("conditional_accuracy").real == pytest.approx(1 / 3)
    assert "33.3 %" in found.judge_weakness and repr(found).startswith("CANNOT TELL")
    assert found.judge_weakness in caplog.text and found.judge_weakness in found._repr_html_()
    assert not re.search("Legible|Weakest class", caplog.text)


def test_arrays_are_evaluated_with_a_judge_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In colour. Nothing is written."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("cgan.quality.intervals.REPLICATES", 20)
    monkeypatch.setattr(judges, "WIDTH", 8)
    recipe = JudgeParams(total_kimg=6.0, seed=1)
    monkeypatch.setattr("cgan.quality.evaluate.JudgeParams", lambda: recipe)
    train, held_out, test = (uneven(times=n, channels=3, seed=n) for n in (3, 2, 1))
    sampler = LocalScoreSampler(*train.tensors[:2], LocalScoreSettings(steps=2))
    params: dict[str, Any] = {"samples": 100, "gan_train_kimg": 0.1, "seed": 5}
    measure: Ask = partial(cgan.evaluate, progress=silent, **params)
    wrong = replace(test, labels=(test.labels + 1) % 3)
    found = measure(cgan.Generator(sampler, {}), train, held_out, test=wrong)
    assert found.metrics.keys() == METRICS.keys() and found.names == NAMES
    assert (found.score("conditional_accuracy").real or 0) > 0.7, "a judge was trained"
    on_test = found.judge_on_test_set
    assert on_test and (on_test.value or 0) < 0.3 and on_test.interval
    assert cgan.Evaluation.from_json(json.loads(json.dumps(found.report().as_json()))) == found
    assert ">real images</th>" in found._repr_html_() and not list(tmp_path.iterdir())
    renamed, narrow = replace(held_out, class_names=NAMES[::-1]), uneven(channels=3, width=8)
    refused: list[tuple[Images, dict[str, Any], str]] = [
        (train.at(slice(20)), {}, r"^held_out: .*20 of 20.*images\.split"),
        (narrow, {}, r"^held_out: .*generator's.* found \("),
        (renamed, {}, "^held_out: .* in its order, pear, apple, fig; found fig, apple, pear"),
        (held_out, {"sampels": 9}, "cgan.evaluate: unknown key `sampels`; did you mean `samples`"),
        (held_out, {"juge": None}, "did you mean `judge`"),
        (held_out, {"judge": Judge(2, 3, 8)}, r"the judge: .*\(3, 3\).*\(2, 3\)"),
    ]
    for part, options, words in refused:
        with pytest.raises(CganError, match=words):
            measure(sampler, train, part, **options)


# --- evidence -------------------------------------------------------------------------------------


def test_the_command_says_what_cgan_evidence_says(
    asked: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    train, held_out, generator = parts()
    answer = cgan.evidence(train, held_out, generator, folder=".cgan/evidence", **as_asked())
    monkeypatch.setattr("cgan.utility.rounds.train_judge", lambda *_, **__: pytest.fail())
    report = reported("evidence", "evidence", "--seeds", "2")
    assert says_the_same("evidence", answer), "and nothing was trained twice"
    assert report["rounds"] == {"count": 2, "folds": False}
    assert answer.drawn == (max(train.counts) - train.counts).tolist()


def test_few_held_out_images_ask_for_folds_which_test_all(asked: Project) -> None:
    report = reported("evidence", "evidence")
    train, held_out, _ = parts()
    assert report["rounds"] == {"count": 5, "folds": True}
    assert report["images"]["tested"] == len(train) + len(held_out)
    assert {*report["classes"]} == {*NAMES} and "in 5 folds" in report["reasons"][-1]
    places = list(Path(".cgan/evidence").glob("*/fold-*"))
    assert len(places) == 5
    kept = {
        path.read_bytes() for place in places for path in place.glob("generator/*/*.safetensors")
    }
    assert len(kept) == 5, "each has its own images and its own seed"


def test_other_images_are_tested_on_but_for_those_trained_on(asked: Project) -> None:
    train, held_out, _ = parts()
    others = uneven(seed=9)
    write_csv(Path("more.csv"), joined(*map(plain, (train, held_out, others))))
    report = reported("evidence", "evidence", "--seeds", "2", "--test", "more.csv")
    # The training part of `more` is left out; the hold-out may be tested on.
    assert report["images"]["tested"] == len(held_out) + len(others)
    # The data's own test set, where they have one.
    save_images("data/processed/test.safetensors", others)
    report = reported("evidence", "evidence", "--seeds", "2")
    assert report["images"]["tested"] == len(others)
    report = reported("evidence", "evidence", "--folds", "2")
    assert report["images"]["tested"] == len(train) + len(held_out) + len(others)


def test_an_interrupted_call_goes_on_and_says_the_estimate(tmp_path: Path) -> None:
    said, trained = list[str](), list[str]()

    def progress(what: str, steps: range, images_per_step: int = 0) -> Iterator[int]:
        trained.append(what)
        if len(trained) == 2 * CLASSIFIERS + 2:
            raise KeyboardInterrupt
        return iter(steps)

    sets = uneven(times=2, seed=1), uneven(times=2, seed=2), untrained()
    ask: Ask = partial(cgan.evidence, *sets, recipe=SHORT, seeds=3, folder=tmp_path)
    with pytest.raises(KeyboardInterrupt):
        ask(progress=progress, say=said.append)
    assert said[0].startswith("3 rounds of 4 classifiers each")
    assert re.match(r"They take about \d+ s\.", said[1])
    assert ask(progress=progress).rounds == 3
    assert len(trained) == 3 * CLASSIFIERS + 1, "what was trained before stays"


def test_whatever_decides_a_classifier_names_its_folder(tmp_path: Path) -> None:
    def progress(what: str, steps: range, images_per_step: int = 0) -> Iterator[int]:
        if what.endswith("classifier 2 of 4"):
            raise KeyboardInterrupt
        return iter(steps)

    sets, other = (uneven(times=2), uneven(seed=2)), SHORT.model_copy(update={"seed": 2})
    drawn: dict[str, Any] = {"generator": untrained()}
    folded: dict[str, Any] = {"folds": 3}
    for number, how in enumerate(
        (
            *(drawn, drawn | {"per_class": 99}, drawn | {"seed": 2}, drawn | {"recipe": other}),
            *({"generator": untrained(seed=1)}, folded, {"folds": 4}, folded | {"per_class": 99}),
            *(folded | {"seed": 2}, folded | {"training": AutoTrainParams(seed=5)}),
        ),
        start=1,
    ):
        for _ in range(2 if number == 1 else 1):
            with pytest.raises(KeyboardInterrupt):
                ask: Ask = partial(cgan.evidence, *sets, folder=tmp_path, progress=progress)
                ask(**{"recipe": SHORT, **how})
            assert len(list(tmp_path.iterdir())) == number, how


def test_harm_has_to_be_clear_and_a_weak_classifier_says_so() -> None:
    names = ["<b>", "apple", "fig"]
    train, test = (replace(uneven(times=2, seed=n), class_names=names) for n in (1, 2))
    found = cgan.evidence(train, test, untrained(), recipe=SHORT, seeds=2, progress=silent)
    assert "&lt;b&gt;" in found._repr_html_() and "<b>" not in found._repr_html_()

    def told(without: float, highest: float, drawn: int) -> str:
        """Of a loss of one point and an interval below 0, at 99 % up to `highest`; of 100 images."""
        change = replace(found.effect.overall, without=without, with_drawings=without - 0.01)
        change = replace(change, interval=(-0.05, -0.001), wider_interval=(-0.06, highest))
        changed = replace(found.effect, overall=change)
        return repr(replace(found, effect=changed, learnt=[70, 30, 0], drawn=[drawn, 0, 0]))

    unclear, harm = told(0.5, 0.04, drawn=9), told(0.7, -0.01, drawn=10)
    assert unclear.startswith(
        "CANNOT TELL: Only 9 drawings were added to 100 images, which can change "
    )
    assert "little. These images cannot tell" in unclear and harm.startswith("HARM: Don't")
    assert (
        "(95 % interval -5.0 to -0.1), as a mean over the classes; within ± 1 it would not" in harm
    )
    words = "recognises these classes (guessing gets 33.3 %)"
    assert words in unclear and words not in harm


# --- sharing --------------------------------------------------------------------------------------


def test_the_command_says_what_cgan_sharing_says(
    asked: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The use of the drawings is what the evaluation has measured."""
    path = Path("reports/evaluation.json")
    evaluation = cgan.Evaluation.read(path)
    score = replace(evaluation.score("gan_train_accuracy"), value=0.75, real=0.875)
    evaluation = replace(evaluation, metrics={**evaluation.metrics, score.key: score})
    evaluation.write(path)
    monkeypatch.setattr("cgan.privacy.sharing.train_judge", lambda *_: pytest.fail())
    monkeypatch.setattr(cgan, "sharing", partial(cgan.sharing, training=TINY_GAN))
    asked_for = as_asked() | {"folder": ".cgan/sharing", "device": "cpu", "training": TINY_GAN}
    answer = cgan.sharing(*parts(), evaluation=evaluation, **asked_for)
    monkeypatch.setattr("cgan.training.loop.train_step", lambda *_: pytest.fail())
    report = reported("sharing", "sharing")
    assert says_the_same("sharing", answer), "and no generator was trained twice"
    assert report["generator_digest"] == cgan.Generator.load(GENERATOR).facts["digest"]
    assert re.search("on 75.0 % of real images, .* on the images on 87.5 %", report["sentence"])
    for shown in (Path("reports/sharing.md").read_text(), answer._repr_html_()):
        assert all(words in shown for words in ("differential privacy", "held-out groups"))


@pytest.mark.usefixtures("asked")
def test_a_folder_of_training_images_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whose classes come in another order."""
    monkeypatch.setattr(cgan, "sharing", partial(cgan.sharing, training=TINY_GAN))
    write_json(OWN_ANSWER, {"verdict": "nothing shown"})
    write_folder(Path("copies"), parts()[0])
    report = reported("sharing-drawn", "sharing", "--drawn", "copies")
    assert report["verdict"] == "gives away" and report["generator_digest"] is None
    assert report["attack"]["auc"] > 0.95 and report["attack"]["epsilon"] > 0
    assert read_json(OWN_ANSWER) == {"verdict": "nothing shown"}, "the project's own answer stays"


def shared(drawn: cgan.Generator | Images, **options: Any) -> cgan.Sharing:
    train, held_out = uneven(times=2).split(0.3, seed=2)
    given = {"seeds": 2, "recipe": SHORT, "training": TINY_GAN, "progress": silent, **options}
    return cgan.sharing(train, held_out, drawn, **given)


def test_training_images_as_drawings_are_given_away() -> None:
    train, _ = uneven(times=2).split(0.3, seed=2)
    answer = shared(train)
    assert answer.verdict == "gives away" and answer.attack.leaks and answer.attack.auc > 0.95
    assert "drawings give away who was in the training data" in repr(answer)
    assert len({place for place, *_ in answer.exposed}) == 5
    # 5 % and more are no leak.
    safe = replace(answer.attack, auc=0.51, interval=(0.48, 0.54), p_value=0.05, epsilon=0.0)
    quiet = replace(answer, attack=safe)
    assert quiet.verdict == "nothing shown" and "gave nothing away that" in repr(quiet)
    assert "of ε below" in repr(answer) and "of ε below" not in repr(quiet)
    assert replace(quiet, attack=replace(safe, p_value=0.049)).verdict == "gives away"
    told = replace(quiet, holds_training_images=True, not_drawn=["apple"])
    assert (
        told.verdict == "gives away"
        and not told.attack.leaks
        and "no drawings of apple" in repr(told)
    )


def test_a_sampler_says_at_once_what_its_file_is(capsys: pytest.CaptureFixture[str]) -> None:
    train, _ = uneven(times=2).split(0.3, seed=2)
    sampler = LocalScoreSampler(*train.tensors[:2], LocalScoreSettings(steps=4))
    answer = shared(cgan.Generator(sampler, {}), training=None)
    said = capsys.readouterr().out
    assert said.startswith("This generator is not trained: its file is the training images")
    assert re.search(r"They take about \d+ (s|min) in all", said)
    assert answer.verdict == "gives away" and "file is its training images" in repr(answer)


def test_a_sharing_that_was_cut_off_goes_on_with_its_generators(tmp_path: Path) -> None:
    said, begun = list[str](), list[tuple[str, int]]()

    def progress(what: str, steps: range, images_per_step: int = 0) -> Iterator[int]:
        begun.append((what, len(steps)))
        if what == "generator 2 of 2" and begun.count(begun[-1]) == 1:
            raise KeyboardInterrupt
        return iter(steps)

    ask = partial(shared, untrained(), folder=tmp_path, progress=progress, say=said.append)
    with pytest.raises(KeyboardInterrupt):
        ask()
    ask()
    assert [count for what, count in begun if what[:4] == "gene"] == [10, 10, 0, 10]
    assert said[0].startswith("2 generators of half the images each; if interrupted")
    assert re.match(r"They take about \d+ s in all", said[1])


def test_what_does_not_belong_together_is_refused() -> None:
    train, held_out, generator, colour = uneven(), uneven(seed=2), untrained(), uneven(channels=3)
    mixed = replace(held_out, pixels=np.concatenate([train.pixels[:3], held_out.pixels[3:]]))
    renamed = replace(held_out, class_names=["apple", "pear", "fig"])
    refused: list[tuple[str, Images, Any, dict[str, Any], str]] = [
        ("evidence", mixed, generator, {}, "held_out: expected.*found.*3 of 56 that are"),
        ("evidence", renamed, generator, {}, "^held_out: .* pear, apple, fig"),
        ("evidence", held_out, mixed, {}, r"generator: \d+ of the tested images are among"),
        ("evidence", held_out, generator, {"seeds": 1}, "seeds is 1, expected at least 2"),
        ("evidence", held_out, None, {"folds": 1}, "folds is 1, expected at least 2"),
        ("evidence", held_out, None, {}, "a generator or drawings, or else `folds`"),
        ("sharing", held_out, colour, {}, r"train: expected .*; found \(3, 1, 8, 12\)"),
        ("sharing", held_out, train.at([]), {}, "generator: expected drawings .* found none"),
        ("sharing", held_out, generator, {"shadows": 3}, "shadows is 3, expected an even number"),
    ]
    for name, held, drawn, options, words in refused:
        with pytest.raises(CganError, match=words):
            getattr(cgan, name)(train, held, drawn, **options)


def test_what_leaks_is_published_by_a_flag_alone(asked: Project) -> None:
    answer = {"verdict": "gives away", "sentence": "They *give* away."}
    digest = cgan.Generator.load(GENERATOR).facts["digest"]
    write_json(OWN_ANSWER, answer | {"generator_digest": digest})
    error = command("card", "card").exception
    assert re.search(r"They \*give\* away\. .* add --publish-anyway", str(error))
    assert not Path("card").exists()
    assert command("card", "card", "--publish-anyway").exit_code == 0
    assert "They \\*give\\* away." in Path("card/README.md").read_text()
    write_json(OWN_ANSWER, answer | {"generator_digest": "of others"})
    assert command("card", "other").exit_code == 0
    assert "away" not in Path("other/README.md").read_text()
