"""Errors and findings of `cgan sharing`, by generators of digits that train for seconds.

    python -m benchmarks.sharing_errors [--repetitions 100] [--kind harmless]

`harmless`: the generator was trained on other images than those that are asked about, so each leak that is
found is an error; and again with some of its drawings exchanged for training images. `halves`: of 400 digits
it was trained on a random half, and the other is held out. `overfitted`: on 200 images, long. Each has two
shadows of its own. Some 20 minutes of a core.
"""

import argparse
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from statistics import fmean

import numpy as np
import torch

import cgan
from cgan.base.progress import silent
from cgan.data.images import Images, joined
from cgan.drawing.generator import Generator
from cgan.params.sections import AutoTrainParams, JudgeParams
from cgan.privacy.membership import Attack

from .common import sample_digits

Found = Iterator[tuple[str, Attack]]
SHORT = JudgeParams(total_kimg=0.1)  # of the classifiers, which are not looked at
KIMG = 8.0
OVERFITTED_KIMG = 80.0
DRAWINGS = 400
COPIED = 0.05  # the share of them that is exchanged


def parts_of(images: Images, sizes: tuple[int, ...], seed: int) -> list[Images]:
    """So many images each, at random."""
    order = np.random.default_rng(seed).permutation(len(images))[: sum(sizes)]
    return [images.at(rows) for rows in np.split(order, np.cumsum(sizes)[:-1])]


def trained(images: Images, seed: int, kimg: float = KIMG) -> Generator:
    """A generator by the preset `fast`."""
    run = cgan.fit(images, "fast", seed=seed, total_kimg=kimg, probes=0, progress=False)
    return run.generator


def attack(
    parts: list[Images],
    generator: Generator,
    seed: int,
    drawn: Images | None = None,
    folder: str | None = None,
) -> Attack:
    """On `drawn`, by default the generator's drawings, with shadows of its recipe."""
    train, held_out, *_ = parts
    return cgan.sharing(
        train,
        held_out,
        drawn or generator,
        training=AutoTrainParams(**generator.facts["params"]),
        seeds=2,
        recipe=SHORT,
        folder=folder,
        seed=seed,
        progress=silent,
        say=lambda _: None,
    ).attack


def harmless(images: Images, seed: int) -> Found:
    parts = parts_of(images, (200, 200, 200), seed)
    generator, random = trained(parts[2], seed), np.random.default_rng(seed)
    labels = torch.from_numpy(random.choice(parts[0].labels, DRAWINGS))
    drawn = Images(generator.model.draw(labels, seed), labels)
    copies = parts[0].at(random.choice(len(parts[0]), round(COPIED * DRAWINGS)))
    mixed = joined(drawn.at(slice(len(copies), None)), copies)
    with tempfile.TemporaryDirectory() as folder:  # both have the same shadows
        yield "harmless", attack(parts, generator, seed, folder=folder)
        yield f"{COPIED:.0%} copies", attack(parts, generator, seed, mixed, folder)


def halves(images: Images, seed: int) -> Found:
    four_hundred = parts_of(images, (400,), 0)[0]
    parts = parts_of(four_hundred, (200, 200), seed)
    yield "halves of 400 digits", attack(parts, trained(parts[0], seed), seed)


def overfitted(images: Images, seed: int) -> Found:
    parts = parts_of(images, (200, 1000), seed)
    yield "overfitted on 200", attack(parts, trained(parts[0], seed, OVERFITTED_KIMG), seed)


KINDS: dict[str, tuple[Callable[[Images, int], Found], int]] = {
    "harmless": (harmless, 100),
    "halves": (halves, 16),
    "overfitted": (overfitted, 5),
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--repetitions", type=int, default=100)
    parser.add_argument("--kind", choices=KINDS)
    options = parser.parse_args()
    images = sample_digits()
    for name, (kind, most) in KINDS.items():
        found = defaultdict[str, list[Attack]](list)
        for seed in range(min(most, options.repetitions)):
            if options.kind in (None, name):
                for what, each in kind(images, seed):
                    found[what].append(each)
                    print(f"{what} {seed}: AUC {each.auc:.3f}, p {each.p_value:.4f}", flush=True)
        for what, attacks in found.items():
            print(
                f"{what}: called leaking {sum(each.leaks for each in attacks)} of {len(attacks)}; AUC "
                f"{fmean(each.auc for each in attacks):.3f}; at 1 % found "
                f"{fmean(each.true_positive_rate for each in attacks):.3f}; ε at least "
                f"{fmean(each.epsilon for each in attacks):.2f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
