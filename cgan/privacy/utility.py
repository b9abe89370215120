"""The use of drawings in place of the images: how good is a classifier that is trained on them alone?"""

from functools import partial

import numpy as np
import torch

from cgan.base.progress import Progress
from cgan.base.report import Number
from cgan.data.images import Images
from cgan.data.splitting import units_of
from cgan.models.hardware import choose_hardware
from cgan.params.sections import JudgeParams
from cgan.quality.evaluation import Evaluation
from cgan.quality.judge import predict, train_judge
from cgan.utility.effect import DRAWN, Outcome, effect
from cgan.utility.rounds import with_seed

IMAGES = "images"  # the method beside drawings: the classifier trained on the images


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
    chosen = [
        order[drawn.labels[order] == label][:count] for label, count in enumerate(train.counts)
    ]
    alone = drawn.at(np.sort(np.concatenate(chosen)))
    units = torch.from_numpy(units_of(test))
    pixels, labels, _ = test.tensors
    outcomes = []
    for number in range(seeds):
        right = {}
        for name, data in ((IMAGES, train), (DRAWN, alone)):
            bar = partial(progress, f"classifier of {name}, seed {number + 1}")
            classifier = train_judge(data, with_seed(recipe, number), hardware, bar)
            right[name] = predict(classifier, pixels).labels == labels
        outcomes.append(Outcome(labels, units, right))
    change = effect(outcomes, [IMAGES], folded=False).overall
    low, high = (change.without + end for end in change.interval)  # beside the images' accuracy
    return Number(value=change.with_drawings, interval=(low, high), real=change.without)
