"""Classifiers trained on drawings alone, beside those trained on the images that these stand in for: train on
synthetic, test on real (TSTR: Esteban et al., arXiv:1706.02633)."""

from functools import partial

import torch

from cgan.downstream.effect import DRAWN, Effect, Outcome, effect
from cgan.downstream.sets import units_of
from cgan.images import Images
from cgan.model.hardware import Hardware
from cgan.params.sections import JudgeParams
from cgan.quality.judge import BATCH_SIZE, Progress, predict, silent, train_judge

IMAGES = "images"  # the method beside drawings: the classifier trained on the images


def drawings_alone(
    train: Images,
    drawn: Images,
    test: Images,
    recipe: JudgeParams,
    seeds: int,
    hardware: Hardware,
    progress: Progress = silent,
) -> Effect:
    """The accuracy on `test` of a classifier trained on `drawn`, less that of one trained on `train`: both
    augmented, with equal networks and equally many steps, once for each of `seeds`, two at least."""
    units, outcomes = torch.from_numpy(units_of(test)), []
    for seed in range(seeds):
        seeded, right = recipe.model_copy(update={"seed": recipe.seed + seed}), {}
        for name, data in ((IMAGES, train), (DRAWN, drawn)):
            batch = min(BATCH_SIZE, len(data))
            bar = partial(progress, f"classifier of {name}, seed {seed + 1}", images_a_step=batch)
            classifier = train_judge(data, seeded, hardware.device, hardware.precision, bar)
            predicted = predict(classifier, test.tensors.pixels).labels
            right[name] = predicted == test.tensors.labels
        outcomes.append(Outcome(test.tensors.labels, units, right))
    return effect(outcomes, [IMAGES], folded=False)
