"""The loop: steps, records, previews, probes, checkpoints, and when to stop."""

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

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
from cgan.model.sampling import encode_png
from cgan.params.sections import TrainParams
from cgan.text import percent
from cgan.training.batches import Feed, learning_rate
from cgan.training.checkpoints import load_checkpoint, save_checkpoint
from cgan.training.monitoring import (
    WARM_UP_KIMG,
    Watch,
    kept_previews,
    preview,
    preview_steps,
)
from cgan.training.state import COLUMNS, TrainState, estimate_batch_norm
from cgan.training.tracker import AT_THE_END, BY_STEP, Silent, Tracker
from cgan.training.update import train_step

PINNED = 0.995  # of both the reals and the fakes told apart, in every one of the last records
PINNED_RECORDS = 10

log = logging.getLogger(__name__)


@dataclass
class Trained:
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


class Diverged(TrainingError):  # noqa: N818 - reads like what happened
    """The training went wrong by itself."""

    def __init__(self, step: int, what: str, advice: str) -> None:
        super().__init__(
            f"training stopped at step {step}: {what}. Nothing was saved after the last good "
            f"checkpoint. {advice}"
        )


def train(
    data: Images,
    params: TrainParams,
    tracker: Tracker | None = None,
    folder: Path | None = None,
    progress: Callable[[range], Iterator[int]] = iter,
    stopping: Callable[[], bool] = lambda: False,
    watch: Watch | None = None,
    keep_partial: bool = False,
) -> Trained:
    """Train a conditional GAN on `data` (uint8 images, int64 labels).

    `folder` holds checkpoints and previews. A training goes on from the checkpoint that it finds there;
    without a folder it saves none. `stopping` is asked after every step; `watch` probes quality.

    When `stopping` says so, it saves a checkpoint and raises Interrupted, or with `keep_partial` returns
    what was trained so far. Raises ParamsError when params and data don't fit, and Diverged when a loss is
    not a finite number, the discriminator wins for good or a class collapses; then nothing of that interval
    is saved.
    """
    tracker = tracker or Silent()
    hardware = choose_hardware(params.device, params.precision)
    compute_deterministically()
    keep_freed_memory()
    state = TrainState(data, params, hardware)
    feed = Feed(data, params, hardware.device, params.log_every)
    if folder and (checkpoint := load_checkpoint(folder)):
        state.restore(*checkpoint)
        log.info("Resuming at step %d of %d.", state.step, params.total_steps)
    preview_at = preview_steps(params.previews, params.total_steps)
    previews = kept_previews(folder)
    # Step 0 and as many more as there are to be probes, at equal distances up to the last step.
    count = params.probes if watch else 0
    probe_steps = {round(params.total_steps * n / count) for n in range(count + 1) if count}

    def look() -> None:
        """The preview and the probe of this step, if any."""
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
        if watch and step in probe_steps:
            tracker.log_metrics(probe(state, watch), step)

    if state.step == 0:  # what is logged first MLflow compares two runs by first: the probe
        look()
    with parts_on_threads(state.parts) as state.map:
        start, started = state.step, time.perf_counter()
        for _ in progress(range(start, params.total_steps)):
            train_step(state, feed)
            step = state.step
            last, stop = step == params.total_steps, stopping()
            if step % params.log_every == 0 or last:
                seconds = time.perf_counter() - started
                tracker.log_metrics(record(state, seconds, step - start), step)
                check_balance(state)
            look()
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
        estimate_batch_norm(state.average, counts, params.seed)
    return Trained(
        state.average.cpu(),
        state.discriminator.cpu().eval().requires_grad_(False),
        state.history,
        state.probes,
        previews,
        wall_time_s,
        state.step,
        start,
    )


def check_finite(state: TrainState) -> None:
    """Raise Diverged when one of the recent losses, or a weight, is NaN or infinite.

    Weights are checked too, because a loss is taken before its update: a generator that overflows in
    the last update would show it a step later.
    """
    advice = "Lower `train.lr`, raise `train.r1_gamma`, or set `train.precision` to `float32`."
    done = (state.step - 1) % state.params.log_every + 1
    bad = (~state.stats[:done].isfinite().all(dim=1)).nonzero()
    if len(bad):
        step = state.step - done + int(bad[0]) + 1
        raise Diverged(step, "a loss is not a finite number", advice)
    weights = [*state.generator.parameters(), *state.discriminator.parameters()]
    if not torch.stack([weight.isfinite().all() for weight in weights]).all():
        raise Diverged(state.step, "a weight is not a finite number", advice)


def check_balance(state: TrainState) -> None:
    """Raise Diverged when the discriminator has won for good: in every one of the last records it tells
    nearly all fakes from reals."""
    last = [min(row[-2:]) for row in state.history[-PINNED_RECORDS:]]  # reals, fakes told apart
    if state.kimg > WARM_UP_KIMG and len(last) == PINNED_RECORDS and min(last) >= PINNED:
        raise Diverged(
            state.step,
            f"the discriminator tells fakes from reals in at least {percent(PINNED)} of all cases in each of "
            f"the last {PINNED_RECORDS} records, so the generator no longer learns",
            "Lower `train.lr`, raise `train.r1_gamma`, or check the data with `cgan validate FILE`.",
        )


def probe(state: TrainState, watch: Watch) -> dict[str, float]:
    """Quality of the averaged generator now. Raises Diverged when it has collapsed or learns nothing."""
    quality = watch.probe(state.average)
    state.probes.append([state.step, state.kimg, *quality.values()])
    if problem := watch.problem(state.probes, state.params.total_kimg):
        advice = (
            "Lower `train.lr` or `train.class_logit_weight`, raise `train.r1_gamma`, or, with few images, "
            "choose `train.updates: two_passes`."
        )
        raise Diverged(state.step, problem, advice)
    return quality


def record(state: TrainState, seconds: float, steps: int) -> dict[str, float]:
    """Means over the interval that ends at `state.step`. Besides previews, probes and checkpoints, only
    this makes the loop wait for the device."""
    check_finite(state)
    p, step = state.params, state.step
    means = state.stats[: (step - 1) % p.log_every + 1].cpu().double().mean(dim=0).tolist()
    values = [step, state.kimg, learning_rate(p, step - 1), *means]
    state.history.append(values)
    told = dict(zip(COLUMNS[1:], values[1:], strict=True))
    return told | {"progress/images_per_s": steps * p.batch_size / max(seconds, 1e-9)}
