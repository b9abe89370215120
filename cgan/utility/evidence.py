"""`cgan.evidence`: do the drawings of a generator help a classifier?"""

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from cgan.base.errors import CganError, DataError
from cgan.base.files import fingerprint, sha256_of
from cgan.base.notebook import progress_bar
from cgan.base.report import Answer, Number, Report, Table
from cgan.base.settings import python_call
from cgan.base.text import duration, percent
from cgan.data.images import Images, joined
from cgan.data.splitting import units_of
from cgan.models.hardware import choose_hardware, deterministic
from cgan.params.sections import JudgeParams, TrainChoices
from cgan.quality.evaluate import HasModel, shared_images
from cgan.quality.judge import Progress
from cgan.utility import pretrained
from cgan.utility.effect import ADVICE, HARM, TOLERANCE, Effect, Outcome, effect, pooled
from cgan.utility.rounds import (
    BASELINES,
    METHOD_NAMES,
    Round,
    rounds_by_fold,
    rounds_by_seed,
    with_pretrained,
)
from cgan.utility.sets import assign_folds, missing_labels, require_comparable, require_seeds

MAX_PRETRAINED_IMAGES = 20_000  # that the pretrained network looks at: 60 a second
PRETRAINED_MARGIN = 0.02  # of accuracy, by which the pretrained network is worth a word
FEW_TESTED = 20  # tested images of a class
TIMES_GUESSING = 2  # times what guessing gets
FEW_DRAWINGS = 0.1  # of the images: fewer are said to be few
# The code that decides what a classifier learns.
CODE = ("data/splitting.py", "utility/*.py", "models/*.py", "quality/judge.py", "training/*.py")


@dataclass(frozen=True, repr=False)
class Evidence(Answer):
    """Whether classifiers gain by drawings. A notebook shows it as a table.

    `effect`: drawings beside the best method without any; `effect.classes` has each class by its label.
    `accuracies`: by method, in words, the accuracy on the tested images, mean over the classes and rounds.
    `learnt`, `drawn`: of each class the images and the drawings that a classifier learnt from, mean over the
    rounds. `rounds`: how many there were; `folded`: were they folds, else seeds?
    """

    effect: Effect
    accuracies: dict[str, float]
    class_names: list[str]
    learnt: list[int]
    drawn: list[int]
    rounds: int
    folded: bool

    @property
    def verdict(self) -> str:
        """`help`, `harm`, `no difference that matters` or `cannot tell`."""
        return self.effect.overall.verdict

    @property
    def gain(self) -> Number:
        """Accuracy with drawings less that of the best method without, mean over the classes."""
        return self.effect.overall.gain

    def report(self) -> Report:
        """The answer, with each class and each method in a table."""
        overall, classes, names = self.effect.overall, self.effect.classes, self.class_names
        heads = ("class", "real", "drawn", "tested", "without", "with drawings", "points (95 %)")
        by_class = [
            (names[label], self.learnt[label], self.drawn[label], *change.cells())
            for label, change in classes.items()
        ]
        methods = [(name, Number(value=share)) for name, share in self.accuracies.items()]
        images = {"training": sum(self.learnt), "drawn": sum(self.drawn), "tested": overall.tested}
        return Report(
            question="Do drawn images help a classifier?",
            verdict=self.verdict,
            sentence=self._sentence(),
            reasons=self._reasons(),
            tables=[
                Table("Class by class", heads, by_class),
                Table(
                    "What a classifier learns from", ("", "right, mean over the classes"), methods
                ),
            ],
            facts={
                "effect": {"compared_with": self.effect.baseline, **overall.facts()},
                "classes": {names[label]: change.facts() for label, change in classes.items()},
                "accuracies": self.accuracies,
                "rounds": {"count": self.rounds, "folds": self.folded},
                "images": images,
            },
        )

    def _sentence(self) -> str:
        """`Don't use the drawings: with them a classifier gets 80.7 % right, without them 95.0 % (…)`."""
        overall, added, images = self.effect.overall, sum(self.drawn), sum(self.learnt)
        few = f"Only {added:,} drawings were added to {images:,} images, which can change little. "
        instead = ": do that instead" if overall.verdict == HARM else ""
        answer = (
            f"{ADVICE[overall.verdict]}: with them a classifier gets {percent(overall.with_drawings)} right, "
            f"without them {percent(overall.without)} ({METHOD_NAMES[self.effect.baseline]}{instead}). The "
            f"difference is {self.gain} points (95 % interval {self.gain.interval_in_words}), as a mean over "
            f"the classes; within ± {100 * overall.tolerance:g} it would not matter."
        )
        return few + answer if added < FEW_DRAWINGS * images else answer

    def _reasons(self) -> list[str]:
        """What a reader should know beside the verdict."""
        reasons, overall = list[str](), self.effect.overall
        guessing = 1 / len(self.class_names)
        best = max(overall.without, overall.with_drawings)
        by_pretrained = self.accuracies.get(METHOD_NAMES[pretrained.PRETRAINED], 0.0)
        if by_pretrained > best + PRETRAINED_MARGIN:
            reasons.append(
                "Better than any of these: logistic regression on a pretrained network's features gets "
                f"{percent(by_pretrained)} right, without drawings."
            )
        if overall.without < TIMES_GUESSING * guessing:
            reasons.append(
                "Even without drawings the classifier hardly recognises these classes (guessing gets "
                f"{percent(guessing)}), so nothing can be said about drawings either. It needs more images, "
                "or larger ones."
            )
        fewest = min(self.effect.classes, key=lambda label: self.effect.classes[label].tested)
        if (count := self.effect.classes[fewest].tested) < FEW_TESTED:
            reasons.append(
                f"Class {self.class_names[fewest]} is tested on only {count} images, so little can be said "
                f"about it.{'' if self.folded else ' Folds test on all images.'}"
            )
        tested, rounds = f"Tested on {overall.tested:,} images", self.rounds
        by_folds = f"in {rounds} folds. The interval covers the choice of images and all seeds."
        by_seeds = (
            f"with {rounds} seeds. The interval covers the choice of the tested images and the classifier's "
            "seed, but not the generator's."
        )
        return [*reasons, f"{tested}, {by_folds if self.folded else by_seeds}"]


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
    training: TrainChoices | None = None,
    folder: Path | str | None = None,
    device: str = "auto",
    seed: int = 1,
    progress: Progress = progress_bar,
    say: Callable[[str], None] = print,
) -> Evidence:
    """Train classifiers with and without drawings, and test them on images that neither they nor the
    generator have seen. Takes minutes: four classifiers a round, each as long as a judge. After each round it
    says the estimate so far.

    `generator` was trained on `train`, or `train` and drawings by such a generator are given, as `Images`. A
    round is then one of `seeds`. The drawings fill up the classes to `per_class` images, by default as many
    as the largest class has (twice that where all are about equal); drawings that are given are all taken.
    They are compared with the best of the methods that need no generator: augmentation, oversampling, a
    class-balanced loss, adjusted logits. A difference within ± `tolerance` (a share) does not matter.
    `recipe`: network and length of each classifier's training; `seed`
    of the drawings.

    Where a class has fewer than 50 held-out images, the interval is wide. With `folds` in place of a
    generator all images are tested on, each in one of so many folds, with a generator of the fold's own,
    which is trained on the other folds by `training`, by default as `cgan.fit` does.

    `folder` keeps what is trained: after an interruption the same call trains only what is missing. Other
    images, drawings or recipes have a folder of their own in it.

    Raises DataError where the sets do not belong together, and CganError where no class lacks images.
    """
    require_seeds(folds or seeds)
    hardware, recipe = choose_hardware(device, "auto"), recipe or JudgeParams()
    made_by = recipe.model_dump(), torch.__version__, str(hardware)
    with deterministic(), tempfile.TemporaryDirectory(prefix="cgan-") as temporary:
        kept_in = Path(folder or temporary)
        if folds is not None and generator is None:
            data, training = joined(train, held_out), training or TrainChoices()
            fold_of = assign_folds(data.labels, units_of(data), folds, seed, data.class_names)
            asked = data.digest, fold_of.tolist(), per_class, seed, training.model_dump()
            place = kept_in / _digest(*asked, *made_by)
            rounds = rounds_by_fold(
                data, fold_of, training, recipe, per_class, seed, place, hardware, progress
            )
        elif generator is not None and folds is None:
            require_comparable(train, held_out, generator)
            drawn = _drawings(generator, train, held_out, per_class, seed)
            place = kept_in / _digest(train.digest, drawn.digest, *made_by)
            rounds = rounds_by_seed(train, drawn, held_out, recipe, seeds, place, hardware)
        else:
            raise CganError("expected a generator or drawings, or else `folds`. Give one of them.")
        outcomes = _carried_out(rounds, folds is not None, progress, say)
        if pretrained.is_installed() and len(train) <= MAX_PRETRAINED_IMAGES:
            outcomes = with_pretrained(rounds, outcomes, progress)
    images = pooled(outcomes)
    learnt = [each.training.counts for each in rounds]
    added = [np.bincount(each.missing_labels, minlength=train.classes) for each in rounds]
    return Evidence(
        effect=effect(outcomes, BASELINES, folds is not None, tolerance),
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
    )


def _drawings(
    generator: HasModel | Images, train: Images, held_out: Images, per_class: int | None, seed: int
) -> Images:
    """What fills up the classes."""
    if isinstance(generator, Images):
        if per_class:
            raise CganError("given drawings are all taken: leave out `per_class`.")
        if shared := shared_images(generator, held_out):
            raise DataError(f"generator: {shared:,} of the tested images are among the drawings.")
        return generator
    labels = missing_labels(train.tensors.counts, per_class)
    return Images(generator.model.draw(labels, seed), labels, train.class_names, notes=())


def _digest(*facts: object) -> str:
    """The name of the folder of what is trained on these facts: a digest of them and of the code."""
    package = Path(__file__).parents[1]
    code = [sha256_of(path) for name in CODE for path in sorted(package.glob(name))]
    return fingerprint([code, *facts])


def _carried_out(
    rounds: Sequence[Round], folded: bool, progress: Progress, say: Callable[[str], None]
) -> list[Outcome]:
    """The outcomes of the rounds. After each but the last it says the difference so far, and from which
    method, since the best one may change; of one round alone the interval would lack the spread of rounds."""
    began, outcomes = time.monotonic(), list[Outcome]()
    for done, each in enumerate(rounds, start=1):
        outcomes.append(each.outcome(progress))
        if done < len(rounds):
            found = effect(outcomes, BASELINES, folded)
            gain, best = found.overall.gain, METHOD_NAMES[found.baseline]
            interval = f" ({gain.interval_in_words})" if done > 1 else ""
            left = duration((time.monotonic() - began) / done * (len(rounds) - done))
            say(f"{done} of {len(rounds)} rounds: {gain} points{interval} over {best}; {left} left")
    return outcomes
