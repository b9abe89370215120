"""Images a second of each preset's training steps, measured in turns."""

import itertools
import statistics
import time
from collections.abc import Iterator
from unittest.mock import patch

import torch

from cgan.base.report import Report, Table
from cgan.data.images import Images
from cgan.params.presets import preset_params
from cgan.params.sections import AutoTrainParams, TrainParams
from cgan.training import loop
from cgan.training.auto import choose

from .common import Scale, digits, divided, report

WARM_UP = 10  # steps
GPU_BATCHES = (64, 256, 1024)
FAST, DEMO = "fast", "demo"
LEAST_RATIO = 8  # promised of `fast`, on a CPU
ENDLESS = 1e6  # kimg


def contenders(data: Images, device: str) -> dict[str, TrainParams]:
    """The params of two presets and the demo; on a GPU the presets in batches of several sizes, too."""
    own = {name: preset_params(name) for name in (DEMO, FAST, "default")}
    if device != "cpu":
        own["gpu"] = preset_params("gpu")
        for name, batch in itertools.product((FAST, "default"), GPU_BATCHES):
            own[f"{name}, batch {batch}"] = own[name] | {"batch_size": batch}
    endless = {"total_kimg": ENDLESS, "device": device}
    return {
        name: choose(AutoTrainParams.model_validate(values | endless), data).params
        for name, values in own.items()
    }


def images_per_second(data: Images, params: TrainParams, seconds: float) -> float:
    """The rate of whole training steps: both networks updated, batch and latents drawn, records kept."""
    rate = 0.0

    def clock(steps: range) -> Iterator[int]:
        nonlocal rate
        for step in steps:
            if step == WARM_UP:
                began = _now()
            elif step > WARM_UP and time.perf_counter() - began > seconds:
                break
            yield step
        rate = (step - WARM_UP) * params.batch_size / (_now() - began)

    with patch.object(loop, "PREVIEW_COUNT", 1):  # the first one, before the clock starts
        loop.train(data, params, progress=clock)
    return rate


def _now() -> float:
    """The time at which a GPU has done what it was given."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return time.perf_counter()


def measure(scale: Scale) -> Report:
    images, about = digits()
    data = divided(images, scale.limit)[0]
    everyone = contenders(data, scale.device)
    rates: dict[str, list[float]] = {name: [] for name in everyone}
    for _ in range(scale.rounds):
        for name, params in everyone.items():
            rates[name].append(images_per_second(data, params, scale.round_s))
    ratios = {
        name: [rate / demo for rate, demo in zip(own, rates[DEMO], strict=True)]
        for name, own in rates.items()
    }
    rows = [
        (
            f"preset {name}",
            f"{statistics.median(own):,.0f}",
            f"{statistics.median(ratios[name]):.2g}×",
            f"{min(ratios[name]):.2g}× to {max(ratios[name]):.2g}×",
        )
        for name, own in rates.items()
    ]
    fastest = statistics.median(ratios[FAST])
    promise = f"`fast` trains at least {LEAST_RATIO}× the demo's images a second: {fastest:.2g}×"
    return report(
        Table("Training steps", ("who", "images/s", "compared with demo", "range"), rows),
        f"Without previews and files, on {about}; {torch.get_num_threads()} threads, {scale.device}. Medians "
        f"of {scale.rounds} rounds in turns, and of each round's ratio with its range. The demo computes in "
        "float32, the others in bfloat16 where the hardware has it.",
        {promise: fastest >= LEAST_RATIO} if scale.device == "cpu" else {},
        images_per_s=rates,
    )
