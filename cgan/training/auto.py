"""What `auto` becomes in the params of a training: the rules by which it suits its images, all of them.

In most sets an image lies near others of its class. Then one pass a step is enough. Two kinds of sets need
help: those whose images lie far apart, because a discriminator memorises them, and those whose classes are
hard to tell apart, such as photographs. There the discriminator sees each image shifted, and the generator
has a class loss of its own. For images like digits that would cost variety and gain nothing. Distances tell
such sets better than the number of images does: 5,000 digits need no help, and 2,000 characters of three
alphabets do, though each alphabet has more images than each digit. Below, (day, heading) is the entry of
docs/log.md, or of docs/log/, that has the trial.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from cgan.errors import DataError
from cgan.images import Images
from cgan.model.local_score import (
    LocalScoreSampler,
    LocalScoreSettings,
    are_photographs,
    choose_settings,
    is_better_than_gan,
)
from cgan.params.sections import TrainChoices, TrainParams
from cgan.settings import setting
from cgan.text import listed, percent

R1_GAMMA = 0.3  # (2026-11, "Quality: paid")
BATCH_SIZE = 96
# Easy: images that lie near others of their class (2026-11-26, "one pass for both networks, built").
PARAMS_FOR_EASY_IMAGES = {
    "generator": "deconv",
    "auxiliary_generator": 0.0,
    "class_logit_weight": 1.25,
    "max_shift": 0,
    "r1_gamma": R1_GAMMA,
    "updates": "one_pass",
    "batch_size": BATCH_SIZE,
    "total_kimg": 160.0,
}
# Hard: images that lie far apart, or whose classes are hard to tell apart; in place of those above
# (2026-11-28, "classes that look alike, and nearest fakes").
PARAMS_FOR_HARD_IMAGES = {
    "auxiliary_generator": 0.5,
    "class_logit_weight": 1.0,
    "updates": "two_passes",
    "total_kimg": 190.0,
}
# The same where the params ask for one pass: the same time, and less legible drawings (2026-11-26, "a quicker
# judge, and images that lie far apart").
PARAMS_FOR_HARD_IMAGES_IN_ONE_PASS = {"class_logit_weight": 2.5, "total_kimg": 240.0}
# `max_shift` for hard images, as a fraction of the side (2026-11-26, the same entry).
SHIFT_FRACTION = 0.07
# Pixels: in smaller images the shifted edge is too much of the whole (digits of 8×8 lose by a shift of one
# pixel, same entry). The limit itself is chosen by hand.
MIN_SIDE_TO_SHIFT = 16
# Root mean square of the difference of horizontally neighbouring pixels in [-1, 1] (2026-11-29, "photographs,
# another try").
CONTRAST_OF_DIGITS = 0.39
# `Neighbours.distance`, between 5,000 digits (.51) and 1,000 (.56), which need help (2026-11-26, "a quicker
# judge, and images that lie far apart").
MAX_EASY_DISTANCE = 0.53
# How often the nearest image is of another class, as a fraction of how often by chance: with more, classes
# are hard to tell apart. Chosen by hand, from digits (.06 of another class) and photographs (.72; 2026-11-28,
# "classes that look alike, and nearest fakes").
MAX_EASY_OTHER_CLASS = 0.5
# `auto` takes no sampler that needs more than MAX_JUDGED_S seconds of a core to draw JUDGED_PER_CLASS images
# of each class, the fewest that are judged. Chosen by hand.
JUDGED_PER_CLASS, MAX_JUDGED_S = 100, 1200.0
# At most so many images: whose neighbours are sought, among which, and made smaller at once.
QUERIES, SAMPLE, CHUNK = 1000, 4000, 100
MAX_SIDE = 32  # pixels: larger images are made smaller, so that 4,000 fit into memory


@dataclass(frozen=True)
class Choice:
    """What `auto` became: the params of a training with a value for each, and why these."""

    params: TrainParams
    chosen: str
    """In words: what took the place of `auto`, and what in the images decided it; "" without any `auto`."""
    advice: str
    """What to know or do about such images; "" where there is nothing to say."""
    sampler: LocalScoreSettings | None = None
    """The settings of a local score sampler, which is not trained; None: a GAN is trained."""

    def __str__(self) -> str:
        return self.chosen


def choose(params: TrainChoices, images: Images) -> Choice:
    """A value for each `auto`; what `params` says itself stays. Raises DataError for a class that a local
    score sampler could not draw."""
    if params.generator == "local_score":
        return choose_sampler(params, images, "")
    # Who says how long to train, or against which discriminator, asks for a GAN.
    asks_for_gan = params.total_kimg != "auto" or params.discriminator != "projection"
    if params.generator == "auto" and not asks_for_gan and int(images.counts.min()):
        suited, why = is_better_than_gan(*images.tensors[:2])
        if suited:
            found = choose_sampler(params, images, why)
            seconds = sampler_of(images, found).seconds_per_drawing
            if JUDGED_PER_CLASS * images.classes * seconds <= MAX_JUDGED_S:
                return found
    return choose_gan(params, images)


def choose_gan(params: TrainChoices, images: Images) -> Choice:
    """A value for each `auto` of a GAN, even where a sampler would suit the images."""
    found = neighbours(images)
    rules: Mapping[str, Any] = PARAMS_FOR_EASY_IMAGES
    advice = advice_on_hard_images() if found.hard and params.total_kimg == "auto" else ""
    if found.hard:
        side = min(images.shape[1:])
        shift = round(SHIFT_FRACTION * side) if side >= MIN_SIDE_TO_SHIFT else 0
        rules = PARAMS_FOR_EASY_IMAGES | PARAMS_FOR_HARD_IMAGES | {"max_shift": shift}
        every_nth = math.ceil(len(images) / SAMPLE)  # not the first ones: a CSV can be sorted
        sample = images.tensors.pixels[::every_nth]
        if are_photographs(sample):
            rules |= {"generator": "upsample"}
            if found.classes_alike:
                rules |= {"r1_gamma": r1_gamma(sample)}
                advice = advice_on_photographs()
        if params.updates == "one_pass":
            rules |= PARAMS_FOR_HARD_IMAGES_IN_ONE_PASS
    batch_size = batch_size_for(len(images), params.cpu_parts)
    resolved = resolve(params, {**rules, "batch_size": batch_size})
    of_images = [name for name in rules if name != "batch_size" and getattr(params, name) == "auto"]
    reasons = list[str]()
    if of_images:
        words = ", ".join(f"{name} {getattr(resolved, name)}" for name in of_images)
        same_class = percent(found.same_class, 0)
        reasons.append(
            f"{words} (nearest other image: distance {found.distance:.2f}, same class {same_class})"
        )
    if params.batch_size == "auto":
        reasons.append(f"batch_size {batch_size} ({len(images):,} images to train on)")
    return Choice(resolved, ", ".join(reasons), advice)


def batch_size_for(images: int, cpu_parts: int) -> int:
    """BATCH_SIZE, or all images where there are fewer; a multiple of `cpu_parts`."""
    return max(2, cpu_parts, min(BATCH_SIZE, images) // cpu_parts * cpu_parts)


def advice_on_hard_images() -> str:
    return (
        f"Such images take longer than digits. {setting('train.total_kimg', 700)} draws them better, in four "
        "times the time; 60 gives a first impression in a third."
    )


def advice_on_photographs() -> str:
    return (
        "Photographs of classes that look alike are hard. In minutes on a CPU, drawings show their colours "
        "and textures and little else. Better drawings need thousands of images a class and a GPU "
        f"({setting('train.total_kimg', 5000)} or more), no training "
        f"({setting('train.generator', 'local_score')}), or a pretrained generator from elsewhere: `cgan "
        "evidence --drawn FOLDER` says whether its drawings help."
    )


def advice_on_local_score() -> str:
    return (
        "A local score sampler is not trained. Its file holds the training images, and its drawings hold "
        "pieces of them: where nobody may see the images, set "
        f"{setting('train.generator', 'upsample')}, which trains a GAN."
    )


def choose_sampler(params: TrainChoices, images: Images, why: str) -> Choice:
    """The settings of a local score sampler. `why`: what in the images speaks for it; "" where the params ask
    for it. Raises DataError for a class without images."""
    if empty := images.classes_without_images:
        raise DataError(
            f"{setting('train.generator', 'local_score')} draws from the images of a class, and there are "
            f"none of {listed(empty)}. Add some, lower {setting('validate.classes')}, or set "
            f"{setting('train.generator', 'deconv')}."
        )
    fitted, words = choose_settings(images.tensors.pixels)
    named = {
        "cap": params.score_cap,
        "sources": params.score_sources,
        "window_scale": params.score_window_scale,
    }
    chosen: dict[str, Any] = {key: value for key, value in named.items() if value != "auto"}
    settings = replace(fitted, **chosen)
    score = {f"score_{key}": getattr(settings, key) for key in named}
    batch_size = batch_size_for(len(images), params.cpu_parts)  # unused, but TrainParams needs one
    rules = PARAMS_FOR_EASY_IMAGES | score | {"batch_size": batch_size}
    resolved = resolve(params.model_copy(update={"generator": "local_score"}), rules)
    generator = f"generator local_score ({why}), " if params.generator == "auto" else ""
    return Choice(resolved, generator + words, advice_on_local_score(), settings)


def sampler_of(images: Images, choice: Choice) -> LocalScoreSampler:
    """What takes the place of a training where `choice` is a sampler: it draws from these images."""
    assert choice.sampler
    return LocalScoreSampler(*images.tensors[:2], choice.sampler)


def r1_gamma(images: Tensor) -> float:
    """The weight of R1, which keeps a discriminator from being steep. To see details of half the contrast, it
    has to be twice as steep: the weight falls with the square of the contrast of neighbouring pixels."""
    contrast = (images.float() * 2 / 255).diff(dim=3).square().mean().sqrt().item()
    relative = min(1.0, max(0.1, contrast / CONTRAST_OF_DIGITS))
    return float(f"{R1_GAMMA * relative**2:.1g}")


def resolve(params: TrainChoices, rules: Mapping[str, Any] = PARAMS_FOR_EASY_IMAGES) -> TrainParams:
    """The params, with the value from `rules` in the place of each `auto`."""
    values, rules = params.model_dump(), dict(rules)
    if params.discriminator == "demo":  # which has no class logits
        rules |= {"class_logit_weight": 0.0, "auxiliary_generator": 0.0}
    if params.updates == "one_pass":  # which has no loss of the generator's own
        rules["auxiliary_generator"] = 0.0
    elif params.auxiliary_generator not in (0, "auto"):
        rules["updates"] = "two_passes"
    chosen = {key: rule for key, rule in rules.items() if values[key] == "auto"}
    return TrainParams(**values | chosen)


class Neighbours(NamedTuple):
    """How like the images are to the nearest other image of each, by their pixels."""

    distance: float
    """The median distance, over √2·‖σ‖ with σ the standard deviation of each pixel: the mean squared distance
    of two images picked at random is 2·‖σ‖². 0: copies; 1: no image is like another."""
    same_class: float
    """The share of neighbours of the same class."""
    chance: float
    """The share of any two images that have the same class."""

    @property
    def classes_alike(self) -> bool:
        """Whether the classes are hard to tell apart by their pixels."""
        return 1 - self.same_class > MAX_EASY_OTHER_CLASS * (1 - self.chance)

    @property
    def hard(self) -> bool:
        """Whether a GAN needs help with such images."""
        return self.distance > MAX_EASY_DISTANCE or self.classes_alike


def neighbours(images: Images) -> Neighbours:
    """How near the images lie to others. A large set is judged by a sample, drawn by a seed of its own."""
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))[:SAMPLE]
    height, width = (min(side, MAX_SIDE) for side in images.shape[1:])
    pieces = (images.tensors.pixels[rows].float() for rows in order.split(CHUNK))
    pixels = torch.cat([adaptive_avg_pool2d(piece, (height, width)).flatten(1) for piece in pieces])
    labels = images.tensors.labels[order]
    distances = torch.cdist(pixels[:QUERIES], pixels)
    distances.fill_diagonal_(math.inf)
    nearest = distances.min(dim=1)
    by_chance: float = math.sqrt(2) * pixels.std(dim=0).norm().item()
    return Neighbours(
        nearest.values.median().item() / max(by_chance, 1e-9),
        (labels[nearest.indices] == labels[:QUERIES]).double().mean().item(),
        (labels.bincount() / len(labels)).square().sum().item(),
    )
