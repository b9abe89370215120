"""`cgan evidence --answers`: did drawings make somebody's own classifiers better?"""

from collections.abc import Callable, Sequence
from pathlib import Path

from cgan.downstream.answers import effect_of_answers
from cgan.errors import CganError
from cgan.pipeline.evidence.report import ADVICE
from cgan.text import percent


def evidence_of_answers(files: Sequence[Path], say: Callable[[str], None]) -> None:
    """Show what the answers tell; a line a class. `files`: in turn those without drawings and with them.
    Raises DataError for files that do not fit, CganError for an odd number of them."""
    if not files or len(files) % 2:
        raise CganError(
            f"--answers: expected two files for each seed, without drawings and with them; found "
            f"{len(files)}. Give `--answers without.csv with.csv`."
        )
    pairs = [*zip(files[::2], files[1::2], strict=True)]
    effect, names = effect_of_answers(pairs)
    overall, many = effect.overall, len(pairs)
    gain, interval = overall.in_points()
    say(
        f"{overall.verdict.upper()}: {ADVICE[overall.verdict]}: with them the classifier gets "
        f"{percent(overall.with_drawings)} right, without them {percent(overall.without)}. The difference is "
        f"{gain} points ({interval}, 95 %), as a mean over the classes."
    )
    for label, change in effect.classes.items():
        gain, interval = change.in_points()
        say(
            f"  {names[label]}: {percent(change.without)} without, {percent(change.with_drawings)} with; "
            f"{gain} points ({interval}, 95 %), {change.tested:,} images"
        )
    seeds = f"{many} seeds" if many > 1 else "one seed, whose luck it does not cover"
    say(f"The interval covers the choice of the {overall.tested:,} test images, and {seeds}.")
