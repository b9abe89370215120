"""`cgan.sharing`: may the drawings be shared in place of the images?"""

from dataclasses import asdict, dataclass
from functools import partial

import numpy as np
import torch

from cgan.attacks import GIVES_AWAY
from cgan.attacks.attacker import Attacker, drawings_to_attack
from cgan.attacks.copies import Copies
from cgan.attacks.membership import (
    FALSE_POSITIVE_RATE,
    MIN_NON_MEMBERS,
    AttackResult,
    detectable_auc,
)
from cgan.downstream.effect import DRAWN, Effect, Outcome, effect
from cgan.downstream.rounds import with_seed
from cgan.downstream.sets import require_comparable, require_seeds
from cgan.errors import DataError
from cgan.images import Images
from cgan.model.hardware import Hardware, choose_hardware, deterministic
from cgan.model.model_file import digest_of
from cgan.notebook import progress_bar
from cgan.params.sections import JudgeParams
from cgan.quality.evaluate import HasModel
from cgan.quality.judge import Progress, predict, train_judge
from cgan.report import Answer, Number, Report, Table
from cgan.splitting import units_of
from cgan.text import listed, percent

MEMBERSHIP_LEVEL = 0.03  # of the attack; with that of copies 4 % in all
STATISTICS = 2  # that the attack tests
IMAGES = "images"  # the method beside drawings: the classifier trained on the images
NO_PROOF = (
    "This says what was tried, on these images. No test proves that drawings keep a secret; training with "
    "differential privacy would bound what they give away, and cgan has none."
)
ADVICE = "Train on more images, stop earlier, or do not share them."


@dataclass(frozen=True, kw_only=True, repr=False)
class Sharing(Answer):
    """The use of drawings in place of the images, and what they give away. A notebook shows it.

    `utility`: accuracies of a classifier trained on drawings alone (`with_drawings`) and of one trained on
    the images (`without`), and the interval of their difference; overall and by class. `attack`: on the
    drawings. `learnt_drawings`: that the classifier learnt from. `not_drawn`: the classes without drawings.
    `holds_training_images`: does the generator's file?
    """

    utility: Effect
    attack: AttackResult
    copies: Copies
    train_images: int
    held_out_images: int
    drawings: int
    learnt_drawings: int
    class_names: tuple[str, ...]
    not_drawn: tuple[str, ...] = ()
    holds_training_images: bool = False
    generator_digest: str | None = None

    @property
    def leaks(self) -> bool:
        """Do the drawings give away who was in the training data? Of drawings that give nothing away at most
        4 % are said to."""
        return self.attack.p_value < MEMBERSHIP_LEVEL or self.copies.leak

    @property
    def verdict(self) -> str:
        """`gives away`, where the drawings or the file do, or `nothing shown`: nothing that so many held-out
        images can show."""
        return GIVES_AWAY if self.leaks or self.holds_training_images else "nothing shown"

    @property
    def loss(self) -> float:
        """Accuracy of a classifier of the images less that of one of drawings, mean over the classes."""
        return self.utility.overall.without - self.utility.overall.with_drawings

    @property
    def _auc(self) -> Number:
        return Number(value=self.attack.auc, interval=self.attack.interval, kind="number")

    def report(self) -> Report:
        """The answer, with the attack, and the classifiers by class, in tables."""
        attack, classes = self.attack, self.utility.classes
        found = f"needs {MIN_NON_MEMBERS} held-out images"
        if attack.true_positive_rate is not None and attack.chance is not None:
            found = f"{percent(attack.true_positive_rate)} (chance up to {percent(attack.chance)})"
        p_value = "< 0.001" if attack.p_value < 0.001 else f"{attack.p_value:.3f}"
        at_rate = f"found at a false positive rate of {percent(FALSE_POSITIVE_RATE)}"
        auc = self._auc
        by_class = [(self.class_names[label], *each.cells()) for label, each in classes.items()]
        trained_on = ("trained on the images", "on drawings alone")
        facts = asdict(self)
        facts["utility"]["classes"] = {str(label): asdict(each) for label, each in classes.items()}
        return Report(
            question="May the drawings be shared?",
            verdict=self.verdict,
            sentence=self._sentence(),
            reasons=self._reasons(),
            tables=[
                Table(
                    "Who was in the training data",
                    ("attack", "AUC", "95 % interval", "p", at_rate),
                    [("by drawings", auc, auc.interval_in_words, p_value, found)],
                ),
                Table(
                    "A classifier trained on drawings alone",
                    ("class", "tested", *trained_on, "points (95 %)"),
                    by_class,
                ),
            ],
            facts={"leaks": self.leaks, **facts},
        )

    def _sentence(self) -> str:
        """Whether the drawings give anything away, and how much a classifier loses by them."""
        attack, change = self.attack, self.utility.overall
        auc = f"AUC {self._auc}, {self._auc.interval_in_words}"
        low, high = (100 * end for end in change.interval)
        word = "gains"
        if self.loss >= 0:
            word, low, high = "loses", -high, -low
        use = (
            f"a classifier trained on them alone {word} {abs(100 * self.loss):.1f} points ({low:.1f} to "
            f"{high:.1f}): {percent(change.with_drawings)} instead of {percent(change.without)} right"
        )
        if not self.leaks:
            return (
                f"These drawings gave nothing away that {attack.non_members:,} held-out images can show "
                f"({auc}), and {use}."
            )
        what = f"who was in the training data ({auc})"
        if attack.p_value >= MEMBERSHIP_LEVEL:
            what = f"training images: {percent(self.copies.share)} of them are near copies"
        return f"These drawings give away {what}. {ADVICE} As for their use, {use}."

    def _reasons(self) -> list[str]:
        """The rest of the answer, in sentences."""
        copies, attack = self.copies, self.attack
        # The level divided by the number of statistics is a little stricter than the test is.
        level = MEMBERSHIP_LEVEL / STATISTICS
        detectable = detectable_auc(attack.members, attack.non_members, level)
        reasons = [
            f"Near copies of training images: {percent(copies.share)} of {copies.compared:,} drawings; "
            f"{percent(copies.real)} of real images lie as near. These drawings come that near to "
            f"{copies.copied_members:,} of the training images and {copies.copied_non_members:,} of the "
            "held-out ones.",
            f"With {attack.members:,} training and {attack.non_members:,} held-out images (of a group, one) "
            f"an AUC of {detectable:.3f} is found about four times of five; 0.500 is chance.",
        ]
        if self.not_drawn:
            reasons.append(
                f"There are no drawings of {listed(self.not_drawn)}: a classifier trained on drawings alone "
                "never names these classes, and of their images the drawings tell nothing."
            )
        if self.learnt_drawings < self.train_images:
            reasons.append(
                f"The classifier of drawings learnt from {self.learnt_drawings:,}, that of images from "
                f"{self.train_images:,}: part of the difference may be of their number."
            )
        if self.holds_training_images:
            reasons.append("The generator's file is its training images: share drawings alone.")
        elif self.generator_digest:
            reasons.append("Who has the generator's file has its drawings, as many as they like.")
        return [*reasons, NO_PROOF]


def sharing(
    train: Images,
    held_out: Images,
    generator: HasModel | Images,
    *,
    seeds: int = 3,
    recipe: JudgeParams | None = None,
    device: str = "auto",
    seed: int = 1,
    progress: Progress = progress_bar,
) -> Sharing:
    """Ask what drawings can do in place of the images that must not be shared, and what they give away.

    *Instead of the images*: classifiers trained on drawings alone, of each class as many as `train` has or
    all where there are fewer, and on `train`, `seeds` of each; both tested on `held_out`. `recipe`: their
    network and length.

    *Who was in it*: can an attacker who has the drawings tell the images of `train` from those of
    `held_out`? He asks how near the nearest drawing of the class lies, relative to the nearest other real
    image (after GAN-Leaks, Chen et al., arXiv:1909.03935). `held_out` has to be split off at random: where it
    comes from another source, the attack tells the sources apart, and the drawings seem to leak. The answers
    are the AUC, and the share of members found at a false positive rate of 1 % (Carlini et al.,
    arXiv:2112.03570). Of a group of images one counts.

    `generator`: the one that was trained on `train`; or drawings by any such generator, as `Images`. `seed`:
    of the drawings, and of which images are looked at. Takes minutes.

    Raises DataError where the sets do not belong together, too few are held out or no drawing is of a class
    of `train`, CganError for fewer than two seeds.
    """
    require_seeds(seeds)
    require_comparable(train, held_out, generator)
    hardware, recipe = choose_hardware(device, "auto"), recipe or JudgeParams()
    attacker = Attacker.of(train, held_out, seed)
    with deterministic():
        digest, holds_training_images = None, False
        if isinstance(generator, Images):
            drawn = generator
        else:
            holds_training_images = generator.model.kind.holds_training_images
            drawn = drawings_to_attack(generator.model, train, seed)
            digest = digest_of(generator.model.state_dict())
        alone = as_many_of_each_class(drawn, train, seed)
        utility = drawings_alone(train, alone, held_out, recipe, seeds, hardware, progress)
        attack = attacker.attack(drawn)
        copies = Copies.of(drawn, train, held_out, seed)
    return Sharing(
        utility=utility,
        attack=attack,
        copies=copies,
        train_images=len(train),
        held_out_images=len(held_out),
        drawings=len(drawn),
        learnt_drawings=len(alone),
        class_names=tuple(train.class_names),
        not_drawn=tuple(drawn.classes_without_images),
        holds_training_images=holds_training_images,
        generator_digest=digest,
    )


def as_many_of_each_class(drawn: Images, train: Images, seed: int) -> Images:
    """Of each class as many drawings as `train` has images, chosen at random; where there are fewer, all.
    Raises DataError where there are none."""
    order = np.random.default_rng(seed).permutation(len(drawn))
    chosen = [
        order[drawn.labels[order] == label][:count] for label, count in enumerate(train.counts)
    ]
    rows = np.sort(np.concatenate(chosen))
    if not len(rows):
        raise DataError(
            "generator: expected drawings of classes that train has images of, found none."
        )
    return drawn.at(rows)


def drawings_alone(
    train: Images,
    drawn: Images,
    test: Images,
    recipe: JudgeParams,
    seeds: int,
    hardware: Hardware,
    progress: Progress,
) -> Effect:
    """The accuracy on `test` of a classifier trained on `drawn` (train on synthetic, test on real: Esteban et
    al., arXiv:1706.02633), less that of one trained on `train`: both augmented, with equally many steps, once
    for each of `seeds`."""
    units, (pixels, labels, _) = torch.from_numpy(units_of(test)), test.tensors
    outcomes = []
    for seed in range(seeds):
        right = {}
        for name, data in ((IMAGES, train), (DRAWN, drawn)):
            bar = partial(progress, f"classifier of {name}, seed {seed + 1}")
            classifier = train_judge(data, with_seed(recipe, seed), hardware, bar)
            right[name] = predict(classifier, pixels).labels == labels
        outcomes.append(Outcome(labels, units, right))
    return effect(outcomes, [IMAGES], folded=False)
