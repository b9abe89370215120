"""How well a small classifier tells drawings from held-out images: the formula, and its Score.

A classifier two-sample test (Lopez-Paz & Oquab, arXiv:1610.06545), as in SDMetrics, but the AUC itself: how
often, of a drawing and a real image, it gives the drawing the higher score. 0.5 is a guess.

The features have to be fair: the judge's would tell training images from held-out ones, for it knows the
former. These are responses to small patches of training images (Coates, Lee & Ng, AISTATS 2011), which no
label and no training has shaped: by them training images get 0.5 (docs/log.md). They see texture, noise, blur
and brightness, and what stands in a quarter of the image; hardly which form it is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from cgan.evaluation import Score
from cgan.images import Images
from cgan.quality.estimates import Estimate, wilson_replicates
from cgan.quality.evaluation_set import EvaluationSet, Source, first_rows
from cgan.quality.metrics import rows_in_class_mix

KEY = "detectability"
FOLDS = 5
MIN_IMAGES = 20  # on either side
# The rest was chosen on the embedded sample, for drawings of three generators: docs/log.md.
# By 48 random patches, the AUC of one generator varied by 0.05 with the seed; by 96, by 0.005.
PATCHES, PATCH_SIDE, PATCHES_SEEN = 96, 3, 20_000
NO_RESPONSE = 0.5  # standard deviations of a response that count as none
POSITIONS = 32  # a side at which responses are taken; of larger images, not at each pixel
QUARTERS = 2  # of a side, in each of which responses are averaged
RIDGE = 0.03  # penalty for an image, of standardised features
# Of the standard deviation, for the scores of a fold have the classifier in common (Bengio & Grandvalet, JMLR
# 5, 2004). By simulation, the interval covers the truth in 95 to 98 % then.
WIDENED = 1.4


@dataclass(frozen=True)
class Filters:
    """Whitened patches, float32 [PATCHES, C, PATCH_SIDE, PATCH_SIDE], and each one's response to the mean."""

    weights: Tensor
    offsets: Tensor

    @classmethod
    def of(cls, images: Tensor, seed: int) -> Filters:
        """Random patches of images uint8 [N, C, H, W], of the half that has more contrast."""
        random = torch.Generator().manual_seed(seed)
        channels, height, width = images.shape[1:]
        image, top, left = (
            torch.randint(many, (PATCHES_SEEN, 1, 1), generator=random)
            for many in (len(images), height - PATCH_SIDE + 1, width - PATCH_SIDE + 1)
        )
        step = torch.arange(PATCH_SIDE)
        patches = images[image, :, top + step[:, None], left + step]
        flat = patches.permute(0, 3, 1, 2).flatten(1).double() / 255
        mean = flat.mean(dim=0)
        variances, axes = torch.linalg.eigh(torch.cov(flat.T))
        whitening = (axes * (variances + 0.01 * variances.max() + 1e-8).rsqrt()) @ axes.T
        white = (flat - mean) @ whitening
        contrast = white.norm(dim=1)
        above = contrast > contrast.median()  # on a plain ground, half of the patches are equal
        white = white[above if above.any() else contrast >= 0][:PATCHES]
        weights = functional.normalize(white) @ whitening
        shape = (-1, channels, PATCH_SIDE, PATCH_SIDE)
        return cls(weights.float().view(shape), (weights @ mean).float())

    def features(self, images: Tensor) -> Tensor:
        """Mean responses in each quarter, above and below: float64 [N, 2 * PATCHES * QUARTERS²]."""
        stride = math.ceil(max(images.shape[2:]) / POSITIONS)
        features = []
        for chunk in images.split(25):  # for memory: a response is 96 times an image
            response = functional.conv2d(
                chunk.float() / 255, self.weights, -self.offsets, stride=stride
            )
            for sign in (1, -1):
                beyond = (sign * response - NO_RESPONSE).relu_()
                features.append(functional.adaptive_avg_pool2d(beyond, QUARTERS).flatten(1))
        above, below = torch.cat(features[0::2]), torch.cat(features[1::2])
        return torch.cat([above, below], dim=1).double()


class TwoSampleTest:
    """What drawings are told from: held-out images, at most `EvaluationSet.block_size`.

    `in_drawings_place`: pixels uint8 [N, C, H, W] of training images, in the order of
    `evaluation_set.training_labels`. `train`: the images of the filters, whatever the number of drawings.
    Equally many of each class are on either side, and in a fold; held-out images of a group are in one fold.
    """

    def __init__(
        self,
        evaluation_set: EvaluationSet,
        in_drawings_place: Tensor,
        train: Images,
        held_out: Images,
    ) -> None:
        self.evaluation_set, labels = evaluation_set, evaluation_set.shuffled_labels
        drawn_labels = evaluation_set.drawn_labels[evaluation_set.rows_in_mix]
        block = rows_in_class_mix(labels, evaluation_set.heldout_counts)
        block = block[: evaluation_set.block_size]
        counts = torch.stack(
            [
                torch.bincount(each, minlength=evaluation_set.classes)
                for each in (labels[block], drawn_labels, evaluation_set.training_labels)
            ]
        ).amin(dim=0)
        rows = evaluation_set.shuffled_rows[block[first_rows(labels[block], counts)]]
        self.drawn_rows = evaluation_set.rows_in_mix[first_rows(drawn_labels, counts)]
        training_rows = first_rows(evaluation_set.training_labels, counts)
        units = rows if held_out.groups is None else torch.from_numpy(held_out.groups)[rows]
        self.units = units.unique(return_inverse=True)[1]
        self.unit_count = int(self.units.max()) + 1 if len(rows) else 0
        random = torch.Generator().manual_seed(evaluation_set.seed)
        self.folds = (torch.randperm(self.unit_count, generator=random) % FOLDS)[self.units]
        self.is_possible = len(rows) >= MIN_IMAGES and self.unit_count >= FOLDS
        self.real: Estimate | None = None
        if self.is_possible:
            self.filters = Filters.of(train.tensors.pixels, evaluation_set.seed)
            self.heldout = self.filters.features(held_out.tensors.pixels[rows])
            self.real = self._estimate(in_drawings_place[training_rows], "training")

    def score(self, draws: Sequence[Tensor]) -> dict[str, Score]:
        """Of several sets of drawings, uint8 [N, C, H, W] each, of `drawn_labels`; empty where too few images
        are held out."""
        if self.real is None:
            return {}
        estimates = [self._estimate(drawn[self.drawn_rows], "drawn") for drawn in draws]
        return {KEY: Estimate.mean(estimates).score(KEY, self.real)}

    def _estimate(self, images: Tensor, source: Source) -> Estimate:
        """The AUC, the mean over the folds of what the others' classifier gets. Replicates by the share of
        the other side that each image is told from (DeLong, DeLong & Clarke-Pearson, Biometrics 44, 1988),
        of whole groups of held-out images."""
        heldout, drawn = self.heldout, self.filters.features(images)
        wins = torch.zeros(2, len(heldout), dtype=torch.float64)  # of held-out images, of drawings
        for fold in range(FOLDS):
            is_tested = self.folds == fold
            real_scores, drawn_scores = fold_scores(heldout, drawn, is_tested)
            lead = drawn_scores - real_scores[:, None]
            is_right = (lead > 0).double() + (lead == 0).double() / 2
            wins[0, is_tested], wins[1, is_tested] = is_right.mean(dim=1), is_right.mean(dim=0)
        value = wins[0].mean().item()
        deviations = (wins - value) / len(heldout)
        weights = self.evaluation_set.bin_weights
        places = self.units, torch.arange(len(heldout))
        replicates = torch.zeros(len(weights["heldout"]), dtype=torch.float64)
        for weight, place, each in zip(
            (weights["heldout"], weights[source]), places, deviations, strict=True
        ):
            sums = torch.zeros(weight.shape[1], dtype=torch.float64)
            replicates += WIDENED * weight @ sums.index_add_(0, place % len(sums), each)
        if not replicates.std() > 0:
            replicates = wilson_replicates(value, len(heldout))
        return Estimate.of(value, replicates)


def fold_scores(real: Tensor, drawn: Tensor, is_tested: Tensor) -> tuple[Tensor, Tensor]:
    """How much the tested images of both sides, bool [N], look drawn to a ridge regression that was fitted to
    the others: higher is drawn. Features float64 [N, D], in pairs of one class."""
    fitted = torch.cat([real[~is_tested], drawn[~is_tested]])
    target = torch.ones(len(fitted), dtype=torch.float64)
    target[: len(fitted) // 2] = -1
    mean, deviation = fitted.mean(dim=0), fitted.std(dim=0).clamp(min=1e-9)
    fitted = (fitted - mean) / deviation
    penalty = RIDGE * len(fitted) * torch.eye(fitted.shape[1], dtype=torch.float64)
    weights = torch.linalg.solve(fitted.T @ fitted + penalty, fitted.T @ target)
    real, drawn = (((side[is_tested] - mean) / deviation) @ weights for side in (real, drawn))
    return real, drawn
