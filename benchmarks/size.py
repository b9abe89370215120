"""How the cost grows with the number of images and of classes."""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cgan.data import csv_reader
from cgan.data.dataset import Dataset, split
from cgan.model.sampling import draw

from .contenders import Ours, timed
from .ground import CACHE, DRAW_SEED, Ground, all_params, as_dataset, csv_file, preset
from .machine import torch_threads
from .scale import Scale
from .tables import Result, Table

DRAWN = 1000
ROUNDS = 3


def measure(ground: Ground, scale: Scale) -> Result:
    images, more_images = by_images(scale)
    classes, more_classes = by_classes(ground, scale)
    return Result([images, classes], [], {"images": more_images, "classes": more_classes})


def by_images(scale: Scale) -> tuple[Table, list[dict[str, float]]]:
    table = Table(
        "Cost against the number of images",
        ["images", "read and check the CSV, s", "split, s", "µs an image", "training, images/s"],
    )
    rows = []
    for count in scale.sizes:
        path = _csv_of(count)
        began = time.perf_counter()
        read = csv_reader.read_csv(path, all_params().validation)
        read_s = time.perf_counter() - began
        began = time.perf_counter()
        train, _ = split(read.images, read.labels, 0.1, 1)
        split_s = time.perf_counter() - began
        data = as_dataset(read.images[train], read.labels[train], read.classes)
        rate = _rate(data, scale)
        rows.append({"images": count, "read_s": read_s, "split_s": split_s, "images_per_s": rate})
        table.add(f"{count:,}", f"{read_s:.2f}", f"{split_s:.2f}",
                  f"{(read_s + split_s) / count * 1e6:.0f}", f"{rate:,.0f}")  # fmt: skip
        path.unlink()
    table.note = (
        "Rows of the CSV, repeated with changed pixels where it has fewer. The length of a training is "
        "set in images shown (`total_kimg`), so its seconds don't depend on how many there are; "
        "its rate must not either. Preset `fast`."
    )
    return table, rows


def _csv_of(count: int) -> Path:
    """So many rows; copies differ from their originals in two pixels, or the split would join them."""
    source, _ = csv_file()
    header, *lines = source.read_text(encoding="utf-8").splitlines()
    path = CACHE / f"size-{count}.csv"
    with path.open("w", encoding="utf-8") as file:
        file.write(header + "\n")
        for number in range(count):
            copy, row = divmod(number, len(lines))
            line = lines[row]
            if copy:
                label, _, _, rest = line.split(",", 3)
                line = f"{label},{copy % 256},{copy // 256},{rest}"
            file.write(line + "\n")
    return path


def by_classes(ground: Ground, scale: Scale) -> tuple[Table, list[dict[str, float]]]:
    table = Table(
        "Cost against the number of classes",
        ["classes", "training, images/s", "to 10", f"drawing {DRAWN:,}, s", "weights"],
    )
    random = np.random.default_rng(0)
    rows: list[dict[str, Any]] = []
    for classes in scale.classes:
        labels = random.integers(0, classes, len(ground.training))
        facts = {**ground.training.metadata, "classes": classes}
        data = Dataset(ground.training.images, torch.from_numpy(labels), facts)
        ours = _trained(data)
        rate = _rate(data, scale, ours)
        network = ours.state.average
        asked = torch.arange(DRAWN) % classes
        began = time.perf_counter()
        draw(network, asked, DRAW_SEED)
        seconds = time.perf_counter() - began
        weights = sum(
            w.numel() for net in (network, ours.state.discriminator) for w in net.parameters()
        )
        rows.append(
            {"classes": classes, "images_per_s": rate, "draw_s": seconds, "weights": weights}
        )
        table.add(f"{classes:,}", f"{rate:,.0f}", f"{rate / rows[0]['images_per_s']:.2f}",
                  f"{seconds:.2f}", f"{weights:,}")  # fmt: skip
    table.note = "Preset `fast`, the same images with random labels: cost alone, not quality."
    return table, rows


def _trained(data: Dataset) -> Ours:
    return Ours("", data, preset("fast", device="cpu", total_kimg=1_000_000.0, previews=0))


def _rate(data: Dataset, scale: Scale, ours: Ours | None = None) -> float:
    ours = ours or _trained(data)
    threads = max(1, min(2, torch.get_num_threads()))
    with torch_threads(threads):
        timed(ours, 1, threads)
        steps = max(1, round(scale.size_s / ROUNDS / timed(ours, 1, threads)[0]))
        rates = [steps * ours.batch / timed(ours, steps, threads)[0] for _ in range(ROUNDS)]
    return statistics.median(rates)
