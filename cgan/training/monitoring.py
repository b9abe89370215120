"""What is looked at between the steps: previews, light probes of quality, signs of failure.

None of it changes the training. A probe draws 1,000 images and looks at them through the judge, as
`evaluate` does with ten times as many. Three signs end a training: the discriminator wins for good, a
class is drawn as one and the same picture, or the drawings show the class asked for by chance alone.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from cgan.data.contact_sheet import with_names
from cgan.data.dataset import Dataset
from cgan.errors import percent
from cgan.files import write_bytes
from cgan.model.networks import GeneratorNetwork
from cgan.model.sampling import draw, encode_png, image_grid, to_uint8
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
        wrong = self._sign(probe, kimg / total_kimg) if kimg > WARM_UP_KIMG else None
        self._bad = self._bad + 1 if wrong else 0
        return wrong if self._bad >= BAD_PROBES else None

    def _sign(self, probe: dict[str, float], part: float) -> str | None:
        accuracy, worst = probe["probe/conditional_accuracy"], probe["probe/diversity_worst_class"]
        if accuracy < CHANCE / self.classes and part > 0.5:
            return (
                f"only {percent(accuracy)} of the drawings show the class asked for, and chance alone gives "
                f"{percent(1 / self.classes)}"
            )
        if worst < LEAST_DIVERSITY:
            return (
                f"mode collapse: drawings of class {self.worst_class} vary {worst:.2f} times as much as real "
                f"images (expected: at least {LEAST_DIVERSITY})"
            )
        return None


def preview_steps(count: int, total_steps: int) -> set[int]:
    """Step 0, before the first update, and 200, then ever further apart, up to the last step; at most
    `count` of them."""
    first = [step for step in (0, 200) if step <= total_steps][:count]
    if count <= len(first):
        return set(first)
    rest = np.geomspace(max(first[-1], 1), total_steps, count - len(first) + 1)[1:]
    return {*first, *(round(step) for step in rest)}


class Previewer:
    """Pictures of fixed latents × classes, drawn by the averaged generator during training.

    They are kept as files beside the checkpoints, so that a resumed training still has them all.
    """

    def __init__(self, state: TrainState, names: list[str], folder: Path | None) -> None:
        p, device = state.params, state.hardware.device
        self.state, self.names = state, names[:PREVIEW_CLASSES]
        self.steps = preview_steps(p.previews, p.total_steps)
        random = torch.Generator().manual_seed(p.seed)
        latents = torch.randn(PREVIEW_COLUMNS, p.latent_dim, generator=random)
        self.latents = latents.repeat(len(self.names), 1).to(device)
        labels = torch.arange(len(self.names), device=device)
        self.labels = labels.repeat_interleave(PREVIEW_COLUMNS)
        self.folder = folder / "previews" if folder else None
        files = sorted(self.folder.glob("step-*.png")) if self.folder else []
        self.taken = {int(path.stem.removeprefix("step-")): path.read_bytes() for path in files}
        """Step → PNG, those of an earlier, interrupted process, too."""

    @torch.no_grad()
    def take(self) -> NDArray[np.uint8]:
        """Draw → uint8 [H, W] or [H, W, 3]: a row a class (the first 50) with its name, a column a latent."""
        images, step = to_uint8(self.state.average(self.latents, self.labels)), self.state.step
        grid = with_names(image_grid(images.unflatten(0, (-1, PREVIEW_COLUMNS))), self.names)
        self.taken[step] = encode_png(grid)
        if self.folder:
            write_bytes(self.folder / f"step-{step:06d}.png", self.taken[step])
        return grid
