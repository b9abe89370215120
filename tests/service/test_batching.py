"""Requests that are drawn together: each gets the bits that it gets alone."""

from __future__ import annotations

import random
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

import pytest
import torch
from torch import Tensor

from cgan.model.networks import GENERATORS, Architecture, Generator, build_generator
from cgan.model.sampling import CHUNK, draw
from cgan.service import batching
from cgan.service.batching import Batcher, Passes


def network_of(kind: str, seed: int = 0) -> Generator:
    torch.manual_seed(seed)
    network = build_generator(Architecture(kind, 10, 1, 28, 28, 8, 8)).eval().requires_grad_(False)
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def questions(count: int, most: int) -> Iterator[tuple[list[int], int]]:
    source = random.Random(count)
    for _ in range(count):
        yield (
            [source.randrange(10) for _ in range(source.randint(1, most))],
            source.randrange(2**63),
        )


def together(
    network: Generator, passes: Passes, asked: list[tuple[list[int], int]]
) -> list[Tensor]:
    """Asked for before the first pass, where the machine is not too busy; two threads draw."""
    batcher = Batcher(lambda: len(asked), threads=2)
    futures: list[Future[Tensor]] = [
        batcher.submit(network, passes, labels, seed) for labels, seed in asked
    ]
    batcher.close()
    return [future.result(0) for future in futures]


@pytest.mark.parametrize("kind", list(GENERATORS))
@pytest.mark.parametrize("shared", ["tried", "not shared"])
def test_images_of_many_requests_at_once_are_bit_for_bit_those_of_draw(
    kind: str, shared: str
) -> None:
    network = network_of(kind)
    passes = Passes.measured_on(network) if shared == "tried" else Passes()
    asked = list(questions(12, 20)) + list(questions(4, 150))
    for (labels, seed), images in zip(asked, together(network, passes, asked), strict=True):
        assert torch.equal(images, draw(network, torch.tensor(labels), seed))


def test_the_trial_refuses_a_network_whose_images_depend_on_their_row() -> None:
    network = network_of("deconv")
    plain = network.from_condition

    def by_row(latents: Tensor, condition: Tensor) -> Tensor:
        return plain(latents, condition) * (
            1 - 1e-3 * torch.arange(len(latents))[:, None, None, None]
        )

    network.from_condition = by_row  # type: ignore[method-assign]
    passes = Passes.measured_on(network)
    assert not passes.shared
    assert passes.sizes == (16, 32, CHUNK)
    asked = list(questions(8, 30))
    for (labels, seed), images in zip(asked, together(network, passes, asked), strict=True):
        assert torch.equal(images, draw(network, torch.tensor(labels), seed))


def test_the_trial_refuses_sizes_whose_images_differ_from_those_of_a_chunk() -> None:
    network = network_of("deconv")
    plain = network.from_condition

    def by_size(latents: Tensor, condition: Tensor) -> Tensor:
        return plain(latents, condition) * (1 - 0.1 * (len(latents) < 32))

    network.from_condition = by_size  # type: ignore[method-assign]
    passes = Passes.measured_on(network)
    assert passes == Passes((32, CHUNK), shared=True)
    for labels, seed in questions(4, 10):
        [images] = together(network, passes, [(labels, seed)])
        assert torch.equal(images, draw(network, torch.tensor(labels), seed))


def test_few_rows_of_many_requests_share_a_pass_and_thousands_of_one_hold_nobody_up() -> None:
    network = network_of("demo")
    passes = Passes.measured_on(network)
    if not passes.shared:
        pytest.skip("on this machine images depend on their row")
    seen: list[tuple[int, int]] = []
    done: list[str] = []
    batcher = Batcher(lambda: 6, lambda rows, requests: seen.append((rows, requests)))
    large = batcher.submit(network, passes, [0] * 1000, 1)
    small = [batcher.submit(network, passes, [number] * 10, number) for number in range(5)]
    large.add_done_callback(lambda _: done.append("large"))
    for future in small:
        future.add_done_callback(lambda _: done.append("small"))
    batcher.close()
    assert done == ["small"] * 5 + ["large"]
    assert max(requests for _, requests in seen) > 1
    assert sum(rows for rows, _ in seen) == 1050


def test_requests_for_two_models_are_not_mixed() -> None:
    first, second = network_of("deconv", 1), network_of("deconv", 2)
    batcher = Batcher(lambda: 8)
    passes = Passes.measured_on(first)
    futures = [
        (network, seed, batcher.submit(network, passes, [1, 2, 3], seed))
        for seed in range(4)
        for network in (first, second)
    ]
    batcher.close()
    for network, seed, future in futures:
        assert torch.equal(future.result(0), draw(network, torch.tensor([1, 2, 3]), seed))


def test_a_request_that_was_given_up_and_one_that_fails_leave_the_others_alone() -> None:
    network = network_of("deconv")
    before = set(threading.enumerate())
    batcher = Batcher(lambda: 3)
    given_up = batcher.submit(network, Passes(), [1] * 500, 1)
    assert given_up.cancel()
    bad = batcher.submit(network, Passes(), [11], 1)
    with pytest.raises(RuntimeError):
        bad.result(30)
    good = batcher.submit(network, Passes(), [1], 1)
    assert torch.equal(good.result(30), draw(network, torch.tensor([1]), 1))
    batcher.close()
    assert set(threading.enumerate()) <= before


@pytest.mark.parametrize("broken", ["take", "drawn", "cat"])
def test_whatever_fails_in_a_round_fails_its_requests_and_those_after_are_drawn(
    broken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = network_of("deconv")
    fails = threading.Event()
    fails.set()

    def failing(real: Any, of: str = "") -> Any:
        def called(*arguments: Any, **named: Any) -> Any:
            if fails.is_set() and of in ("", sys._getframe(1).f_code.co_name):
                raise MemoryError("a test")
            return real(*arguments, **named)

        return called

    seen = failing(lambda rows, requests: None) if broken == "drawn" else lambda *_: None
    if broken == "take":
        monkeypatch.setattr(batching._Job, "take", failing(batching._Job.take))
    batcher = Batcher(drawn=seen)
    if broken == "cat":
        monkeypatch.setattr(batching.torch, "cat", failing(torch.cat, of="_draw"))
    with pytest.raises(MemoryError):
        batcher.submit(network, Passes(), [1], 1).result(10)
    fails.clear()
    assert batcher.alive
    good = batcher.submit(network, Passes(), [1], 1)
    assert torch.equal(good.result(10), draw(network, torch.tensor([1]), 1))
    batcher.close()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_ended_is_seen_and_leaves_nobody_waiting() -> None:
    def fatal(rows: int, requests: int) -> None:
        raise SystemExit  # no Exception: nothing catches it

    batcher = Batcher(drawn=fatal)
    network = network_of("deconv")
    with pytest.raises(RuntimeError, match="the thread that draws has ended"):
        batcher.submit(network, Passes(), [1], 1).result(10)
    batcher._thread.join(10)
    assert not batcher.alive
    with pytest.raises(RuntimeError, match="the thread that draws has ended"):
        batcher.submit(network, Passes(), [1], 1)
    batcher.close()


def test_a_request_that_was_given_up_is_drawn_no_further() -> None:
    network = network_of("deconv")
    rows: list[int] = []
    first = threading.Event()
    given_up = threading.Event()

    def drawn(count: int, requests: int) -> None:
        rows.append(count)
        first.set()
        given_up.wait(10)

    batcher = Batcher(drawn=drawn)
    future = batcher.submit(network, Passes(), [1] * 10 * CHUNK, 1)
    assert first.wait(10)
    assert future.cancel()
    given_up.set()
    batcher.close()
    assert rows == [CHUNK]
