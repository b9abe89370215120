"""`cgan compare`: two runs beside each other, and numbers only where both were measured alike."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import Project
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

BETTER = "**B is better in Fréchet distance;"
ALIKE = "**There is no difference beyond chance between A and B.**"


def better(evaluation: Evaluation, **context: object) -> Evaluation:
    metrics = dict(evaluation.metrics)
    for key, change in (("fid_judge", -100_000), ("recall", 1e-6)):
        score = metrics[key]
        # Chance moves both alike, but for a little.
        replicates = [each + n % 7 - 3 for n, each in enumerate(score.replicates)]
        metrics[key] = replace(score, value=(score.value or 0) + change, replicates=replicates)
    return replace(evaluation, metrics=metrics, context={**evaluation.context, **context})


def row(markdown: str, first: str) -> list[str]:
    (line,) = [line for line in markdown.splitlines() if line.startswith(f"| {first} |")]
    return line.removesuffix(" |").split(" | ")


def test_numbers_stand_side_by_side_where_measured_alike(finished: Project) -> None:
    report, reference = read_run(str(finished.folder))
    params = reference["params"] | {"train.lr": "0.125"}
    markdown = comparison(report, reference, better(report), {"run_name": "b", "params": params})
    assert markdown.startswith(BETTER)
    assert row(markdown, "run")[2] == "b"
    distance = row(markdown, "Fréchet distance ↓")
    assert distance[4] == "-100,000" and distance[-1] == "better"
    low, high = (float(end.replace(",", "")) for end in distance[5].split(" to "))
    assert low < -100_000 < high < -99_000, "paired, it is far narrower than either interval"
    assert row(markdown, "train.lr")[1:] == [str(reference["params"]["train.lr"]), "0.125"]
    same = comparison(report, reference, report, reference)
    assert same.startswith(ALIKE) and "Params that differ: 1" in markdown
    # Numbers of other images are not compared, and it is told why.
    other = better(report, reference_digest="f" * 64, seed=5)
    markdown = comparison(report, reference, other, reference)
    assert "not compared" in markdown and "Fréchet distance" not in markdown
    assert row(markdown, "seed")[1:] == ["1001", "5"]
    assert row(markdown, r"reference\_digest")[2] == "f" * 64
    # Fewer drawings, as of a sampler, which takes part of a second for each, are.
    markdown = comparison(report, reference, better(report, drawn_images=10_000), reference)
    assert markdown.startswith(BETTER) and "not compared" not in markdown.lower()
    # But the distance falls with the number of images.
    images = report.context["distance_images"] + 1
    markdown = comparison(report, reference, better(report, distance_images=images), reference)
    assert markdown.startswith(ALIKE)
    distance = row(markdown, "Fréchet distance ↓")
    assert distance[1] == "–" and distance[4:] == ["–", "–", "not compared"]
    assert row(markdown, "recall ↑")[-1] == "within chance"


def test_a_run_is_named_by_its_id_its_address_or_as_champion(root: Path) -> None:
    run_id = "0123456789abcdef" * 2
    assert find_run_id(run_id) == find_run_id(f"runs:/{run_id}/model") == run_id
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
    # What one run alone has, as GAN-train, is left out.
    a = Evaluation(metrics={key: one})
    b = Evaluation(metrics={key: two, "gan_train_accuracy": two})
    assert [each.verdict for each in metric_differences(a, b)] == [verdict]
    assert [each.metric.key for each in metric_differences(b, a)] == [key]


def test_a_terminal_or_a_file_shows_it_and_no_name_commands_it(
    copied: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    other = Path("other")
    for name in ("models", "reports"):
        shutil.copytree(name, other / name)
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


def test_an_evaluation_of_the_generator_before_is_not_shown(copied: Project) -> None:
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
    for changes, words in (
        # A collapsed generator copies nothing.
        ([fewer_copies, less_recall, same], "**B is better in no metric; worse in recall.**"),
        ([fewer_copies, same], "**B is better in copies; worse in no"),
        ([less_recall, more_coverage], "**B is better in coverage; worse in recall.**"),
        ([same], "**There is no difference beyond chance"),
    ):
        assert conclusion(changes).startswith(words)
