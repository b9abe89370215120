"""From images to a generator: the loop of a training, or a sampler that needs none.

`cgan.fit` and the stage train call `make_generator`, which trains a GAN or makes a sampler. `train` is the
loop of the GAN's training: steps, records, previews, probes, checkpoints, and when to stop.
"""

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from cgan.contact_sheet import with_names
from cgan.errors import Interrupted, TrainingError
from cgan.files import write_bytes
from cgan.images import Images
from cgan.model.generative import GenerativeModel
from cgan.model.hardware import (
    choose_hardware,
    compute_deterministically,
    keep_freed_memory,
    parts_on_threads,
)
from cgan.model.networks import DiscriminatorNetwork
from cgan.model.sampling import Picture, encode_png, image_grid
from cgan.params.sections import TrainParams
from cgan.quality.judge import Judge
from cgan.settings import setting
from cgan.text import percent
from cgan.training.auto import Choice, sampler_of
from cgan.training.batches import Feed, learning_rate
from cgan.training.checkpoints import load_checkpoint, save_checkpoint
from cgan.training.fingerprint import data_facts
from cgan.training.monitoring import (
    WARM_UP_KIMG,
    ProbeMonitor,
    load_previews,
    preview,
    preview_steps,
)
from cgan.training.state import COLUMNS, TrainState, estimate_batch_norm
from cgan.training.tracker import AT_THE_END, BY_STEP, NullTracker, Tracker
from cgan.training.update import train_step

# The discriminator has won for good where it recognises at least this share of the reals, and of the fakes,
# in each of the last WON_RECORDS records. Both are chosen by hand: a lead that it loses again ends nothing.
WON_ACCURACY, WON_RECORDS = 0.995, 10
SAMPLER_PREVIEW_COLUMNS, SAMPLER_PREVIEW_CLASSES = 4, 20

log = logging.getLogger(__name__)


@dataclass
class TrainingResult:
    """What a training leaves: networks in eval mode on the CPU, records, previews by their steps as PNG.

    `step`: the last one; `resumed_from`: the one before the first of this process, 0 in a whole training.
    """

    generator: GenerativeModel
    discriminator: DiscriminatorNetwork | None
    history: list[list[float]]
    probes: list[list[float]]
    previews: dict[int, bytes]
    wall_time_s: float
    step: int
    resumed_from: int


class Divergence(TrainingError):  # noqa: N818 - like StopIteration
    """The training went wrong by itself: a loss is no number, or one of the networks has failed."""

    def __init__(self, step: int, what: str, advice: str) -> None:
        super().__init__(
            f"training stopped at step {step}: {what}. Nothing was saved after the last good "
            f"checkpoint. {advice}"
        )


def make_generator(
    images: Images,
    choice: Choice,
    *,
    judge: Judge | None = None,
    tracker: Tracker | None = None,
    folder: Path | None = None,
    progress: Callable[[range], Iterator[int]] = iter,
    stopping: Callable[[], bool] = lambda: False,
    keep_partial: bool = False,
) -> TrainingResult:
    """Train a GAN, or make a sampler, as `choice` says: the params that `cgan.training.auto.choose` found.

    With a `judge` there are probes. The other arguments, and what is raised, are those of `train`. A sampler
    takes a moment: it has no discriminator, records or previews.
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
        monitor = ProbeMonitor(judge.to(device), images, params.seed) if judge else None
        return train(
            images, params, tracker, folder, progress, stopping, monitor, keep_partial=keep_partial
        )
    started = time.perf_counter()
    sampler = sampler_of(images, choice)
    seconds = time.perf_counter() - started
    if tracker:
        preview = sampler_preview(sampler, images.class_names, params.seed)
        tracker.log_image(AT_THE_END, preview, 0)
    return TrainingResult(sampler, None, [], [], {}, seconds, step=0, resumed_from=0)


def train(
    data: Images,
    params: TrainParams,
    tracker: Tracker | None = None,
    folder: Path | None = None,
    progress: Callable[[range], Iterator[int]] = iter,
    stopping: Callable[[], bool] = lambda: False,
    monitor: ProbeMonitor | None = None,
    keep_partial: bool = False,
) -> TrainingResult:
    """Train a conditional GAN on `data` (uint8 images, int64 labels).

    `folder` holds checkpoints and previews. A training goes on from the checkpoint that it finds there;
    without a folder it saves none. `stopping` is asked after every step; `monitor` probes quality.

    When `stopping` says so, it saves a checkpoint and raises Interrupted, or with `keep_partial` returns
    what was trained so far. Raises ParamsError when params and data don't fit, and Divergence when a loss is
    not a finite number, the discriminator wins for good or a class collapses; then nothing of that interval
    is saved.
    """
    tracker = tracker or NullTracker()
    hardware = choose_hardware(params.device, params.precision)
    compute_deterministically()
    keep_freed_memory()
    state = TrainState(data, params, hardware)
    feed = Feed(data, params, hardware.device, params.log_every)
    if folder and (checkpoint := load_checkpoint(folder)):
        state.restore(*checkpoint)
        log.info("Resuming at step %d of %d.", state.step, params.total_steps)
    preview_at = preview_steps(params.previews, params.total_steps)
    previews = load_previews(folder)
    probe_steps = set[int]()
    if monitor and params.probes:  # step 0, and as many more at equal distances up to the last step
        numbers = range(params.probes + 1)
        probe_steps = {round(params.total_steps * n / params.probes) for n in numbers}

    def preview_and_probe() -> None:
        """Make those of this step, if any."""
        step = state.step
        if step in preview_at or step in probe_steps:
            check_finite(state)
        if step in preview_at:
            picture = preview(state, data.class_names)
            previews[step] = encode_png(picture)
            if folder:
                write_bytes(folder / "previews" / f"step-{step:06d}.png", previews[step])
            tracker.log_image(BY_STEP, picture, step)
            if step == params.total_steps:
                tracker.log_image(AT_THE_END, picture, step)
        if monitor and step in probe_steps:
            tracker.log_metrics(probe(state, monitor), step)

    if state.step == 0:  # the probe first: MLflow compares two runs by what was logged first
        preview_and_probe()
    with parts_on_threads(state.parts) as state.map_parts:
        start, started = state.step, time.perf_counter()
        for _ in progress(range(start, params.total_steps)):
            train_step(state, feed)
            step = state.step
            last, stop = step == params.total_steps, stopping()
            if step % params.log_every == 0 or last:
                seconds = time.perf_counter() - started
                tracker.log_metrics(record(state, seconds, step - start), step)
                check_balance(state)
            preview_and_probe()
            if folder and (step % params.save_every == 0 or stop or last):
                check_finite(state)
                save_checkpoint(folder, step, state.tensors())
            if stop and keep_partial:
                break
            if stop and not last:
                saved = "a checkpoint was saved" if folder else "nothing was saved"
                raise Interrupted(f"stopped at step {step} of {params.total_steps}; {saved}")
        wall_time_s = time.perf_counter() - started
        counts = data.tensors.counts
        estimate_batch_norm(state.generator_ema, counts, params.seed)
    return TrainingResult(
        generator=state.generator_ema.cpu(),
        discriminator=state.discriminator.cpu().eval().requires_grad_(False),
        history=state.history,
        probes=state.probes,
        previews=previews,
        wall_time_s=wall_time_s,
        step=state.step,
        resumed_from=start,
    )


def check_finite(state: TrainState) -> None:
    """Raise Divergence when one of the recent losses, or a weight, is NaN or infinite.

    Weights are checked too, because a loss is taken before its update: a generator that overflows in
    the last update would show it a step later.
    """
    advice = (
        f"Lower {setting('train.lr')}, raise {setting('train.r1_gamma')}, or set "
        f"{setting('train.precision', 'float32')}."
    )
    done = (state.step - 1) % state.params.log_every + 1
    bad = (~state.stats[:done].isfinite().all(dim=1)).nonzero()
    if len(bad):
        step = state.step - done + int(bad[0]) + 1
        raise Divergence(step, "a loss is not a finite number", advice)
    weights = [*state.generator.parameters(), *state.discriminator.parameters()]
    if not torch.stack([weight.isfinite().all() for weight in weights]).all():
        raise Divergence(state.step, "a weight is not a finite number", advice)


def check_balance(state: TrainState) -> None:
    """Raise Divergence when the discriminator has won for good: in every one of the last records it tells
    nearly all fakes from reals."""
    reals, fakes = (COLUMNS.index(f"accuracy/discriminator_{kind}") for kind in ("real", "fake"))
    last = [min(row[reals], row[fakes]) for row in state.history[-WON_RECORDS:]]
    if state.kimg > WARM_UP_KIMG and len(last) == WON_RECORDS and min(last) >= WON_ACCURACY:
        raise Divergence(
            state.step,
            f"the discriminator tells fakes from reals in at least {percent(WON_ACCURACY)} of all cases "
            f"in each of the last {WON_RECORDS} records, so the generator no longer learns",
            f"Lower {setting('train.lr')}, raise {setting('train.r1_gamma')}, or check the data with `cgan "
            "validate FILE`.",
        )


def probe(state: TrainState, monitor: ProbeMonitor) -> dict[str, float]:
    """Quality of the generator's EMA now. Raises Divergence when it has collapsed or learns nothing."""
    quality = monitor.probe(state.generator_ema)
    state.probes.append([state.step, state.kimg, *quality.values()])
    if problem := monitor.problem(state.probes, state.params.total_kimg):
        advice = (
            f"Lower {setting('train.lr')} or {setting('train.class_logit_weight')}, raise "
            f"{setting('train.r1_gamma')}, or, with few images, set {setting('train.updates', 'two_passes')}."
        )
        raise Divergence(state.step, problem, advice)
    return quality


def record(state: TrainState, seconds: float, steps: int) -> dict[str, float]:
    """Means over the interval that ends at `state.step`. Besides previews, probes and checkpoints, only
    this makes the loop wait for the device."""
    check_finite(state)
    p, step = state.params, state.step
    means = state.stats[: (step - 1) % p.log_every + 1].cpu().double().mean(dim=0).tolist()
    values = [step, state.kimg, learning_rate(p, step - 1), *means]
    state.history.append(values)
    metrics = dict(zip(COLUMNS[1:], values[1:], strict=True))
    return metrics | {"progress/images_per_s": steps * p.batch_size / max(seconds, 1e-9)}


def file_facts(result: TrainingResult, choice: Choice, images: Images) -> dict[str, Any]:
    """What the generator's file says of its making."""
    steps = {} if choice.sampler else {"steps": result.step}
    return {"params": choice.params.used(), **steps, **data_facts(images)}


def sampler_preview(sampler: GenerativeModel, class_names: list[str], seed: int) -> Picture:
    """Drawings of the first classes, a row a class with its name."""
    names = class_names[:SAMPLER_PREVIEW_CLASSES]
    labels = torch.arange(len(names)).repeat_interleave(SAMPLER_PREVIEW_COLUMNS)
    drawings = sampler.draw(labels, seed).unflatten(0, (len(names), -1))
    return with_names(image_grid(drawings), names)
