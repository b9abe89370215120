"""The training loop of a GAN, from images to a generator; or what needs no training.

`cgan.fit` and the stage train call `train_chosen`. `train` is the loop: steps, records, previews, probes,
checkpoints, and when to stop.
"""

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from cgan.base.errors import TrainingError
from cgan.base.files import write_bytes
from cgan.base.settings import setting
from cgan.data.images import Images
from cgan.models.generative import GenerativeModel
from cgan.models.hardware import choose_hardware, deterministic, keep_freed_memory
from cgan.models.networks import DiscriminatorNetwork
from cgan.models.parallel import parts_on_threads
from cgan.models.sampling import encode_png
from cgan.params.sections import TrainParams
from cgan.quality.judge import Judge
from cgan.training.auto import Choice
from cgan.training.batches import Feed, learning_rate
from cgan.training.monitoring import ProbeMonitor, draw_preview, preview_steps, probe_steps
from cgan.training.provenance import data_facts
from cgan.training.records import preview_paths
from cgan.training.state import (
    HISTORY_COLUMNS,
    Record,
    TrainState,
    estimate_batch_norm,
    load_checkpoint,
    save_checkpoint,
)
from cgan.training.update import train_step

LOG_EVERY = 50  # steps between records
SAVE_EVERY = 250  # steps between checkpoints
PREVIEW_COUNT = 12

log = logging.getLogger(__name__)


@dataclass
class TrainingResult:
    """The result of a training: models in eval mode on the CPU, records, previews as PNG by step. `step`: how
    many were made in all, `resumed_from` of them by a process that was stopped, the others in `wall_time_s`.
    Of a generator that is not trained there is nothing else."""

    generator: GenerativeModel
    discriminator: DiscriminatorNetwork | None = None
    history: list[Record] = field(default_factory=list)
    probes: list[Record] = field(default_factory=list)
    previews: dict[int, bytes] = field(default_factory=dict)
    wall_time_s: float = 0.0
    step: int = 0
    resumed_from: int = 0


class Divergence(TrainingError):  # noqa: N818 - like StopIteration
    """The training went wrong by itself: a loss or weight is not finite, or a class has collapsed."""

    def __init__(self, step: int, problem: str, advice: str) -> None:
        super().__init__(
            f"training stopped at step {step}: {problem}. Nothing was saved after the last good "
            f"checkpoint. {advice}"
        )


def train_chosen(
    images: Images, choice: Choice, judge: Judge | None = None, **options: Any
) -> TrainingResult:
    """Train the GAN that was chosen, or take the model that needs no training. With a `judge` there are
    probes. `options`, and what is raised, are those of `train`."""
    if choice.explanation:
        log.info("Chosen for these images: %s", choice.explanation)
    if choice.advice:
        log.info(choice.advice)
    if choice.model:
        log.info("Nothing to train: a %s.", choice.model.description)
        return TrainingResult(choice.model)
    params = choice.params
    device = choose_hardware(params.device, params.precision).device
    monitor = ProbeMonitor(judge.to(device), images, params.seed) if judge else None
    return train(images, params, monitor=monitor, **options)


@deterministic()
def train(
    data: Images,
    params: TrainParams,
    log_metrics: Callable[[Mapping[str, float], int], None] = lambda metrics, step: None,
    folder: Path | None = None,
    progress: Callable[[range], Iterator[int]] = iter,
    should_stop: Callable[[], bool] = lambda: False,
    monitor: ProbeMonitor | None = None,
) -> TrainingResult:
    """Train a conditional GAN on `data`.

    `folder` holds checkpoints, from the last of which a training goes on, and previews. `log_metrics` gets
    values by name, and their step; `monitor` probes quality. `should_stop` is asked after every step: if so,
    a checkpoint is saved, and the result is what was trained so far.

    Raises ParamsError when params and data don't fit, and Divergence when a loss or weight is not finite or a
    class collapses; then no checkpoint of that interval is saved.
    """
    hardware = choose_hardware(params.device, params.precision)
    log.info(
        f"Training {params.generator} on {len(data):,} images ({hardware.device}, "
        f"{hardware.precision_name}): {params.total_steps:,} steps of {params.batch_size}"
    )
    keep_freed_memory()
    state = TrainState(data, params, hardware)
    feed = Feed(data, params, hardware.device)
    if folder and (checkpoint := load_checkpoint(folder)):
        state.restore(*checkpoint)
        log.info("Resuming at step %d of %d.", state.step, params.total_steps)
    paths = preview_paths(folder / "previews") if folder else {}
    previews = {step: path.read_bytes() for step, path in paths.items()}
    steps_with_preview = preview_steps(PREVIEW_COUNT, params.total_steps)
    steps_with_probe = probe_steps(params.probes, params.total_steps) if monitor else set()

    def preview_and_probe_if_due() -> None:
        step = state.step
        if step in steps_with_preview or step in steps_with_probe:
            check_finite(state)
        if step in steps_with_preview:
            previews[step] = encode_png(draw_preview(state, data.class_names))
            if folder:
                write_bytes(folder / "previews" / f"step-{step:06d}.png", previews[step])
        if monitor and step in steps_with_probe:
            log_metrics(probe(state, monitor), step)

    if state.step == 0:
        # Before any record, because MLflow compares two runs by the metrics that were logged first.
        preview_and_probe_if_due()
    with parts_on_threads(state.part_count) as state.map_parts:
        first_step, started_at = state.step, time.perf_counter()
        for _ in progress(range(first_step, params.total_steps)):
            train_step(state, feed)
            step = state.step
            is_last = step == params.total_steps
            stops_early = should_stop() and not is_last
            if step % LOG_EVERY == 0 or is_last:
                seconds = time.perf_counter() - started_at
                log_metrics(record_interval(state, seconds, step - first_step), step)
            preview_and_probe_if_due()
            if folder and (step % SAVE_EVERY == 0 or is_last or stops_early):
                check_finite(state)
                save_checkpoint(folder, step, state.tensors())
            if stops_early:
                break
        wall_time_s = time.perf_counter() - started_at
        estimate_batch_norm(state.generator_ema, data.tensors.counts, params.seed)
    steps = state.step - first_step
    rate = steps * params.batch_size / max(wall_time_s, 1e-9)
    log.info(f"Trained {steps:,} steps in {wall_time_s:.1f} s, {rate:,.0f} images/s")
    return TrainingResult(
        generator=state.generator_ema.cpu(),
        discriminator=state.discriminator.cpu().eval().requires_grad_(False),
        history=state.history,
        probes=state.probes,
        previews=previews,
        wall_time_s=wall_time_s,
        step=state.step,
        resumed_from=first_step,
    )


def check_finite(state: TrainState) -> None:
    """Raise Divergence when a loss since the last record, or a weight, is NaN or infinite: a loss is taken
    before its update, and would show a step later what overflows in the last one."""
    advice = (
        f"Lower {setting('train.lr')}, raise {setting('train.r1_gamma')}, or set "
        f"{setting('train.precision', 'float32')}."
    )
    stats = state.interval_stats
    bad_rows = (~stats.isfinite().all(dim=1)).nonzero()
    if len(bad_rows):
        step = state.step - len(stats) + int(bad_rows[0]) + 1
        raise Divergence(step, "a loss is not a finite number", advice)
    weights = [*state.generator.parameters(), *state.discriminator.parameters()]
    if not torch.stack([weight.isfinite().all() for weight in weights]).all():
        raise Divergence(state.step, "a weight is not a finite number", advice)


def probe(state: TrainState, monitor: ProbeMonitor) -> dict[str, float]:
    """Quality of the generator's EMA now. Raises Divergence when it has collapsed."""
    quality = monitor.probe(state.generator_ema)
    state.probes.append({"step": state.step, "progress/kimg": state.kimg, **quality})
    if problem := monitor.collapse_message(state.probes):
        advice = (
            f"Lower {setting('train.lr')} or {setting('train.class_logit_weight')}, raise "
            f"{setting('train.r1_gamma')}, or, with few images, set {setting('train.updates', 'two_passes')}."
        )
        raise Divergence(state.step, problem, advice)
    return quality


def record_interval(state: TrainState, seconds: float, steps: int) -> dict[str, float]:
    """Add the means since the last record to `state.history`, and return them with the images per second of
    `steps` steps. Besides previews, probes and checkpoints, only this waits for the device."""
    check_finite(state)
    means = state.interval_stats.cpu().double().mean(dim=0).tolist()
    lr = learning_rate(state.params, state.step - 1)
    values = (state.step, state.kimg, lr, *means)
    record = dict(zip(HISTORY_COLUMNS, values, strict=True))
    state.history.append(record)
    state.stats.clear()
    metrics = {name: value for name, value in record.items() if name != "step"}
    rate = steps * state.params.batch_size / max(seconds, 1e-9)
    return metrics | {"progress/images_per_s": rate}


def training_facts(result: TrainingResult, choice: Choice, images: Images) -> dict[str, Any]:
    """The facts in the generator's file that say how it was made."""
    steps = {"steps": result.step} if choice.params.total_steps else {}
    return {"params": choice.params.relevant(), **steps, **data_facts(images)}
