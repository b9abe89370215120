"""What the stage says of a judge that is not able to judge, and when it trains one."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from conftest import ROOT

from cgan.data.dataset import Dataset
from cgan.stages import train_judge as stage
from cgan.stages.train_judge import cannot_judge


def test_a_judge_is_trained_while_its_device_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []

    @contextlib.contextmanager
    def slot(device: torch.device) -> Iterator[None]:
        events.append(f"{device.type} is taken")
        try:
            yield
        finally:
            events.append("free")

    def train(*_: object) -> None:
        events.append("training")
        raise KeyboardInterrupt

    data = Dataset(
        torch.zeros(4, 1, 8, 8, dtype=torch.uint8), torch.zeros(4, dtype=torch.int64), {}
    )
    shutil.copy(ROOT / "params.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(stage, "load_dataset", lambda _: data)
    monkeypatch.setattr(stage, "device_slot", slot)
    monkeypatch.setattr(stage, "train_judge", train)
    with pytest.raises(KeyboardInterrupt):
        stage.main()
    assert events == [
        f"{stage.choose_hardware('auto', 'auto').device.type} is taken",
        "training",
        "free",
    ]


def test_a_judge_below_the_gates_bar_is_told_early_with_advice() -> None:
    assert cannot_judge(0.95, 0.91, 0.98, needed=0.90) == ""
    assert cannot_judge(0.93, 0.90, 0.96, needed=0.90) == ""
    maybe = cannot_judge(0.91, 0.88, 0.94, needed=0.90)
    assert "91.0% of the held-out images (88.0% to 94.0%)" in maybe
    assert "the gate may promote nothing below 90% (`gate.min_judge_accuracy`)" in maybe
    sure = cannot_judge(0.68, 0.66, 0.70, needed=0.90)
    assert "the gate will promote nothing" in sure and "add images" in sure
