"""The rounds that evidence averages over: by fold, each with other tested images and its own generator, or by
seed, all with the same."""

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cgan.downstream import pretrained
from cgan.downstream.classifiers import BASELINES, Round
from cgan.downstream.early import is_settled
from cgan.downstream.effect import Outcome
from cgan.downstream.sets import fill_classes, folds, missing_labels, require_unseen
from cgan.errors import CganError
from cgan.images import Images, image_digests
from cgan.model.generative import GenerativeModel
from cgan.model.hardware import Hardware
from cgan.model.model_file import load_generator, save_generator
from cgan.params.sections import JudgeParams, Params, TrainChoices
from cgan.quality.judge import Judge, Progress, silent
from cgan.splitting import MAX_QUERIES, MAX_SEARCHED, near_copies, unit_indices
from cgan.training.auto import choose
from cgan.training.loop import train

DEFAULT_ROUNDS = 5  # folds, or seeds
MIN_SEEDS = 2  # their spread is part of the interval


def units_of(data: Images) -> Tensor:
    """The unit of each image, int64 [N]: equal for images that belong together, copies and groups."""
    return torch.from_numpy(unit_indices(data.pixels, data.groups))


def folds_of(data: Images, count: int, params: Params) -> Tensor:
    """The fold of each image, int64 [N]: the same for the command that writes folds and for the one that
    tests on them."""
    seed, names = params.preprocess.seed, data.class_names
    fold_of = folds(data.labels, units_of(data).numpy(), count, seed, names)
    return torch.from_numpy(fold_of)


def rounds_by_fold(
    data: Images,
    fold_of: Tensor,
    params: Params,
    per_class: int | None,
    min_confidence: float,
    drawings_by_fold: Sequence[Images],
    folder: Path,
    hardware: Hardware,
    progress: Progress = silent,
) -> list[Round]:
    """A round for each fold. Classifiers are tested on the fold, and learn from the other folds and from
    drawings: of a generator trained on these other folds alone, or somebody else's, `drawings_by_fold`.
    `min_confidence`: see `fill_classes`."""
    count, units = int(fold_of.max()) + 1, units_of(data)

    def fold_round(fold: int) -> Round:
        name, place = f"fold {fold + 1} of {count}", folder / f"fold-{fold + 1}"
        training, test = data.at(fold_of != fold), data.at(fold_of == fold)
        if drawings_by_fold:
            drawn = drawings_by_fold[fold]
            require_unseen(drawn.tensors.pixels, test.tensors.pixels)
            labels = drawn.tensors.labels
        else:
            labels = missing_labels(training.tensors.counts, per_class)

        def draw_missing(judge: Judge) -> Tensor:
            if drawings_by_fold:
                return drawn.tensors.pixels
            bar = partial(progress, f"{name}, generator")
            network = fold_generator(training, params.train, fold, place, bar).to(hardware.device)
            seed, names = params.evaluate.seed + fold, training.class_names
            images, _ = fill_classes(network, judge, labels, seed, min_confidence, names)
            return images

        return Round(
            name=name,
            training=training,
            missing_labels=labels,
            draw_missing=draw_missing,
            recipe=_with_seed(params.train_judge, fold),
            folder=place,
            hardware=hardware,
            test=test,
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
    units, images = units_of(test), drawn.tensors.pixels
    return [
        Round(
            name=f"seed {seed + 1} of {count}",
            training=training,
            missing_labels=drawn.tensors.labels,
            draw_missing=lambda _: images,
            recipe=_with_seed(recipe, seed),
            folder=folder / f"seed-{seed + 1}",
            hardware=hardware,
            test=test,
            units=units,
        )
        for seed in range(count)
    ]


def require_seeds(count: int) -> None:
    """Raises CganError for fewer than MIN_SEEDS."""
    if count < MIN_SEEDS:
        raise CganError(
            f"seeds is {count}, expected at least {MIN_SEEDS}: their spread is part of the interval."
        )


def run_rounds(
    rounds: Sequence[Round], folded: bool, early: bool, progress: Progress = silent
) -> Iterator[Outcome]:
    """The outcome of each round as it ends; with `early`, no more where more cannot change the verdict."""
    outcomes = list[Outcome]()
    for each in rounds:
        outcomes.append(each.outcome(progress))
        yield outcomes[-1]
        if early and is_settled(outcomes, BASELINES, len(rounds), folded):
            return


def near_to_training(rounds: Sequence[Round], folded: bool) -> tuple[int, int]:
    """How many tested images look much like one that was learnt from, and of how many that were looked at."""
    near, looked_at, random = 0, 0, np.random.default_rng(0)
    rounds = rounds if folded else rounds[:1]  # else all have the same images
    for each in rounds:
        images = np.concatenate([each.training.pixels, each.test.pixels])
        labels = np.concatenate([each.training.labels, each.test.labels])
        training_rows, test_rows = np.split(np.arange(len(labels)), [len(each.training)])
        queries = random.permutation(test_rows)[: MAX_QUERIES // len(rounds)]
        searched = np.sort(random.permutation(training_rows)[:MAX_SEARCHED])
        near += len(np.unique(near_copies(images, labels, queries, searched)[:, 0]))
        looked_at += len(queries)
    return near, looked_at


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
    """A generator trained on `data` by the project's params, with a seed of its own; from `folder` if it was
    trained before. A training that was cut off goes on from its checkpoint."""
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
