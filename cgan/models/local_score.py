"""A sampler that needs no training: a diffusion model whose denoiser is computed from the images themselves.

The ideal denoiser of a set of images is the posterior mean: of the images, weighted by a softmax of minus
their squared distances to the noisy one. Drawings made with it are copies of images. If each pixel sees only
a window around it, which narrows as the noise falls, parts of several images are joined into new ones (Kamb
and Ganguli, arXiv:2412.20292; Lukoianov et al., arXiv:2509.09672; similar: GPNN, Granot et al., CVPR 2022).

The *sources* of a drawing are the training images of its class that it is made from. Every drawing has a
random generator of its own and one thread, so it depends on the seed, its position and its label alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cgan.base.progress import Progress, silent
from cgan.models.generative import GenerativeModel, ModelSizes
from cgan.models.parallel import available_threads, parts_on_threads
from cgan.models.sampling import to_uint8

# The settings were tried as a whole, on CIFAR-10, clothes and tiles; single numbers were chosen by hand.
# -- Noise and windows
SIGMA_MAX = 20.0  # the noise of the first step, for images of REFERENCE_SIDE
REFERENCE_SIDE = 32  # pixels
# The side of a window as a fraction of the image's: WINDOW_FACTOR · noise ** WINDOW_EXPONENT, but at least
# MIN_WINDOW, and at most MAX_WINDOW; times `window_scale`. Windows as large as the image make copies.
WINDOW_FACTOR, WINDOW_EXPONENT = 0.46, 0.55
MIN_WINDOW, MAX_WINDOW = 0.15, 0.72
# A window makes the pixels in its middle, which is this fraction of its side.
MIDDLE_FRACTION = 0.5
MAX_STRIDE_FRACTION = 1 / 4  # of a window's side, from one window to the next; or one pixel
# `window_scale` for images with sides below LARGE_SIDE pixels, and for larger ones.
SMALL_IMAGE_SCALE, LARGE_IMAGE_SCALE = 1.35, 1.9
LARGE_SIDE = 48
# -- Sources
# Below this noise windows are small and few sources matter: those that fit some window best are kept.
FINE_NOISE, FINE_SOURCES = 1.0, 60
MIN_LOG_WEIGHT = -12.0  # a source with less in all windows is left out
# The least cap, in units of 1/N, with N sources. Below 1/N no weights would add up to 1.
MIN_CAP_FACTOR = 1.5
CAP_TOLERANCE = 1.02  # the share of a source, in units of the cap, that is good enough
MAX_CAP_ROUNDS = 10  # in each, the source with the most weight is brought down to the cap
# The points of the grid that `_logit_reduction` searches, and how often it is narrowed to an interval of it.
GRID_POINTS, REFINEMENTS = 33, 4
# Values of sources that are converted to floats in one chunk: on the CPU, as many as stay in a core's cache.
VALUES_AT_ONCE, VALUES_AT_ONCE_ON_GPU = 250_000, 50_000_000
# A set has a plain background if at least this share of all its pixels has one value (photographs of tiles
# .01, alphabets .86, digits .81).
MIN_BACKGROUND_SHARE = 0.3
# Seconds of a core for a step, and for each value of each source in it.
SECONDS_PER_STEP, SECONDS_PER_VALUE = 1.5e-3, 2.8e-9


@dataclass(frozen=True)
class LocalScoreSettings:
    """Settings of the drawing.

    The noise goes from `sigma_max` to `sigma_min`, in the unit of pixels from -1 to 1, by the schedule of
    Karras et al. (arXiv:2206.00364, equation 5) with the exponent `rho`. `cap`: the largest share of a
    drawing, its pixels weighted by `pixel_variance`, that may come from one image; more where a class has
    fewer than five. `sources`: images of the class, picked at random, that a drawing is made from. Larger
    windows (`window_scale`) make drawings more legible, and nearer to training images.
    """

    steps: int = 12
    sigma_max: float = SIGMA_MAX
    sigma_min: float = 0.03
    rho: float = 7.0
    cap: float = 0.3
    sources: int = 250
    window_scale: float = SMALL_IMAGE_SCALE


@dataclass(frozen=True)
class SamplerArchitecture(ModelSizes):
    settings: LocalScoreSettings


class LocalScoreSampler(GenerativeModel):
    """Draws images of a class from `images` uint8 [N, C, H, W] and their `labels` int64 [N]."""

    legibility_param = "train.score_window_scale"
    images: Tensor
    labels: Tensor

    def __init__(self, images: Tensor, labels: Tensor, settings: LocalScoreSettings) -> None:
        super().__init__()
        self.register_buffer("images", images)
        self.register_buffer("labels", labels)
        self.settings = settings
        classes = int(labels.max()) + 1
        channels, height, width = images.shape[1:]
        self.architecture = SamplerArchitecture(
            "local_score", classes, channels, height, width, settings
        )

    @classmethod
    def from_file(
        cls, architecture: Mapping[str, Any], tensors: Mapping[str, Tensor]
    ) -> LocalScoreSampler:
        settings = LocalScoreSettings(**architecture["settings"])
        images, labels = tensors["images"], tensors["labels"]
        sampler = cls(images, labels, settings)
        found = images.dtype, len(labels), labels.unique().tolist(), asdict(sampler.architecture)
        if found != (torch.uint8, len(images), [*range(sampler.classes)], architecture):
            raise ValueError(f"{len(images)} images, and {found}")
        return sampler

    @classmethod
    def from_images(
        cls, images: Tensor, labels: Tensor, params: Mapping[str, Any]
    ) -> LocalScoreSampler:
        settings = suitable_settings(*images.shape[2:])
        scale = params["score_window_scale"]
        if scale != "auto":
            settings = replace(settings, window_scale=scale)
        return cls(images, labels, settings)

    @property
    def params(self) -> dict[str, Any]:
        return {"score_window_scale": self.settings.window_scale}

    @property
    def description(self) -> str:
        return f"local score sampler of {len(self.images):,} training images"

    @property
    def seconds_per_drawing(self) -> float:
        most_sources = min(int(self.labels.bincount().max()), self.settings.sources)
        sources = [
            min(most_sources, FINE_SOURCES) if sigma < FINE_NOISE else most_sources
            for sigma in noise_levels(self.settings)
        ]
        values = sum(sources) * self.images[0].numel()
        return SECONDS_PER_STEP * self.settings.steps + SECONDS_PER_VALUE * values

    def draw(self, labels: Tensor, seed: int, progress: Progress = silent) -> Tensor:
        rows_of_class = {
            int(label): (self.labels == label).nonzero()[:, 0] for label in labels.unique()
        }

        def draw_at(position: int) -> Tensor:
            return self._draw_one(rows_of_class[int(labels[position])], _rng(seed, position))

        threads = available_threads() if self.images.device.type == "cpu" else 1
        with parts_on_threads(threads) as parallel:
            steps = progress("drawings", range(len(labels)))
            drawn = parallel(draw_at, range(len(labels)))
            drawings = [drawing for drawing, _ in zip(drawn, steps, strict=True)]
        return torch.stack(drawings) if drawings else torch.empty(0, *self.shape, dtype=torch.uint8)

    @torch.inference_mode()
    def _draw_one(self, rows: Tensor, rng: torch.Generator) -> Tensor:
        """One drawing, uint8 [C, H, W], from the images at `rows`."""
        device = self.images.device
        noise = torch.randn(self.shape, generator=rng).to(device)
        picked = torch.randperm(len(rows), generator=rng)[: self.settings.sources]
        sources = self.images[rows[picked.to(device)]]
        source_variance = pixel_variance(sources)
        image = noise * self.settings.sigma_max
        sigmas = noise_levels(self.settings)
        for sigma, next_sigma in zip(sigmas, [*sigmas[1:], 0.0], strict=True):
            if sigma < FINE_NOISE and len(sources) > FINE_SOURCES:
                sources = nearest_sources(image, sources, sigma, self.settings)
            clean = denoise(image, sources, source_variance, sigma, self.settings)
            # A step of Euler's method on the probability-flow ODE.
            image = torch.lerp(clean, image, next_sigma / sigma)
        return to_uint8(image).cpu()


def _rng(seed: int, position: int) -> torch.Generator:
    """The random generator of a drawing: numpy mixes both numbers, and torch takes 63 bits of the mix."""
    state = np.random.SeedSequence((seed % 2**64, position)).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state[0]) >> 1)


def noise_levels(settings: LocalScoreSettings) -> list[float]:
    """σ of each step, falling (see `LocalScoreSettings.rho`)."""
    rho = settings.rho
    first_root = settings.sigma_max ** (1 / rho)
    last_root = settings.sigma_min ** (1 / rho)
    return [float(root) ** rho for root in np.linspace(first_root, last_root, settings.steps)]


def window_side(sigma: float, height: int, width: int, scale: float) -> int:
    """The side of a window in pixels, odd, in images of this height and width."""
    image_side = math.sqrt(height * width)
    fraction: float = WINDOW_FACTOR * (sigma * REFERENCE_SIDE / image_side) ** WINDOW_EXPONENT
    fraction = scale * min(max(fraction, MIN_WINDOW), MAX_WINDOW)
    nearest_odd = 2 * round((fraction * image_side - 1) / 2) + 1
    return max(1, nearest_odd)


def pixel_variance(sources: Tensor) -> Tensor:
    """The variance of sources uint8 [N, C, H, W] at each pixel, summed over channels, float32 [H, W]; 1
    everywhere if none differ. The cap weighs pixels by it: with equal weights, one image could make
    everything but a plain background, which all images have."""
    variance = sources.float().var(dim=0, correction=0).sum(dim=0)
    return variance if variance.any() else torch.ones_like(variance)


def denoise(
    noisy: Tensor,
    sources: Tensor,
    source_variance: Tensor,
    sigma: float,
    settings: LocalScoreSettings,
) -> Tensor:
    """An estimate of the image behind `noisy` [C, H, W] of noise `sigma`, from the sources uint8 [N, C, H,
    W], whose `pixel_variance` is `source_variance`.

    Each window has a weight for each source, a softmax of minus the squared distance over 2σ². A pixel is the
    mean of the sources' pixels there, by the mean weights of the windows in whose middle it lies: averages of
    whole windows would be foggy.
    """
    down, across = windows_of(noisy, sigma, settings)
    logits = window_distances(noisy, sources, down, across).div_(-2 * sigma**2)
    importance = down.mixing @ source_variance @ across.mixing.T
    rows, weights = capped_softmax(logits, settings.cap, importance / importance.sum())
    total = torch.zeros_like(noisy)
    size = _images_at_once(noisy)
    for chunk, window_weights in zip(rows.split(size), weights.split(size), strict=True):
        pixel_weights = down.mixing.T @ window_weights @ across.mixing
        total += (sources[chunk] * pixel_weights[:, None]).sum(dim=0)
    return total.div_(127.5).sub_(1)


def nearest_sources(
    noisy: Tensor, sources: Tensor, sigma: float, settings: LocalScoreSettings
) -> Tensor:
    """The FINE_SOURCES of the sources that come nearest to being the best in some window, in their order."""
    distances = window_distances(noisy, sources, *windows_of(noisy, sigma, settings))
    excess = (distances - distances.amin(dim=0)).flatten(1).amin(dim=1)
    return sources[excess.argsort(stable=True)[:FINE_SOURCES].sort().values]


class Windows:
    """The windows along one side of an image, cut at the ends; float32 [windows, pixels]. `in_window`: 1
    where a window sees a pixel. `mixing`: its share in making one, equal for those in whose middle it is."""

    def __init__(self, length: int, side: int, device: torch.device) -> None:
        max_stride = max(1, math.floor(side * MAX_STRIDE_FRACTION))
        count = 1 + math.ceil((length - 1) / max_stride)
        centres = torch.linspace(0, length - 1, count).round()
        distance = (centres[:, None] - torch.arange(length)).abs()
        stride = (length - 1) / max(1, count - 1)
        self.in_window = (distance <= side // 2).float().to(device)
        # No pixel is left out: where windows are small, the middle reaches to the next centre.
        in_middle = (distance <= max(side // 2 * MIDDLE_FRACTION, stride)).float().to(device)
        self.mixing = in_middle / in_middle.sum(dim=0)


def windows_of(
    image: Tensor, sigma: float, settings: LocalScoreSettings
) -> tuple[Windows, Windows]:
    """The windows down and across an image [C, H, W] of noise `sigma`."""
    _, height, width = image.shape
    side = window_side(sigma, height, width, settings.window_scale)
    return Windows(height, side, image.device), Windows(width, side, image.device)


def window_distances(noisy: Tensor, sources: Tensor, down: Windows, across: Windows) -> Tensor:
    """Squared distances of the sources to `noisy` in each window, float32 [N, windows down, across]."""
    noisy_in_bytes = (noisy + 1) * 127.5  # the unit of the sources, so that these need no scaling
    scaled_down = down.in_window / 127.5**2  # scales the sums instead
    distances = []
    for chunk in sources.split(_images_at_once(noisy)):
        squares = (chunk - noisy_in_bytes).square_().sum(dim=1)
        distances.append(scaled_down @ (squares @ across.in_window.T))
    return torch.cat(distances)


def _images_at_once(image: Tensor) -> int:
    values = VALUES_AT_ONCE if image.device.type == "cpu" else VALUES_AT_ONCE_ON_GPU
    return max(1, values // image.numel())


def capped_softmax(logits: Tensor, cap: float, importance: Tensor) -> tuple[Tensor, Tensor]:
    """The softmax of `logits` [N, h, w] over N sources in each of h · w windows, in which the share of
    each source is brought down to about `cap`: rows of the sources that have weight, weights [rows, h, w].

    `importance` [h, w], whose sum is 1, says how much each window counts. `logits` are overwritten: those of
    a source with too much weight are lowered by a constant. The cap is at least MIN_CAP_FACTOR / N.
    """
    cap = min(1.0, max(cap, MIN_CAP_FACTOR / len(logits)))
    for _ in range(MAX_CAP_ROUNDS):
        rows, weights, _ = _softmax(logits)
        share, heaviest = (weights.flatten(1) @ importance.flatten()).max(dim=0)
        if share <= cap * CAP_TOLERANCE:
            break
        source = rows[heaviest]
        source_logits = logits[source].clone()
        logits[source] = -math.inf
        _, _, other_logits = _softmax(logits)
        reduction = _logit_reduction(source_logits - other_logits, cap, importance)
        logits[source] = source_logits - reduction
    return rows, weights


def _softmax(logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Rows of the sources that have weight in any window, their weights, and the logsumexp of all logits."""
    highest = logits.amax(dim=0)
    relative = logits - highest
    rows = (relative.flatten(1).amax(dim=1) > MIN_LOG_WEIGHT).nonzero()[:, 0]
    weights = relative[rows].exp_()
    total = weights.sum(dim=0)
    return rows, weights.div_(total), highest + total.log()


def _logit_reduction(lead: Tensor, cap: float, importance: Tensor) -> Tensor:
    """The constant c for which the mean of sigmoid(lead - c), weighted by `importance`, is `cap`.

    `lead` [h, w] is a source's logits less the logsumexp of all others, so sigmoid(lead) is its softmax.
    """
    lead, importance = lead.flatten(), importance.flatten()
    # At `high` all sigmoids are below e**-20.
    low, high = torch.zeros_like(lead[0]), lead.max().clamp(min=0) + 20
    for _ in range(REFINEMENTS):
        grid = torch.linspace(0, 1, GRID_POINTS, device=lead.device) * (high - low) + low
        is_above_cap = (lead - grid[:, None]).sigmoid() @ importance > cap
        first_below = is_above_cap.sum().clamp(1, GRID_POINTS - 1)
        low, high = grid[first_below - 1], grid[first_below]
    return high


def suitable_settings(height: int, width: int) -> LocalScoreSettings:
    """Settings that suit images of this size. The larger the images, the larger windows may be before they
    make copies. Weights depend on squared distances over σ², which grow with the number of pixels: noise that
    grows with the side leaves them as they are."""
    side = math.sqrt(height * width)
    return LocalScoreSettings(
        sigma_max=round(SIGMA_MAX * max(1.0, side / REFERENCE_SIDE), 1),
        window_scale=LARGE_IMAGE_SCALE if side >= LARGE_SIDE else SMALL_IMAGE_SCALE,
    )


def may_be_photographs(pixels: Tensor) -> bool:
    """True for images in colour, or grey without a plain background. In photographs the checkerboard of a
    GAN's transposed convolutions would show (Odena et al., Distill 2016)."""
    largest_count = int(pixels.flatten().bincount().max())  # of pixels of one value
    has_background = largest_count >= MIN_BACKGROUND_SHARE * pixels.numel()
    return pixels.shape[1] == 3 or not has_background
