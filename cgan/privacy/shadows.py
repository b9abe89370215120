"""*Shadows*: generators by the recipe of the one that is asked about, each trained on half of the images."""

import math
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cgan.base.files import fingerprint
from cgan.base.progress import Progress
from cgan.data.images import Images, joined
from cgan.data.splitting import units_of
from cgan.models.generative import GenerativeModel
from cgan.models.hardware import choose_hardware
from cgan.params.sections import TrainChoices
from cgan.privacy.membership import BoolArray
from cgan.training.auto import Choice, choose
from cgan.training.fingerprint import determining_facts
from cgan.training.loop import train_chosen
from cgan.utility.sets import assign_folds

ATTACKED_DRAWINGS = 10_000  # at least: an attacker may ask for many
MAX_ATTACKED_S = 20.0  # seconds of a core, of a slow generator


@dataclass(frozen=True, eq=False)
class Shadow:
    """A generator to be trained on `images`, all but those of `unseen` bool [N]. `folder`: of its own, named
    by all that determines it. `seed`: of its drawings."""

    name: str
    images: Images
    choice: Choice
    unseen: BoolArray
    folder: Path
    seed: int

    def drawings(self, labels: Tensor, progress: Progress) -> Images:
        """Its drawings of these labels. A training goes on from what its folder has."""
        bar = partial(progress, self.name, images_per_step=self.choice.params.batch_size)
        made = train_chosen(self.images, self.choice, folder=self.folder, progress=bar)
        pixels = made.generator.draw(labels, self.seed, progress)
        return Images(pixels, labels, self.images.class_names, notes=())


def shadows_of(
    train: Images, held_out: Images, training: TrainChoices, count: int, seed: int, folder: Path
) -> list[Shadow]:
    """`count` shadows, two of each division of all images into halves: with units whole, and with as much of
    each class. Raises DataError where a class has one unit alone."""
    data = joined(train, held_out)
    units = np.concatenate([units_of(train), units_of(held_out) + len(train)])
    shadows = []
    for number in range(count):
        half_of = assign_folds(data.labels, units, 2, seed + number // 2, data.class_names)
        unseen = half_of == number % 2
        half = data.at(~unseen)
        # None has the seed of the generator, which the attacker does not know.
        own = training.model_copy(update={"seed": training.seed + 1 + number, "probes": 0})
        choice = choose(own, half)
        hardware = choose_hardware(own.device, own.precision)
        facts = determining_facts(choice.params, half, hardware, judge="")
        place = folder / fingerprint(facts)
        name = f"generator {number + 1} of {count}"
        shadows.append(Shadow(name, half, choice, unseen, place, seed + 1 + number))
    return shadows


def draw_like(model: GenerativeModel, train: Images, seed: int, progress: Progress) -> Images:
    """Drawings in the class mix of `train`: as many as that has, and ATTACKED_DRAWINGS at least, or what a
    slow generator draws in MAX_ATTACKED_S."""
    count = max(ATTACKED_DRAWINGS, len(train))
    if seconds := model.seconds_per_drawing:
        count = min(count, math.ceil(MAX_ATTACKED_S / seconds))
    order = np.random.default_rng(seed).permutation(len(train))
    labels = torch.from_numpy(np.resize(train.labels[order], count))
    return Images(model.draw(labels, seed, progress), labels, train.class_names, notes=())
