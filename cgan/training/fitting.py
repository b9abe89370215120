"""What `auto` is in the section `train`: the rules by which a training fits its data, all of them.

Most images lie near others of their class. Then one pass a step is enough. Two kinds of data need help:
images far apart, for a discriminator knows them one by one, and classes that are hard to tell apart, such as
photographs. There the discriminator sees each image moved, and the generator learns from the classes itself.
For images like digits that would cost variety for nothing. Where images lie tells this better than their
number: 5,000 digits need no help, and 2,000 characters of three alphabets do, though each alphabet has more
images than each digit. docs/log.md has the trials.
"""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from cgan.errors import DataError, listed, percent
from cgan.images import Images
from cgan.model.local_score import (
    LocalScoreSampler,
    LocalScoreSettings,
    fitted_settings,
    photographs,
    suits,
)
from cgan.params.sections import TrainChoices, TrainParams

R1_GAMMA = 0.3
NEAR = {
    "generator": "deconv",
    "auxiliary_generator": 0.0,
    "class_logit_weight": 1.25,
    "max_shift": 0,
    "r1_gamma": R1_GAMMA,
    "updates": "one_pass",
    "total_kimg": 160.0,
}
HARD = {
    "auxiliary_generator": 0.5,
    "class_logit_weight": 1.0,
    "updates": "two_passes",
    "total_kimg": 190.0,
}
# Takes the same time; what it draws is less legible.
HARD_IN_ONE_PASS = {"class_logit_weight": 2.5, "total_kimg": 240.0}
SHIFT = 0.07  # of the side, for hard data
FINE = 0.39  # how much neighbouring pixels of digits differ; the range is 2
FAR_APART = 0.53
ALIKE = 0.5  # neighbours of another class, as a part of how many there are by chance
ADVICE = (
    "Such images take longer than digits. `train.total_kimg: 700` draws them better, in four times the time; "
    "60 gives a first impression in a third."
)
ADVICE_ON_PHOTOGRAPHS = (
    "Photographs of classes that look alike are hard. In minutes on a CPU, drawings show their colours and "
    "textures and little else. Better drawings need thousands of images a class and a GPU "
    "(`train.total_kimg: 5000` or more), no training (`train.generator: local_score`), or a pretrained "
    "generator from elsewhere: `cgan evidence --drawn FOLDER` says whether its drawings help."
)
ADVICE_ON_LOCAL_SCORE = (
    "A local score sampler is not trained. Its file holds the training images, and its drawings hold pieces "
    "of them: where nobody may see the images, set `train.generator: upsample`, which trains a GAN."
)
# Of a core: `auto` takes no sampler whose drawings, as many as are judged at least, take longer.
JUDGED_PER_CLASS, JUDGED_S = 100, 1200.0
LOOKED_AT, COMPARED, AT_ONCE = 1000, 4000, 100  # images, at most
COMPARED_SIDE = 32  # pixels: larger images are made smaller, so that 4,000 fit into memory
LEAST_SIDE = 16  # pixels: in smaller images the moved edge is too much of the whole


class Nearest(NamedTuple):
    """Of images and their nearest others."""

    distance: float
    """The median, over √2 standard deviations of all images, which is about how far two lie apart by chance.
    0: copies; 1: no image is like another."""
    same_class: float
    """How many have the same class."""
    chance: float
    """How many of any two images have the same class."""

    @property
    def classes_alike(self) -> bool:
        return 1 - self.same_class > ALIKE * (1 - self.chance)

    @property
    def hard(self) -> bool:
        return self.distance > FAR_APART or self.classes_alike


class Fit(NamedTuple):
    """The params of a training, and in words what was chosen for its data: nothing without `auto`."""

    params: TrainParams
    choice: str
    advice: str
    settings: LocalScoreSettings | None = None
    """Of a local score sampler, which is not trained; None: of a GAN, which is."""


def fit(choices: TrainChoices, data: Images) -> Fit:
    """A value for each `auto`; what params.yaml says itself stays. Raises DataError for a class that a local
    score sampler could not draw."""
    if choices.generator == "local_score":
        return _fit_local_score(choices, data, "")
    # Who says how long to train, or against which discriminator, asks for a GAN.
    if (choices.generator, choices.total_kimg, choices.discriminator) == (
        "auto",
        "auto",
        "projection",
    ):
        suited, why = suits(*data.tensors[:2])
        if suited and int(data.counts.min()):
            found = _fit_local_score(choices, data, why)
            assert found.settings
            each = sampler_of(data, found.settings).seconds_per_drawing
            if JUDGED_PER_CLASS * data.classes * each <= JUDGED_S:
                return found
    return fit_gan(choices, data)


def fit_gan(choices: TrainChoices, data: Images) -> Fit:
    """The same of a GAN alone, whatever else suits the data."""
    near = nearest(data)
    rules: Mapping[str, Any] = NEAR
    advice = ADVICE if near.hard and choices.total_kimg == "auto" else ""
    if near.hard:
        side = min(data.shape[1:])
        rules = NEAR | HARD | {"max_shift": round(SHIFT * side) if side >= LEAST_SIDE else 0}
        # Not the first: a CSV can be sorted.
        some = data.tensors.pixels[:: math.ceil(len(data) / COMPARED)]
        if photographs(some):
            rules |= {"generator": "upsample"}
            if near.classes_alike:
                rules |= {"r1_gamma": gamma(some)}
                advice = ADVICE_ON_PHOTOGRAPHS
        if choices.updates == "one_pass":
            rules |= HARD_IN_ONE_PASS
    params = filled(choices, rules)
    words = ", ".join(
        f"{name} {getattr(params, name)}" for name in rules if getattr(choices, name) == "auto"
    )
    why = f"nearest other image: distance {near.distance:.2f}, same class {percent(near.same_class, 0)}"
    return Fit(params, f"{words} ({why})" if words else "", advice)


def _fit_local_score(choices: TrainChoices, data: Images, why: str) -> Fit:
    """`why`: what speaks for it in these data; nothing where params.yaml asks for it."""
    if empty := [
        name
        for name, count in zip(data.class_names, data.counts.tolist(), strict=True)
        if not count
    ]:
        raise DataError(
            "params.yaml: `train.generator: local_score` draws from the images of a class, and there are "
            f"none of {listed(empty)}. Add some, lower `validate.classes`, or set `train.generator: deconv`."
        )
    fitted, words = fitted_settings(data.tensors.pixels)
    named = {
        "cap": choices.score_cap,
        "sources": choices.score_sources,
        "window_scale": choices.score_window_scale,
    }
    chosen: dict[str, Any] = {key: value for key, value in named.items() if value != "auto"}
    settings = replace(fitted, **chosen)
    score = {f"score_{key}": getattr(settings, key) for key in named}
    params = filled(choices.model_copy(update={"generator": "local_score"}), NEAR | score)
    generator = f"generator local_score ({why}), " if choices.generator == "auto" else ""
    return Fit(params, generator + words, ADVICE_ON_LOCAL_SCORE, settings)


def sampler_of(data: Images, settings: LocalScoreSettings) -> LocalScoreSampler:
    """What takes the place of a training: it draws from these images."""
    return LocalScoreSampler(*data.tensors[:2], settings)


def gamma(images: Tensor) -> float:
    """The weight of R1, which keeps a discriminator from being steep. To see details of half the contrast, it
    has to be twice as steep: the weight falls with the square of the contrast of neighbouring pixels."""
    fine = (images.float() * 2 / 255).diff(dim=3).square().mean().sqrt().item()
    return float(f"{R1_GAMMA * min(1.0, max(0.1, fine / FINE)) ** 2:.1g}")


def filled(choices: TrainChoices, rules: Mapping[str, Any] = NEAR) -> TrainParams:
    """The choices, with one of the rules in the place of each `auto`."""
    values, rules = choices.model_dump(), dict(rules)
    if choices.discriminator == "demo":  # it has no class logits
        rules |= {"class_logit_weight": 0.0, "auxiliary_generator": 0.0}
    if choices.updates == "one_pass":  # it has no loss of the generator's own
        rules["auxiliary_generator"] = 0.0
    elif choices.auxiliary_generator not in (0, "auto"):
        rules["updates"] = "two_passes"
    return TrainParams(**values | {n: rule for n, rule in rules.items() if values[n] == "auto"})


def nearest(data: Images) -> Nearest:
    """How near the images lie to others, by their pixels. A large set is judged by a sample, drawn by a seed
    of its own."""
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(0))[:COMPARED]
    height, width = (min(side, COMPARED_SIDE) for side in data.shape[1:])
    pieces = (data.tensors.pixels[rows].float() for rows in order.split(AT_ONCE))
    pixels = torch.cat([adaptive_avg_pool2d(piece, (height, width)).flatten(1) for piece in pieces])
    labels = data.tensors.labels[order]
    distances = torch.cdist(pixels[:LOOKED_AT], pixels)
    distances.fill_diagonal_(math.inf)
    closest = distances.min(dim=1)
    typical: float = math.sqrt(2) * pixels.std(dim=0).norm().item()
    return Nearest(
        closest.values.median().item() / max(typical, 1e-9),
        (labels[closest.indices] == labels[:LOOKED_AT]).double().mean().item(),
        (labels.bincount() / len(labels)).square().sum().item(),
    )
