"""A sampler that needs no training: images are drawn by ideal denoising with local windows.

The ideal denoiser of a set of images is the mean of its posterior: a softmax over the images, by their
distances to the noisy one. Drawings made with it are copies of images. Where each pixel sees only a window
around it, which narrows as the noise falls, parts of several images are joined into new ones (Kamb and
Ganguli, arXiv:2412.20292; Lukoianov et al., arXiv:2509.09672; similar: GPNN, Granot et al., CVPR 2022).

Every drawing is made by itself, on one thread, of noise and images that its own random generator picks. So
it depends on the seed, its position and its label alone.
"""

import math
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from cgan.model.generative import GenerativeModel
from cgan.model.hardware import available_threads, parts_on_threads
from cgan.model.sampling import to_uint8

# Below, "tuned" is the entry "drawings without a training, tuned" of docs/log.md, 2026-11-30, and "cap" the
# entry "a cap that counts contrast" of that day. It is the settings as a whole that were tried there; where
# nothing else is said, a single number was chosen by hand.
REFERENCE_SIDE = 32  # pixels: noise is given for images of this side, and scaled for others
# The side of a window as a fraction of the image's: WINDOW_FACTOR · noise ** WINDOW_EXPONENT (the "power law"
# of tuned), but at least MIN_WINDOW, and at most MAX_WINDOW: windows as large as the image make copies.
WINDOW_FACTOR, WINDOW_EXPONENT = 0.46, 0.55
MIN_WINDOW, MAX_WINDOW = 0.15, 0.72
BLENDED = (
    0.5  # the middle of a window, as a fraction of its side, of which it makes the pixels (tuned)
)
OVERLAP = 4  # windows are at most a quarter of their side apart, or one pixel
CAP_ROUNDS = 10  # at most so many times a source is brought down to the cap
# The cap is at least so many times 1/N, with N sources. Below 1/N no weights would add up to 1.
MIN_CAP_FACTOR = 1.5
CANDIDATES, REFINEMENTS = 33, 4  # `_excess` narrows an interval to 1/32 of it, four times
NEGLIGIBLE = -12.0  # log weight; a source with less in all windows is left out
BLOCK = 250_000  # pixels that are floats at once: on the CPU they stay in a core's cache
BLOCK_ON_GPU = 50_000_000
SMALL_SCALE, LARGE_SCALE = 1.35, 1.9  # of windows (tuned)
LARGE_SIDE = 48  # pixels, from which the larger scale is taken
SIGMA_MAX = 20.0  # the noise of the first step, for images of REFERENCE_SIDE
# The largest `nearness` of a set for which `auto` takes this sampler. CIFAR has .06 to .08, clothes -.08 to
# 0, hand signs .11 to .17 (cap).
MAX_NEARNESS = 0.2
TRIAL_DRAWINGS, TRIAL_IMAGES = (
    80,
    1000,
)  # of `nearness`: drawings, and at most so many images of a class
TRIAL_SIDE, TRIAL_STEPS, OUTLINE_SIDE = 32, 18, 16  # pixels; steps; pixels
# A set has a plain ground where at least this share of all its pixels has one value (photographs of tiles
# .01, alphabets .86, digits .81).
MIN_PLAIN_SHARE = 0.3
# Seconds of a core: for a step, and for each value of each source in it (docs/log.md, 2026-11-30, "a
# generator without training, from params.yaml to the page").
STEP_S, VALUE_S = 1.5e-3, 2.8e-9


@dataclass(frozen=True)
class LocalScoreSettings:
    """How drawings are made; noise `sigma_…` is in units of the pixels' range from -1 to 1."""

    steps: int = 18
    sigma_max: float = 20.0
    sigma_min: float = 0.03
    rho: float = 7.0
    """`sigma_max` to `rho`: the schedule of the noise levels (Karras et al., arXiv:2206.00364, equation
    5)."""
    cap: float = 0.3
    """At most this part of a drawing, each pixel weighted by `pixel_variance`, may come from one image; more
    where a class has fewer than five."""
    sources: int = 250
    """Images of the class, drawn at random, that one drawing is made from."""
    window_scale: float = 1.35
    """Larger windows: more legible drawings, nearer to training images."""


class LocalScoreSampler(GenerativeModel):
    """Draws images of a class from `images` uint8 [N, C, H, W] and their `labels` int64 [N]."""

    images: Tensor
    labels: Tensor

    def __init__(self, images: Tensor, labels: Tensor, settings: LocalScoreSettings) -> None:
        super().__init__()
        self.register_buffer("images", images)
        self.register_buffer("labels", labels)
        self.settings = settings

    @property
    def shape(self) -> tuple[int, int, int]:
        channels, height, width = self.images.shape[1:]
        return channels, height, width

    @property
    def classes(self) -> int:
        return int(self.labels.max()) + 1

    @property
    def kind(self) -> str:
        return f"local score sampler of {len(self.images):,} training images"

    @property
    def seconds_per_drawing(self) -> float:
        most = int(self.labels.bincount().max())
        sources = min(most, self.settings.sources)
        return self.settings.steps * (STEP_S + VALUE_S * sources * self.images[0].numel())

    def draw(self, labels: Tensor, seed: int) -> Tensor:
        """One image a label: uint8 [M, C, H, W] on the CPU, for labels int64 [M], each with images.

        On one device equal (seed, position, label) are equal images.
        """
        rows = {int(label): self._rows(int(label)) for label in labels.unique()}
        threads = available_threads() if self.images.device.type == "cpu" else 1
        plan = [(position, rows[label]) for position, label in enumerate(labels.tolist())]
        with parts_on_threads(threads) as parallel:
            drawn = list(parallel(partial(self._draw_one, seed), plan))
        return torch.stack(drawn) if drawn else torch.empty(0, *self.shape, dtype=torch.uint8)

    def _rows(self, label: int) -> Tensor:
        return (self.labels == label).nonzero()[:, 0]

    @torch.inference_mode()
    def _draw_one(self, seed: int, plan: tuple[int, Tensor]) -> Tensor:
        position, rows = plan
        random = _generator(seed, position)
        device = self.images.device
        noise = torch.randn(self.shape, generator=random).to(device)
        chosen = torch.randperm(len(rows), generator=random)[: self.settings.sources]
        sources = self.images[rows[chosen.to(device)]]
        image, variance = noise * self.settings.sigma_max, pixel_variance(sources)
        noises = sigmas(self.settings)
        for sigma, next_sigma in zip(noises, [*noises[1:], 0.0], strict=True):
            clean = denoised(image, sources, variance, sigma, self.settings)
            # A step of Euler's method on the probability-flow ODE.
            image = torch.lerp(clean, image, next_sigma / sigma)
        return to_uint8(image).cpu()


def _generator(seed: int, position: int) -> torch.Generator:
    state = np.random.SeedSequence((seed % 2**64, position)).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state[0]) >> 1)


def sigmas(settings: LocalScoreSettings) -> list[float]:
    """The noise of each step, falling."""
    first, last = (
        sigma ** (1 / settings.rho) for sigma in (settings.sigma_max, settings.sigma_min)
    )
    return [float(root) ** settings.rho for root in np.linspace(first, last, settings.steps)]


def window_side(sigma: float, height: int, width: int, scale: float) -> int:
    """The side of a window in pixels, odd."""
    side = math.sqrt(height * width)
    fraction: float = WINDOW_FACTOR * (sigma * REFERENCE_SIDE / side) ** WINDOW_EXPONENT
    fraction = scale * min(max(fraction, MIN_WINDOW), MAX_WINDOW)
    return max(1, 2 * round((fraction * side - 1) / 2) + 1)


def pixel_variance(sources: Tensor) -> Tensor:
    """The variance of sources uint8 [N, C, H, W] at each pixel, summed over channels, float32 [H, W]; 1
    everywhere if none differ. The cap weighs pixels by it: a plain ground that all images share weighs
    nothing. Weighed by area, it would let one image make everything else."""
    variance = sources.float().var(dim=0, correction=0).sum(dim=0)
    return variance if variance.any() else torch.ones_like(variance)


def denoised(
    noisy: Tensor,
    sources: Tensor,
    variance: Tensor,
    sigma: float,
    settings: LocalScoreSettings,
) -> Tensor:
    """What `noisy` [C, H, W] of noise `sigma` was, by windows of the sources uint8 [N, C, H, W], whose
    `pixel_variance` is `variance`.

    Each window has a weight for each source, a softmax of minus the squared distance over 2σ². A pixel is the
    mean of the sources' pixels there, by the mean weights of the windows in whose middle it lies. Where whole
    windows are averaged, more of them disagree, and drawings are foggy.
    """
    _, height, width = noisy.shape
    side = window_side(sigma, height, width, settings.window_scale)
    down, across = (Windows(length, side, noisy.device) for length in (height, width))
    logits = distances(noisy, sources, down.in_view, across.in_view).div_(-2 * sigma**2)
    importance = down.blended @ variance @ across.blended.T
    rows, weights = softmax_with_cap(logits, settings.cap, importance / importance.sum())
    total = torch.zeros_like(noisy)
    size = _block(noisy)
    for block, block_weights in zip(rows.split(size), weights.split(size), strict=True):
        shares = down.blended.T @ block_weights @ across.blended
        total += (sources[block] * shares[:, None]).sum(dim=0)
    return total.div_(127.5).sub_(1)


class Windows:
    """Along one side of an image, float32 [windows, pixels]: `in_view`, 1 where a window sees a pixel;
    `blended`, a window's part in making a pixel. Windows are cut at the ends."""

    def __init__(self, length: int, side: int, device: torch.device) -> None:
        count = 1 + math.ceil((length - 1) / max(1, side // OVERLAP))
        centres = torch.linspace(0, length - 1, count).round()
        apart = (centres[:, None] - torch.arange(length)).abs()
        step = (length - 1) / max(1, count - 1)
        self.in_view = (apart <= side // 2).float().to(device)
        near = (apart <= max(side // 2 * BLENDED, step)).float().to(device)
        self.blended = near / near.sum(dim=0)


def distances(noisy: Tensor, sources: Tensor, down: Tensor, across: Tensor) -> Tensor:
    """Squared distances in each window, float32 [N, windows down, windows across]."""
    pixels = (noisy + 1) * 127.5  # in the sources' units, so that these stay bytes
    scaled = down / 127.5**2
    squared = ((block - pixels).square_().sum(dim=1) for block in sources.split(_block(noisy)))
    return torch.cat([scaled @ (squares @ across.T) for squares in squared])


def _block(image: Tensor) -> int:
    """How many images are floats at once."""
    pixels = BLOCK if image.device.type == "cpu" else BLOCK_ON_GPU
    return max(1, pixels // image.numel())


def softmax_with_cap(logits: Tensor, cap: float, importance: Tensor) -> tuple[Tensor, Tensor]:
    """Rows of the sources that have weight, and their weights: the softmax over N sources of `logits`
    [N, h, w], which are overwritten. `importance` [h, w], whose sum is 1: how much each window counts.

    From the logits of a source that would have more than the part `cap` of all weight a constant is taken, so
    that it has that part. Of N sources each may have MIN_CAP_FACTOR / N at least.
    """
    cap = min(1.0, max(cap, MIN_CAP_FACTOR / len(logits)))
    for _ in range(CAP_ROUNDS):
        rows, weights, _ = _softmax(logits)
        share, most = (weights.flatten(1) @ importance.flatten()).max(dim=0)
        if share <= cap * 1.02:  # near enough: each round costs two softmaxes
            break
        source = rows[most]
        own = logits[source].clone()
        logits[source] = -math.inf
        others = _softmax(logits)[2]
        logits[source] = own - _excess(own - others, cap, importance)
    return rows, weights


def _softmax(logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Rows of the sources that have weight in any window, their weights, and the logarithm of all weight."""
    most = logits.amax(dim=0)
    below = logits - most
    rows = (below.flatten(1).amax(dim=1) > NEGLIGIBLE).nonzero()[:, 0]
    weights = below[rows].exp_()
    total = weights.sum(dim=0)
    return rows, weights.div_(total), most + total.log()


def _excess(lead: Tensor, cap: float, importance: Tensor) -> Tensor:
    """The constant to take from `lead`, so that its sigmoids have the mean `cap`, weighted by `importance`.

    `lead` is a source's logits less the logarithm of all others' weight: their sigmoids are its weights. The
    mean falls as the constant grows, so the constant is searched for on ever finer grids.
    """
    lead, importance = lead.flatten(), importance.flatten()
    # At `high` all sigmoids are below e**-20.
    low, high = torch.zeros_like(lead[0]), lead.max().clamp(min=0) + 20
    for _ in range(REFINEMENTS):
        steps = torch.linspace(0, 1, CANDIDATES, device=lead.device) * (high - low) + low
        over = (lead - steps[:, None]).sigmoid() @ importance > cap
        last = over.sum().clamp(1, CANDIDATES - 1)
        low, high = steps[last - 1], steps[last]
    return high


# --- What suits given images ----------------------------------------------------------------------


def choose_settings(images: Tensor) -> tuple[LocalScoreSettings, str]:
    """Settings for training images uint8 [N, C, H, W]; in words, what was chosen.

    Large windows draw legible images, and copies; the larger the images, the larger they may be.
    """
    height, width = images.shape[2:]
    scale = LARGE_SCALE if math.sqrt(height * width) >= LARGE_SIDE else SMALL_SCALE
    settings = LocalScoreSettings(sigma_max=_sigma_max(height, width), window_scale=scale)
    side = window_side(settings.sigma_min, height, width, scale)
    return settings, f"windows × {scale}, down to {side} pixels"


def is_better_than_gan(
    images: Tensor, labels: Tensor, drawings: int = TRIAL_DRAWINGS
) -> tuple[bool, str]:
    """Whether this sampler is a better choice for such images than a GAN, and why (docs/log.md, 2026-11-30,
    "a cap that counts contrast; a sampler beside GANs at equal CPU seconds")."""
    if not are_photographs(images[:: math.ceil(len(images) / TRIAL_IMAGES)]):
        return False, "no photographs"
    settings, _ = choose_settings(images)
    if nearness(images, labels, settings.window_scale, drawings) > MAX_NEARNESS:
        return False, "drawings would lie near training images"
    return True, "photographs"


def are_photographs(images: Tensor) -> bool:
    """Whether images are in colour, or grey without a plain ground, which drawings and characters have. In
    photographs the checkerboard of a GAN's transposed convolutions would show (Odena et al., Distill
    2016)."""
    most = int(images.flatten().int().bincount().max())
    return images.shape[1] == 3 or most < MIN_PLAIN_SHARE * images.numel()


def nearness(images: Tensor, labels: Tensor, scale: float, drawings: int = TRIAL_DRAWINGS) -> float:
    """How much nearer drawings with windows of this scale are to training images than these are to one
    another: log q(images) - log q(drawings).

    q is the first decile of d(x) / m(class of x), with d(x) the distance of x to the nearest (other) training
    image of its class, and m(class) the median d of the class's training images. 0: as near as these are;
    above 0: nearer. The distance is the sine of the angle between two rough outlines. Measured on images
    made smaller, with a few drawings. -∞ where no class has two images.
    """
    smaller = _downscale(images, TRIAL_SIDE).round().to(torch.uint8)
    settings = LocalScoreSettings(
        sigma_max=_sigma_max(*smaller.shape[2:]), window_scale=scale, steps=TRIAL_STEPS
    )
    counts = labels.bincount()
    classes = (counts > 1).nonzero()[:, 0]
    if not len(classes):
        return -math.inf
    random = torch.Generator().manual_seed(0)
    order = classes[torch.randperm(len(classes), generator=random)]
    drawn_labels = order[torch.arange(drawings) % len(order)]
    drawn = _directions(LocalScoreSampler(smaller, labels, settings).draw(drawn_labels, seed=0))
    of_drawings, of_images = (
        list[Tensor](),
        list[Tensor](),
    )  # log distances, less their class's median
    for label in drawn_labels.unique():
        rows = (labels == label).nonzero()[:, 0]
        rows = rows[torch.randperm(len(rows), generator=random)[:TRIAL_IMAGES]]
        training = _directions(smaller[rows])
        among_images = _log_distance((training @ training.T).fill_diagonal_(-1))
        to_images = _log_distance(drawn[drawn_labels == label] @ training.T)
        of_images.append(among_images - among_images.median())
        of_drawings.append(to_images - among_images.median())
    return (torch.cat(of_images).quantile(0.1) - torch.cat(of_drawings).quantile(0.1)).item()


def _sigma_max(height: int, width: int) -> float:
    """The noise of the first step. Squared distances of images grow with their pixels, and weights depend on
    the distances over σ²: so noise that grows with the side leaves the weights as they are."""
    return round(SIGMA_MAX * max(1.0, math.sqrt(height * width) / REFERENCE_SIDE), 1)


def _downscale(images: Tensor, side: int) -> Tensor:
    height, width = (min(side, length) for length in images.shape[2:])
    chunks = images.split(1000)
    return torch.cat([F.adaptive_avg_pool2d(chunk.float(), (height, width)) for chunk in chunks])


def _directions(images: Tensor) -> Tensor:
    """Each image in rough outline, less its mean and of length 1, float [N, values]. One more value stands
    for a grey level of contrast, so that images of one colour have a direction."""
    flat = _downscale(images, OUTLINE_SIDE).flatten(1)
    flat = flat - flat.mean(dim=1, keepdim=True)
    return F.normalize(F.pad(flat, (0, 1), value=math.sqrt(flat.shape[1])), dim=1)


def _log_distance(cosines: Tensor) -> Tensor:
    """The logarithm of the distance of each row to its nearest column, from the cosines of their angles: the
    distance is the sine."""
    sine: Tensor = (1 - cosines.amax(dim=1).square()).clamp(min=1e-6).sqrt()
    return sine.log()
