"""What is looked at between the steps: previews, light probes of quality, signs of failure.

None of it changes the training. A probe draws 1,000 images and looks at them through the judge, as
`evaluate` does with ten times as many. Three signs end a training: the discriminator wins for good, a
class is drawn as one and the same picture, or the drawings show the class asked for by chance alone.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from cgan.contact_sheet import with_names
from cgan.images import Images
from cgan.model.networks import GeneratorNetwork
from cgan.model.sampling import Picture, draw, image_grid, to_uint8
from cgan.quality.judge import Judge, look
from cgan.quality.metrics import diversity, frechet_distance, wilson_interval
from cgan.text import percent
from cgan.training.state import TrainState

PREVIEW_COLUMNS, PREVIEW_CLASSES = 8, 50
DRAWINGS = 1000  # of a probe
COMPARED = 50  # classes at most whose variety is compared, with at least DRAWINGS / 50 = 20 drawings of each
LEAST_DIVERSITY = 0.25  # as a part of the diversity of real images of the class
BAD_PROBES = 2  # in a row
WARM_UP_KIMG = 32.0  # a young generator draws one blob a class, and its discriminator knows it

# The columns of a probe's record.
PROBE = (
    "probe/conditional_accuracy",
    "probe/fid_judge",
    "probe/diversity_mean",
    "probe/diversity_worst_class",
)


class Watch:
    """Probes of one training, with its own judge and training images; nothing is held out.

    Of more than COMPARED classes, the variety of only that many is compared, always the same ones.
    """

    def __init__(self, judge: Judge, data: Images, seed: int) -> None:
        pixels, labels, counts = data.tensors
        random = torch.Generator().manual_seed(seed)
        order = torch.randperm(len(data), generator=random)
        present, with_several = (counts > 0).nonzero()[:, 0], (counts > 1).nonzero()[:, 0]
        compared = with_several[torch.randperm(len(with_several), generator=random)[:COMPARED]]
        self.judge, self.names, self.seed = judge, data.class_names, seed
        self.classes = len(present)
        self.asked = present[torch.arange(DRAWINGS) % len(present)]
        if len(present) > COMPARED:
            self.asked = torch.cat([self.asked, compared.repeat(DRAWINGS // COMPARED)])
        self.real = look(judge, pixels[order[: 2 * DRAWINGS]]).features
        per_class = 2 * DRAWINGS // max(1, len(compared))
        rows_by_class = [order[labels[order] == label][:per_class] for label in compared]
        rows = torch.cat(rows_by_class) if rows_by_class else order[:0]
        features = look(judge, pixels[rows]).features
        self.real_diversity = diversity(features, labels[rows], data.classes)
        self.worst_class = 0  # of the last probe: the least diverse one

    def probe(self, generator: GeneratorNetwork) -> dict[str, float]:
        """Quality of a generator in eval mode, against training images. It shows trends; don't quote it."""
        device = next(generator.parameters()).device
        judged = look(self.judge, draw(generator, self.asked, self.seed, device))
        drawn_diversity = diversity(judged.features, self.asked, len(self.names))
        relative = {
            label: drawn / real
            for label, (drawn, real) in enumerate(
                zip(drawn_diversity, self.real_diversity, strict=True)
            )
            if real > 0
        }
        if not relative:  # no class whose real images differ: nothing can collapse
            relative = {0: 1.0}
        self.worst_class = min(relative, key=lambda label: relative[label])
        values = (
            (judged.classes == self.asked)[:DRAWINGS].double().mean().item(),
            frechet_distance(self.real, judged.features[:DRAWINGS]),
            sum(relative.values()) / len(relative),
            relative[self.worst_class],
        )
        return dict(zip(PROBE, values, strict=True))

    def problem(self, probes: Sequence[Sequence[float]], total_kimg: float) -> str | None:
        """What is wrong, in words, where each of the last BAD_PROBES shows something wrong; else None.

        `probes` are the records of a training: step, kimg, and the values of PROBE.
        """
        problems = [self._problem_of(probe, total_kimg) for probe in probes[-BAD_PROBES:]]
        return problems[-1] if len(problems) == BAD_PROBES and all(problems) else None

    def _problem_of(self, probe: Sequence[float], total_kimg: float) -> str | None:
        """What one probe shows wrong, in words: classes by chance alone, or mode collapse; else None."""
        _, kimg, accuracy, _, _, worst = probe
        if kimg <= WARM_UP_KIMG:
            return None
        chance = 1 / self.classes
        may_be_chance = wilson_interval(round(accuracy * DRAWINGS), DRAWINGS)[0] <= chance < 1
        if may_be_chance and kimg > total_kimg / 2:
            return (
                f"only {percent(accuracy)} of the drawings show the class asked for, and chance alone gives "
                f"{percent(chance)}"
            )
        if worst < LEAST_DIVERSITY:
            return (
                f"mode collapse: drawings of class {self.names[self.worst_class]} vary {worst:.2f} times as "
                f"much as real images (expected: at least {LEAST_DIVERSITY})"
            )
        return None


def preview_steps(count: int, total_steps: int) -> set[int]:
    """Steps 0, before the first update, and 200; then each by a constant factor later than the one before, up
    to the last step; at most `count` of them."""
    early = [step for step in (0, 200) if step <= total_steps][:count]
    if count <= len(early):
        return set(early)
    later = np.geomspace(max(early[-1], 1), total_steps, count - len(early) + 1)[1:]
    return {*early, *(round(step) for step in later)}


@torch.no_grad()
def preview(state: TrainState, names: list[str]) -> Picture:
    """Drawings of the averaged generator: a row a class (the first 50) with its name, and a column a latent,
    always the same ones."""
    p, names, device = state.params, names[:PREVIEW_CLASSES], state.hardware.device
    random = torch.Generator().manual_seed(p.seed)
    latents = torch.randn(PREVIEW_COLUMNS, p.latent_dim, generator=random).repeat(len(names), 1)
    labels = torch.arange(len(names)).repeat_interleave(PREVIEW_COLUMNS)
    images = to_uint8(state.average(latents.to(device), labels.to(device)))
    return with_names(image_grid(images.unflatten(0, (-1, PREVIEW_COLUMNS))), names)


def load_previews(folder: Path | None) -> dict[int, bytes]:
    """Step → PNG, of an interrupted training: they are kept as files beside its checkpoints."""
    files = sorted((folder / "previews").glob("step-*.png")) if folder else []
    return {int(path.stem.removeprefix("step-")): path.read_bytes() for path in files}
