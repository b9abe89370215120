"""`cgan.sharing`: may the drawings be shared in place of the images?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from cgan.attacks.attacker import Attacker, drawings_to_attack
from cgan.attacks.copies import Copies
from cgan.attacks.sharing import Sharing
from cgan.downstream.alone import drawings_alone
from cgan.downstream.sets import require_comparable, require_seeds
from cgan.errors import DataError
from cgan.images import Images
from cgan.model.hardware import choose_hardware, deterministic
from cgan.model.model_file import digest_of
from cgan.notebook import progress_bar
from cgan.params.sections import JudgeParams
from cgan.quality.judge import Progress

if TYPE_CHECKING:
    from cgan.drawing.generator import Generator


def sharing(
    train: Images,
    held_out: Images,
    generator: Generator | Images,
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
        digest = None
        if isinstance(generator, Images):
            drawn = generator
        else:
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
        holds_training_images=getattr(generator, "holds_training_images", False),
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
