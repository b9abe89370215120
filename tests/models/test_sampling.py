"""Seed and labels to pictures."""

import pytest
import torch

from cgan.models import sampling
from cgan.models.networks import Architecture, GeneratorNetwork, build_generator
from cgan.models.sampling import CHUNK, draw_latents, interpolate_latents
from cgan.training.state import estimate_batch_norm


def network_of(kind: str) -> GeneratorNetwork:
    """An untrained generator whose images differ by class and latent, statistics included."""
    torch.manual_seed(3)
    network = build_generator(Architecture(kind, 10, 1, 28, 28, 8, 6))
    estimate_batch_norm(network, torch.ones(10), seed=1, batches=1)
    return network.eval().requires_grad_(False)


@pytest.mark.parametrize("kind", ["deconv", "upsample", "demo"])
def test_an_image_depends_on_seed_place_and_label_alone(kind: str) -> None:
    """Float arithmetic changes with the number of rows on some machines: it is always a whole chunk."""
    network, rows = network_of(kind), []
    network.layers[0].register_forward_hook(lambda *call: rows.append(len(call[2])))
    labels, threads = torch.arange(2 * CHUNK + 9) % 10, torch.get_num_threads()
    all_of_them, others = network.draw(labels, seed=7), 3 if threads == 1 else 1
    torch.manual_seed(99)  # the global generator has no say
    try:
        torch.set_num_threads(others)
        for count in (1, 5, CHUNK, CHUNK + 1, len(labels)):
            assert torch.equal(network.draw(labels[:count], seed=7), all_of_them[:count])
            assert torch.get_num_threads() == others, "left as it was"
    finally:
        torch.set_num_threads(threads)
    assert set(rows) == {CHUNK}
    assert not torch.equal(network.draw(labels, seed=8), all_of_them)
    labels[33] = (labels[33] + 1) % 10
    same = (network.draw(labels, 7) == all_of_them).flatten(1).all(dim=1)
    assert (~same).nonzero().flatten().tolist() == [33]


def test_two_seeds_share_no_latents_and_draw_uses_these() -> None:
    chunks = [chunk for seed in range(4) for chunk in draw_latents(seed, 4 * CHUNK, 6).split(CHUNK)]
    assert len({chunk.numpy().tobytes() for chunk in chunks}) == 16
    network, labels = network_of("deconv"), torch.arange(CHUNK + 5) % 10
    latents, condition = draw_latents(7, len(labels), 6), network.condition(labels)
    assert torch.equal(network.render(latents, condition), network.draw(labels, 7))


def test_minus_one_to_one_becomes_0_to_255_to_the_nearest() -> None:
    images = torch.tensor([-1.0, -1 + 0.49 / 127.5, -1 + 0.51 / 127.5, 0.002, 1.0, 1.5, -7.0])
    assert sampling.to_uint8(images).tolist() == [0, 0, 1, 128, 255, 255, 0]


def test_interpolated_latents_go_along_the_circle() -> None:
    start, end = draw_latents(7, 2, 64)
    path = interpolate_latents(start, end, 9)
    torch.testing.assert_close(path[0], start, rtol=0, atol=1e-6)
    torch.testing.assert_close(path[-1], end, rtol=0, atol=1e-6)
    unit = interpolate_latents(start / start.norm(), end / end.norm(), 9)
    torch.testing.assert_close(unit.norm(dim=1), torch.ones(9))
    angles = (unit[:-1] * unit[1:]).sum(dim=1).acos()
    torch.testing.assert_close(angles, angles[0].expand(8), rtol=1e-3, atol=0)
    torch.testing.assert_close(interpolate_latents(start, start, 4), start.expand(4, -1))
