"""What is looked at between the steps: previews, light probes of quality, signs of failure.

None of it changes the training. A probe draws 1,000 images and looks at their features in the judge, as
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
# At most so many classes have their diversity measured, so that each has DRAWINGS / 50 = 20 drawings: of too
# few, any class would seem collapsed (docs/log.md, 2026-11-30, "1 to 1,000 classes, and groups").
MAX_DIVERSITY_CLASSES = 50
# The least diversity of a class, as a fraction of that of its real images. Chosen by hand: healthy trainings
# had .55 to 1.34 (same entry).
MIN_DIVERSITY = 0.25
# Chosen by hand: so many probes in a row have to show a problem, so that a single unlucky one ends nothing.
BAD_PROBES = 2
# Before that, nothing is taken for a failure: a young generator draws one blob a class, and its discriminator
# tells it from reals. Chosen by hand: 500 steps of 64 images.
WARM_UP_KIMG = 32.0
# Chosen by hand, for a preview soon after the start.
EARLY_PREVIEW_STEP = 200

# The columns of a probe's record.
PROBE = (
    "probe/conditional_accuracy",
    "probe/fid_judge",
    "probe/diversity_mean",
    "probe/diversity_worst_class",
)


class ProbeMonitor:
    """Probes the quality of a generator during its training, and says when it has failed.

    It compares drawings with training images, by the features of `judge`; nothing is held out. Of more than
    MAX_DIVERSITY_CLASSES classes, the diversity of only that many is measured, always of the same ones.
    """

    def __init__(self, judge: Judge, data: Images, seed: int) -> None:
        pixels, labels, counts = data.tensors
        random = torch.Generator().manual_seed(seed)
        order = torch.randperm(len(data), generator=random)
        present, with_several = (counts > 0).nonzero()[:, 0], (counts > 1).nonzero()[:, 0]
        shuffled = with_several[torch.randperm(len(with_several), generator=random)]
        measured = shuffled[:MAX_DIVERSITY_CLASSES]
        self.judge, self.names, self.seed = judge, data.class_names, seed
        self.classes = len(present)
        # Of the drawings of a probe: DRAWINGS of all classes in turn, then more of those measured.
        self.labels = present[torch.arange(DRAWINGS) % len(present)]
        if len(present) > MAX_DIVERSITY_CLASSES:
            more = measured.repeat(DRAWINGS // MAX_DIVERSITY_CLASSES)
            self.labels = torch.cat([self.labels, more])
        self.real_features = look(judge, pixels[order[: 2 * DRAWINGS]]).features
        per_class = 2 * DRAWINGS // max(1, len(measured))
        rows_by_class = [order[labels[order] == label][:per_class] for label in measured]
        rows = torch.cat(rows_by_class) if rows_by_class else order[:0]
        features = look(judge, pixels[rows]).features
        self.real_diversity = diversity(features, labels[rows], data.classes)
        self.worst_class = 0  # of the last probe: the least diverse one

    def probe(self, generator: GeneratorNetwork) -> dict[str, float]:
        """Quality of a generator in eval mode, against training images. It shows trends; don't quote it."""
        device = next(generator.parameters()).device
        judged = look(self.judge, draw(generator, self.labels, self.seed, device))
        drawn_diversity = diversity(judged.features, self.labels, len(self.names))
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
            (judged.classes == self.labels)[:DRAWINGS].double().mean().item(),
            frechet_distance(self.real_features, judged.features[:DRAWINGS]),
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
        if worst < MIN_DIVERSITY:
            return (
                f"mode collapse: drawings of class {self.names[self.worst_class]} vary {worst:.2f} times as "
                f"much as real images (expected: at least {MIN_DIVERSITY})"
            )
        return None


def preview_steps(count: int, total_steps: int) -> set[int]:
    """The steps at which previews are made, at most `count`: 0, which is before the first update, and
    EARLY_PREVIEW_STEP; then each by a constant factor later than the one before, up to the last step."""
    early = [step for step in (0, EARLY_PREVIEW_STEP) if step <= total_steps][:count]
    if count <= len(early):
        return set(early)
    later = np.geomspace(max(early[-1], 1), total_steps, count - len(early) + 1)[1:]
    return {*early, *(round(step) for step in later)}


@torch.no_grad()
def preview(state: TrainState, names: list[str]) -> Picture:
    """Drawings of the generator's EMA: a row a class (the first 50) with its name, and a column a latent,
    always the same ones."""
    p, names, device = state.params, names[:PREVIEW_CLASSES], state.hardware.device
    random = torch.Generator().manual_seed(p.seed)
    latents = torch.randn(PREVIEW_COLUMNS, p.latent_dim, generator=random).repeat(len(names), 1)
    labels = torch.arange(len(names)).repeat_interleave(PREVIEW_COLUMNS)
    images = to_uint8(state.generator_ema(latents.to(device), labels.to(device)))
    return with_names(image_grid(images.unflatten(0, (-1, PREVIEW_COLUMNS))), names)


def load_previews(folder: Path | None) -> dict[int, bytes]:
    """Step → PNG, of an interrupted training: they are kept as files beside its checkpoints."""
    files = sorted((folder / "previews").glob("step-*.png")) if folder else []
    return {int(path.stem.removeprefix("step-")): path.read_bytes() for path in files}
