"""`cgan.evidence`: do the drawings of a generator help a classifier?"""

import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cgan.base.errors import CganError, DataError
from cgan.base.files import fingerprint, sha256_of
from cgan.base.progress import Progress, progress_bar
from cgan.base.report import CANNOT_TELL, Answer, Cell, Number, Report, Table
from cgan.base.settings import python_call
from cgan.base.text import duration, percent
from cgan.data.images import Images, joined
from cgan.data.splitting import units_of
from cgan.models.generative import GenerativeModel
from cgan.models.hardware import choose_hardware, deterministic
from cgan.params.sections import AutoTrainParams, JudgeParams
from cgan.quality.evaluate import HasModel, require_matching, shared_images
from cgan.utility import pretrained
from cgan.utility.effect import Difference, Effect, effect, pooled
from cgan.utility.rounds import (
    BASELINES,
    CLASSIFIERS,
    METHOD_NAMES,
    assign_folds,
    missing_labels,
    rounds_by_fold,
    rounds_by_seed,
    with_pretrained,
)

HELP = "help"
HARM = "harm"
NO_DIFFERENCE = "no difference that matters"
ANSWERS = {
    HELP: "Use the drawings",
    HARM: "Don't use the drawings",
    NO_DIFFERENCE: "The drawings make no difference that matters",
    CANNOT_TELL: "These images cannot tell whether the drawings help",
}
TOLERANCE = 0.01  # a difference of accuracies that does not matter
MAX_PRETRAINED_IMAGES = 20_000  # to train on, for a pretrained network looks at 60 a second
PRETRAINED_MARGIN = 0.02  # of accuracy, by which the pretrained network is worth a word
MIN_TIMES_CHANCE = 2  # a classifier that is right less often hardly recognises the classes
MIN_ROUNDS = 2  # their spread is part of the interval
FEW_DRAWINGS = 0.1  # of the images: fewer are said to be few
# The code that decides what a classifier learns.
CODE = ("data/splitting.py", "utility/*.py", "models/*.py", "quality/judge.py", "training/*.py")


def verdict_on(change: Difference, tolerance: float = TOLERANCE) -> str:
    """HELP, HARM, NO_DIFFERENCE where the whole interval lies within the tolerance, else CANNOT_TELL. Harm
    has to be clearer: the best of several methods was a little lucky."""
    low, high = change.interval
    if low > 0:
        return HELP
    if change.wider_interval[1] < 0:
        return HARM
    return NO_DIFFERENCE if -tolerance <= low and high <= tolerance else CANNOT_TELL


@dataclass(frozen=True, repr=False)
class Evidence(Answer):
    """Answer of `cgan.evidence`, which a notebook shows as a table.

    >>> cgan.evidence(train, held_out, run.generator, seeds=2, say=str).report().verdict
    'cannot tell'

    `effect`: drawings beside the best method without any, and of each class. `accuracies`: by method, in
    words, the accuracy on the tested images, mean over the classes and rounds. `learnt`, `drawn`: of each
    class the images and the drawings that a classifier learnt from, mean over the `rounds`, which were seeds,
    or `folded`. A difference up to `tolerance` does not matter.
    """

    effect: Effect
    accuracies: dict[str, float]
    class_names: list[str]
    learnt: list[int]
    drawn: list[int]
    rounds: int
    folded: bool
    tolerance: float = TOLERANCE

    @property
    def verdict(self) -> str:
        """`help`, `harm`, `no difference that matters` or `cannot tell`."""
        return verdict_on(self.effect.overall, self.tolerance)

    @property
    def gain(self) -> Number:
        """Accuracy with drawings less that of the best method without, mean over the classes."""
        return self.effect.overall.gain

    def report(self) -> Report:
        """The answer, with each class and each method in a table."""
        rows, classes = list[tuple[Cell, ...]](), {}
        for label, change in self.effect.by_class.items():
            name = self.class_names[label]
            counts = self.learnt[label], self.drawn[label], change.tested
            shares = Number(value=change.without), Number(value=change.with_drawings)
            rows.append((name, *counts, *shares, change.gain.with_interval))
            classes[name] = self._facts(change)
        head = ("class", "real", "drawn", "tested", "without", "with drawings", "points (95 %)")
        methods = [(name, Number(value=share)) for name, share in self.accuracies.items()]
        overall = self.effect.overall
        images = {"training": sum(self.learnt), "drawn": sum(self.drawn), "tested": overall.tested}
        return Report(
            question="Do drawn images help a classifier?",
            verdict=self.verdict,
            sentence=self._sentence(),
            reasons=self._reasons(),
            tables=[
                Table("Class by class", head, rows),
                Table(
                    "What a classifier learns from", ("", "right, mean over the classes"), methods
                ),
            ],
            facts={
                "effect": {"compared_with": self.effect.baseline, **self._facts(overall)},
                "classes": classes,
                "accuracies": self.accuracies,
                "rounds": {"count": self.rounds, "folds": self.folded},
                "images": images,
            },
        )

    def _facts(self, change: Difference) -> dict[str, Any]:
        verdict = verdict_on(change, self.tolerance)
        return {**asdict(change), "tolerance": self.tolerance, "verdict": verdict}

    def _sentence(self) -> str:
        """`Don't use the drawings: with them a classifier gets 80.7 % right, without them 95.0 % (…)`."""
        overall = self.effect.overall
        added, images = sum(self.drawn), sum(self.learnt)
        few = f"Only {added:,} drawings were added to {images:,} images, which can change little. "
        instead = ": do that instead" if self.verdict == HARM else ""
        answer = (
            f"{ANSWERS[self.verdict]}: with them a classifier gets {percent(overall.with_drawings)} right, "
            f"without them {percent(overall.without)} ({METHOD_NAMES[self.effect.baseline]}{instead}). The "
            f"difference is {self.gain} points (95 % interval {self.gain.interval_in_words}), as a mean over "
            f"the classes; within ± {100 * self.tolerance:g} it would not matter."
        )
        return few + answer if added < FEW_DRAWINGS * images else answer

    def _reasons(self) -> list[str]:
        """Sentences that a reader should know beside the verdict."""
        reasons, overall = list[str](), self.effect.overall
        guessing = 1 / len(self.class_names)
        best = max(overall.without, overall.with_drawings)
        by_pretrained = self.accuracies.get(METHOD_NAMES[pretrained.PRETRAINED], 0.0)
        if by_pretrained > best + PRETRAINED_MARGIN:
            reasons.append(
                "Better than any of these: logistic regression on a pretrained network's features gets "
                f"{percent(by_pretrained)} right, without drawings."
            )
        if overall.without < MIN_TIMES_CHANCE * guessing:
            reasons.append(
                "Even without drawings the classifier hardly recognises these classes (guessing gets "
                f"{percent(guessing)}), so nothing can be said about drawings either. It needs more images, "
                "or larger ones."
            )
        rounds = f"in {self.rounds} folds" if self.folded else f"with {self.rounds} seeds"
        covered = "the choice of images and the classifier's seed, but not the generator's"
        covered = "the choice of images and all seeds" if self.folded else covered
        tested = f"Tested on {overall.tested:,} images, {rounds}. The interval covers {covered}."
        return [*reasons, tested]


@python_call
def evidence(
    train: Images,
    held_out: Images,
    generator: HasModel | Images | None = None,
    *,
    folds: int | None = None,
    seeds: int = 5,
    per_class: int | None = None,
    tolerance: float = TOLERANCE,
    recipe: JudgeParams | None = None,
    training: AutoTrainParams | None = None,
    folder: Path | str | None = None,
    device: str = "auto",
    seed: int = 1,
    progress: Progress = progress_bar,
    say: Callable[[str], None] = print,
) -> Evidence:
    """Test whether drawings help a classifier: it is trained with and without them, and tested on images that
    neither it nor the generator has seen. Takes minutes: four classifiers a round.

    >>> answer = cgan.evidence(train, held_out, run.generator, seeds=2)
    2 rounds of 4 classifiers each …
    They take about ... s. If interrupted, the same call goes on.
    >>> answer.gain.interval_in_words
    '-... to +...'

    `generator`, which was trained on `train`, fills up the classes to `per_class` images, by default as many
    as the largest class has (twice that where all are about equal); or drawings are given, as `Images`, all
    of which are taken. A round is one of `seeds`. They are compared with the best of the methods that need no
    generator: augmentation, oversampling, a class-balanced loss, adjusted logits. A difference within ±
    `tolerance` (a share) does not matter. `recipe`: of each classifier's training; `seed`: of the drawings.

    Where a class has fewer than 50 held-out images, the interval is wide. With `folds` in place of a
    generator all images are tested on, each in one of so many folds, with a generator of the fold's own,
    which is trained on the other folds by `training`, by default as `cgan.fit` does. `folder` keeps what is
    trained: after an interruption the same call goes on.

    Raises DataError where the sets do not belong together, and CganError where no class lacks images.
    """
    require_rounds("folds" if folds is not None else "seeds", seeds if folds is None else folds)
    hardware = choose_hardware(device, "auto")
    recipe = recipe or JudgeParams()
    made_by = recipe.model_dump(), torch.__version__, str(hardware)
    with deterministic(), tempfile.TemporaryDirectory(prefix="cgan-") as temporary:
        kept_in = Path(folder or temporary)
        if folds is not None and generator is None:
            data = joined(train, held_out)
            training = training or AutoTrainParams()
            fold_of = assign_folds(data.labels, units_of(data), folds, seed, data.class_names)
            asked = data.digest, fold_of.tolist(), per_class, seed, training.model_dump()
            place = kept_in / _digest(*asked, *made_by)
            rounds = rounds_by_fold(
                data, fold_of, training, per_class, seed, recipe, place, hardware, progress
            )
        elif generator is not None and folds is None:
            require_comparable(train, held_out, generator)
            drawn = generator
            if not isinstance(drawn, Images):
                drawn = draw_missing(drawn.model, train, per_class, seed, progress)
            elif shared := shared_images(drawn, held_out):
                raise DataError(
                    f"generator: {shared:,} of the tested images are among the drawings."
                )
            place = kept_in / _digest(train.digest, drawn.digest, *made_by)
            rounds = rounds_by_seed(train, drawn, held_out, seeds, recipe, place, hardware)
        else:
            raise CganError("expected a generator or drawings, or else `folds`. Give one of them.")
        if new := [each for each in rounds if not each.folder.exists()]:
            and_generators = ", and a generator" if folds else ""
            say(f"{len(new)} rounds of {len(CLASSIFIERS)} classifiers each{and_generators} …")
            seconds = duration(len(new) * new[0].seconds())
            say(f"They take about {seconds}. If interrupted, the same call goes on.")
        outcomes = [each.outcome(progress) for each in rounds]
        if pretrained.is_installed() and len(train) <= MAX_PRETRAINED_IMAGES:
            outcomes = with_pretrained(rounds, outcomes, progress)
    images = pooled(outcomes)
    learnt = [each.training.counts for each in rounds]
    added = [np.bincount(each.drawn.labels, minlength=train.classes) for each in rounds]
    return Evidence(
        effect=effect(outcomes, BASELINES, folds is not None),
        accuracies={
            words: images.mean_accuracy(name)
            for name, words in METHOD_NAMES.items()
            if name in images.right
        },
        class_names=train.class_names,
        learnt=np.mean(learnt, axis=0).round().astype(int).tolist(),
        drawn=np.mean(added, axis=0).round().astype(int).tolist(),
        rounds=len(rounds),
        folded=folds is not None,
        tolerance=tolerance,
    )


def draw_missing(
    model: GenerativeModel, train: Images, per_class: int | None, seed: int, progress: Progress
) -> Images:
    """The drawings that fill up the classes."""
    labels = missing_labels(train.tensors.counts, per_class)
    return Images(model.draw(labels, seed, progress), labels, train.class_names, notes=())


def _digest(*facts: object) -> str:
    """The name of the folder of what is trained on these facts: a digest of them and of the code."""
    package = Path(__file__).parents[1]
    code = [sha256_of(path) for name in CODE for path in sorted(package.glob(name))]
    return fingerprint([code, *facts])


def require_comparable(train: Images, held_out: Images, generator: HasModel | Images) -> None:
    """What `require_matching` asks, also where somebody else's drawings are given as the `generator`."""
    if isinstance(generator, Images):
        require_matching(generator, train, held_out, generator=generator)
    else:
        require_matching(generator.model, train, held_out)


def require_rounds(name: str, count: int) -> None:
    """Raises CganError for fewer rounds than MIN_ROUNDS; `name`: of the argument that says how many."""
    if count < MIN_ROUNDS:
        raise CganError(
            f"{name} is {count}, expected at least {MIN_ROUNDS}: their spread is part of the interval."
        )
