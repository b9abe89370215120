"""Drawing digits from a trained generator: images a second, measured in turns."""

from __future__ import annotations

import functools
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from cgan.model.networks import Generator
from cgan.model.sampling import draw

from .contenders import PEERS, PORT, Malzantot
from .ground import DRAW_SEED, Ground, fresh_generator
from .machine import torch_threads
from .scale import Scale
from .tables import Result, Table


def painters(ground: Ground, scale: Scale) -> dict[str, Callable[[Tensor], Tensor]]:
    """Speed does not depend on the weights, so they are fresh ones."""
    found: dict[str, Callable[[Tensor], Tensor]] = {}
    for name in ("fast", "default", "demo"):
        network = fresh_generator(name).eval()
        who = PORT if name == "demo" else f"preset `{name}`"
        found[who] = functools.partial(_paint, network)
    for peer in PEERS:
        if scale.name == "tiny" and peer is Malzantot:
            continue
        found[peer.name] = functools.partial(peer(ground.training).draw, seed=DRAW_SEED)
    return found


def _paint(network: Generator, labels: Tensor) -> Tensor:
    return draw(network, labels, DRAW_SEED)


def measure(ground: Ground, scale: Scale) -> Result:
    threads = max(1, min(2, torch.get_num_threads()))
    labels = torch.arange(scale.draw_count) % 10
    everyone = painters(ground, scale)
    found: dict[str, list[float]] = {name: [] for name in everyone}
    with torch_threads(threads):
        for paint in everyone.values():
            paint(labels[:100])
        for _ in range(scale.draw_rounds):
            for name, paint in everyone.items():
                began = time.perf_counter()
                paint(labels)
                found[name].append(len(labels) / (time.perf_counter() - began))
    table = Table(f"Drawing {scale.draw_count:,} digits", ["who", "images/s", "range", "seconds"])
    for name, rates in found.items():
        rate = statistics.median(rates)
        table.add(name, f"{rate:,.0f}", f"{min(rates):,.0f}–{max(rates):,.0f}",
                  f"{scale.draw_count / rate:.2f}")  # fmt: skip
    table.note = (
        f"Labels → uint8 images, {threads} threads, {scale.draw_rounds} rounds in turns, medians. Ours "
        "draws in float32 and in chunks, so that an image depends on seed, position and label alone."
    )
    return Result([table], [], {"images_per_s": found})
