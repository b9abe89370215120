"""How long a training will take: known soon, whatever the size of the images."""

from collections.abc import Callable, Iterator

import pytest
import torch
from test_training import params_of  # of tests/training

from cgan.images import Images
from cgan.params.sections import TrainParams
from cgan.stages import forecast

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

    monkeypatch.setattr(forecast, "train", train)
    monkeypatch.setattr(forecast.time, "perf_counter", lambda: clock[0])
    pixels = torch.zeros((200, 1, side, side + 1), dtype=torch.uint8)[..., :-1]
    data = Images(pixels, torch.arange(200) % 3)
    params = params_of(batch_size=96, cpu_parts=2, total_kimg=96.0)
    seconds = forecast.seconds_of_training(data, params)
    assert batches == [images]
    assert seconds == pytest.approx(96_000 * IMAGE_S[side], rel=0.01)
