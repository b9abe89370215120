"""How often is `cgan sharing` wrong? Real digits in the drawings' place, and copies planted among them.

    python -m benchmarks.sharing_errors [--repetitions 60]

Of the embedded sample 1,000 images are trained on, 500 held out and 2,000 "drawn", chosen anew each time; and
200, 100 and 400. Where none is a copy, nothing tells who was trained on, so each leak that is found is an
error. Half a second of a core for each repetition; copies and their like take ten times that.

And for the test of copies a few pictures repeated, which are neither independent nor, where they are smoothed
or typical of their class, as likely near a training image as others. Only the last are training images.
"""

import argparse
from statistics import fmean

import numpy as np
import torch
from scipy.ndimage import gaussian_filter

from cgan.attacks.attacker import Attacker
from cgan.attacks.copies import Copies
from cgan.attacks.membership import AttackResult
from cgan.attacks.sharing import MEMBERSHIP_LEVEL
from cgan.images import Images
from cgan.quality.likeness import nearest_neighbours
from cgan.readers.sources import mnist_sample

SIZES = ((1000, 500, 2000), (200, 100, 400))  # trained on, held out, drawn
PLANTED = (0.0, 0.05, 0.2, 0.5)
PICTURES, REPEATED = (10, 30, 100), 600  # that are repeated, and how many drawings they become


def trial(
    images: Images, sizes: tuple[int, int, int], share: float, seed: int
) -> tuple[AttackResult, Images, Images, Images]:
    """The attack, and the sets."""
    random = np.random.default_rng(seed)
    rows = np.split(random.permutation(len(images))[: sum(sizes)], np.cumsum(sizes)[:-1])
    train, held_out = images.at(rows[0]), images.at(rows[1])
    copied = round(share * sizes[2])
    rows[2][:copied] = random.choice(rows[0], copied)
    drawn = images.at(random.permutation(rows[2]))
    return Attacker.of(train, held_out, seed).attack(drawn), train, held_out, drawn


def repeated(images: Images, kind: str, count: int, seed: int) -> Copies:
    """What is found among drawings that repeat `count` pictures."""
    random = np.random.default_rng(seed)
    train_rows, held_out_rows, others = np.split(random.permutation(len(images)), [1000, 1500])
    train, held_out = images.at(train_rows), images.at(held_out_rows)
    if kind == "typical":  # the tenth that has the nearest look-alike among all
        distances, rows = nearest_neighbours(*images.tensors[:2], *images.tensors[:2], 2)
        of_others = distances.masked_fill(rows == torch.arange(len(images))[:, None], torch.inf)
        order = np.argsort(of_others.amin(dim=1).numpy()[others])
        others = random.permutation(others[order[: len(others) // 10]])
    pictures = images.at((train_rows if kind == "training images" else others)[:count])
    if kind == "smoothed":
        pixels = gaussian_filter(pictures.pixels.astype(float), (0, 0, 1, 1))
        pictures = Images(pixels.round().astype(np.uint8), pictures.labels, images.class_names)
    return Copies.of(pictures.at(np.arange(REPEATED) % count), train, held_out, seed)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--repetitions", type=int, default=60)
    repetitions = parser.parse_args().repetitions
    pixels, labels = mnist_sample()
    images = Images(np.asarray(pixels).reshape(-1, 28, 28), labels)
    for sizes in SIZES:
        for share in PLANTED:
            times = repetitions if share == 0 else max(2, repetitions // 6)
            found = [trial(images, sizes, share, seed) for seed in range(times)]
            leaks = fmean(attack.p_value < MEMBERSHIP_LEVEL for attack, *_ in found)
            near = [
                Copies.of(drawn, train, held_out, seed)
                for seed, (_, train, held_out, drawn) in enumerate(found[: times // 6 + 1])
            ]
            print(
                f"{sizes}, {share:.0%} copies: leaks {leaks:.3f} of {times}; AUC "
                f"{fmean(attack.auc for attack, *_ in found):.3f}; copies found "
                f"{fmean(each.leak for each in near):.2f} of {len(near)}, share "
                f"{fmean(each.share for each in near):.3f} (real {fmean(each.real for each in near):.3f})",
                flush=True,
            )
    for kind in ("as they are", "smoothed", "typical", "training images"):
        for count in PICTURES:
            times = max(1, repetitions // 3)
            found_copies = [repeated(images, kind, count, seed) for seed in range(times)]
            print(
                f"{count} pictures repeated, {kind}: called copies "
                f"{fmean(each.leak for each in found_copies):.3f} of {len(found_copies)}",
                flush=True,
            )


if __name__ == "__main__":
    main()
