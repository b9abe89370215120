"""`cgan.sharing`: may the drawings be shared in place of the images?"""

import math
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from cgan.base.errors import CganError, DataError
from cgan.base.progress import Progress, progress_bar
from cgan.base.report import Answer, Cell, Number, Report, Table
from cgan.base.settings import python_call
from cgan.base.text import duration, listed, percent
from cgan.data.contact_sheet import image_grid
from cgan.data.images import Images
from cgan.data.splitting import units_of
from cgan.models.generative import GenerativeModel
from cgan.models.hardware import choose_hardware, deterministic
from cgan.models.model_file import digest_of
from cgan.models.sampling import encode_png
from cgan.params.checks import check_section
from cgan.params.sections import AutoTrainParams, JudgeParams
from cgan.privacy import GIVES_AWAY
from cgan.privacy.candidates import Candidates
from cgan.privacy.exposure import exposure
from cgan.privacy.membership import Attack
from cgan.quality.evaluate import HasModel
from cgan.quality.evaluation import Evaluation
from cgan.quality.judge import predict, train_judge
from cgan.quality.likeness import nearest_neighbours
from cgan.utility.effect import DRAWN, Outcome, effect
from cgan.utility.evidence import require_comparable, require_rounds
from cgan.utility.rounds import with_seed

ATTACKED_DRAWINGS = 10_000  # at least: an attacker may ask for many
MAX_ATTACKED_S = 20.0  # seconds of a core, of a slow generator
EXPOSED = 5  # training images that are shown
IMAGES = "images"  # the method beside drawings: the classifier trained on the images
ADVICE_ON_LEAKS = "Train on more images, stop earlier, or do not share them."
NO_PROOF = (
    "This says what was tried, on these images. No test proves that drawings keep a secret; training with "
    "differential privacy would bound what they give away, and cgan has none."
)


@dataclass(frozen=True, kw_only=True, repr=False)
class Sharing(Answer):
    """Answer of `cgan.sharing`: what drawings give away, and their use in place of the images.

    >>> cgan.sharing(train, held_out, run.generator, say=str).report().verdict
    'nothing shown'

    `attack`: who was in it? `unit`: of what, `images`, or `groups` where there are any. `exposed`: the
    training images that look most like it: where each is, its class and its score, in standard deviations
    from the mean of the class; `picture`: these, above the nearest drawing of each, as PNG.
    `utility`: how often a classifier trained on drawings alone is right on held-out images, mean over the
    classes, beside `real`, one that was trained on the images. `not_drawn`: the classes without drawings.
    `holds_training_images`: does the generator's file?
    """

    attack: Attack
    unit: str
    drawings: int
    shadows: int
    exposed: list[tuple[str, str, float]]
    utility: Number
    not_drawn: list[str]
    holds_training_images: bool = False
    generator_digest: str | None = None
    picture: bytes = b""

    @property
    def verdict(self) -> str:
        """`gives away`, where the drawings or the file do, or `nothing shown`: nothing that so many held-out
        images can show."""
        return GIVES_AWAY if self.attack.leaks or self.holds_training_images else "nothing shown"

    def report(self) -> Report:
        """The answer, with the attack and the most exposed images in tables."""
        found, auc = self.attack, self.attack.auc_number
        rate = percent(found.false_positive_rate)
        rows: list[tuple[Cell, ...]] = [
            (f"{self.unit} trained on", found.members),
            (f"{self.unit} held out", found.non_members),
            ("AUC (0.5 is chance)", auc.with_interval),
            (f"found at a false positive rate of {rate}", percent(found.true_positive_rate)),
            ("of them by chance, at most", percent(found.chance)),
            ("p-value", Number(value=found.p_value, kind="number")),
            ("ε, at least", Number(value=found.epsilon, kind="number")),
        ]
        facts = {name: value for name, value in asdict(self).items() if name != "picture"}
        seen = "The most exposed training images, above the nearest drawings"
        return Report(
            question="May the drawings be shared?",
            verdict=self.verdict,
            sentence=self._sentence(),
            reasons=self._reasons(),
            tables=[
                Table("Who was in the training data", ("", ""), rows),
                Table("Most exposed training images", ("image", "class", "exposure"), self.exposed),
            ],
            pictures={seen: self.picture} if self.picture else {},
            facts={"leaks": found.leaks, **facts},
        )

    def _sentence(self) -> str:
        """`These drawings gave nothing away that 832 held-out images can show: AUC 0.503 (…). …`."""
        auc = f"AUC {self.attack.auc_number.with_interval}"
        use = (
            f"A classifier trained on them alone is right on {self.utility} of real images, one trained on "
            f"the images on {percent(self.utility.real or 0.0)}."
        )
        told = f"gave nothing away that {self.attack.non_members:,} held-out {self.unit} can show: {auc}."
        if self.attack.leaks:
            told = f"give away who was in the training data: {auc}. {ADVICE_ON_LEAKS}"
        its_file = "The generator's file is its training images. "
        return f"{its_file if self.holds_training_images else ''}These drawings {told} {use}"

    def _reasons(self) -> list[str]:
        """The rest of the answer, in sentences."""
        found = self.attack
        reasons = [
            f"Asked of {found.members:,} {self.unit} trained on and {found.non_members:,} held out: an "
            f"attacker who has {self.drawings:,} drawings and the recipe tells the ones from the others by "
            f"{self.shadows} generators of their own, each of half the images. A leak of AUC "
            f"{found.detectable_auc:.3f} is found about four times out of five.",
        ]
        if found.epsilon > 0:
            reasons.append(
                f"No training with differential privacy of ε below {found.epsilon:.2g} leaks so much (95 % "
                "confidence)."
            )
        if self.not_drawn:
            reasons.append(
                f"There are no drawings of {listed(self.not_drawn)}: of their images the drawings tell "
                "nothing, and a classifier of drawings never names them."
            )
        if self.generator_digest and not self.holds_training_images:
            reasons.append("Whoever has the generator's file has as many drawings as they like.")
        return [*reasons, NO_PROOF]


@python_call
def sharing(
    train: Images,
    held_out: Images,
    generator: HasModel | Images,
    *,
    shadows: int = 2,
    seeds: int = 3,
    recipe: JudgeParams | None = None,
    evaluation: Evaluation | None = None,
    training: AutoTrainParams | None = None,
    folder: Path | str | None = None,
    device: str = "auto",
    seed: int = 1,
    progress: Progress = progress_bar,
    say: Callable[[str], None] = print,
) -> Sharing:
    """Test what drawings give away of the training images, and how well they can replace them.

    >>> answer = cgan.sharing(train, held_out, run.generator)
    2 generators of half the images each; if interrupted, the same call goes on.
    They take about ... s in all.
    >>> answer.attack.auc_number.interval_in_words
    '0... to 0...'

    *Who was in it*: can an attacker who has the drawings tell the images of `train` from those of `held_out`?
    They ask how near the nearest drawings of the class lie, beside those of `shadows`: generators of the same
    recipe, each trained on a half of all these images, so that one of two did not see the image. `held_out`
    has to be split off at random: where it comes from another source, the attack tells the sources apart, and
    the drawings seem to leak.

    *Instead of the images*: how often a classifier trained on drawings alone is right on `held_out`, beside
    one trained on `train`: by `evaluation`, of this generator, or classifiers of `recipe`, `seeds` of each.

    `generator`: the one that was trained on `train`; or drawings by any such generator, as `Images`.
    `training`: the params of a shadow, by default those in the generator's facts, for drawings those of
    `cgan.fit`. `folder` keeps the shadows: after an interruption the same call goes on. `seed`: of drawings
    and halves.

    Raises DataError where the sets do not belong together, too few are held out or no drawing is of a class
    of `train`, CganError for fewer than two seeds or an odd number of shadows.
    """
    require_rounds("seeds", seeds)
    if shadows < 2 or shadows % 2:
        raise CganError(f"shadows is {shadows}, expected an even number from 2 on.")
    require_comparable(train, held_out, generator)
    candidates = Candidates.choose(train, held_out, seed)
    model = None if isinstance(generator, Images) else generator.model
    if model and model.kind.holds_training_images:
        say(model.kind.caution)
    if training is None:
        values = {"generator": model.architecture.kind} if model else {}
        values |= getattr(generator, "facts", {}).get("params", {}) | {"device": device}
        training = check_section(AutoTrainParams, "train", values, "cgan.sharing")
    with deterministic(), tempfile.TemporaryDirectory(prefix="cgan-") as temporary:
        drawn = generator
        if not isinstance(drawn, Images):
            drawn = draw_like(drawn.model, train, seed, progress)
        if not drawn.counts[train.counts > 0].any():
            raise DataError("generator: expected drawings of classes that train has, found none.")
        place = Path(folder or temporary)
        of_halves = candidates.shadows(training, shadows, drawn.labels, place, progress)
        first = of_halves[0][0]
        say(f"{shadows} generators of half the images each; if interrupted, the same call goes on.")
        if not first.own_folder.exists():
            # What is not trained draws for as long as it may.
            seconds = first.seconds() or MAX_ATTACKED_S
            say(f"They take about {duration(shadows * seconds)} in all.")
        of_shadows = ((each.drawings(), unseen) for each, unseen in of_halves)
        scores = exposure(candidates.images, drawn, of_shadows)
        digest = digest_of(model.state_dict()) if model else None
        utility = known_utility(evaluation, digest) or measured_utility(
            train, drawn, held_out, recipe or JudgeParams(), seeds, device, progress
        )
    shown = candidates.most_exposed(scores, EXPOSED)
    images = candidates.images.at(shown)
    exposed = [
        (images.place(n), train.class_names[images.labels[n]], round(float(scores[row]), 2))
        for n, row in enumerate(shown)
    ]
    return Sharing(
        attack=candidates.attack(scores),
        unit="images" if train.groups is None else "groups",
        drawings=len(drawn),
        shadows=shadows,
        exposed=exposed,
        utility=utility,
        not_drawn=drawn.classes_without_images,
        holds_training_images=bool(model and model.kind.holds_training_images),
        generator_digest=digest,
        picture=beside_nearest(images, drawn),
    )


def draw_like(model: GenerativeModel, train: Images, seed: int, progress: Progress) -> Images:
    """Drawings in the class mix of `train`: as many as that has, and ATTACKED_DRAWINGS at least, or what a
    slow generator draws in MAX_ATTACKED_S."""
    count = max(ATTACKED_DRAWINGS, len(train))
    if seconds := model.seconds_per_drawing:
        count = min(count, math.ceil(MAX_ATTACKED_S / seconds))
    order = np.random.default_rng(seed).permutation(len(train))
    labels = torch.from_numpy(np.resize(train.labels[order], count))
    return Images(model.draw(labels, seed, progress), labels, train.class_names, notes=())


def beside_nearest(images: Images, drawn: Images) -> bytes:
    """The images, each above the drawing of its class that a person finds most like it, as PNG."""
    pixels, labels, _ = images.tensors
    rows = nearest_neighbours(pixels, labels, *drawn.tensors[:2])[1][:, 0]
    return encode_png(image_grid(np.stack([images.pixels, drawn.pixels[rows]]), scale=2))


def known_utility(evaluation: Evaluation | None, digest: str | None) -> Number | None:
    """The use that the evaluation of the generator with this digest found; None where it has not asked."""
    if not evaluation or not evaluation.is_about({"digest": digest}):
        return None
    found = evaluation.score("gan_train_accuracy")
    known = Number(value=found.value, interval=found.interval, real=found.real)
    return None if known.value is None else known


def measured_utility(
    train: Images,
    drawn: Images,
    test: Images,
    recipe: JudgeParams,
    seeds: int,
    device: str,
    progress: Progress,
) -> Number:
    """The accuracy on `test` of classifiers trained on drawings alone, of each class at most as many as
    `train` has (train on synthetic, test on real: Esteban et al., arXiv:1706.02633), and on `train`."""
    hardware = choose_hardware(device, "auto")
    order = np.random.default_rng(recipe.seed).permutation(len(drawn))
    rows = [order[drawn.labels[order] == label][:count] for label, count in enumerate(train.counts)]
    learnt = {IMAGES: train, DRAWN: drawn.at(np.sort(np.concatenate(rows)))}
    units = torch.from_numpy(units_of(test))
    outcomes = []
    for number in range(seeds):
        right = {}
        for name, data in learnt.items():
            bar = partial(progress, f"classifier of {name}, seed {number + 1}")
            classifier = train_judge(data, with_seed(recipe, number), hardware, bar)
            right[name] = predict(classifier, test.tensors.pixels).labels == test.tensors.labels
        outcomes.append(Outcome(test.tensors.labels, units, right))
    change = effect(outcomes, [IMAGES], folded=False).overall
    low, high = (change.without + end for end in change.interval)  # beside the images' accuracy
    return Number(value=change.with_drawings, interval=(low, high), real=change.without)
