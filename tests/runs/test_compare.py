"""`cgan compare`: two runs beside each other, and numbers only where both were measured alike."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from finished_project import finish
from rich.console import Console

from cgan.errors import CganError
from cgan.evaluation import METRICS, Evaluation, Score
from cgan.pipeline.runs import compare as command
from cgan.pipeline.runs.compare import (
    MetricDifference,
    comparison,
    conclusion,
    metric_differences,
)
from cgan.pipeline.runs.recorded_run import find_run_id, read_run
from cgan.pipeline.runs.report import summary
from cgan.project import EVALUATION, GENERATOR, TRAINING


@pytest.fixture
def finished(project: Path) -> Path:
    finish(project / "inbox/digits.csv", {"origin": {"commit": "a" * 40}})
    return project


def better(evaluation: Evaluation) -> Evaluation:
    metrics = dict(evaluation.metrics)
    for key, change in (("fid_judge", -100_000), ("recall", 1e-6)):
        score = metrics[key]
        # Chance moves both alike, but for a little.
        replicates = [each + n % 7 - 3 for n, each in enumerate(score.replicates)]
        metrics[key] = replace(score, value=(score.value or 0) + change, replicates=replicates)
    return replace(evaluation, metrics=metrics)


def row(markdown: str, first: str) -> list[str]:
    (line,) = [line for line in markdown.splitlines() if line.startswith(f"| {first} |")]
    return line.split(" | ")


def test_numbers_stand_side_by_side_with_the_difference_and_what_it_means(finished: Path) -> None:
    report, reference = read_run(str(finished))
    params = reference["params"] | {"train.lr": "0.125"}
    other = reference | {"run_name": "the other", "params": params}
    markdown = comparison(report, reference, better(report), other)
    assert markdown.startswith("**B is better in Fréchet distance;")
    assert row(markdown, "run")[1:] == ["a run", "the other |"]
    distance = row(markdown, "Fréchet distance ↓")
    assert distance[4] == "-100,000" and distance[-1] == "better |"
    low, high = (float(end.replace(",", "")) for end in distance[5].split(" to "))
    assert low < -100_000 < high < -99_000, "paired, it is far narrower than either interval"
    assert row(markdown, "train.lr")[1:] == [reference["params"]["train.lr"], "0.125 |"]
    same = comparison(report, reference, report, reference)
    assert same.startswith("**There is no difference beyond chance between A and B.**")
    assert "Params that differ: 1" in markdown


def test_a_run_is_named_by_its_id_with_or_without_mlflow_s_address() -> None:
    run_id = "0123456789abcdef" * 2
    assert find_run_id(run_id) == find_run_id(f"runs:/{run_id}/model") == run_id


def test_without_a_champion_it_is_said_what_makes_one(project: Path, empty_store: Path) -> None:
    shutil.copyfile(empty_store, project / "mlflow.db")
    with pytest.raises(CganError, match="'champion': there is no champion yet"):
        find_run_id("champion")
    with pytest.raises(CganError, match="'champoin' names no run: expected"):
        find_run_id("champoin")


@pytest.mark.parametrize(
    ("key", "low", "high", "verdict"),
    [
        ("conditional_accuracy", 0.4, 0.6, "better"),
        ("fid_judge", 0.4, 0.6, "worse"),
        ("conditional_accuracy", 0.0, 0.2, "worse"),
        ("conditional_accuracy", 0.2, 0.5, "within chance"),
    ],
)
def test_a_difference_that_chance_can_make_is_called_so(
    key: str, low: float, high: float, verdict: str
) -> None:
    one = Score(value=0.3, interval=(0.25, 0.35), real=0.1)
    two = Score(value=(low + high) / 2, interval=(low, high), real=0.1)
    pair = (Evaluation(metrics={key: score}) for score in (one, two))
    assert [each.verdict for each in metric_differences(*pair)] == [verdict]


def test_a_metric_that_one_run_alone_has_is_left_out() -> None:
    """As GAN-train, which a run may leave out."""
    both = Score(value=0.3, interval=(0.25, 0.35))
    a, b = ({"fid_judge": both}, {"fid_judge": both, "gan_train_accuracy": both})
    for pair in ((a, b), (b, a)):
        changes = metric_differences(*(Evaluation(metrics=metrics) for metrics in pair))
        assert [each.metric.name for each in changes] == ["Fréchet distance"]


def test_numbers_of_different_contexts_are_not_compared_and_it_is_told_why(finished: Path) -> None:
    report, reference = read_run(str(finished))
    other = better(report)
    differ = {"reference_digest": "f" * 64, "seed": 5}
    other = replace(other, context={**other.context, **differ})
    markdown = comparison(report, reference, other, reference)
    assert "not compared" in markdown and "Fréchet distance" not in markdown
    assert row(markdown, "seed")[1:] == ["1001", "5 |"]
    assert row(markdown, r"reference\_digest")[2] == f"{'f' * 64} |"


def test_where_fewer_drawings_were_judged_it_is_said_and_the_rest_is_compared(
    finished: Path,
) -> None:
    """As of a GAN and of a sampler, which takes part of a second for a drawing."""
    report, reference = read_run(str(finished))
    other = better(report)
    other = replace(other, context={**report.context, "drawn_images": 10_000})
    markdown = comparison(report, reference, other, reference)
    assert markdown.startswith("**B is better in Fréchet distance;")
    assert "not compared" not in markdown.lower()
    # The distance falls with the number of images.
    context = {**other.context, "distance_images": other.context["distance_images"] + 1}
    other = replace(other, context=context)
    markdown = comparison(report, reference, other, reference)
    assert markdown.startswith("**There is no difference beyond chance between A and B.**")
    distance = row(markdown, "Fréchet distance ↓")
    assert distance[1] == "–" and distance[4:] == ["–", "–", "not compared |"]
    assert row(markdown, "recall ↑")[-1] == "within chance |"


def test_the_terminal_shows_it_a_file_takes_it_and_a_foreign_name_commands_no_terminal(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = shutil.copytree(finished, finished / "other")
    name = "\x1b[2Jevil\u202e\nError: fake" + "x" * 1000
    (other / TRAINING).write_text(json.dumps({"run_name": name, "params": {"newer.key": 1}}))
    command.compare(".", "other", Console(force_terminal=True, color_system=None))
    shown = capsys.readouterr().out
    for words in ("Fréchet", "no difference beyond", "newer.key", "\\x1b[2J"):
        assert words in shown
    command.compare(".", "other", Console(width=20))
    written = capsys.readouterr().out
    assert "| Fréchet distance ↓ |" in written and "\nError: fake" not in written
    assert all(line.isprintable() for line in [*shown.splitlines(), *written.splitlines()])


def test_a_report_that_is_missing_or_of_another_version_is_one_message(finished: Path) -> None:
    other = shutil.copytree(finished, finished / "other")
    for content, words in (
        ("{}", "this version cannot read"),
        ('{"measurement_context": 3}', "this version cannot read"),
        ("[", r"evaluation\.json: missing or not readable"),
    ):
        (other / EVALUATION).write_text(content)
        with pytest.raises(CganError, match=words):
            command.compare(".", "other", Console())


def test_the_evaluation_of_the_generator_before_is_not_shown_as_the_new_one_s(
    finished: Path,
) -> None:
    """As after `dvc repro train`."""
    evaluation = Evaluation.read(EVALUATION)
    replace(evaluation, context={**evaluation.context, "generator_digest": "0"}).write(EVALUATION)
    for ask in (lambda: read_run("."), lambda: list(summary())):
        with pytest.raises(CganError, match=r"evaluation\.json: .* another generator.*`dvc repro`"):
            ask()
    GENERATOR.unlink()  # as where reports were pulled alone
    assert read_run(".")[0].context["generator_digest"] == "0"


def test_the_conclusion_names_the_better_run() -> None:
    def changed(key: str, low: float, high: float) -> MetricDifference:
        return MetricDifference(METRICS[key], 0.5, 0.5 + (low + high) / 2, (low, high))

    fewer_copies, less_recall = changed("copies", -0.2, -0.1), changed("recall", -0.4, -0.3)
    more_coverage, same = changed("coverage", 0.1, 0.2), changed("conditional_accuracy", -0.1, 0.2)
    # A collapsed generator copies nothing.
    collapsed = conclusion([fewer_copies, less_recall, same])
    assert collapsed.startswith("**B is better in no metric; worse in recall.**")
    assert conclusion([fewer_copies, same]).startswith("**B is better in copies; worse in no")
    both = conclusion([less_recall, more_coverage])
    assert both.startswith("**B is better in coverage; worse in recall.**")
    assert conclusion([same]).startswith("**There is no difference beyond chance")
