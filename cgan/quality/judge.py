"""The judge: a small class network, trained on the training images. Most metrics look at drawings through it.

Its class logits say which class an image shows; its penultimate layer (128 features after ReLU) is
the space in which the Fréchet distance, recall and coverage are measured. The accuracy and the distance by
which a training is probed stand here, the metrics of an evaluation in their own modules.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from cgan.base.errors import DataError, TrainingError
from cgan.base.progress import silent
from cgan.data.images import Images
from cgan.models.file_facts import Facts
from cgan.models.hardware import (
    Hardware,
    exact_floats,
    fits_in_memory,
    keep_freed_memory,
    take_rows,
    without_compiler,
)
from cgan.models.model_file import NamedTensors, load_network, save_tensors
from cgan.models.networks import channels_last, with_weights
from cgan.models.parallel import (
    available_threads,
    copy_sharing_weights,
    parts_on_threads,
    set_gradients,
)
from cgan.params.sections import JudgeParams
from cgan.quality.proportions import mean_share, wilson_interval

FEATURES = 128  # of the penultimate layer
WIDTH = 32  # channels of the first convolution
BATCH_SIZE = 128  # images of a step of the training
PEAK_LR = 0.2  # of its one-cycle schedule
NETWORK_VERSION = 2
# The largest random moves of an image in training.
MAX_TRAINING_SHIFT = 2  # pixels
MAX_TRAINING_TURN = 0.2  # radians
MAX_TRAINING_ZOOM = 0.1  # of its size
# Of a batch, on the CPU, a thread each. Gradients are summed by part, so their number must not be the cores'.
BATCH_PARTS = 2
PREDICT_BATCH = 250  # images
SILENT = partial(silent, "")


class MaxPool3x3(nn.Module):
    """Maps of any size → 3×3. nn.AdaptiveMaxPool2d has no deterministic gradient on CUDA."""

    def forward(self, maps: Tensor) -> Tensor:
        """`maps` aren't negative, so those below 3×3 are filled up with zeros."""
        height, width = maps.shape[2:]
        if min(height, width) < 3:  # a copy, also where it adds nothing
            maps = F.pad(maps, (0, max(0, 3 - width), 0, max(0, 3 - height)))
        stride = [size // 3 for size in maps.shape[2:]]
        size = [size - 2 * step for size, step in zip(maps.shape[2:], stride, strict=True)]
        return F.max_pool2d(maps, size, stride)


class HalveLarge(nn.Module):
    """Maps of 7 × 7 or more are halved: those of an image of 8 × 8 are small enough."""

    def forward(self, maps: Tensor) -> Tensor:
        return F.max_pool2d(maps, 2) if min(maps.shape[2:]) > 6 else maps


def _convolution(inputs: int, outputs: int, size: int, stride: int = 1) -> list[nn.Module]:
    convolution = nn.Conv2d(inputs, outputs, size, stride, padding=size // 2, bias=False)
    return [convolution, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]


class Judge(nn.Module):
    """Images float [N, C, H, W] in [-1, 1] → class logits [N, classes]."""

    def __init__(self, classes: int, channels: int, width: int) -> None:
        super().__init__()
        sizes = {"classes": classes, "channels": channels, "width": width}
        self.facts: Facts = {**sizes, "version": NETWORK_VERSION}
        self.recipe: JudgeParams | None = None  # by which it was trained
        w = width
        self.layers = nn.Sequential(
            *_convolution(channels, w, 5, stride=2),
            *_convolution(w, w, 3),
            HalveLarge(),
            *_convolution(w, 2 * w, 3),
            *_convolution(2 * w, 4 * w, 3),
            MaxPool3x3(),
            nn.Flatten(),
            nn.Linear(4 * w * 9, FEATURES, bias=False),
            nn.BatchNorm1d(FEATURES),
            nn.ReLU(),
        )
        self.head = nn.Linear(FEATURES, classes)

    def features(self, images: Tensor) -> Tensor:
        """The features of images, [N, 128], not negative."""
        features: Tensor = self.layers(images)
        return features

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.features(images))
        return logits


@dataclass(frozen=True)
class Prediction:
    """The judge's answers for N images: `features` float32 [N, 128], `logits` float32 [N, classes]."""

    features: Tensor
    logits: Tensor

    @property
    def labels(self) -> Tensor:
        """The class that it takes each image for, int64 [N]."""
        return self.logits.argmax(dim=1)


@torch.inference_mode()
def predict(judge: Judge, images: Tensor, batch: int = PREDICT_BATCH) -> Prediction:
    """The judge's prediction for uint8 images [N, C, H, W]: in float32, on its own device; returned on the
    CPU."""
    device = next(judge.parameters()).device

    def outputs_of(some: Tensor) -> tuple[Tensor, Tensor]:
        features = judge.features(_scaled(some.to(device)))
        return features.cpu(), judge.head(features).cpu()

    threads = available_threads() if device.type == "cpu" else 1
    with exact_floats(), parts_on_threads(threads) as parallel:
        outputs = list(parallel(outputs_of, images.split(batch)))
    features, logits = (torch.cat(batches) for batches in zip(*outputs, strict=True))
    return Prediction(features, logits)


def require_judge_of(judge: Judge, images: Images) -> None:
    """Raises DataError where the judge was trained on images of another number of classes or channels."""
    expected = images.classes, images.shape[0]
    if (found := (judge.facts["classes"], judge.facts["channels"])) != expected:
        raise DataError(
            f"the judge: expected one of the images' classes and channels, {expected}; found {found}. Give "
            "one that was trained on them."
        )


@dataclass(eq=False)
class Accuracy:
    """Accuracy of a classifier: the mean over the classes, and that of each, with intervals. `confusion`
    int64 [classes, classes]: rows asked for, columns judged. A class that was never asked for has none."""

    confusion: Tensor

    def __post_init__(self) -> None:
        rights = self.confusion.diagonal().tolist()
        pairs = [*zip(rights, self.confusion.sum(dim=1).tolist(), strict=True)]
        self.by_class = [right / count if count else None for right, count in pairs]
        self.interval_by_class = [wilson_interval(*pair) if pair[1] else None for pair in pairs]
        self.value, self.interval = mean_share([pair for pair in pairs if pair[1]])


def accuracy_of_predictions(judged: Tensor, labels: Tensor, classes: int) -> Accuracy:
    """The accuracy of class indices `judged` for those asked for, `labels`, both int64 [N]."""
    confusion = torch.bincount(labels * classes + judged, minlength=classes**2)
    return Accuracy(confusion.view(classes, classes))


def judge_accuracy(judge: Judge, data: Images) -> Accuracy:
    """The accuracy with which the judge names the images' labels."""
    pixels, labels, _ = data.tensors
    return accuracy_of_predictions(predict(judge, pixels).labels, labels, data.classes)


def frechet_distance(real: Tensor, drawn: Tensor) -> float:
    """‖μ₁-μ₂‖² + tr(Σ₁+Σ₂-2(Σ₁Σ₂)^½), in double precision. 0 for equal sets; biased upwards when
    the sets are small, so compare it with real against real at the same counts."""
    real, drawn = real.double(), drawn.double()
    real_covariance, drawn_covariance = (
        torch.atleast_2d(torch.cov(features.T)) for features in (real, drawn)
    )
    # The eigenvalues of a product of two covariances are real and not negative, rounding aside, so
    # the trace of its root is the sum of their roots, and no root of a matrix is needed.
    root_trace = torch.linalg.eigvals(real_covariance @ drawn_covariance).sqrt().real.sum()
    shift = (real.mean(dim=0) - drawn.mean(dim=0)).square().sum()
    traces = shift + real_covariance.trace() + drawn_covariance.trace()
    return max(0.0, float(traces - 2 * root_trace))


def _scaled(images: Tensor) -> Tensor:
    return images.float().mul_(2 / 255).sub_(1).contiguous(memory_format=torch.channels_last)


def train_judge(
    data: Images,
    params: JudgeParams,
    hardware: Hardware,
    progress: Callable[..., Iterator[int]] = SILENT,
    class_weights: Tensor | None = None,
) -> Judge:
    """Train on uint8 images, with small random shifts, turns and zooms: SGD with momentum, one-cycle rate.
    `progress`: a `Progress` that knows what is trained. `class_weights` float [classes]: of the loss.

    Length is counted in images, so a small data set is seen more often than a large one.
    Deterministic for a seed. Raises TrainingError when it diverges.
    """
    batch, device = min(BATCH_SIZE, len(data)), hardware.device
    steps = max(1, round(params.total_kimg * 1000 / batch))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(params.seed)
        judge = Judge(data.classes, data.shape[0], WIDTH)
    channels_last(judge.to(device=device))
    random = torch.Generator().manual_seed(params.seed)
    weights = list(judge.parameters())
    optimizer = without_compiler(torch.optim.SGD)(
        weights, lr=PEAK_LR, momentum=0.9, nesterov=True, weight_decay=5e-4, fused=True
    )
    # The rate cannot rise and fall in fewer than some ten steps: a shorter training sees its beginning.
    total = max(10, steps)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, PEAK_LR, total_steps=total, pct_start=0.2, cycle_momentum=False
    )
    images, labels, _ = data.tensors
    images = images.to(device) if fits_in_memory(images, device) else images
    labels = labels.to(device)
    order = torch.empty(0, dtype=torch.int64)
    # Batch norm needs two images at least.
    parts = BATCH_PARTS if device.type == "cpu" and batch >= 2 * BATCH_PARTS else 1
    judges = [judge.train(), *(copy_sharing_weights(judge) for _ in range(1, parts))]
    class_weights = None if class_weights is None else class_weights.to(device)

    def gradients(part: tuple[Judge, Tensor, Tensor, Tensor]) -> tuple[Tensor, ...]:
        judge, images, labels, moves = part
        moved = _augmented(_scaled(images), moves)
        with hardware.autocast():
            logits = judge(moved).float()
        loss = F.cross_entropy(logits, labels, class_weights, label_smoothing=0.1)
        grads: tuple[Tensor, ...] = torch.autograd.grad(loss / parts, weights)
        return grads

    keep_freed_memory()
    with parts_on_threads(parts) as parallel:
        for _ in progress(range(steps), images_per_step=batch):
            if len(order) < batch:
                order = torch.randperm(len(labels), generator=random)
            rows, order = order[:batch], order[batch:]
            batch_images = take_rows(images, rows.to(images.device), device)
            moves = torch.rand(batch, 4, generator=random).mul_(2).sub_(1).to(device)
            chunks = (
                values.chunk(parts) for values in (batch_images, labels[rows.to(device)], moves)
            )
            parts_of_batch = zip(judges, *chunks, strict=True)
            set_gradients(weights, parallel(gradients, parts_of_batch))
            optimizer.step()
            schedule.step()
    if not all(bool(weight.isfinite().all()) for weight in weights):
        raise TrainingError(
            "the judge's training diverged: some of its weights are not finite. Look at the images."
        )
    judge.recipe = params
    return judge.eval().requires_grad_(False)


def _augmented(images: Tensor, moves: Tensor) -> Tensor:
    """Turn, zoom and shift each image by its row of `moves` [N, 4] in [-1, 1]; outside is -1 (black)."""
    n, _, height, width = images.shape
    turn = moves[:, 0] * MAX_TRAINING_TURN
    zoom = 1 + moves[:, 1] * MAX_TRAINING_ZOOM
    shift_x = moves[:, 2] * 2 * MAX_TRAINING_SHIFT / width
    shift_y = moves[:, 3] * 2 * MAX_TRAINING_SHIFT / height
    cos, sin = turn.cos() * zoom, turn.sin() * zoom
    # The rows of the matrix, in the grid's units, in which each side is 2 long, whatever the shape.
    rows = [cos, -sin * (height / width), shift_x, sin * (width / height), cos, shift_y]
    theta = torch.stack(rows, dim=1).view(n, 2, 3)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images + 1, grid, align_corners=False) - 1


def save_judge(path: Path | str, judge: Judge, facts: Facts) -> None:
    save_tensors(path, "judge", judge.state_dict(), {"architecture": judge.facts, **facts})


def load_judge(path: Path | str) -> tuple[Judge, Facts]:
    """A judge in eval mode on the CPU, and its file's facts: their `digest` names it in contexts."""
    judge, facts = load_network(path, "judge", _judge_of)
    if "params" in facts:
        names = JudgeParams.model_fields
        judge.recipe = JudgeParams(**{name: facts["params"][name] for name in names})
    return judge, facts


def _judge_of(facts: Facts, tensors: NamedTensors) -> Judge:
    if facts["version"] != NETWORK_VERSION:
        raise ValueError(f"expected version {NETWORK_VERSION}, found version {facts['version']}")
    return with_weights(lambda: Judge(facts["classes"], facts["channels"], facts["width"]), tensors)
