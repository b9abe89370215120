"""The rounds that evidence averages over: by fold, each with other tested images and its own generator, or by
seed, all with the same."""

import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cgan.downstream import pretrained
from cgan.downstream.classifiers import Round
from cgan.downstream.effect import Outcome
from cgan.downstream.sets import missing_labels, units_of
from cgan.images import Images, IntArray, image_digests
from cgan.model.generative import GenerativeModel
from cgan.model.hardware import Hardware
from cgan.model.model_file import load_generator, save_generator
from cgan.params.sections import JudgeParams, TrainChoices
from cgan.quality.judge import Progress, silent
from cgan.training.auto import choose
from cgan.training.loop import train


def rounds_by_fold(
    data: Images,
    fold_of: IntArray,
    training: TrainChoices,
    recipe: JudgeParams,
    per_class: int | None,
    seed: int,
    folder: Path,
    hardware: Hardware,
    progress: Progress = silent,
) -> list[Round]:
    """A round for each fold. Classifiers are tested on the fold, and learn from the other folds and from
    drawings of a generator that was trained on these alone, which fill up the classes to `per_class` images.
    `seed`: of the drawings of the first fold."""
    count, units = int(fold_of.max()) + 1, torch.from_numpy(units_of(data))

    def fold_round(fold: int) -> Round:
        name, place = f"fold {fold + 1} of {count}", folder / f"fold-{fold + 1}"
        others = data.at(fold_of != fold)
        labels = missing_labels(others.tensors.counts, per_class)

        def draw_missing() -> Tensor:
            bar = partial(progress, f"{name}, generator")
            generator = fold_generator(others, training, fold, place, bar)
            return generator.to(hardware.device).draw(labels, seed + fold)

        return Round(
            name=name,
            training=others,
            missing_labels=labels,
            draw_missing=draw_missing,
            recipe=_with_seed(recipe, fold),
            folder=place,
            hardware=hardware,
            test=data.at(fold_of == fold),
            units=units[fold_of == fold],
        )

    return [fold_round(fold) for fold in range(count)]


def rounds_by_seed(
    training: Images,
    drawn: Images,
    test: Images,
    recipe: JudgeParams,
    count: int,
    folder: Path,
    hardware: Hardware,
) -> list[Round]:
    """A round for each seed of the classifiers, with everything else the same."""
    units, images = torch.from_numpy(units_of(test)), drawn.tensors.pixels
    return [
        Round(
            name=f"seed {seed + 1} of {count}",
            training=training,
            missing_labels=drawn.tensors.labels,
            draw_missing=lambda: images,
            recipe=_with_seed(recipe, seed),
            folder=folder / f"seed-{seed + 1}",
            hardware=hardware,
            test=test,
            units=units,
        )
        for seed in range(count)
    ]


def with_pretrained(
    rounds: list[Round], outcomes: list[Outcome], progress: Progress = silent
) -> list[Outcome]:
    """The outcomes, with the answers of logistic regression on a pretrained network's features, which learnt
    from the real images."""
    # Training and test images of any round are all images that there are: each is looked at once.
    images = torch.cat([part.tensors.pixels for part in (rounds[0].training, rounds[0].test)])
    digests, rows = np.unique(image_digests(images.numpy()), return_index=True)
    features = pretrained.features(images[rows], progress)

    def features_of(part: Images) -> Tensor:
        return features[np.searchsorted(digests, image_digests(part.pixels))]

    extended = []
    for each, outcome in zip(rounds, outcomes, strict=True):
        training, labels = features_of(each.training), each.training.tensors.labels
        predicted = pretrained.predict(training, labels, features_of(each.test))
        right = {**outcome.right, pretrained.PRETRAINED: predicted == outcome.labels}
        extended.append(replace(outcome, right=right))
    return extended


def fold_generator(
    data: Images, choices: TrainChoices, fold: int, folder: Path, progress: Progress = silent
) -> GenerativeModel:
    """A generator trained on `data`, with a seed of its own; from `folder` if it was trained before. A
    training that was cut off goes on from its checkpoint."""
    path, checkpoints = folder / "generator.safetensors", folder / "training"
    if not path.is_file():
        changes = {"seed": choices.seed + fold, "probes": 0}
        choice = choose(choices.model_copy(update=changes), data)
        if choice.sampler:
            return choice.sampler
        params = choice.params
        bar = partial(progress, images_a_step=params.batch_size)
        trained = train(data, params, folder=checkpoints, progress=bar)
        save_generator(path, trained.generator, {"params": params.relevant(), "fold": fold + 1})
    shutil.rmtree(checkpoints, ignore_errors=True)
    return load_generator(path)[0]


def _with_seed(recipe: JudgeParams, number: int) -> JudgeParams:
    return recipe.model_copy(update={"seed": recipe.seed + number})
