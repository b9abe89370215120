"""The answer of `cgan.sharing`: what drawings can do in place of images, and what they give away."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from cgan import notebook
from cgan.attacks import GIVES_AWAY
from cgan.attacks.copies import Copies
from cgan.attacks.membership import (
    FALSE_POSITIVE_RATE,
    MIN_NON_MEMBERS,
    AttackResult,
    detectable_auc,
)
from cgan.downstream.effect import Effect
from cgan.text import listed, percent

MEMBERSHIP_LEVEL = 0.03  # of the attack; with that of copies 4 % in all
STATISTICS = 2  # that the attack tests
NO_PROOF = (
    "This says what was tried, on these images. No test proves that drawings keep a secret; training with "
    "differential privacy would bound what they give away, and cgan has none."
)
ADVICE = "Train on more images, stop earlier, or do not share them."


@dataclass(frozen=True, kw_only=True, repr=False)
class Sharing:
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
        return -self.utility.overall.gain

    def __repr__(self) -> str:
        return " ".join((self.sentence, *self.reasons))

    @property
    def sentence(self) -> str:
        """Whether the drawings give anything away, and how much a classifier loses by them."""
        attack, change = self.attack, self.utility.overall
        auc = f"AUC {attack.auc:.3f}, {attack.interval[0]:.3f} to {attack.interval[1]:.3f}"
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

    @property
    def reasons(self) -> list[str]:
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

    def tables(self) -> dict[str, list[list[str]]]:
        """The attack, and the classifiers by class, as tables by their headings, each with a header first."""
        attack = self.attack
        low, high = attack.interval
        found = f"needs {MIN_NON_MEMBERS} held-out images"
        if attack.true_positive_rate is not None and attack.chance is not None:
            found = f"{percent(attack.true_positive_rate)} (chance up to {percent(attack.chance)})"
        p_value = "< 0.001" if attack.p_value < 0.001 else f"{attack.p_value:.3f}"
        head = ["attack", "AUC", "95 % interval", "p"]
        head.append(f"found at a false positive rate of {percent(FALSE_POSITIVE_RATE)}")
        row = ["by drawings", f"{attack.auc:.3f}", f"{low:.3f} to {high:.3f}", p_value, found]
        classes = [["class", "tested", "trained on the images", "on drawings alone"]]
        classes[0].append("difference, points (95 %)")
        for label, change in self.utility.classes.items():
            shares = percent(change.without), percent(change.with_drawings)
            gain, interval = change.in_points()
            difference = f"{gain} ({interval})"
            classes.append([self.class_names[label], f"{change.tested:,}", *shares, difference])
        return {
            "Who was in the training data": [head, row],
            "A classifier trained on drawings alone": classes,
        }

    def _repr_html_(self) -> str:
        return notebook.answer(self.sentence, self.reasons, self.tables())

    def as_json(self) -> dict[str, Any]:
        """The fields, the verdict and the sentence."""
        facts = asdict(self)
        classes = {str(label): each for label, each in facts["utility"]["classes"].items()}
        facts["utility"]["classes"] = classes
        said = {"verdict": self.verdict, "leaks": self.leaks, "sentence": self.sentence}
        return said | facts
