"""What a page shows of the drawings: some at random, the worst, and the training images nearest to each."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cgan.model.networks import Generator
from cgan.model.sampling import draw
from cgan.page.tiles import sheet, shrunk
from cgan.quality.judge import Judge, look

DRAWINGS = 1000
SHOWN = 16
NEIGHBOURS = 3
SIDE = 96  # pixels, at most, of an image in the page
COMPARED_SIDE = 64  # of images that are compared with one another
BLOCK = 2_000_000  # values at once
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
    found: dict[str, Any] = {"drawings": count, "seed": seed}
    for name, picked in chosen.items():
        distances, nearest = nearest_images(drawn[picked], images, training)
        found[name] = {
            "sheet": sheet(drawn[picked], SIDE),
            "near_sheet": sheet(images[nearest.flatten()], SIDE),
            "asked": asked[picked].tolist(),
            "seen": seen[picked].tolist(),
            "probability": _rounded(right[picked]),
            "near": [
                [
                    {"label": int(labels[i]), "line": int(lines[i]), "distance": round(d, 1)}
                    for i, d in zip(at, by, strict=True)
                ]
                for at, by in zip(nearest.tolist(), distances.tolist(), strict=True)
            ],
        }
    return found


def nearest_images(images: Tensor, reference: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Root mean square distances, in grey levels, to the nearest of `reference[rows]`, and their rows.

    Both uint8 [N, C, H, W] → float32 and int64 [N, NEIGHBOURS], or fewer where there are fewer. Large images
    are compared smaller.
    """
    wanted = shrunk(images, COMPARED_SIDE).flatten(1).float()
    pixels = wanted.shape[1]
    kept, places = torch.empty(len(images), 0), torch.empty(len(images), 0, dtype=torch.int64)
    for some in rows.split(max(1, BLOCK // pixels)):
        others = shrunk(reference[some], COMPARED_SIDE).flatten(1).float()
        found = torch.cdist(wanted, others, compute_mode="use_mm_for_euclid_dist")
        kept = torch.cat([kept, found], dim=1)
        places = torch.cat([places, some.expand(len(images), -1)], dim=1)
        kept, order = kept.topk(min(NEIGHBOURS, kept.shape[1]), dim=1, largest=False)
        places = places.gather(1, order)
    return kept / math.sqrt(pixels), places


def _random(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _rounded(values: Tensor) -> list[float]:
    return [float(value) for value in np.round(values.numpy(), 4)]
