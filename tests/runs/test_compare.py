"""`cgan compare`: two runs beside each other, and numbers only where both were measured alike."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import Project
from typer.testing import CliRunner

import cgan
from cgan.base.errors import CganError, ModelError
from cgan.base.report import Number
from cgan.cli import app
from cgan.pipeline.project import EVALUATION, GENERATOR, TRAINING
from cgan.pipeline.registry.runs import RecordedRun, find_run
from cgan.pipeline.registry.status import report_lines
from cgan.quality.comparison import Change, Comparison, compare
from cgan.quality.evaluate import METRICS
from cgan.quality.evaluation import Evaluation, Score


def better(evaluation: Evaluation, **context: object) -> Evaluation:
    """That of another generator, whose distance is less."""
    metrics = dict(evaluation.metrics)
    for key, change in (("fid_judge", -100_000), ("recall", 1e-6)):
        score = metrics[key]
        # Chance moves both alike, but for a little.
        deviations = [each + n % 7 - 3 for n, each in enumerate(score.deviations)]
        metrics[key] = replace(score, value=(score.value or 0) + change, deviations=deviations)
    changes = {"generator_digest": "another", **context}
    return replace(evaluation, metrics=metrics, context={**evaluation.context, **changes})


def test_numbers_stand_side_by_side_where_measured_alike(finished: Project) -> None:
    evaluation = Evaluation.read(finished.folder / EVALUATION)
    found = cgan.compare(evaluation, better(evaluation)).report()
    assert found.as_text().startswith("BETTER: B is better in Fréchet distance")
    distance = found.facts["metrics"]["fid_judge"]
    low, high = distance["interval"]
    assert low < distance["difference"] == -100_000 < high < -99_000, "paired, it is far narrower"
    assert distance["verdict"] == "better" and "-100,000" in found.as_text()
    # Numbers of other images are not compared, and it is told why.
    other = compare(evaluation, better(evaluation, reference_digest="f" * 64, seed=5))
    assert "measured differently" in repr(other) and not other.changes
    assert "| seed | 1001 | 5 |" in other.report().as_markdown()
    # Fewer drawings, as of a sampler, which takes part of a second for each, are.
    assert compare(evaluation, better(evaluation, drawn_images=10_000)).verdict == "better"
    # But the distance falls with the number of images.
    images = evaluation.context["distance_images"] + 1
    unlike = compare(evaluation, better(evaluation, distance_images=images))
    assert unlike.verdict == "no difference" and "No metric that was compared" in repr(unlike)
    verdicts = {key: each["verdict"] for key, each in unlike.report().facts["metrics"].items()}
    assert (verdicts["fid_judge"], verdicts["recall"]) == ("not compared", "within chance")
    same = compare(evaluation, evaluation)
    assert same.verdict == "no difference" and "compared with itself" in same.report().sentence


def test_a_run_is_named_by_its_id_its_address_or_as_champion(root: Path) -> None:
    run_id = "0123456789abcdef" * 2
    address = f"runs:/{run_id}/generator"
    assert find_run(run_id) == find_run(address) == RecordedRun(run_id, address)
    for name in ("champion", "champoin"):
        with pytest.raises(
            ModelError, match=f"'{name}' names no run: expected .* `cgan gate` sets"
        ):
            find_run(name)


def test_a_difference_that_chance_can_make_is_called_so() -> None:
    for key, low, high, verdict in (
        ("conditional_accuracy", 0.4, 0.6, "better"),
        ("fid_judge", 0.4, 0.6, "worse"),
        ("conditional_accuracy", 0.0, 0.2, "worse"),
        ("conditional_accuracy", 0.2, 0.5, "no difference"),
    ):
        one = Score(**METRICS[key].facts, value=0.3, interval=(0.25, 0.35), real=0.1)
        two = replace(one, value=(low + high) / 2, interval=(low, high))
        # What one run alone has, as GAN-train, is left out.
        b = Evaluation(metrics={key: two, "gan_train_accuracy": two})
        found = compare(Evaluation(metrics={key: one}), b)
        assert found.verdict == verdict and len(found.changes) == 1


def test_the_command_shows_both_and_no_name_commands_the_terminal(copied: Project) -> None:
    other = Path("other")
    for name in ("models", "reports"):
        shutil.copytree(name, other / name)
    about = json.loads(Path(TRAINING).read_text())
    about |= {"run_name": "\x1b[2Jevil\u202e\nError: fake"}
    about["params"] |= {"train.lr": 0.125, "newer.key": 1}
    (other / TRAINING).write_text(json.dumps(about))
    shown = CliRunner().invoke(app, ["compare", ".", "other"], catch_exceptions=False).output
    assert "compared with itself" in shown and "Fréchet distance ↓ |" in shown, "as Markdown"
    assert "| 0.125 |" in shown and "| newer.key | – | 1 |" in shown
    assert all(line.isprintable() and line != "Error: fake" for line in shown.splitlines())


def test_an_evaluation_of_the_generator_before_is_not_shown(copied: Project) -> None:
    evaluation = Evaluation.read(EVALUATION)
    replace(evaluation, context={**evaluation.context, "generator_digest": "0"}).write(EVALUATION)
    for ask in (lambda: find_run(".").evaluation, lambda: list(report_lines())):
        with pytest.raises(CganError, match=r"evaluation\.json: .* another generator.*`dvc repro`"):
            ask()
    GENERATOR.unlink()  # as where reports were pulled alone
    assert find_run(".").evaluation.context["generator_digest"] == "0"


def test_what_copies_less_and_is_worse_is_no_better() -> None:
    """A collapsed generator copies nothing."""

    def changed(key: str, low: float, high: float) -> Change:
        score = Score(**METRICS[key].facts, value=0.5)
        difference = Number(value=(low + high) / 2, interval=(low, high))
        return Change(score, score, difference)

    copies, recall = changed("copies", -0.2, -0.1), changed("recall", -0.4, -0.3)
    for changes, words in (
        ([copies, recall], "WORSE: B is better in no metric; worse in recall."),
        ([copies], "BETTER: B is better in copies; worse in no"),
        ([recall, changed("coverage", 0.1, 0.2)], "BETTER AND WORSE: B is better in coverage; w"),
    ):
        assert repr(Comparison(changes, {}, is_same=False)).startswith(words)
