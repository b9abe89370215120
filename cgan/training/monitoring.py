"""What is looked at between the steps: previews, light probes of quality, signs of failure.

None of it changes the training. A probe draws 1,000 images and looks at them through the judge, as
`evaluate` does with ten times as many. Three signs end a training: the discriminator wins for good, a
class is drawn as one and the same picture, or the drawings show the class asked for by chance alone.
"""

from pathlib import Path

import numpy as np
import torch

from cgan.data.contact_sheet import with_names
from cgan.data.dataset import Dataset
from cgan.errors import percent
from cgan.model.networks import GeneratorNetwork
from cgan.model.sampling import Picture, draw, image_grid, to_uint8
from cgan.quality.judge import Judge, look
from cgan.quality.metrics import diversity, frechet_distance
from cgan.training.state import TrainState

PREVIEW_COLUMNS, PREVIEW_CLASSES = 8, 50
DRAWINGS = 1000
LEAST_DIVERSITY = 0.25  # of what real images of the class have
CHANCE = 1.5  # times the share of chance; no better in the second half: it learnt nothing
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
    """Probes of one training, with its own judge and training images; nothing is held out."""

    def __init__(self, judge: Judge, data: Dataset, seed: int) -> None:
        count = min(2 * DRAWINGS, len(data))
        rows = torch.randperm(len(data), generator=torch.Generator().manual_seed(seed))[:count]
        labels = data.labels[rows]
        self.judge, self.classes, self.seed = judge, data.classes, seed
        self.real = look(judge, data.images[rows]).features
        self.real_diversity = diversity(self.real, labels, data.classes)
        self.drawn_labels = torch.arange(DRAWINGS) % data.classes
        self.worst_class = 0  # of the last probe: the least varied one
        self._bad = 0

    def probe(self, generator: GeneratorNetwork) -> dict[str, float]:
        """Quality of a generator in eval mode, against training images. It shows trends; don't quote it."""
        device = next(generator.parameters()).device
        seen = look(self.judge, draw(generator, self.drawn_labels, self.seed, device))
        spread = diversity(seen.features, self.drawn_labels, self.classes)
        # Of a rare class there may be no two real images among those looked at: it cannot be compared.
        relative = {
            label: drawn / real
            for label, (drawn, real) in enumerate(zip(spread, self.real_diversity, strict=True))
            if real > 0
        } or {0: 1.0}
        self.worst_class = min(relative, key=lambda label: relative[label])
        values = (
            (seen.classes == self.drawn_labels).double().mean().item(),
            frechet_distance(self.real, seen.features),
            sum(relative.values()) / len(relative),
            relative[self.worst_class],
        )
        return dict(zip(PROBE, values, strict=True))

    def problem(self, probe: dict[str, float], kimg: float, total_kimg: float) -> str | None:
        """What is wrong after `kimg` of `total_kimg`, in words, once BAD_PROBES in a row show it."""
        accuracy, worst = probe["probe/conditional_accuracy"], probe["probe/diversity_worst_class"]
        wrong = None
        if kimg > WARM_UP_KIMG and accuracy < CHANCE / self.classes and kimg > total_kimg / 2:
            wrong = (
                f"only {percent(accuracy)} of the drawings show the class asked for, and chance alone gives "
                f"{percent(1 / self.classes)}"
            )
        elif kimg > WARM_UP_KIMG and worst < LEAST_DIVERSITY:
            wrong = (
                f"mode collapse: drawings of class {self.worst_class} vary {worst:.2f} times as much as real "
                f"images (expected: at least {LEAST_DIVERSITY})"
            )
        self._bad = self._bad + 1 if wrong else 0
        return wrong if self._bad >= BAD_PROBES else None


def preview_steps(count: int, total_steps: int) -> set[int]:
    """Step 0, before the first update, and 200, then ever further apart, up to the last step; at most
    `count` of them."""
    first = [step for step in (0, 200) if step <= total_steps][:count]
    if count <= len(first):
        return set(first)
    rest = np.geomspace(max(first[-1], 1), total_steps, count - len(first) + 1)[1:]
    return {*first, *(round(step) for step in rest)}


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


def kept_previews(folder: Path | None) -> dict[int, bytes]:
    """Step → PNG, of an interrupted training: they are kept as files beside its checkpoints."""
    files = sorted((folder / "previews").glob("step-*.png")) if folder else []
    return {int(path.stem.removeprefix("step-")): path.read_bytes() for path in files}
