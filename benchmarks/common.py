"""What the benchmarks share: scales, the digits, a report that keeps promises, and the machine in a line."""

import os
import platform
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import psutil
import torch

import cgan
from cgan.base.git import working_tree
from cgan.base.report import Report, Table
from cgan.data.images import Images
from cgan.data.read import fetch, mnist_sample
from cgan.params.sections import DataParams, PreprocessParams

ROOT = Path(__file__).resolve().parent.parent
BUSY = 0.15  # part of the CPU that others may take before figures are marked


@dataclass(frozen=True)
class Scale:
    """How much is measured: `rounds` of `round_s` seconds; each preset's training with each seed;
    `service_s` seconds of requests."""

    name: str
    rounds: int
    round_s: float
    presets: tuple[str, ...]
    seeds: tuple[int, ...] = (1, 2, 3)
    service_s: float = 0.0
    device: str = "cpu"
    limit: int | None = None  # of images and drawings
    length: dict[str, Any] = field(default_factory=dict)  # of each training, in place of its own


ALL_PRESETS = ("fast", "default", "best")
SCALES = {
    scale.name: scale
    for scale in (
        Scale("short", 5, 1, ("fast", "default"), (1,), service_s=20),
        Scale("all", 9, 2, ALL_PRESETS, service_s=60),
        Scale("gpu", 5, 2, (*ALL_PRESETS, "gpu"), device="cuda"),
        Scale(
            "tiny", 2, 0.02, ("fast",), (1,), service_s=1, limit=1000, length={"total_kimg": 1.0}
        ),
    )
}


def sample_digits() -> Images:
    """The embedded images, sorted by class."""
    pixels, labels = mnist_sample()
    return Images(pixels.reshape(-1, 28, 28), labels)


def sample() -> Images:
    """The same in the order of the pipeline."""
    with tempfile.TemporaryDirectory() as folder:
        csv = Path(folder) / "train.csv"
        fetch(DataParams(), csv, csv.with_suffix(".safetensors"))
        return cgan.read(csv)


def digits() -> tuple[Images, str]:
    """The Digit Recognizer's images where its zip is known, else the embedded ones; and which these are."""
    if archive := os.environ.get("CGAN_KAGGLE_ZIP"):
        return cgan.read(archive), "the Digit Recognizer's train.csv"
    return sample(), "the embedded 5,000 images (CGAN_KAGGLE_ZIP names no others)"


def divided(images: Images, limit: int | None = None) -> tuple[Images, Images]:
    """To learn from, and held out, as the pipeline divides them; `limit`: of the first images alone."""
    params = PreprocessParams()
    train, held_out = images.at(slice(limit)).split(params.holdout_fraction, seed=params.seed)
    return train, held_out


def report(
    table: Table, note: str, promises: Mapping[str, bool] | None = None, **figures: Any
) -> Report:
    """A table, what its rows mean, and whether each promise held."""
    held = promises or {}
    reasons = [f"{'holds' if kept else 'BROKEN'}: {promise}" for promise, kept in held.items()]
    return Report(
        question=table.heading,
        verdict="" if all(held.values()) else "broken",
        sentence=note,
        reasons=reasons,
        tables=[table],
        facts=figures,
    )


def machine() -> str:
    """Day, machine, versions and commit; and whether other processes were busy in a second of sleep."""
    cpu = Path("/proc/cpuinfo")
    text = cpu.read_text(encoding="utf-8") if cpu.exists() else ""
    model = re.search(r"model name\s*: (.*)", text)
    tree = working_tree(ROOT)
    parts = [
        date.today().isoformat(),
        (model[1] if model else platform.machine()) + (" with AMX" if "amx_tile" in text else ""),
        f"{len(os.sched_getaffinity(0))} cores, {psutil.virtual_memory().total / 2**30:.0f} GB",
        f"Python {platform.python_version()}, torch {torch.__version__}",
        f"commit {tree.commit[:8]}{' and changes' if tree.changed else ''}",
    ]
    if torch.cuda.is_available():
        parts.append(f"{torch.cuda.get_device_name()} (CUDA {torch.version.cuda})")
    if (busy := psutil.cpu_percent(1) / 100) > BUSY:
        parts.append(f"**not for quoting**: others took {busy:.0%} of the CPU when it began")
    return ", ".join(parts)
