"""Sabotaged trainings: the monitor stops them, or the metrics show it, in words."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gated import CLASSES, digits
from recording import RecordingTracker
from synthetic import sample_digits
from test_training import DATA, digest, params_of, stop_after, straight
from test_training import few_batches as few_batches
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from cgan.images import Images
from cgan.model.hardware import Hardware
from cgan.model.networks import Architecture, GeneratorNetwork
from cgan.params.sections import JudgeParams
from cgan.quality.judge import Judge, train_judge
from cgan.training import monitoring, update
from cgan.training.loop import Divergence, Interrupted, train
from cgan.training.monitoring import WARM_UP_KIMG, ProbeMonitor
from cgan.training.state import PROBE_COLUMNS, Record, TrainState

LOSSES = {"auxiliary_discriminator": 1.0, "auxiliary_generator": 0.2, "class_logit_weight": 0.0}
WIDTHS = {"generator_width": 8, "discriminator_width": 8}
# One pass drew a class of these 300 images all alike with one seed in three, and was stopped for it.
UPDATES = {"updates": "two_passes", "batch_size": 64, "lr": 3.0e-3, "adam_beta1": 0.3}
STRONG = {**WIDTHS, **LOSSES, **UPDATES}
RECORDS = {"log_every": 50, "save_every": 200, "previews": 0}
LENGTH = {"total_kimg": 51.2, "ema_half_life_kimg": 2.0, "r1_every": 8, **RECORDS}


@pytest.fixture(scope="module")
def data() -> Images:
    images, labels = digits(per_class=100)
    return Images(torch.from_numpy(images), torch.from_numpy(labels))


@pytest.fixture(scope="module")
def judge(data: Images) -> Judge:
    recipe = JudgeParams(total_kimg=9.0, batch_size=32, peak_lr=0.1, width=4, seed=0)
    return train_judge(data, recipe, torch.device("cpu"), torch.float32)


@pytest.mark.slow
def test_f52_a_generator_that_is_never_updated_stops_the_training_in_words(
    data: Images, judge: Judge, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That others are not stopped, acceptance tests show."""
    step_optimizer = update.step_optimizer

    def step_discriminator_only(state: TrainState, optimizer: Any, part_gradients: Any) -> None:
        gradients = list(part_gradients)  # computed all the same, and with them the losses
        if optimizer is state.discriminator_optimizer:
            step_optimizer(state, optimizer, gradients)

    params = params_of(**STRONG, **LENGTH, probes=8)
    monkeypatch.setattr(update, "step_optimizer", step_discriminator_only)
    with pytest.raises(Divergence, match=r"chance alone gives 33|tells fakes from reals") as caught:
        train(data, params, monitor=ProbeMonitor(judge, data, 1))
    step = re.search(r"at step (\d+)", str(caught.value))
    assert step and int(step[1]) > 500, "young generators are given time"


class Copier(GeneratorNetwork):
    """Draws the images of the data, any of the class that is asked for; of those in `same` always one."""

    def __init__(self, data: Images, *same: int) -> None:
        super().__init__(Architecture("deconv", data.classes, *data.tensors.pixels.shape[1:], 4, 4))
        self.same, images = same, data.tensors.pixels.float() / 127.5 - 1
        self.images = torch.nn.Parameter(images, requires_grad=False)
        self.rows = [
            (data.tensors.labels == label).nonzero().flatten() for label in range(data.classes)
        ]

    def from_condition(self, latents: Tensor, condition: Tensor) -> Tensor:
        labels = condition.argmax(dim=1).tolist()
        picks = (latents[:, 0].abs() * 1e4).long().tolist()
        rows = [
            self.rows[label][0 if label in self.same else pick % len(self.rows[label])]
            for label, pick in zip(labels, picks, strict=True)
        ]
        return self.images[torch.stack(rows)]


def test_a_probe_compares_drawings_with_the_real_images_class_by_class(
    data: Images, judge: Judge
) -> None:
    monitor = ProbeMonitor(judge, data, 1)
    faithful, narrow = (monitor.probe(Copier(data, *same).eval()) for same in ((), (2,)))
    assert faithful["probe/conditional_accuracy"] > 0.95
    assert faithful["probe/diversity_mean"] == pytest.approx(1, abs=0.1)
    assert faithful["probe/diversity_worst_class"] == pytest.approx(1, abs=0.15)
    assert monitor.worst_class == 2
    assert narrow["probe/diversity_worst_class"] == pytest.approx(0, abs=1e-3)
    assert narrow["probe/diversity_mean"] == pytest.approx(2 / 3, abs=0.1)
    assert faithful["probe/fid_judge"] < 0.1 * narrow["probe/fid_judge"]
    rare = data.tensors.labels == 2
    rare[rare.nonzero()[0]] = False
    kept = Images(data.tensors.pixels[~rare], data.tensors.labels[~rare], data.class_names)
    of_kept = ProbeMonitor(judge, kept, 1)
    found = of_kept.probe(Copier(data, 2).eval())
    assert of_kept.worst_class != 2, "with no two real images it is not compared"
    assert found["probe/diversity_mean"] == pytest.approx(1, abs=0.1)


def test_f52_one_picture_a_class_or_chance_in_the_second_half_is_told_by_a_second_probe_in_a_row(
    data: Images, judge: Judge
) -> None:
    monitor = ProbeMonitor(judge, data, 1)
    monitor.names = ["a", "b", "c"]
    collapsed = monitor.probe(Copier(data, *range(CLASSES)).eval())
    assert collapsed["probe/conditional_accuracy"] == 1.0, "accuracy alone does not see it"
    untrained = TrainState(data, params_of(**STRONG), Hardware(torch.device("cpu"), torch.float32))
    chance = monitor.probe(untrained.generator.eval()) | {"probe/diversity_worst_class": 1.0}
    assert chance["probe/conditional_accuracy"] < 0.5
    monitor.worst_class = 2
    good = {"probe/conditional_accuracy": 1.0, "probe/diversity_worst_class": 1.0}
    narrow, late = good | {"probe/diversity_worst_class": 0.1}, WARM_UP_KIMG + 1
    records = list[Record]()
    for probe, kimg, words in (
        *((collapsed, WARM_UP_KIMG, ""), (collapsed, late, ""), (collapsed, late, "mode collapse")),
        *((good, late, ""), (narrow, late, ""), (good, late, ""), (narrow, late, "")),
        *((narrow, late, "class c vary 0.10 times"), (good, late, "")),
        *((chance, 79.0, ""), (chance, 79.0, ""), (chance, 81.0, "")),
        (chance, 82.0, "chance alone gives 33"),
    ):
        records.append(dict.fromkeys(PROBE_COLUMNS, 0.0) | probe | {"progress/kimg": kimg})
        problem = monitor.problem(records, 160.0)
        assert words in str(problem) if words else problem is None, (probe, kimg)


@pytest.mark.parametrize("classes", [1, 2, 40, 51, 501, 1000])
def test_variety_is_compared_in_as_many_classes_as_can_be_and_a_collapse_of_all_is_seen(
    classes: int,
) -> None:
    """Two to eleven images a class, which are not square, and a class that has none."""
    random = np.random.default_rng(classes)
    labels = random.permutation(np.repeat(np.arange(classes), random.integers(2, 12, classes)))
    images = random.integers(0, 256, (len(labels), 1, 8, 12), dtype=np.uint8)
    images += (labels % 7).astype(np.uint8)[:, None, None, None] * 20
    data = Images(images, labels, [str(label) for label in range(max(2, classes + 1))])
    torch.manual_seed(0)
    monitor = ProbeMonitor(Judge(data.classes, 1, 4).eval(), data, 1)
    assert len(monitor.labels) == (1000 if classes <= 50 else 2000), "at a bounded cost"
    assert {*monitor.labels[:1000].tolist()} == {*range(classes)}
    late, right = WARM_UP_KIMG + 1, {"probe/conditional_accuracy": 1.0}
    for same, collapsed in (((), False), (range(classes), True)):
        quality = monitor.probe(Copier(data, *same).eval())
        assert (quality["probe/diversity_mean"] < 1e-3) is collapsed
        assert collapsed or quality["probe/diversity_worst_class"] > 0.6, "far from the limit"
        records = [{"progress/kimg": late, **quality, **right}] * 2
        assert bool(monitor.problem(records, 60.0)) is collapsed
    # No better than chance, as far as so many drawings can tell; of one class nothing can be told.
    for times, by_chance in ((1.0, classes > 1), (1.0 + 5 / np.sqrt(1000 / classes), False)):
        chance = min(1.0, times / classes)
        probe = {
            "progress/kimg": late,
            "probe/conditional_accuracy": chance,
            "probe/diversity_worst_class": 1.0,
        }
        assert bool(monitor.problem([probe, probe], 60.0)) is by_chance, (times, chance)


def numbers(classes: int, per_class: int = 12) -> Images:
    """10 × 21: three handwritten digits side by side, the class as a number."""
    images, labels = sample_digits()
    small = adaptive_avg_pool2d(images[:, 0, 3:25, 4:24].float(), (10, 7)).byte()
    random = torch.Generator().manual_seed(classes)
    shown = torch.arange(classes).repeat_interleave(per_class)
    shown = shown[torch.randperm(len(shown), generator=random)]
    pick = torch.randint(
        500, (len(shown), 3), generator=random
    )  # the sample is sorted, 500 of each
    digits = torch.stack([shown // 100, shown // 10 % 10, shown % 10], dim=1)
    assert labels.equal(torch.arange(5000) // 500)
    side_by_side = small[500 * digits + pick].permute(0, 2, 1, 3).flatten(2)
    return Images(side_by_side[:, None], shown)


@pytest.mark.slow
@pytest.mark.parametrize("classes", [501, 1000])
def test_many_classes_are_trained_past_the_warm_up_and_drawn(classes: int) -> None:
    data = numbers(classes)
    recipe = JudgeParams(total_kimg=100.0, batch_size=64, peak_lr=0.2, width=12, seed=0)
    judge = train_judge(data, recipe, torch.device("cpu"), torch.float32, augment=False)
    params = params_of(
        **{"generator_width": 16, "discriminator_width": 16, "latent_dim": 8, **LOSSES, **UPDATES},
        **{**LENGTH, "total_kimg": 64.0, "probes": 8},
    )
    trained = train(data, params, monitor=ProbeMonitor(judge, data, 1))
    last = trained.probes[-1]
    assert sum(probe["progress/kimg"] > WARM_UP_KIMG for probe in trained.probes) > 3
    assert last["probe/conditional_accuracy"] > 0.5 and last["probe/diversity_mean"] > 0.4
    assert last["probe/diversity_worst_class"] > monitoring.MIN_DIVERSITY


def test_a_training_that_is_stopped_between_two_bad_probes_ends_at_the_second_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(monitoring, "WARM_UP_KIMG", 0.0)
    monkeypatch.setattr(monitoring, "MIN_DIVERSITY", 1e9)
    judge, params = Judge(3, 1, 4).eval(), params_of(probes=10)
    with pytest.raises(Interrupted, match="step 1 of 10; a checkpoint"):
        train(
            DATA,
            params,
            folder=tmp_path,
            should_stop=stop_after(1),
            monitor=ProbeMonitor(judge, DATA, 1),
        )
    for _ in range(2):
        with pytest.raises(Divergence, match="at step 2: mode collapse"):
            train(DATA, params, folder=tmp_path, monitor=ProbeMonitor(judge, DATA, 1))


def test_probes_come_at_their_steps_and_change_no_bit_of_the_training() -> None:
    """So that the metrics have no part in a training's fingerprint, nor the judge but for its probes."""
    monitor = ProbeMonitor(Judge(3, 1, 4).eval(), DATA, 1)
    params, tracker = params_of(probes=3), RecordingTracker()
    trained = train(DATA, params, tracker, monitor=monitor)
    probed = [step for step, logged in tracker.metrics if "probe/fid_judge" in logged]
    assert probed == [row["step"] for row in trained.probes] == [0, 3, 7, 10]
    assert {tuple(row) for row in trained.probes} == {PROBE_COLUMNS}
    assert digest(trained) == straight(params)
