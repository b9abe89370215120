"""The rounds that evidence averages over: by fold, each with other tested images and its own generator, or by
seed, all with the same."""

import shutil
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cgan.downstream import pretrained
from cgan.downstream.classifiers import Round
from cgan.downstream.effect import Outcome
from cgan.downstream.sets import fill_classes, folds, missing_labels, require_unseen
from cgan.images import Images, image_digests
from cgan.model.generative import GenerativeModel
from cgan.model.hardware import Hardware
from cgan.model.model_file import load_generator, save_generator
from cgan.params.sections import JudgeParams, Params, TrainChoices
from cgan.quality.judge import Judge, Progress, silent
from cgan.splitting import MAX_QUERIES, MAX_SEARCHED, near_copies, unit_indices
from cgan.training.auto import build_sampler, choose
from cgan.training.loop import train


def units_of(data: Images) -> Tensor:
    """Equal for images that belong together: copies, and groups."""
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
    believed: float,
    others: Sequence[Images],
    folder: Path,
    hardware: Hardware,
    progress: Progress = silent,
) -> list[Round]:
    """Each fold is tested by classifiers that learnt from the other folds, whose drawings come from a
    generator trained on these folds alone, or are somebody else's: `others`, of each fold."""
    count, unit_of = int(fold_of.max()) + 1, units_of(data)

    def round_of(fold: int) -> Round:
        tested, place = fold_of == fold, folder / f"fold-{fold + 1}"
        training, name = data.at(fold_of != fold), f"fold {fold + 1} of {count}"
        given = others[fold] if others else None
        lacking = (
            missing_labels(training.tensors.counts, per_class)
            if given is None
            else given.tensors.labels
        )

        def drawn(judge: Judge) -> Tensor:
            if given is not None:
                return given.tensors.pixels
            bar = partial(progress, f"{name}, generator")
            network = fold_generator(training, params.train, fold, place, bar)
            seed, names = params.evaluate.seed + fold, training.class_names
            return fill_classes(network.to(hardware.device), judge, lacking, seed, believed, names)[
                0
            ]

        recipe, test, units_of_test = (
            _seeded(params.train_judge, fold),
            data.at(tested),
            unit_of[tested],
        )
        if given:
            require_unseen(given.tensors.pixels, test.tensors.pixels)
        return Round(name, training, lacking, drawn, recipe, place, hardware, test, units_of_test)

    return [round_of(fold) for fold in range(count)]


def rounds_by_seed(
    training: Images,
    drawn: Images,
    test: Images,
    recipe: JudgeParams,
    count: int,
    folder: Path,
    hardware: Hardware,
) -> list[Round]:
    """Classifiers with other seeds, and everything else the same."""
    unit_of, images, lacking = units_of(test), drawn.tensors.pixels, drawn.tensors.labels

    def round_of(seed: int) -> Round:
        name, place = f"seed {seed + 1} of {count}", folder / f"seed-{seed + 1}"
        of_seed = _seeded(recipe, seed)
        return Round(
            name, training, lacking, lambda _: images, of_seed, place, hardware, test, unit_of
        )

    return [round_of(seed) for seed in range(count)]


def near_to_training(rounds: Sequence[Round], folded: bool) -> tuple[int, int]:
    """How many tested images look much like one that was learnt from, and of how many that were looked at."""
    near, looked, random = 0, 0, np.random.default_rng(0)
    rounds = rounds if folded else rounds[:1]
    for each in rounds:
        parts = each.training, each.test
        images, labels = (
            np.concatenate([getattr(part, name) for part in parts]) for name in ("pixels", "labels")
        )
        learnt, tested = np.split(np.arange(len(labels)), [len(each.training)])
        tested = random.permutation(tested)[: MAX_QUERIES // len(rounds)]
        among = np.sort(random.permutation(learnt)[:MAX_SEARCHED])
        near += len(np.unique(near_copies(images, labels, tested, among)[:, 0]))
        looked += len(tested)
    return near, looked


def with_pretrained(
    rounds: list[Round], outcomes: list[Outcome], progress: Progress = silent
) -> list[Outcome]:
    """The outcomes, with the answers of the pretrained network's probe, which learnt from real images."""
    first = rounds[0]  # what it learns from and is tested on are all images that there are
    images = torch.cat([part.tensors.pixels for part in (first.training, first.test)])
    digests, rows = np.unique(image_digests(images.numpy()), return_index=True)
    features = pretrained.features(images[rows], progress)

    def features_of(part: Images) -> Tensor:
        return features[np.searchsorted(digests, image_digests(part.pixels))]

    probed = []
    for each, outcome in zip(rounds, outcomes, strict=True):
        learnt = features_of(each.training), each.training.tensors.labels
        predicted = pretrained.predict(*learnt, features_of(each.test))
        right = {**outcome.right, pretrained.PRETRAINED: predicted == outcome.labels}
        probed.append(replace(outcome, right=right))
    return probed


def fold_generator(
    data: Images, choices: TrainChoices, fold: int, folder: Path, progress: Progress = silent
) -> GenerativeModel:
    """A generator trained on `data` by the project's params, with a seed of its own; from `folder` if it was
    trained before. A training that was cut off goes on from its checkpoint."""
    path, checkpoints = folder / "generator.safetensors", folder / "training"
    if not path.is_file():
        seeded = {"seed": choices.seed + fold, "probes": 0, "previews": 0}
        choice = choose(choices.model_copy(update=seeded), data)
        if choice.sampler:
            return build_sampler(data, choice)
        params = choice.params
        bar = partial(progress, images_a_step=params.batch_size)
        trained = train(data, params, folder=checkpoints, progress=bar)
        save_generator(path, trained.generator, {"params": params.relevant(), "fold": fold + 1})
    shutil.rmtree(checkpoints, ignore_errors=True)
    return load_generator(path)[0]


def _seeded(recipe: JudgeParams, number: int) -> JudgeParams:
    return recipe.model_copy(update={"seed": recipe.seed + number})
