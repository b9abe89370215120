"""`cgan evidence --answers`: anybody's classifiers, by their answers."""

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from cgan.cli import app
from cgan.downstream.answers import effect_of_answers
from cgan.errors import DataError


def write(path: Path, labels: list[str], predictions: list[str], groups: object = None) -> Path:
    head, rows = (
        "label,prediction",
        [",".join(pair) for pair in zip(labels, predictions, strict=True)],
    )
    if groups is not None:
        head, rows = head + ",group", [f"{r},{g}" for r, g in zip(rows, groups, strict=True)]  # type: ignore[call-overload]
    path.write_text("\n".join([head, *rows]) + "\n")
    return path


def answers(random: np.random.Generator, labels: list[str], right: float) -> list[str]:
    return [each if random.random() < right else "none" for each in labels]


LABELS = ["hat", "shoe", "bag 10"] * 80


def test_a_gain_is_found_and_none_is_not_over_several_seeds(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for right, verdict in ((0.93, "help"), (0.6, "no difference"), (0.3, "harm")):
        pairs = [
            (
                write(tmp_path / f"a{n}.csv", LABELS, answers(random, LABELS, 0.6)),
                write(tmp_path / f"b{n}.csv", LABELS, answers(random, LABELS, right)),
            )
            for n in range(4)
        ]
        effect, names = effect_of_answers(pairs)
        assert effect.overall.verdict == verdict and names == ["hat", "shoe", "bag 10"]
    command = ["evidence", "--answers", *(str(file) for pair in pairs for file in pair)]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0 and done.output.startswith("HARM: Don't use the drawings")
    assert "bag 10: " in done.output and "240 test images, and 4 seeds" in done.output


def test_groups_widen_the_interval(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    labels, groups = ["a"] * 90 + ["b"] * 90, np.arange(180) // 6
    flips = np.repeat(random.random(30) < 0.3, 6)
    better = ["none" if flip else label for flip, label in zip(flips, labels, strict=True)]
    alone, together = (
        effect_of_answers(
            [(write(tmp_path / "a", labels, labels, g), write(tmp_path / "b", labels, better, g))]
        )[0].overall
        for g in (None, groups)
    )
    assert alone.gain == together.gain < 0
    width = [each.interval[1] - each.interval[0] for each in (alone, together)]
    assert 2 < width[1] / width[0] < 3, "√6"


@pytest.mark.parametrize(
    "text, words",
    [
        (
            "label,guess\na,a\n",
            "expected the columns label, prediction.*found label, guess. Add pred",
        ),
        ("label,prediction\n", "0 rows; expected one for each test image"),
        ("label,prediction\na,a\n,b\n", "column `label`, row 2: empty"),
        ("label,prediction\na,a\nb,b\nb,b\n", "column `label` of .*without.csv.*found 3 rows"),
        ("label,prediction\na,a\na,b\n", "found 'a' in place of 'b' in row 2. Test both"),
        (
            "label,prediction,group\na,a,1\nb,b,1\n",
            "with.csv: found a column `group`, which .*without.csv has not. Write",
        ),
        # Class numbers as floats, or numbers in place of names: 0 % right would look like harm.
        ("label,prediction\na,0\nb,1\n", "with.csv: .*such as 'a'; found '0', and none that is"),
        ("label,prediction\n0,a,a\n1,b,b\n", "with.csv: .*cannot read it"),
        ("", "cannot read it"),
    ],
)
def test_files_that_do_not_fit_are_refused_with_the_row(
    tmp_path: Path, text: str, words: str
) -> None:
    without = write(tmp_path / "without.csv", ["a", "b"], ["a", "a"])
    (tmp_path / "with.csv").write_text(text)
    with pytest.raises(DataError, match=words):
        effect_of_answers([(without, tmp_path / "with.csv")])
    command = ["evidence", "--answers", str(without), str(without), "--seeds", "3"]
    assert "--answers trains nothing" in str(CliRunner().invoke(app, command).exception)
    for files in ([], [str(without)]):
        odd = CliRunner().invoke(app, ["evidence", "--answers", *files]).exception
        assert (
            f"expected two files for each seed, without drawings and with them; found {len(files)}"
            in str(odd)
        )
    alone = CliRunner().invoke(app, ["evidence", str(without)]).exception
    assert "FILES are for --answers" in str(alone)
