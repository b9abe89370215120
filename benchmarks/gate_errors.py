"""How often is the gate wrong? Honest generators, and the drawings of one of them, spoilt on purpose.

The embedded sample, its judge and the limits of params.yaml, without a champion; half an hour on two cores:

    python -m benchmarks.gate_errors [--generators 20]
"""

import argparse

import torch
from scipy.ndimage import rotate
from scipy.stats import binomtest
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from cgan.params.sections import TrainChoices
from cgan.pipeline.registry.checks import DRAWINGS
from cgan.pipeline.registry.drawings import Drawings
from cgan.pipeline.registry.rows import check_group
from cgan.quality.conditions import Conditions
from cgan.training.auto import choose
from cgan.training.loop import train

from .evaluation_set import EvaluationSet, all_params

SHARES = (0.05, 0.1, 0.2, 0.5, 1.0)


def failures(drawn: Tensor, conditions: Conditions) -> str:
    """The limits that the drawings miss."""
    checks = check_group(DRAWINGS, Drawings.of(drawn, conditions), all_params().gate)
    return ", ".join(check.name for check in checks if not check.passed) or "passes"


def spoilt(drawn: Tensor, training: Tensor, random: torch.Generator) -> dict[str, Tensor]:
    """All drawings in each spoilt form; uint8 [N, 1, 28, 28], the ten classes in turn."""
    luck, values = torch.rand(drawn.shape, generator=random), drawn.float()
    with_square = drawn.clone()
    with_square[:, :, 2:6, 2:6] = 255
    turned = rotate(drawn.numpy(), 30, (2, 3), reshape=False, order=1)
    return {
        "noise": (luck * 256).byte(),
        "inverted": 255 - drawn,
        "mirrored": drawn.flip(3),
        "turned by 30°": torch.from_numpy(turned),
        "moved by 2 pixels": drawn.roll(2, 3),
        "blurred": F.avg_pool2d(values, 3, 1, 1).byte(),
        "thicker": F.max_pool2d(values, 3, 1, 1).byte(),
        "darker by 30 %": (values * 0.7).byte(),
        "salt and pepper, 3 %": drawn.where(luck > 0.03, (luck > 0.015).byte() * 255),
        "a white square": with_square,
        "mean of two": ((values + values.roll(10, 0)) / 2).byte(),
        "one picture": drawn[:10].repeat(len(drawn) // 10, 1, 1, 1),
        "each picture ten times": drawn[: len(drawn) // 10].repeat(10, 1, 1, 1),
        "training images": training[torch.arange(len(drawn)) % len(training)],
        "another digit": drawn.roll(5, 0),  # a 9 for a 4
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--generators", type=int, default=20)
    generators: int = parser.parse_args().generators
    params, common, found = all_params(), EvaluationSet.prepare(sample=True), list[str]()
    train_part, judge = common.training, common.judge
    judge.recipe = params.train_judge
    once = params.evaluate.model_copy(update={"gan_train_kimg": 0.0})
    for seed in range(1, generators + 1):
        choices = TrainChoices.model_validate(params.train.model_dump() | {"seed": seed})
        model = train(train_part, choose(choices, train_part).params).generator
        conditions = Conditions.of(judge, train_part, common.heldout, once, [model])
        drawn = model.draw(conditions.drawn_labels, once.seed)
        found.append(failures(drawn, conditions))
        print(f"generator {seed}: {found[-1]}", flush=True)
    stopped = generators - found.count("passes")
    low, high = binomtest(stopped, generators).proportion_ci(method="exact")
    print(f"\n{stopped} of {generators} are stopped ({low:.1%} to {high:.1%}, Clopper-Pearson).\n")

    pixels, labels, random = *train_part.tensors[:2], torch.Generator().manual_seed(1)
    training = torch.stack([pixels[labels == n][:400] for n in range(10)], dim=1).flatten(0, 1)
    chance = torch.rand(len(drawn), generator=random)
    for kind, images in spoilt(drawn, training, random).items():
        for of, is_of in (("all", chance >= 0), ("4s", conditions.drawn_labels == 4)):
            for share in SHARES:
                chosen = ((chance < share) & is_of)[:, None, None, None]
                missed = failures(images.where(chosen, drawn), conditions)
                print(f"{kind}, {share:.0%} of {of}: {missed}", flush=True)


if __name__ == "__main__":
    main()
