"""Chooses the kind of generator, and for a GAN the values of params that are `auto`, by the images.

Images are easy where each lies near others of its class, as digits do: then one pass per step is enough. They
are hard where they lie far apart, because a discriminator memorises them, or where their classes are hard to
tell apart, as in photographs. Then the discriminator gets shifted images, and the generator has a class loss;
with easy images that would cost variety and gain nothing. Distances tell hard images better than their number
does: 5,000 digits are easy, and 2,000 characters of three alphabets are hard, though each alphabet has more
images than each digit.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from cgan.base.errors import DataError
from cgan.base.settings import setting
from cgan.base.text import listed, percent
from cgan.data.images import Images
from cgan.models.generative import GenerativeModel, class_of
from cgan.models.kinds import KINDS
from cgan.models.local_score import may_be_photographs
from cgan.params.sections import AutoTrainParams, TrainParams

# Shen et al., arXiv:2103.00430: one pass takes three quarters of the time of two, and needs no more images.
PARAMS_FOR_EASY_IMAGES = {
    "generator": "deconv",
    "auxiliary_generator": 0.0,  # weight of the class loss on fakes
    "class_logit_weight": 1.25,
    "max_shift": 0,
    "updates": "one_pass",
    "total_kimg": 160.0,
}
# In place of those above: in equal time .73 of drawings of photographs are right in place of .59, of five
# alphabets .90 in place of .83.
PARAMS_FOR_HARD_IMAGES = {
    "auxiliary_generator": 0.5,
    "class_logit_weight": 1.0,
    "updates": "two_passes",
    "total_kimg": 190.0,
}
SHIFT_FRACTION = 0.07  # `max_shift` for hard images, as a fraction of the shorter side
MIN_SIDE_TO_SHIFT = 16  # pixels: in smaller images the shifted edge is too much of the whole
# The demo has no such terms in its losses.
DEMO_VALUES = {
    "auxiliary_discriminator": 0.0,
    "auxiliary_generator": 0.0,
    "class_logit_weight": 0.0,
    "max_shift": 0,
    "r1_gamma": 0.0,
}
# `Neighbours.distance`, between 5,000 digits (.51) and 1,000 (.56), which are hard.
MAX_EASY_DISTANCE = 0.53
# How often the nearest image is of another class, over how often by chance: with more, classes are hard to
# tell apart. Chosen by hand: digits have .07, photographs .8.
MAX_EASY_OTHER_CLASS = 0.5
# `auto` takes no sampler that needs more seconds of a core to draw so many of each class, the fewest that are
# judged. Chosen by hand.
MAX_JUDGED_DRAWINGS_S, FEWEST_JUDGED_PER_CLASS = 1200.0, 100
# To bound the time: the images whose neighbours are looked for, among how many.
MAX_NEIGHBOURS_SOUGHT, MAX_SAMPLE = 1000, 4000
COMPARED_SIDE = 32  # pixels: larger images are made smaller, so that MAX_SAMPLE fit into memory
RESIZED_AT_ONCE = 100  # images


@dataclass(frozen=True)
class Choice:
    """The params of a training with a value for each `auto`.

    `explanation`: these values, and what in the images decided them, and a smaller batch; "" without either.
    `advice`: what to know or do about such images, or "". `model`: made of them; None: a GAN is trained.
    """

    params: TrainParams
    explanation: str
    advice: str
    model: GenerativeModel | None = None


def choose(params: AutoTrainParams, images: Images) -> Choice:
    """A value for each `auto`; others stay, but for a batch larger than the data and what the demo lacks. A
    local score sampler is taken for photographs that it draws fast enough, unless the params say which
    generator, or how long to train. Raises DataError for an untrained kind where a class has no images."""
    if params.generator != "auto":
        if KINDS[params.generator].is_trained:
            return choose_gan(params, images)
        return choose_untrained(params.generator, params, images)
    suits_sampler = not images.classes_without_images and may_be_photographs(spread_sample(images))
    if suits_sampler and params.total_kimg == "auto":
        choice = choose_untrained("local_score", params, images)
        drawings = FEWEST_JUDGED_PER_CLASS * images.classes
        if choice.model and drawings * choice.model.seconds_per_drawing <= MAX_JUDGED_DRAWINGS_S:
            return choice
    return choose_gan(params, images)


def choose_gan(params: AutoTrainParams, images: Images) -> Choice:
    """A value for each `auto` of a GAN, even where a sampler would suit the images."""
    neighbours = measure_neighbours(images)
    values_for_auto, advice = dict[str, Any](PARAMS_FOR_EASY_IMAGES), ""
    if neighbours.are_hard:
        values_for_auto |= PARAMS_FOR_HARD_IMAGES
        side = min(images.shape[1:])
        if side >= MIN_SIDE_TO_SHIFT:
            values_for_auto["max_shift"] = round(SHIFT_FRACTION * side)
        if params.total_kimg == "auto":
            advice = (
                f"Such images take longer than digits. {setting('train.total_kimg', 700)} draws them better, "
                "in four times the time; 60 gives a first impression in a third."
            )
        if may_be_photographs(spread_sample(images)):
            values_for_auto["generator"] = "upsample"
            if neighbours.classes_alike:
                advice = (
                    "Photographs of classes that look alike are hard: in minutes on a CPU, drawings show "
                    "their colours and textures and little else. Better drawings need thousands of images a "
                    f"class and a GPU ({setting('train.total_kimg', 5000)} or more), or no training "
                    f"({setting('train.generator', 'local_score')})."
                )
    batch_size = min(params.batch_size, len(images) // 2 * 2)
    resolved = resolve(params.model_copy(update={"batch_size": batch_size}), values_for_auto)
    used, reasons = resolved.relevant(), list[str]()
    names = [name for name in values_for_auto if name in used and getattr(params, name) == "auto"]
    if names:
        values = ", ".join(f"{name} {used[name]}" for name in names)
        same_class = percent(neighbours.same_class, 0)
        reasons.append(
            f"{values} (nearest other image: distance {neighbours.distance:.2f}, same class {same_class})"
        )
    if batch_size != params.batch_size:
        reasons.append(f"batch_size {batch_size} ({len(images):,} images to train on)")
    return Choice(resolved, ", ".join(reasons), advice)


def choose_untrained(kind: str, params: AutoTrainParams, images: Images) -> Choice:
    """A generator of a kind that is not trained. Raises DataError for a class without images."""
    if empty := images.classes_without_images:
        raise DataError(
            f"{setting('train.generator', kind)} draws from the images of a class, and there are none of "
            f"{listed(empty)}. Add some, lower {setting('validate.classes')}, or set "
            f"{setting('train.generator', 'deconv')}."
        )
    pixels, labels, _ = images.tensors
    model = class_of(kind).from_images(pixels, labels, params.model_dump())
    reasons = [f"generator {kind} (photographs)"] if params.generator == "auto" else []
    reasons += [
        f"{key} {value}" for key, value in model.params.items() if getattr(params, key) == "auto"
    ]
    resolved = resolve(params.model_copy(update={"generator": kind, **model.params}))
    advice = ""
    if model.kind.holds_training_images:
        gan = setting("train.generator", "upsample")
        advice = f"{model.kind.caution} If they must stay private, {gan} trains a GAN."
    return Choice(resolved, ", ".join(reasons), advice, model)


def resolve(
    params: AutoTrainParams, values_for_auto: Mapping[str, Any] = PARAMS_FOR_EASY_IMAGES
) -> TrainParams:
    """The params, with the value from `values_for_auto` in the place of each `auto`."""
    values, values_for_auto = params.model_dump(), dict(values_for_auto)
    if params.generator == "demo":
        values |= DEMO_VALUES
    if params.updates == "one_pass":  # which has no separate loss of the generator
        values_for_auto["auxiliary_generator"] = 0.0
    elif params.auxiliary_generator not in (0, "auto"):
        values_for_auto["updates"] = "two_passes"
    chosen = {name: value for name, value in values_for_auto.items() if values[name] == "auto"}
    return TrainParams(**values | chosen)


def spread_sample(images: Images) -> Tensor:
    """The pixels of at most MAX_SAMPLE images, not of the first ones: a CSV can be sorted."""
    return images.tensors.pixels[:: math.ceil(len(images) / MAX_SAMPLE)]


class Neighbours(NamedTuple):
    """Distances of images to the nearest other image, by their pixels, and its class.

    `distance`: the median, over √2·‖σ‖ with σ the standard deviation of each pixel (the mean squared distance
    of two images picked at random is 2·‖σ‖²). 0: copies; 1: no image is like another. `same_class`: the
    fraction of the nearest images that have the same class; `chance`: that of pairs picked at random.
    """

    distance: float
    same_class: float
    chance: float

    @property
    def classes_alike(self) -> bool:
        """True where the classes are hard to tell apart by their pixels."""
        return 1 - self.same_class > MAX_EASY_OTHER_CLASS * (1 - self.chance)

    @property
    def are_hard(self) -> bool:
        """True where the images are hard for a GAN (see the top of this module)."""
        return self.distance > MAX_EASY_DISTANCE or self.classes_alike


def measure_neighbours(images: Images) -> Neighbours:
    """The `Neighbours` of images: of many, those of a random sample, always the same one."""
    rng = torch.Generator().manual_seed(0)
    sample = torch.randperm(len(images), generator=rng)[:MAX_SAMPLE]
    height, width = (min(side, COMPARED_SIDE) for side in images.shape[1:])
    chunks = (images.tensors.pixels[rows].float() for rows in sample.split(RESIZED_AT_ONCE))
    pixels = torch.cat([adaptive_avg_pool2d(chunk, (height, width)).flatten(1) for chunk in chunks])
    labels = images.tensors.labels[sample]
    distances = torch.cdist(pixels[:MAX_NEIGHBOURS_SOUGHT], pixels)
    distances.fill_diagonal_(math.inf)
    nearest = distances.min(dim=1)
    random_distance: float = math.sqrt(2) * pixels.std(dim=0).norm().item()
    return Neighbours(
        distance=nearest.values.median().item() / max(random_distance, 1e-9),
        same_class=(labels[nearest.indices] == labels[:MAX_NEIGHBOURS_SOUGHT])
        .double()
        .mean()
        .item(),
        chance=(labels.bincount() / len(labels)).square().sum().item(),
    )
