"""How long a training takes: known soon, whatever the size of the images; and a line now and then."""

from collections.abc import Callable, Iterator

import pytest
import torch
from tiny_training import params_of

from cgan.images import Images
from cgan.params.sections import TrainParams
from cgan.pipeline import progress

IMAGE_S = {28: 0.01, 64: 0.05, 256: 0.8}  # what an image costs, by its side


@pytest.mark.parametrize(("side", "images"), [(28, 96), (64, 96), (256, 6)])
def test_a_step_of_large_images_is_timed_with_few_of_them(
    monkeypatch: pytest.MonkeyPatch, side: int, images: int
) -> None:
    clock, batches = [0.0], list[int]()

    def train(_: Images, params: TrainParams, progress: Callable[[range], Iterator[int]]) -> None:
        batches.append(params.batch_size)
        for step in progress(range(params.total_steps)):
            clock[0] += params.batch_size * IMAGE_S[side] * (9 if step == 0 else 1)

    monkeypatch.setattr(progress, "train", train)
    monkeypatch.setattr(progress.time, "perf_counter", lambda: clock[0])
    pixels = torch.zeros((200, 1, side, side + 1), dtype=torch.uint8)[..., :-1]
    data = Images(pixels, torch.arange(200) % 3)
    params = params_of(batch_size=96, total_kimg=96.0)
    seconds = progress.seconds_of_training(data, params)
    assert batches == [images]
    assert seconds == pytest.approx(96_000 * IMAGE_S[side], rel=0.01)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time that `progress` reads; tests set it."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "perf_counter", lambda: now[0])
    return now


def lines_of(clock: list[float], steps: range, seconds: float, images: int = 0) -> list[str]:
    """What is said by a progress whose steps take so long."""
    said: list[str] = []
    for _ in progress.progress("judge", steps, images, said.append):
        clock[0] += seconds
    return said


def test_the_first_line_comes_after_five_seconds_and_knows_nothing_of_a_slow_first_step(
    clock: list[float],
) -> None:
    said = lines_of(clock, range(100), 2.5, 64)
    assert said[0] == "judge: step 2 of 100 · 26 images/s · 4 min left"
    assert len(said) == 25 and said[1].startswith("judge: step 6 of 100"), "then every ten"
    assert said[-1] == "judge: step 98 of 100 · 26 images/s · 5 s left"
    said = ["judge: step 1,002 of 1,004 · 12 s left", "judge: step 1,004 of 1,004 · 0 s left"]
    assert lines_of(clock, range(1000, 1004), 6) == said, "a resumed one counts from there"
    assert lines_of(clock, range(9), 0.5) == [], "what is soon done says nothing"
    said = []
    for step in progress.progress("judge", range(1000), 0, said.append):
        clock[0] += 30 if step == 0 else 1
    assert said[0] == "judge: step 2 of 1,000 · 17 min left" and len(said) == 100
