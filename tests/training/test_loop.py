"""The training loop on tiny networks: its batches, each step by hand, records, resuming, divergence."""

import functools
import io
import itertools
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from conftest import CPU, DATA, Recorded, digest, params_of, plain, stop_after, straight, uneven
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from cgan.base.errors import ModelError, TrainingError
from cgan.data.images import Images
from cgan.models.hardware import Hardware, choose_hardware
from cgan.models.networks import Architecture, build_generator
from cgan.params.sections import TrainParams
from cgan.quality.judge import Judge
from cgan.training import loop, update
from cgan.training.batches import Batch, Feed, ema_weight, learning_rate
from cgan.training.loop import Divergence, train
from cgan.training.monitoring import ProbeMonitor, preview_steps
from cgan.training.state import (
    HISTORY_COLUMNS,
    TrainState,
    estimate_batch_norm,
    load_checkpoint,
    proportional_labels,
    save_checkpoint,
)

DEMO_DATA = plain(uneven(height=28, width=28))
NUMBERS = torch.arange(36)
NUMBERED = Images(NUMBERS.byte().view(-1, 1, 1, 1).repeat(1, 1, 8, 8), NUMBERS % 3)


def data_for(params: TrainParams) -> Images:
    return DEMO_DATA if params.is_demo else DATA


def monitor_of(data: Images) -> ProbeMonitor:
    torch.manual_seed(0)
    return ProbeMonitor(Judge(3, 1, 4).eval(), data, 1)


@pytest.fixture(scope="module", autouse=True)
def few_batches() -> Iterator[None]:
    """Forty batches for the statistics of batch norm would be half of each training here."""
    with pytest.MonkeyPatch.context() as patch:
        few = functools.partial(estimate_batch_norm, batches=2)
        patch.setattr(loop, "estimate_batch_norm", few)
        yield


# -- The feed and the schedules ---------------------------------------------------------------------


def batches(params: TrainParams, steps: range, data: Images = DATA) -> list[Batch]:
    feed = Feed(data, params, CPU.device)
    return [feed.batch(step) for step in steps]


def test_an_epoch_shows_each_image_at_most_once() -> None:
    seen, latents = list[int](), set[bytes]()
    for batch in batches(params_of(), range(8), NUMBERED):  # two epochs of four batches of eight
        numbers = batch.real.add(1).mul(127.5).amax(dim=(1, 2, 3)).round().long()
        assert torch.equal(batch.labels, numbers % 3)
        seen += numbers.tolist()
        latents |= {latent.numpy().tobytes() for latent in batch.latents}
    first, second = seen[:32], seen[32:]
    assert len(set(first)) == len(set(second)) == 32 and first != second
    assert len(latents) == 64, "no latent comes twice"


@pytest.mark.parametrize("max_shift", [0, 2])
def test_a_batch_depends_on_seed_and_step_alone(max_shift: int) -> None:
    params = params_of(max_shift=max_shift)
    whole = batches(params, range(9))
    for start in (1, 4, 7):
        resumed = batches(params, range(start, 9))
        torch.testing.assert_close(resumed, whole[start:], rtol=0, atol=0)
    # Two seeds share no step's latents and no epoch's order, at whatever steps these are.
    seeds = (params_of(max_shift=max_shift, seed=seed) for seed in range(1, 5))
    several = [batch for each in seeds for batch in batches(each, range(16))]
    for tensors in ([each.real for each in several], [each.latents for each in several]):
        assert len({tensor.numpy().tobytes() for tensor in tensors}) == 64


def test_shifts_move_reals_and_fakes_each_by_its_own() -> None:
    plain, shifted = (batches(params_of(max_shift=n), range(9)) for n in (0, 2))
    moves, ways = set[tuple[int, ...]](), list(itertools.product(range(-2, 3), repeat=2))
    for before, after in zip(plain, shifted, strict=True):
        assert before.fake_shifts is None and after.fake_shifts is not None
        assert torch.equal(before.labels, after.labels)
        assert torch.equal(before.latents, after.latents)
        assert after.fake_shifts.shape == (8, 2) and after.fake_shifts.abs().max() <= 2
        for was, now in zip(before.real, after.real, strict=True):
            (move,) = (by for by in ways if torch.equal(was.roll(by, (1, 2)), now))
            moves.add(move)
    assert len(moves) > 15


def test_rates_and_averages_follow_their_schedules() -> None:
    params = params_of(lr=2.0, decay_from=0.5)  # 10 steps
    rates = [learning_rate(params, step) for step in range(10)]
    assert rates == pytest.approx([2.0] * 5 + [1.608, 1.216, 0.824, 0.432, 0.04])
    constant = params_of(lr=2.0, decay_from=1.0)
    assert [learning_rate(constant, step) for step in range(10)] == pytest.approx([2.0] * 10)
    params = params_of(ema_half_life_kimg=0.8)  # 100 steps of 8 images
    late = range(10_000, 10_100)
    kept = np.prod([1 - ema_weight(params, step) for step in late])
    assert kept == pytest.approx(0.5, rel=1e-6)
    assert ema_weight(params, 0) == pytest.approx(0.9), "short-sighted at the start"
    assert ema_weight(params_of(ema_half_life_kimg=0.0), 5) == 1.0


def inputs_of(layer: nn.Module) -> list[Tensor]:
    """What it is given from now on."""
    given = list[Tensor]()
    layer.register_forward_pre_hook(lambda _, inputs: given.append(inputs[0]))
    return given


def test_estimated_statistics_are_means_over_all_batches() -> None:
    generator = build_generator(Architecture("deconv", 3, 1, 8, 8, 4, 4)).eval()
    norm = generator.layers[0]
    conditions, given = inputs_of(generator.linear), inputs_of(norm)
    estimate_batch_norm(generator, torch.tensor([70, 20, 30]), seed=1, batches=5, size=60)
    means = torch.stack([maps.mean(dim=(0, 2, 3)) for maps in given])
    variances = torch.stack([maps.var(dim=(0, 2, 3)) for maps in given])
    assert torch.allclose(norm.get_buffer("running_mean"), means.mean(dim=0), atol=1e-6)
    assert torch.allclose(norm.get_buffer("running_var"), variances.mean(dim=0), atol=1e-6)
    assert all(condition[:, 4:].sum(dim=0).tolist() == [35, 10, 15] for condition in conditions)
    latents = torch.cat([condition[:, :4] for condition in conditions])
    assert len({tuple(latent.tolist()) for latent in latents}) == 5 * 60


def test_statistics_are_of_every_class_in_small_batches_too() -> None:
    generator = build_generator(Architecture("deconv", 300, 1, 8, 8, 4, 4)).eval()
    conditions = inputs_of(generator.linear)
    estimate_batch_norm(generator, torch.full((300,), 40), seed=1, size=64)
    seen = torch.stack(conditions)[:, :, 4:]
    torch.testing.assert_close(seen.mean(dim=(0, 1)), torch.full((300,), 1 / 300), rtol=0.1, atol=0)
    assert len(seen.argmax(dim=2).unique(dim=0)) == len(seen) == 40


def test_labels_of_equal_counts_come_in_turn() -> None:
    """The sample's generator has the bytes that it has because of the first."""
    for count, size in ((450, 256), (7, 23)):
        labels = proportional_labels(torch.full((10,), count), size)
        assert torch.equal(labels, torch.arange(size) % 10)
    assert proportional_labels(torch.tensor([1, 0, 2]), 6).tolist() == [2, 0, 2, 2, 0, 2]
    assert proportional_labels(torch.tensor([5, 2]), 3).tolist() == [0, 1, 0]


# -- Whole trainings --------------------------------------------------------------------------------


def test_equal_seeds_train_equal_networks() -> None:
    data, threads = plain(uneven(height=16, width=16)), torch.get_num_threads()
    params = params_of(generator_width=8, total_kimg=0.032, batch_size=16)
    first = digest(train(data, params))
    torch.manual_seed(99)  # a state that no training before this one can have left
    before, others = torch.get_rng_state(), 3 if threads == 1 else 1
    try:
        torch.set_num_threads(others)
        assert digest(train(data, params)) == first
        assert torch.get_num_threads() == others, "left as it was"
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.are_deterministic_algorithms_enabled(), "other code computes as before"
    assert straight(params_of()) != straight(params_of(seed=2))


@pytest.mark.parametrize(
    ("changes", "stops"),
    [
        ({"max_shift": 3}, [3, 4, 1]),
        ({"generator": "upsample", "updates": "two_passes"}, [3, 2]),
        ({"generator": "demo", "lr": 1.0, "probes": 0}, [5]),
    ],
)
def test_a_resumed_training_equals_an_uninterrupted_one(
    tmp_path: Path, changes: dict[str, Any], stops: list[int]
) -> None:
    params, done = params_of(**{"probes": 4, **changes}), 0
    data, whole, in_parts = data_for(params), Recorded(), Recorded()
    uninterrupted = train(data, params, whole.log, monitor=monitor_of(data))
    for stop in stops:
        options: dict[str, Any] = {"should_stop": stop_after(stop), "monitor": monitor_of(data)}
        done += stop
        assert train(data, params, in_parts.log, tmp_path, **options).step == done
    resumed = train(data, params, in_parts.log, tmp_path, monitor=monitor_of(data))
    assert resumed.resumed_from == done
    assert digest(resumed) == digest(uninterrupted)
    assert resumed.probes == uninterrupted.probes
    for _, logged in [*whole, *in_parts]:
        logged.pop("progress/images_per_s", None)
    assert in_parts == whole


def test_records_checkpoints_and_previews_come_at_their_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = functools.partial(next, itertools.count())  # one from record to record
    monkeypatch.setattr(loop, "time", SimpleNamespace(perf_counter=seconds))
    recorded, params = Recorded(), params_of(total_kimg=0.072)  # 9 steps
    trained = train(DATA, params, recorded.log, tmp_path)
    assert [step for step, _ in recorded] == [2, 4, 6, 8, 9]
    kept = sorted(path.name for path in tmp_path.glob("step-*"))
    assert kept == ["step-000000009.safetensors"]
    for (step, logged), row in zip(recorded, trained.history, strict=True):
        assert tuple(row) == HISTORY_COLUMNS
        assert list(logged) == [*HISTORY_COLUMNS[1:], "progress/images_per_s"]
        assert row == {"step": step, **{name: logged[name] for name in HISTORY_COLUMNS[1:]}}
        assert logged["progress/kimg"] == step * 8 / 1000
        assert logged["progress/learning_rate"] == learning_rate(params, step - 1)
    rates = [logged["progress/images_per_s"] for _, logged in recorded]
    assert rates == [16, 16, 16, 16, 9 * 8 / 5]
    first, last = (np.asarray(Image.open(io.BytesIO(trained.previews[n]))) for n in (0, 9))
    drawn = 8 * 13 + 1  # beside the names, eight of a class
    assert len(first) == 3 * 9 + 1 and not np.array_equal(first[:, -drawn:], last[:, -drawn:])


def test_preview_steps_are_0_and_200_and_then_ever_further_apart() -> None:
    assert (preview_steps(1, 100), preview_steps(5, 1)) == ({0}, {0, 1})
    assert preview_steps(2, 900) == preview_steps(3, 200) == {0, 200}
    many = sorted(preview_steps(12, 2500))
    assert many[:2] == [0, 200] and many[-1] == 2500 and len(many) == 12
    assert (np.diff(np.diff(many[1:])) > 0).all()


def test_the_newest_checkpoint_is_kept_and_found(tmp_path: Path) -> None:
    """As numbers, 10 comes after 9; what a kill left beside it is not looked at."""
    folder = tmp_path / "new"
    assert load_checkpoint(folder) is None
    for step in (2, 9, 10):
        save_checkpoint(folder, step, {"w": torch.full((3,), float(step))})
    (folder / "step-000000009.safetensors").write_bytes(b"as if the removal was killed")
    (folder / ".step-000000011.safetensors.abc.tmp").write_bytes(b"half")
    found = load_checkpoint(folder)
    assert found and found[0] == 10 and found[1]["w"].tolist() == [10.0] * 3
    newest = folder / "step-000000010.safetensors"
    newest.write_bytes(newest.read_bytes()[:-1])
    with pytest.raises(ModelError, match=newest.name):
        load_checkpoint(folder)


# -- Divergence -------------------------------------------------------------------------------------


def diverging(**changes: Any) -> TrainParams:
    """With a rate that params.yaml does not take."""
    return params_of(**changes).model_copy(update={"lr": 1e30})


def test_divergence_stops_before_its_interval_is_saved(tmp_path: Path) -> None:
    train(DATA, params_of(), folder=tmp_path, should_stop=stop_after(4))
    kept = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    recorded = Recorded()
    with pytest.raises(TrainingError, match=r"step 6: a loss"):
        train(DATA, diverging(probes=5), recorded.log, tmp_path, monitor=monitor_of(DATA))
    assert recorded == []
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == kept
    anew = tmp_path / "anew"
    with pytest.raises(Divergence, match="step 2: a loss"):
        train(DATA, diverging(), folder=anew, should_stop=stop_after(3))
    assert [path.name for path in anew.rglob("step-*")] == ["step-000000.png"]


@pytest.mark.parametrize(
    ("network", "value"), [("generator", float("nan")), ("discriminator", float("inf"))]
)
def test_a_weight_that_is_no_number_stops_the_training(network: str, value: float) -> None:
    state = TrainState(DATA, params_of(), CPU)
    state.step = 2
    loop.check_finite(state)
    with torch.no_grad():
        next(getattr(state, network).parameters()).view(-1)[3] = value
    with pytest.raises(Divergence, match="step 2: a weight"):
        loop.check_finite(state)


# -- Every variant ----------------------------------------------------------------------------------

SHORT = {"total_kimg": 0.04}  # 5 steps


@functools.cache
def by_hand(params: TrainParams) -> dict[str, Tensor]:
    """All weights of each network in a row, after a training in plain PyTorch.

    Taken from the product: first weights, batches, schedules and losses, which have tests of their own.
    """
    state = TrainState(data_for(params), params, CPU)
    feed = Feed(data_for(params), params, CPU.device)
    generator, discriminator = state.generator, state.discriminator
    objective = update.LEAST_SQUARES if params.is_demo else update.LOGISTIC
    average = weights_of(generator)
    optimizers: dict[nn.Module, torch.optim.Optimizer] = {}
    for network in (generator, discriminator):
        weights = [weight for weight in network.parameters() if weight.requires_grad]
        if params.is_demo:
            optimizers[network] = torch.optim.Adadelta(weights, rho=0.92, eps=1e-6)
        else:
            optimizers[network] = torch.optim.Adam(weights, betas=(params.adam_beta1, 0.95))

    def learn(network: nn.Module, loss: Tensor, step: int) -> None:
        (group,) = optimizers[network].param_groups
        optimizers[network].zero_grad()
        loss.backward(inputs=group["params"], retain_graph=True)
        if params.is_demo:
            nn.utils.clip_grad_value_(group["params"], 1.0)
        group["lr"] = learning_rate(params, step)
        optimizers[network].step()

    def take_step(step: int) -> None:
        real, labels, latents, fake_shifts = feed.batch(step)
        parts = 1 if params.is_demo else 2  # each part with its own batch norm
        chunks = zip(latents.chunk(parts), labels.chunk(parts), strict=True)
        fakes = torch.cat([generator(*chunk) for chunk in chunks])
        if fake_shifts is not None:
            shifts = zip(fakes, fake_shifts.tolist(), strict=True)
            fakes = torch.stack([fake.roll(by, (1, 2)) for fake, by in shifts])

        def on_fakes() -> Tensor:
            return objective.fake_loss(discriminator(fakes.detach(), labels)[0])

        def on_images(images: Tensor, class_weight: float) -> Tensor:
            logits, class_logits = discriminator(images, labels)
            loss = objective.real_loss(logits)
            if class_logits is not None:
                loss = loss + class_weight * cross_entropy(class_logits, labels)
            if images is real and step == 0 and not params.is_demo:
                loss = loss + params.r1_gamma * 16 * update.r1_penalty(logits, real)
            return loss

        def on_reals() -> Tensor:
            return on_images(real.requires_grad_(), params.auxiliary_discriminator)

        if params.is_demo:
            learn(discriminator, on_fakes(), step)
            learn(discriminator, on_reals(), step)
        elif params.updates == "one_pass":  # the generator learns from the old discriminator
            learn(generator, on_images(fakes, params.auxiliary_generator), step)
        if not params.is_demo:
            learn(discriminator, on_fakes() + on_reals(), step)
        if params.is_demo or params.updates == "two_passes":
            learn(generator, on_images(fakes, params.auxiliary_generator), step)

    for step in range(params.total_steps):
        take_step(step)
        average = average.lerp(weights_of(generator), ema_weight(params, step))
    return {"generator": average, "discriminator": weights_of(discriminator)}


def weights_of(network: nn.Module) -> Tensor:
    return torch.cat([weight.detach().flatten() for weight in network.parameters()])


def apart(found: Tensor, expected: Tensor, start: Tensor) -> float:
    """Length of the difference, as a part of the way from the start."""
    if found.shape != expected.shape:
        return float("inf")
    return float((found - expected).norm() / (expected - start).norm())


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"generator": "upsample"},
        {"generator": "demo", "lr": 1.0},
        {"auxiliary_discriminator": 0.0},
        {"class_logit_weight": 0.0},
        {"max_shift": 3},
        {"updates": "two_passes", "max_shift": 3},
        {"r1_gamma": 30.0},
        {"updates": "two_passes", "auxiliary_generator": 1.0},
        {"adam_beta1": 0.5},
        {"decay_from": 0.0},
        {"ema_half_life_kimg": 0.0},
        {"seed": 2},
    ],
    ids=str,
)
def test_every_variant_trains_as_by_hand(changes: dict[str, Any]) -> None:
    params, default = params_of(**SHORT, **changes), by_hand(params_of(**SHORT))
    trained, expected = train(data_for(params), params), by_hand(params)
    state, differences = TrainState(data_for(params), params, CPU), []
    for name, weights in expected.items():
        start = weights_of(getattr(state, name))
        assert apart(weights_of(getattr(trained, name)), weights, start) < 0.001
        differences.append(apart(default[name], weights, start))
    assert not changes or max(differences) > 0.02, "this test would not see it"


@pytest.mark.parametrize(("demo", "half"), [(False, 0.0), (True, 0.5)])
def test_statistics_are_without_class_losses_and_penalties(demo: bool, half: float) -> None:
    params = params_of(generator="demo" if demo else "deconv", auxiliary_generator=0.0)
    state = TrainState(data_for(params), params, CPU)
    objective = update.LEAST_SQUARES if demo else update.LOGISTIC
    (batch,) = batches(params, range(1), data_for(params))
    part = update.split_batch(state, batch, with_r1=False)[0]
    generator_loss = update.generator_loss(part).item()
    logits = torch.tensor([-1.0, half, half + 0.1, 3.0])
    part.real_logits = part.fake_logits = logits
    found, loss = part.stats().tolist(), objective.fake_loss(logits) + objective.real_loss(logits)
    mean = logits.mean().item()
    assert found == pytest.approx([loss.item(), generator_loss, mean, mean, 0.5, 0.5])


@pytest.mark.parametrize("updates", update.UPDATE_FUNCTIONS)
def test_in_low_precision_weights_and_losses_stay_float32(updates: str) -> None:
    state = TrainState(DATA, params_of(updates=updates), choose_hardware("cpu", "bfloat16"))
    seen: set[torch.dtype] = set()
    for generator, discriminator in state.part_networks:
        for layer in (generator.linear, generator.layers[2], discriminator.linear):
            layer.register_forward_hook(lambda *call: seen.add(call[2].dtype))
    (batch,) = batches(state.params, range(1))
    parts = update.split_batch(state, batch, with_r1=True)
    update.UPDATE_FUNCTIONS[updates](state, parts)
    assert seen == {torch.bfloat16}
    weights = [*state.generator.parameters(), *state.discriminator.parameters()]
    assert all(w.dtype == w.grad.dtype == torch.float32 for w in weights if w.grad is not None)
    for stats in (part.stats() for part in parts):
        assert stats.dtype == torch.float32 and stats.isfinite().all()


@pytest.mark.parametrize("updates", update.UPDATE_FUNCTIONS)
def test_a_step_computes_on_one_device(updates: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Operators refuse tensors of two devices also on `meta`, without values, which Adam needs."""
    plain = lambda weights, *_, **__: torch.optim.SGD(weights, 0.1)  # noqa: E731
    monkeypatch.setattr("cgan.training.state.without_compiler", lambda _: plain)
    there = Hardware(torch.device("meta"), torch.float32)
    state = TrainState(DATA, params_of(max_shift=1, updates=updates), there)
    update.train_step(state, Feed(DATA, state.params, there.device))
    assert state.interval_stats.device == there.device


def test_networks_are_built_as_the_params_say() -> None:
    widths = {"generator_width": 3, "discriminator_width": 6, "max_width": 11}
    params = params_of(generator="upsample", latent_dim=5, class_logit_weight=0.75, **widths)
    state = TrainState(uneven(channels=3), params, CPU)
    assert state.generator.architecture == Architecture("upsample", 3, 3, 8, 12, 3, 5, 11)
    assert state.discriminator.architecture == Architecture(
        "projection", 3, 3, 8, 12, 6, max_features=11, class_logit_weight=0.75
    )
