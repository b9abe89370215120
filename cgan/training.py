"""Training: the state, the two steps, the loop.

Everything that a step needs and that is random (batch, latents) or scheduled (learning rate, weight
of the average) is a function of the seed and the step alone. So a checkpoint holds no RNG state, a
resumed training is the uninterrupted one, and a step has no host work in it.
"""

from __future__ import annotations

import copy
import functools
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from cgan.checkpoint import Checkpoints, digest_of
from cgan.dataset import Dataset
from cgan.errors import ParamsError, TrainingError
from cgan.files import write_bytes
from cgan.hardware import Hardware, choose_hardware
from cgan.losses import (
    decision_threshold,
    discriminator_fake_loss,
    discriminator_real_loss,
    generator_loss,
    r1_penalty,
)
from cgan.networks import (
    Architecture,
    Discriminator,
    Generator,
    build_discriminator,
    build_generator,
)
from cgan.parallel import (
    Map,
    keep_freed_memory,
    parts_on_threads,
    set_gradients,
    sharing_weights,
)
from cgan.params import TrainParams
from cgan.sampling import encode_png, image_grid, to_uint8
from cgan.tracking import NullTracker, Tracker
from cgan.watch import Watch, discriminator_wins

log = logging.getLogger(__name__)

STATS = (
    "loss/discriminator",
    "loss/generator",
    "logits/real_mean",
    "logits/fake_mean",
    "accuracy/discriminator_real",
    "accuracy/discriminator_fake",
)
COLUMNS = ("step", "progress/kimg", "progress/learning_rate", *STATS)
PREVIEW_ROWS = 8
Optimizer = torch.optim.Adam | torch.optim.Adadelta


class Interrupted(Exception):  # noqa: N818 - no fault: somebody asked the training to stop
    """The training stopped as asked, with a checkpoint saved. It goes on when it is started again."""


class Feed:
    """Batches by index from images that live on the device, with latents and schedules.

    `next()` gives step after step; `seek(step)` goes anywhere. One call of `_fill` prepares `chunk`
    steps; within them the position is a tensor on the device, so that a captured CUDA graph can move.
    """

    def __init__(
        self, data: Dataset, params: TrainParams, device: torch.device, chunk: int
    ) -> None:
        if params.batch_size > len(data.labels):
            raise ParamsError(
                f"params.yaml: `train.batch_size` is {params.batch_size}, and the training part has "
                f"{len(data.labels)} images. Make it smaller."
            )
        self.params, self.chunk = params, chunk
        self.images, self.labels = data.images.to(device), data.labels.to(device)
        # One tensor per quantity, refilled in place: a CUDA graph remembers the addresses.
        self.rows = torch.zeros(chunk, params.batch_size, dtype=torch.int64, device=device)
        self.latents = torch.zeros(chunk, params.batch_size, params.latent_dim, device=device)
        self.schedule = torch.zeros(chunk, 2, device=device)
        self.position = torch.zeros(1, dtype=torch.int64, device=device)
        self._loaded = -1
        self._epoch, self._order = -1, torch.empty(0, dtype=torch.int64)

    def seek(self, step: int) -> None:
        """The next batch is the one of `step` (counted from 0)."""
        if step // self.chunk != self._loaded:
            self._fill(step // self.chunk)
        self.position.fill_(step % self.chunk)

    def next(self) -> tuple[Tensor, Tensor, Tensor]:
        """→ (real float32 [B, C, H, W] in [-1, 1], labels int64 [B], latents [B, latent_dim])."""
        rows = self.rows.index_select(0, self.position).squeeze(0)
        latents = self.latents.index_select(0, self.position).squeeze(0)
        real = self.images.index_select(0, rows).float().mul_(2 / 255).sub_(1)
        return real, self.labels.index_select(0, rows), latents

    def advance(self) -> tuple[Tensor, Tensor]:
        """→ (learning rate, weight of the new generator in the average) of this step; go on."""
        rate, weight = self.schedule.index_select(0, self.position).squeeze(0).unbind()
        self.position += 1
        return rate, weight

    def _fill(self, chunk: int) -> None:
        first, p = chunk * self.chunk, self.params
        steps = range(first, first + self.chunk)
        generator = torch.Generator().manual_seed(p.seed * 1_000_003 + chunk)
        self.latents.copy_(torch.randn(self.latents.shape, generator=generator))
        self.rows.copy_(torch.stack([self._batch(step) for step in steps]))
        self.schedule.copy_(
            torch.tensor([[learning_rate(p, s), average_weight(p, s)] for s in steps])
        )
        self._loaded = chunk

    def _batch(self, step: int) -> Tensor:
        size = self.params.batch_size
        epoch, batch = divmod(step, len(self.labels) // size)
        if epoch != self._epoch:
            generator = torch.Generator().manual_seed(self.params.seed * 1_000_033 + epoch)
            self._epoch = epoch
            self._order = torch.randperm(len(self.labels), generator=generator)
        return self._order[batch * size : (batch + 1) * size]


def learning_rate(params: TrainParams, step: int) -> float:
    """Constant up to `decay_from`, then linear to `final_lr_fraction` at the last step."""
    done = (step + 1) / params.total_steps
    late = max(0.0, done - params.decay_from) / max(1e-9, 1 - params.decay_from)
    return params.lr * (1 - late * (1 - params.final_lr_fraction))


def average_weight(params: TrainParams, step: int) -> float:
    """Weight of the newest generator in the average: short-sighted at first, then by half-life."""
    if params.ema_half_life_kimg == 0:
        return 1.0
    decay: float = 0.5 ** (params.batch_size / 1000 / params.ema_half_life_kimg)
    return 1 - min(decay, (1 + step) / (10 + step))


@dataclass
class Part:
    """A part of a batch, with networks that share the weights and have batch-norm state of their own."""

    generator: Generator
    discriminator: Discriminator
    real: Tensor
    labels: Tensor
    latents: Tensor
    penalise: bool = False
    fakes: Tensor = field(init=False)
    loss: Tensor = field(init=False)
    real_scores: Tensor = field(init=False)
    fake_scores: Tensor = field(init=False)
    generator_loss: Tensor = field(init=False)

    def note(self, loss: Tensor, real_scores: Tensor, fake_scores: Tensor) -> None:
        self.loss = loss.detach()
        self.real_scores, self.fake_scores = real_scores.detach(), fake_scores.detach()

    def stats(self, objective: str) -> Tensor:
        """In the order of STATS."""
        threshold, real, fake = decision_threshold(objective), self.real_scores, self.fake_scores
        return torch.stack(
            [
                self.loss,
                self.generator_loss.detach(),
                real.mean(),
                fake.mean(),
                (real > threshold).float().mean(),
                (fake <= threshold).float().mean(),
            ]
        )


class TrainState:
    """Both networks, the averaged generator, both optimizers, and what was recorded so far."""

    def __init__(self, data: Dataset, params: TrainParams, hardware: Hardware) -> None:
        _, channels, height, width = data.images.shape
        image = {"channels": channels, "height": height, "width": width, "classes": data.classes}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(params.seed)
            generator = build_generator(
                Architecture(
                    kind=params.generator,
                    features=params.generator_width,
                    latent_dim=params.latent_dim,
                    **image,
                )
            )
            discriminator = build_discriminator(
                Architecture(
                    kind=params.discriminator, features=params.discriminator_width, **image
                )
            )
        self.params, self.hardware = params, hardware
        self.generator: Generator = generator.to(hardware.device).train()
        self.discriminator: Discriminator = discriminator.to(hardware.device).train()
        self.average: Generator = copy.deepcopy(self.generator).eval().requires_grad_(False)
        self.generator_optimizer = self._optimizer(self.generator)
        self.discriminator_optimizer = self._optimizer(self.discriminator)
        # On CUDA one stream computes all of a batch faster than its parts.
        self.parts = params.cpu_parts if hardware.device.type == "cpu" else 1
        self.networks = [(self.generator, self.discriminator)] + [
            (sharing_weights(self.generator), sharing_weights(self.discriminator))
            for _ in range(1, self.parts)
        ]
        self.map: Map = map
        self.step = 0
        self.stats = torch.zeros(params.log_every, len(STATS), device=hardware.device)
        self.history: list[list[float]] = []
        self._pairs = [
            [t for t in net.state_dict().values() if t.is_floating_point()]
            for net in (self.average, self.generator)
        ]

    def _optimizer(self, network: nn.Module) -> Optimizer:
        p = self.params
        weights = [w for w in network.parameters() if w.requires_grad]
        # A tensor, so that the rate can change inside a captured graph.
        rate = torch.tensor(p.lr, device=self.hardware.device)
        if p.optimizer == "adam":
            betas = (p.adam_beta1, p.adam_beta2)
            on_cuda = self.hardware.device.type == "cuda"
            return torch.optim.Adam(weights, rate, betas, fused=True, capturable=on_cuda)
        capturable = self.hardware.device.type == "cuda"
        return torch.optim.Adadelta(
            weights, lr=p.lr, rho=p.adadelta_rho, eps=p.adadelta_eps, capturable=capturable
        )

    def split(self, real: Tensor, labels: Tensor, latents: Tensor) -> list[Part]:
        """A batch → its parts, each with networks that share the weights."""
        pieces = zip(*(tensor.chunk(self.parts) for tensor in (real, labels, latents)), strict=True)
        return [
            Part(*networks, *piece) for networks, piece in zip(self.networks, pieces, strict=True)
        ]

    def update(
        self, optimizer: Optimizer, loss: Callable[[TrainState, Part], Tensor], parts: list[Part]
    ) -> None:
        """One update on the mean of the parts' losses. Gradients of other weights aren't computed."""
        weights = optimizer.param_groups[0]["params"]

        def gradients(part: Part) -> tuple[Tensor, ...]:
            found: tuple[Tensor, ...] = torch.autograd.grad(loss(self, part) / len(parts), weights)
            return found

        set_gradients(weights, self.map(gradients, parts))
        if self.params.gradient_clip:
            nn.utils.clip_grad_value_(weights, self.params.gradient_clip)
        optimizer.step()

    def set_learning_rate(self, rate: Tensor) -> None:
        for optimizer in (self.generator_optimizer, self.discriminator_optimizer):
            group = optimizer.param_groups[0]
            if isinstance(group["lr"], Tensor):
                group["lr"].copy_(rate)
            else:
                group["lr"] = float(rate)

    @torch.no_grad()
    def update_average(self, weight: Tensor) -> None:
        """average += weight · (generator - average), over weights and batch-norm statistics."""
        average, newest = self._pairs
        change = torch._foreach_sub(newest, average)
        torch._foreach_mul_(change, weight)
        torch._foreach_add_(average, change)

    def tensors(self) -> dict[str, Tensor]:
        """Everything that a resumed training needs, by name."""
        tensors = {"stats": self.stats, "history": torch.tensor(self.history, dtype=torch.float64)}
        for name in ("generator", "discriminator", "average"):
            network: nn.Module = getattr(self, name)
            tensors |= {f"{name}/{key}": value for key, value in network.state_dict().items()}
        for name in ("generator_optimizer", "discriminator_optimizer"):
            optimizer: Optimizer = getattr(self, name)
            for index, weight in enumerate(optimizer.param_groups[0]["params"]):
                for key, value in optimizer.state[weight].items():
                    tensors[f"{name}/{index}/{key}"] = torch.as_tensor(value)
        return tensors

    def digests(self) -> dict[str, str]:
        """sha256 of each part of the state, to compare two trainings bit for bit."""
        tensors = self.tensors()
        networks = ("generator", "discriminator", "average")
        optimizers = ("generator_optimizer", "discriminator_optimizer")
        parts = {name: _below(tensors, f"{name}/") for name in (*networks, *optimizers)}
        parts["history"] = {"history": tensors["history"]}
        return {name: digest_of(part) for name, part in parts.items()}

    def restore(self, step: int, tensors: Mapping[str, Tensor]) -> None:
        """Go back to a checkpoint of a training with the same fingerprint."""
        self.step = step
        self.stats.copy_(tensors["stats"])
        self.history = tensors["history"].tolist()
        for name in ("generator", "discriminator", "average"):
            network: nn.Module = getattr(self, name)
            network.load_state_dict(_below(tensors, f"{name}/"))
        for name in ("generator_optimizer", "discriminator_optimizer"):
            optimizer: Optimizer = getattr(self, name)
            for index, weight in enumerate(optimizer.param_groups[0]["params"]):
                # Fused optimizers walk the memory of weights and moments side by side, so the
                # moments must get the weights' strides (channels-last) back.
                optimizer.state[weight] = {
                    key: torch.empty_like(weight).copy_(value)
                    if value.shape == weight.shape
                    else value.to(weight.device)
                    for key, value in _below(tensors, f"{name}/{index}/").items()
                }


def _below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def draw_fakes(state: TrainState, part: Part) -> Tensor:
    """Fakes [B, C, H, W] float32 in [-1, 1], with the generator's graph behind them."""
    with state.hardware.autocast():
        fakes: Tensor = part.generator(part.latents, part.labels)
    return fakes.float()


def score(
    state: TrainState, part: Part, images: Tensor, labels: Tensor
) -> tuple[Tensor, Tensor | None]:
    with state.hardware.autocast():
        scores: tuple[Tensor, Tensor | None] = part.discriminator(images, labels)
    return scores


def discriminator_loss(state: TrainState, part: Part) -> Tensor:
    """On fakes and reals in one batch: the same to a network without batch norm, and faster."""
    p, labels = state.params, part.labels
    part.real.requires_grad_(part.penalise)
    part.fakes = draw_fakes(state, part)
    scores, class_logits = score(
        state, part, torch.cat([part.fakes.detach(), part.real]), labels.repeat(2)
    )
    fake, real = scores.chunk(2)
    loss = discriminator_fake_loss(p.objective, fake) + discriminator_real_loss(p.objective, real)
    part.note(loss, real, fake)
    if class_logits is not None and p.auxiliary_discriminator:
        of_reals = class_logits.chunk(2)[1]
        loss = loss + p.auxiliary_discriminator * cross_entropy(of_reals, labels)
    if part.penalise:
        loss = loss + p.r1_gamma * p.r1_every * r1_penalty(real, part.real)
    return loss


def loss_on_fakes(state: TrainState, part: Part) -> Tensor:
    """The first of the demo's two discriminator updates."""
    part.fakes = draw_fakes(state, part)
    fake, _ = score(state, part, part.fakes.detach(), part.labels)
    loss = discriminator_fake_loss(state.params.objective, fake)
    part.note(loss, fake, fake)
    return loss


def loss_on_reals(state: TrainState, part: Part) -> Tensor:
    """The second one."""
    p = state.params
    part.real.requires_grad_(part.penalise)
    real, class_logits = score(state, part, part.real, part.labels)
    loss = discriminator_real_loss(p.objective, real)
    part.note(part.loss + loss, real, part.fake_scores)
    if class_logits is not None and p.auxiliary_discriminator:
        loss = loss + p.auxiliary_discriminator * cross_entropy(class_logits, part.labels)
    if part.penalise:
        loss = loss + p.r1_gamma * p.r1_every * r1_penalty(real, part.real)
    return loss


def generator_loss_of(state: TrainState, part: Part) -> Tensor:
    """Through the updated discriminator, on the same fakes."""
    p = state.params
    scores, class_logits = score(state, part, part.fakes, part.labels)
    loss = part.generator_loss = generator_loss(p.objective, scores)
    if class_logits is not None and p.auxiliary_generator:
        loss = loss + p.auxiliary_generator * cross_entropy(class_logits, part.labels)
    return loss


def discriminator_step(state: TrainState, parts: list[Part]) -> None:
    joint = state.params.discriminator_batch == "joint"
    for loss in (discriminator_loss,) if joint else (loss_on_fakes, loss_on_reals):
        state.update(state.discriminator_optimizer, loss, parts)


def generator_step(state: TrainState, parts: list[Part]) -> None:
    state.update(state.generator_optimizer, generator_loss_of, parts)


def train_step(state: TrainState, feed: Feed, penalise: bool) -> None:
    """One update of each network. No host sync, no allocation that a CUDA graph could not replay."""
    position = feed.position.clone()
    parts = state.split(*feed.next())
    for part in parts:
        part.penalise = penalise
    rate, weight = feed.advance()
    state.set_learning_rate(rate)
    discriminator_step(state, parts)
    generator_step(state, parts)
    state.update_average(weight)
    row = torch.stack([part.stats(state.params.objective) for part in parts]).mean(dim=0)
    state.stats.index_copy_(0, position, row[None])


@dataclass
class Trained:
    """What a training leaves: networks in eval mode on the CPU, records and previews."""

    generator: Generator
    discriminator: Discriminator
    history: list[list[float]]
    previews: dict[int, bytes] = field(default_factory=dict)
    wall_time_s: float = 0.0
    resumed_from: int = 0
    digests: dict[str, str] = field(default_factory=dict)
    """Of the last step's state: see TrainState.digests."""


def train(
    data: Dataset,
    params: TrainParams,
    tracker: Tracker | None = None,
    folder: Path | None = None,
    progress: Callable[[range], Iterator[int]] = iter,
    stopping: Callable[[], bool] = lambda: False,
    watch: Watch | None = None,
) -> Trained:
    """Train a conditional GAN on `data` (uint8 images, int64 labels).

    `folder` holds checkpoints and previews; a training that finds one there goes on from it, and
    without a folder it keeps none. `stopping` is asked after every step; `watch` probes quality.

    Raises Interrupted when `stopping` says so (after a checkpoint), ParamsError when params and data
    don't fit, and Diverged when a loss is no number, the discriminator wins for good or a class
    collapses; nothing of the interval that showed it is saved.
    """
    tracker = tracker or NullTracker()
    hardware = choose_hardware(params.device, params.precision)
    torch.use_deterministic_algorithms(True)
    state = TrainState(data, params, hardware)
    feed = Feed(data, params, hardware.device, params.log_every)
    checkpoints = Checkpoints(folder) if folder else None
    found = checkpoints.load() if checkpoints else None
    if found:
        state.restore(*found)
        log.info("Resuming at step %d of %d.", state.step, params.total_steps)
    previewer = Previewer(state, folder)
    probe_steps = spread_steps(params.probes, params.total_steps)
    run_step = stepper(state, feed)
    keep_freed_memory()
    start, started = state.step, time.perf_counter()
    with parts_on_threads(state.parts) as state.map:
        for index in progress(range(start, params.total_steps)):
            if index == start or index % params.log_every == 0:
                feed.seek(index)
            run_step(params.r1_gamma > 0 and index % params.r1_every == 0)
            step = state.step = index + 1
            last, stop = step == params.total_steps, stopping()
            if step % params.log_every == 0 or last:
                tracker.log_metrics(
                    record(state, time.perf_counter() - started, step - start), step
                )
                check_balance(state)
            if step in previewer.steps:
                check_finite(state)
                tracker.log_image("preview", previewer.take(step), step)
            if watch and step in probe_steps:
                check_finite(state)
                tracker.log_metrics(probe(state, watch), step)
            if checkpoints and (step % params.save_every == 0 or stop) and not last:
                check_finite(state)
                checkpoints.save(step, state.tensors())
            if stop and not last:
                saved = "the checkpoint is saved" if checkpoints else "nothing is kept"
                raise Interrupted(f"stopped at step {step} of {params.total_steps}; {saved}")
        wall_time_s = time.perf_counter() - started
        digests = state.digests()  # before it changes
        estimate_batch_norm(state.average, params.seed)
    return Trained(
        state.average.cpu(),
        state.discriminator.cpu().eval().requires_grad_(False),
        state.history,
        previewer.taken(),
        wall_time_s,
        start,
        digests,
    )


def stepper(state: TrainState, feed: Feed) -> Callable[[bool], None]:
    """`train_step` as the hardware runs it best: as captured CUDA graphs, or plainly."""
    plain = functools.partial(train_step, state, feed)
    # Adadelta takes its rate as a number of the host's, which a graph would freeze.
    if state.hardware.device.type != "cuda" or state.params.optimizer != "adam":
        return plain
    return Graphs(plain, state.hardware.device)


class Graphs:
    """A step as one CUDA graph a variant: its 200 kernels are launched at once, not one by one.

    The first calls of a variant run plainly on a side stream (they are steps like any other, and
    warm up what a capture must not do), the next one captures; from then on the graph is replayed.
    """

    WARM_UP = 3

    def __init__(self, step: Callable[[bool], None], device: torch.device) -> None:
        self.step, self.stream = step, torch.cuda.Stream(device)
        self.calls = {True: 0, False: 0}
        self.graphs: dict[bool, torch.cuda.CUDAGraph] = {}

    def __call__(self, penalise: bool) -> None:
        if penalise in self.graphs:
            self.graphs[penalise].replay()
            return
        if self.calls[penalise] < self.WARM_UP:
            self.calls[penalise] += 1
            self.stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self.stream):
                self.step(penalise)
            torch.cuda.current_stream().wait_stream(self.stream)
            return
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self.step(penalise)  # recorded, not run
        self.graphs[penalise] = graph
        graph.replay()


class Diverged(TrainingError):  # noqa: N818 - reads like what happened
    """The training went wrong by itself. `step` is where it was seen."""

    def __init__(self, step: int, what: str, advice: str) -> None:
        super().__init__(
            f"training stopped at step {step}: {what}. The last good checkpoint is kept, nothing was "
            f"saved after it. {advice}"
        )
        self.step = step


def check_finite(state: TrainState) -> None:
    """Raise Diverged when one of the recent losses, or a weight, is NaN or infinite.

    The weights too: a loss is taken before the update, and a generator that overflows in the last
    one shows it a step later.
    """
    advice = "Lower `train.lr`, raise `train.r1_gamma`, or set `train.precision` to `float32`."
    done = (state.step - 1) % state.params.log_every + 1
    bad = (~state.stats[:done].isfinite().all(dim=1)).nonzero()
    if len(bad):
        raise Diverged(
            state.step - done + int(bad[0]) + 1,
            "a loss is not a finite number",
            advice,
        )
    weights = [*state.generator.parameters(), *state.discriminator.parameters()]
    if not torch.stack([weight.isfinite().all() for weight in weights]).all():
        raise Diverged(state.step, "a weight is not a finite number", advice)


def check_balance(state: TrainState) -> None:
    """Raise Diverged when the discriminator has won for good."""
    column = COLUMNS.index("accuracy/discriminator_real")
    accuracies = [(row[column], row[column + 1]) for row in state.history]
    if problem := discriminator_wins(accuracies, state.step):
        advice = "Lower `train.lr`, raise `train.r1_gamma`, or look at the data: `cgan validate`."
        raise Diverged(state.step, problem, advice)


def probe(state: TrainState, watch: Watch) -> dict[str, float]:
    """Quality of the averaged generator now. Raises Diverged when a class has collapsed."""
    found = watch.probe(state.average)
    if problem := watch.collapse(found, state.step):
        advice = "Lower `train.lr` or `train.auxiliary_generator`, or raise `train.r1_gamma`."
        raise Diverged(state.step, problem, advice)
    return found


def spread_steps(count: int, total_steps: int) -> set[int]:
    """`count` steps at equal distances, the last one included."""
    return {round(total_steps * (n + 1) / count) for n in range(count)}


def record(state: TrainState, seconds: float, steps: int) -> dict[str, float]:
    """Means over the interval that ends at `state.step`: the one host sync of the loop."""
    check_finite(state)
    p, step = state.params, state.step
    done = (step - 1) % p.log_every + 1
    means = state.stats[:done].double().mean(dim=0).tolist()
    values = [step, step * p.batch_size / 1000, learning_rate(p, step - 1), *means]
    state.history.append(values)
    rate = steps * p.batch_size / max(seconds, 1e-9)
    return dict(zip(COLUMNS[1:], values[1:], strict=True)) | {"progress/images_per_s": rate}


def preview_steps(count: int, total_steps: int) -> list[int]:
    """Steps 1 and 200, then ever further apart, up to the last step; at most `count` of them."""
    first = [step for step in (1, 200) if step <= total_steps][:count]
    if count > len(first):
        rest = np.geomspace(first[-1], total_steps, count - len(first) + 1)[1:]
        first += [round(step) for step in rest]
    return sorted(set(first))


class Previewer:
    """Pictures of fixed latents × classes, drawn by the averaged generator during training.

    They are kept as files beside the checkpoints, so that a resumed training still has them all.
    """

    def __init__(self, state: TrainState, folder: Path | None) -> None:
        p, classes = state.params, state.generator.architecture.classes
        self.state, self.folder = state, folder / "previews" if folder else None
        self.steps = set(preview_steps(p.previews, p.total_steps))
        generator = torch.Generator().manual_seed(p.seed)
        latents = torch.randn(PREVIEW_ROWS, p.latent_dim, generator=generator)
        device = state.hardware.device
        self.latents = latents.repeat_interleave(classes, dim=0).to(device)
        self.labels = torch.arange(classes, device=device).repeat(PREVIEW_ROWS)
        self._taken: dict[int, bytes] = {}

    @torch.no_grad()
    def take(self, step: int) -> NDArray[np.uint8]:
        """Draw → uint8 [H, W] or [H, W, 3]: one row a latent, one column a class."""
        images = to_uint8(self.state.average(self.latents, self.labels))
        grid = image_grid(images.unflatten(0, (PREVIEW_ROWS, -1)))
        self._taken[step] = encode_png(grid)
        if self.folder:
            write_bytes(self.folder / f"step-{step:06d}.png", self._taken[step])
        return grid

    def taken(self) -> dict[int, bytes]:
        """Step → PNG, those of an earlier, interrupted process included."""
        files = sorted(self.folder.glob("step-*.png")) if self.folder else []
        kept = {int(path.stem.removeprefix("step-")): path.read_bytes() for path in files}
        return {
            step: png for step, png in sorted((kept | self._taken).items()) if step in self.steps
        }


@torch.no_grad()
def estimate_batch_norm(
    generator: Generator, seed: int, batches: int = 40, size: int = 256
) -> None:
    """Give the averaged generator batch-norm statistics of its own: averaged weights never saw any.

    Cumulative over `batches` × `size` drawings with balanced labels.
    """
    norms = [module for module in generator.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # cumulative mean
    device = next(generator.parameters()).device
    random = torch.Generator().manual_seed(seed)
    labels = (torch.arange(size) % generator.architecture.classes).to(device)
    generator.train()
    for _ in range(batches):
        latents = torch.randn(size, generator.architecture.latent_dim, generator=random)
        generator(latents.to(device), labels)
    generator.eval()
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
