"""Previews and probes between the steps, which change no weight.

A probe compares 1,000 drawings with training images by the judge's features. Two in a row, after
WARM_UP_KIMG, that see a class drawn as nearly one picture end the training.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from cgan.data.contact_sheet import add_row_names, image_grid
from cgan.data.images import Images
from cgan.models.networks import GeneratorNetwork
from cgan.models.sampling import ImageArray, to_uint8
from cgan.quality.judge import Judge, frechet_distance, predict
from cgan.training.state import PROBE_METRICS, Record, TrainState

PREVIEW_COLUMNS, PREVIEW_CLASSES = 8, 50
# 20 drawings of a class: of too few, any would seem to collapse.
PROBE_DRAWINGS, MAX_PROBED_CLASSES = 1000, 50
# The least diversity of a class, as a fraction of that of its real images. Healthy trainings had .55 to 1.34.
# This and what follows is chosen by hand.
COLLAPSED_DIVERSITY = 0.25
COLLAPSES_IN_A_ROW = 2  # probes that end a training: a single unlucky one ends nothing
WARM_UP_KIMG = 32.0  # until then a generator draws one blob per class
EARLY_PREVIEW_STEP = 200


class ProbeMonitor:
    """Probes the quality of a generator during its training, and says when it has collapsed: drawings of the
    first MAX_PROBED_CLASSES classes beside training images."""

    def __init__(self, judge: Judge, data: Images, seed: int) -> None:
        pixels, labels, counts = data.tensors
        rng = torch.Generator().manual_seed(seed)
        order = torch.randperm(len(data), generator=rng)
        probed = (counts > 0).nonzero()[:MAX_PROBED_CLASSES, 0]
        order = order[torch.isin(labels[order], probed)]
        self.judge = judge
        self.names = data.class_names
        self.seed = seed
        self.labels = probed[torch.arange(PROBE_DRAWINGS) % len(probed)]
        self.real_features = predict(judge, pixels[order[: 2 * PROBE_DRAWINGS]]).features
        per_class = 2 * PROBE_DRAWINGS // len(probed)
        rows = torch.cat([order[labels[order] == label][:per_class] for label in probed])
        features = predict(judge, pixels[rows]).features
        self.real_diversity = deviation_by_class(features, labels[rows], data.classes)
        self.worst_class = 0  # the least diverse class in the last probe

    def probe(self, generator: GeneratorNetwork) -> dict[str, float]:
        """Quality of a generator in eval mode, against training images. It shows trends; don't quote it."""
        judged = predict(self.judge, generator.draw(self.labels, self.seed))
        drawn_diversity = deviation_by_class(judged.features, self.labels, len(self.names))
        relative = {0: 1.0}  # where no class has real images that differ: nothing can collapse
        if any(real > 0 for real in self.real_diversity):
            pairs = enumerate(zip(drawn_diversity, self.real_diversity, strict=True))
            relative = {label: drawn / real for label, (drawn, real) in pairs if real > 0}
        self.worst_class = min(relative, key=lambda label: relative[label])
        values = (
            (judged.labels == self.labels).double().mean().item(),
            frechet_distance(self.real_features, judged.features),
            sum(relative.values()) / len(relative),
            relative[self.worst_class],
        )
        return dict(zip(PROBE_METRICS, values, strict=True))

    def collapse_message(self, probes: Sequence[Record]) -> str | None:
        """The collapse of a class, in words, if the last COLLAPSES_IN_A_ROW of `probes` show one."""
        last = [probe for probe in probes if probe["progress/kimg"] > WARM_UP_KIMG]
        worst = [probe["probe/diversity_worst_class"] for probe in last[-COLLAPSES_IN_A_ROW:]]
        if len(worst) < COLLAPSES_IN_A_ROW or max(worst) >= COLLAPSED_DIVERSITY:
            return None
        return (
            f"mode collapse: drawings of class {self.names[self.worst_class]} vary {worst[-1]:.2f} times as "
            f"much as real images (expected: at least {COLLAPSED_DIVERSITY})"
        )


def deviation_by_class(features: Tensor, labels: Tensor, classes: int) -> list[float]:
    """The total standard deviation of each class's features, √tr Σ. Near 0: one picture for the class."""
    members = [features[labels == label] for label in range(classes)]
    return [float(member.var(dim=0).sum().sqrt()) if len(member) > 1 else 0.0 for member in members]


def probe_steps(count: int, total_steps: int) -> set[int]:
    """The steps of probes: 0, and `count` more at equal distances up to the last; none if `count` is 0."""
    numbers = range(count + 1) if count else ()
    return {round(total_steps * number / count) for number in numbers}


def preview_steps(count: int, total_steps: int) -> set[int]:
    """The steps at which previews are made, at most `count`: 0, EARLY_PREVIEW_STEP, and then each by a
    constant factor later than the one before, up to the last step."""
    early = [step for step in (0, EARLY_PREVIEW_STEP) if step <= total_steps][:count]
    if count <= len(early):
        return set(early)
    later = np.geomspace(max(early[-1], 1), total_steps, count - len(early) + 1)[1:]
    return {*early, *(round(step) for step in later)}


@torch.no_grad()
def draw_preview(state: TrainState, names: list[str]) -> ImageArray:
    """Drawings of the generator's EMA: a row per class (the first 50), a column per latent."""
    p = state.params
    names = names[:PREVIEW_CLASSES]
    device = state.hardware.device
    rng = torch.Generator().manual_seed(p.seed)
    latents = torch.randn(PREVIEW_COLUMNS, p.latent_dim, generator=rng).repeat(len(names), 1)
    labels = torch.arange(len(names)).repeat_interleave(PREVIEW_COLUMNS)
    images = to_uint8(state.generator_ema(latents.to(device), labels.to(device))).cpu()
    return add_row_names(image_grid(images.unflatten(0, (-1, PREVIEW_COLUMNS)).numpy()), names)
