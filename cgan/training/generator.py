"""From images to a generator: a training, or a sampler that needs none.

`cgan.fit` and the stage train call `train_generator`.
"""

import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from cgan.contact_sheet import with_names
from cgan.images import Images
from cgan.model.generative import GenerativeModel
from cgan.model.hardware import choose_hardware
from cgan.model.sampling import Picture, image_grid
from cgan.quality.judge import Judge
from cgan.training.auto import Choice, sampler_of
from cgan.training.fingerprint import data_facts
from cgan.training.loop import Trained, train
from cgan.training.monitoring import Watch
from cgan.training.tracker import AT_THE_END, Tracker

PREVIEW_COLUMNS, PREVIEW_CLASSES = 4, 20  # of a sampler

log = logging.getLogger(__name__)


def train_generator(
    images: Images,
    choice: Choice,
    *,
    judge: Judge | None = None,
    tracker: Tracker | None = None,
    folder: Path | None = None,
    progress: Callable[[range], Iterator[int]] = iter,
    stopping: Callable[[], bool] = lambda: False,
    keep_partial: bool = False,
) -> Trained:
    """A generator of these images by `choice`, the params that `cgan.training.auto.choose` found for them.

    With a `judge` there are probes. The other arguments, and what is raised, are those of
    `cgan.training.loop.train`. A sampler takes a moment: it has no discriminator, records or previews.
    """
    if choice.sampler:
        log.info("Nothing to train: drawings are put together from pieces of the training images.")
    if choice.chosen:
        log.info("Chosen for these images: %s", choice.chosen)
    if choice.advice:
        log.info(choice.advice)
    params = choice.params
    if not choice.sampler:
        device = choose_hardware(params.device, params.precision).device
        watch = Watch(judge.to(device), images, params.seed) if judge else None
        return train(
            images, params, tracker, folder, progress, stopping, watch, keep_partial=keep_partial
        )
    began = time.perf_counter()
    sampler = sampler_of(images, choice)
    seconds = time.perf_counter() - began
    if tracker:
        preview = sampler_preview(sampler, images.class_names, params.seed)
        tracker.log_image(AT_THE_END, preview, 0)
    return Trained(sampler, None, [], [], {}, seconds, step=0, resumed_from=0)


def file_facts(trained: Trained, choice: Choice, images: Images) -> dict[str, Any]:
    """What the generator's file says of its making."""
    steps = {} if choice.sampler else {"steps": trained.step}
    return {"params": choice.params.used(), **steps, **data_facts(images)}


def sampler_preview(sampler: GenerativeModel, class_names: list[str], seed: int) -> Picture:
    """Drawings of the first classes, a row a class with its name."""
    names = class_names[:PREVIEW_CLASSES]
    labels = torch.arange(len(names)).repeat_interleave(PREVIEW_COLUMNS)
    drawings = sampler.draw(labels, seed).unflatten(0, (len(names), -1))
    return with_names(image_grid(drawings), names)
