"""What a page shows of the drawings: some at random, the worst, and the training images nearest to each."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from cgan.model.networks import Generator
from cgan.model.sampling import draw
from cgan.page.tiles import sheet
from cgan.quality.judge import Judge, look
from cgan.quality.likeness import nearest

DRAWINGS = 1000
SHOWN = 16
NEIGHBOURS = 3
SIDE = 96  # pixels, at most, of an image in the page
VALUES = 20_000_000  # that are drawn: fewer drawings of large images


def drawn_facts(
    network: Generator,
    judge: Judge,
    images: Tensor,
    labels: Tensor,
    lines: Tensor,
    training: Tensor,
    seed: int,
) -> dict[str, Any]:
    """`images` [N, C, H, W], `labels` [N], `lines` [N] of the CSV; `training`: rows of the training part."""
    a = network.architecture
    each = a.channels * a.height * a.width
    count = max(SHOWN, min(DRAWINGS, VALUES // each))
    asked = torch.arange(count) % a.classes
    if a.classes > count:  # more classes than drawings: some of the classes, at random
        asked = torch.randperm(a.classes, generator=_random(seed))[:count]
    drawn = draw(network, asked, seed)
    certain = look(judge, drawn).logits.double().softmax(dim=1)
    right = certain[torch.arange(count), asked]
    chosen = {
        "random": torch.randperm(count, generator=_random(seed + 1))[:SHOWN],
        "worst": right.argsort(stable=True)[:SHOWN],
    }
    seen = certain.argmax(dim=1)
    known = torch.full_like(labels, -1)  # a held-out image is of no class
    known[training] = labels[training]
    found: dict[str, Any] = {"drawings": count, "seed": seed}
    for name, picked in chosen.items():
        distances, places = nearest(drawn[picked], asked[picked], images, known, NEIGHBOURS)
        found[name] = {
            "sheet": sheet(drawn[picked], SIDE),
            "near_sheet": sheet(images[places[places >= 0]], SIDE),
            "asked": asked[picked].tolist(),
            "seen": seen[picked].tolist(),
            "probability": [round(value, 4) for value in right[picked].tolist()],
            "near": [
                [
                    {"label": int(labels[i]), "line": int(lines[i]), "distance": round(d, 4)}
                    for i, d in zip(at, by, strict=True)
                    if i >= 0
                ]
                for at, by in zip(places.tolist(), distances.tolist(), strict=True)
            ],
        }
    return found


def _random(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
