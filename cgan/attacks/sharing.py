"""The answer of `cgan.sharing`: what drawings can do in place of images, and what they give away."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Self

import numpy as np
import torch
from scipy.special import bdtrc

from cgan import notebook
from cgan.attacks import GIVES_AWAY, membership
from cgan.attacks.membership import (
    AttackResult,
    BoolArray,
    FloatArray,
    IntArray,
    RateAtFPR,
    detectable_auc,
    strata_of,
)
from cgan.downstream.effect import Effect
from cgan.downstream.rounds import units_of
from cgan.images import Images
from cgan.quality.intervals import proportion_interval
from cgan.quality.likeness import find_near_copies, nearest_within
from cgan.text import listed, percent

# Three tests, of the drawings and of the generator's file, which share a level of 5 % (Bonferroni).
COPIES_LEVEL, MEMBERSHIP_LEVEL, FILE_LEVEL = 0.01, 0.03, 0.01
DISCRIMINATOR_LEVEL = 0.05  # which is in no verdict
# A harmless generator may draw only what is typical, which lies near a training image more often than real
# images do: the most typical tenth of digits 1.4 to 4.1 times as often (docs/log.md, 2026-12-01). Four times
# is allowed, and a tenth of the drawings always.
TYPICAL_FACTOR, LEAST_TYPICAL_SHARE = 4, 0.1
STATISTICS_PER_SCORE = 2  # that `membership.attacks` tests
NO_PROOF = (
    "This says what was tried, on these images. No test proves that drawings keep a secret; training with "
    "differential privacy would bound what they give away, and cgan has none."
)
ADVICE = "Train on more images, stop earlier, or do not share them."


@dataclass(frozen=True, kw_only=True)
class Copies:
    """`share`: of the `compared` drawings, those that lie nearer to a training image than real images usually
    do; `real`: the share of `real_compared` real images that lie as near. `copied_members`,
    `copied_non_members`: how many training and held-out images (of a group, one) are the nearest of all to a
    drawing that lies so near. `p_value`: of the test that drawings lie no nearer to the one than the other.
    """

    share: float
    real: float
    compared: int
    real_compared: int
    copied_members: int
    copied_non_members: int
    p_value: float

    @classmethod
    def of(cls, drawn: Images, train: Images, held_out: Images, seed: int) -> Self:
        """The copies, as `evaluate` counts them, and the test of who is copied."""
        # `find_near_copies` looks at the first drawings, which may all be of one class.
        order = torch.randperm(len(drawn), generator=torch.Generator().manual_seed(seed))
        pixels, labels, _ = drawn.at(order).tensors
        found = find_near_copies(pixels, labels, train, held_out, seed)
        compared = len(found.is_copy)
        real = train.tensors, held_out.tensors
        both = Images(
            torch.cat([part.pixels for part in real]),
            torch.cat([part.labels for part in real]),
            train.class_names,
        )
        # All of them are searched together: of fewer images a search finds more of what is near.
        rows, nearness = nearest_within(pixels[:compared], labels[:compared], both, found.limits)
        # A unit is named by the row of its first image.
        units = np.concatenate([units_of(train), units_of(held_out) + len(train)])
        nearest = np.zeros(len(both))  # of a unit, to the nearest drawing
        near = rows >= 0
        np.maximum.at(nearest, units[rows[near].numpy()], nearness[near].numpy())
        every = np.unique(units)
        member, copied = every < len(train), nearest[every] > 0
        return cls(
            share=float(found.is_copy.double().mean()),
            real=found.real,
            compared=compared,
            real_compared=found.real_compared,
            copied_members=int((copied & member).sum()),
            copied_non_members=int((copied & ~member).sum()),
            p_value=copied_p_value(
                nearness=nearest[every],
                member=member,
                strata=strata_of(both.labels[every], np.bincount(units)[every]),
                other_drawings=compared - int((near & (rows < len(train))).sum()),
                typical_share=typical_share(found.real, found.real_compared),
                seed=seed,
            ),
        )

    @property
    def leak(self) -> bool:
        """Are more training images copied than chance explains, at 1 %?"""
        return self.p_value < COPIES_LEVEL


def typical_share(real: float, compared: int) -> float:
    """The share of harmless drawings, however typical, that may lie near a training image, where `real` of
    `compared` real images do."""
    most_real = proportion_interval(real, compared)[1]
    return min(1.0, max(LEAST_TYPICAL_SHARE, TYPICAL_FACTOR * most_real))


def copied_p_value(
    nearness: FloatArray,
    member: BoolArray,
    strata: IntArray,
    other_drawings: int,
    typical_share: float,
    seed: int,
) -> float:
    """The smaller p-value of two tests, doubled (Bonferroni). `nearness`, `member`, `strata` are of the real
    images [N], of a group of one: how near the nearest drawing is, 0 where none is within the limit.

    Whatever the drawings are, similar, repeated or blurred, if they were made without knowledge of who is a
    member, then within a stratum the copied images are as likely members as any. So the sum of the members'
    nearness is compared with permutations. It counts real images, not drawings, so that a picture drawn a
    hundred times counts once.

    But where a generator repeats a few training images, these are too few for that test. So of the distinct
    drawings, a share above `typical_share` that copies members is a leak, too. `other_drawings`, those that
    copy no member, are taken for distinct, which is cautious.
    """
    permutations = membership.PERMUTATIONS
    copied, random, sums = nearness > 0, np.random.default_rng(seed), np.zeros(permutations)
    for stratum in np.unique(strata[copied]):
        rows = strata == stratum
        near, members = nearness[rows & copied], int(member[rows].sum())
        # How many of the copied images are members, and then which of them.
        counts = random.hypergeometric(members, rows.sum() - members, len(near), permutations)
        order = random.random((permutations, len(near))).argsort(axis=1)
        sums += (order < counts[:, None]) @ near
    as_near = (sums >= nearness[member].sum() - 1e-9).sum()
    of_members = float((1 + as_near) / (1 + permutations))
    found = int((copied & member).sum())
    of_drawings = float(bdtrc(found - 1, found + other_drawings, typical_share)) if found else 1.0
    return min(1.0, 2 * min(of_members, of_drawings))


@dataclass(frozen=True, kw_only=True)
class NearestMember:
    """A training image: its row in `train`, where it came from, its class, and the row of the drawing that is
    nearest to it."""

    row: int
    place: str
    class_name: str
    drawing: int


@dataclass(frozen=True, kw_only=True, repr=False)
class Sharing:
    """The use of drawings in place of the images, and what they give away. A notebook shows it.

    `utility`: accuracies of a classifier trained on drawings alone (`with_drawings`) and of one trained on
    the images (`without`), and the interval of their difference; overall and by class.
    `drawing_attacks`: on drawings alone. `generator_attack`: on its file, None where there is none to attack.
    `discriminator_attack`: None where none was given. `nearest_members`: the training images that drawings
    come nearest to. `learnt_drawings`: that the classifier learnt from. `not_drawn`: the classes without
    drawings. `holds_training_images`: does the generator's file? `picture`: PNG of the nearest members above
    these drawings; in no JSON.
    """

    utility: Effect
    drawing_attacks: tuple[AttackResult, ...]
    copies: Copies
    nearest_members: tuple[NearestMember, ...]
    train_images: int
    held_out_images: int
    drawings: int
    learnt_drawings: int
    class_names: tuple[str, ...]
    generator_attack: AttackResult | None = None
    discriminator_attack: AttackResult | None = None
    not_drawn: tuple[str, ...] = ()
    holds_training_images: bool = False
    generator_digest: str | None = None
    picture: bytes = field(default=b"", compare=False)

    @property
    def leaks(self) -> bool:
        """Do the drawings give away who was in the training data? Of drawings that give nothing away at most
        4 % are said to."""
        return self.worst.p_value < MEMBERSHIP_LEVEL or self.copies.leak

    @property
    def file_leaks(self) -> bool:
        """Does the generator's file? Of files that give nothing away at most 1 % are said to."""
        leak = self.generator_attack is not None and self.generator_attack.p_value < FILE_LEVEL
        return self.holds_training_images or leak

    @property
    def verdict(self) -> str:
        """`gives away`, where the drawings or the file do (by chance alone in up to 5 % of cases), or
        `nothing shown`: nothing that so many held-out images can show."""
        return GIVES_AWAY if self.leaks or self.file_leaks else "nothing shown"

    @property
    def worst(self) -> AttackResult:
        """The attack on drawings that tells most."""
        return min(self.drawing_attacks, key=lambda attack: (attack.p_value, -attack.auc))

    @property
    def detectable_auc(self) -> float:
        """The true AUC that an attack on drawings shows about four times of five. The level is divided by the
        number of tests, which is a little stricter than adjusting them for one another."""
        level = MEMBERSHIP_LEVEL / (STATISTICS_PER_SCORE * len(self.drawing_attacks))
        return detectable_auc(self.worst.members, self.worst.non_members, level)

    @property
    def loss(self) -> float:
        """Accuracy of a classifier of the images less that of one of drawings, mean over the classes."""
        return -self.utility.overall.gain

    def __repr__(self) -> str:
        return " ".join((self.sentence, *self.reasons))

    @property
    def sentence(self) -> str:
        """Whether the drawings give anything away, and how much a classifier loses by them."""
        worst = self.worst
        auc = _auc_in_words(worst)
        change = self.utility.overall
        low, high = (100 * end for end in change.interval)
        word = "gains"
        if self.loss >= 0:
            word, low, high = "loses", -high, -low
        use = (
            f"a classifier trained on them alone {word} {abs(100 * self.loss):.1f} points ({low:.1f} to "
            f"{high:.1f}): {percent(change.with_drawings)} instead of {percent(change.without)} right"
        )
        if not self.leaks:
            file = ""
            if self.file_leaks:
                which = "is its training images" if self.holds_training_images else "does"
                file = f"; the generator's file {which}, so share drawings alone"
            return (
                f"These drawings gave nothing away that {worst.non_members:,} held-out images can show "
                f"({auc}){file}, and {use}."
            )
        what = f"who was in the training data ({auc})"
        if worst.p_value >= MEMBERSHIP_LEVEL:
            what = f"training images: {percent(self.copies.share)} of them are near copies"
        return f"These drawings give away {what}. {ADVICE} As for their use, {use}."

    @property
    def reasons(self) -> list[str]:
        """The rest of the answer, in sentences."""
        copies, worst = self.copies, self.worst
        reasons = [
            f"Near copies of training images: {percent(copies.share)} of {copies.compared:,} drawings; "
            f"{percent(copies.real)} of real images lie as near. These drawings come that near to "
            f"{copies.copied_members:,} of the training images and {copies.copied_non_members:,} of the "
            "held-out ones.",
            f"With {worst.members:,} training and {worst.non_members:,} held-out images (of a group, one) an "
            f"AUC of {self.detectable_auc:.3f} is found about four times of five; 0.500 is chance.",
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
        if len(self.drawing_attacks) > 1:
            reasons.append(
                f"The AUC is that of the attack that tells most, of {len(self.drawing_attacks)}: its p-value "
                "takes them all into account, its interval does not."
            )
        if self.holds_training_images:
            reasons.append(
                "The generator's file holds its training images: who has the file has them."
            )
        elif self.generator_attack:
            found = "gives away who was in it" if self.file_leaks else "gave nothing away"
            also = (
                "; but who has the file has its drawings"
                if self.leaks and not self.file_leaks
                else ""
            )
            reasons.append(
                f"The generator's file, by reconstruction, {found} "
                f"({_auc_in_words(self.generator_attack)}){also}."
            )
        if self.discriminator_attack:
            advice = (
                "tells who was in the training data: keep it on this machine"
                if self.discriminator_attack.p_value < DISCRIMINATOR_LEVEL
                else "told nothing; keep it on this machine all the same"
            )
            reasons.append(
                f"The discriminator {advice} ({_auc_in_words(self.discriminator_attack)})."
            )
        elif self.generator_attack:
            reasons.append(
                "No discriminator was at hand, so none was attacked: it often tells more."
            )
        return [*reasons, NO_PROOF]

    def rows(self) -> list[list[str]]:
        """The attacks as a table, a header first."""
        head = ["attack", "AUC", "95 % interval", "p"]
        head += [
            f"found at a false positive rate of {percent(each.false_positive_rate)}"
            for each in self.drawing_attacks[0].rates
        ]
        files = self.generator_attack, self.discriminator_attack
        every = [*self.drawing_attacks, *filter(None, files)]
        rows = [head]
        for attack in every:
            low, high = attack.interval
            found = [_found_in_words(each) for each in attack.rates]
            p_value = "< 0.001" if attack.p_value < 0.001 else f"{attack.p_value:.3f}"
            rows.append(
                [attack.name, f"{attack.auc:.3f}", f"{low:.3f} to {high:.3f}", p_value, *found]
            )
        return rows

    def class_rows(self) -> list[list[str]]:
        """The classifiers by class as a table, a header first."""
        head = ["class", "tested", "trained on the images", "on drawings alone"]
        rows = [[*head, "difference, points (95 %)"]]
        for label, change in self.utility.classes.items():
            shares = percent(change.without), percent(change.with_drawings)
            gain, interval = change.in_points()
            name, difference = self.class_names[label], f"{gain} ({interval})"
            rows.append([name, f"{change.tested:,}", *shares, difference])
        return rows

    def _repr_html_(self) -> str:
        words = map(notebook.paragraph, (self.sentence, *self.reasons))
        html = "".join(words) + notebook.table(self.rows()) + notebook.table(self.class_rows())
        if self.picture:
            html += notebook.picture(
                self.picture, "the training images nearest to drawings, and these"
            )
        return html

    def as_json(self) -> dict[str, Any]:
        """The fields and the verdict, without the picture."""
        facts = asdict(self)
        del facts["picture"]
        classes = {str(label): each for label, each in facts["utility"]["classes"].items()}
        facts["utility"]["classes"] = classes
        derived = {
            name: getattr(self, name) for name in ("verdict", "leaks", "file_leaks", "sentence")
        }
        return derived | facts


def _auc_in_words(attack: AttackResult) -> str:
    low, high = attack.interval
    return f"AUC {attack.auc:.3f}, {low:.3f} to {high:.3f}"


def _found_in_words(rate: RateAtFPR) -> str:
    if rate.true_positive_rate is None or rate.interval is None or rate.chance is None:
        return f"needs {rate.min_non_members:,} held-out images"
    low, high = map(percent, rate.interval)
    return (
        f"{percent(rate.true_positive_rate)} ({low} to {high}; chance up to {percent(rate.chance)})"
    )
