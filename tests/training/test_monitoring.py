"""Probes: what they measure, and that a collapse of a class stops the training in words."""

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import CPU, DATA, Recorded, digest, params_of, plain, stop_after, straight, uneven
from torch import Tensor

from cgan.data.images import Images
from cgan.models.networks import Architecture, GeneratorNetwork
from cgan.params.sections import JudgeParams
from cgan.quality.judge import Judge, train_judge
from cgan.training import monitoring
from cgan.training.loop import Divergence, train
from cgan.training.monitoring import WARM_UP_KIMG, ProbeMonitor
from cgan.training.state import PROBE_COLUMNS, Record


@pytest.fixture(scope="module")
def data() -> Images:
    return plain(uneven(counts=[100] * 3))


class Copier(GeneratorNetwork):
    """Draws the images of the data, any of the class that is asked for; of those in `same` always one."""

    def __init__(self, data: Images, *same: int) -> None:
        super().__init__(Architecture("deconv", data.classes, *data.shape, 4, 4))
        self.same, images = same, data.tensors.pixels.float() / 127.5 - 1
        self.images = torch.nn.Parameter(images, requires_grad=False)
        labels = data.tensors.labels
        self.rows = [(labels == label).nonzero().flatten() for label in range(data.classes)]

    def from_condition(self, latents: Tensor, condition: Tensor) -> Tensor:
        labels = condition.argmax(dim=1).tolist()
        picks = (latents[:, 0].abs() * 1e4).long().tolist()
        rows = [
            self.rows[label][0 if label in self.same else pick % len(self.rows[label])]
            for label, pick in zip(labels, picks, strict=True)
        ]
        return self.images[torch.stack(rows)]


def test_a_probe_compares_drawings_with_real_images_by_class(data: Images) -> None:
    recipe = JudgeParams(total_kimg=8.0, seed=0)
    judge = train_judge(data, recipe, CPU)
    monitor = ProbeMonitor(judge, data, 1)
    faithful, narrow = (monitor.probe(Copier(data, *same).eval()) for same in ((), (2,)))
    assert faithful["probe/conditional_accuracy"] > 0.9
    assert faithful["probe/diversity_mean"] == pytest.approx(1, abs=0.1)
    assert faithful["probe/diversity_worst_class"] == pytest.approx(1, abs=0.15)
    assert monitor.worst_class == 2
    assert narrow["probe/diversity_worst_class"] == pytest.approx(0, abs=1e-3)
    assert narrow["probe/diversity_mean"] == pytest.approx(2 / 3, abs=0.1)
    assert faithful["probe/fid_judge"] < 0.2 * narrow["probe/fid_judge"]
    rare = np.flatnonzero(data.labels == 2)[1:]
    of_kept = ProbeMonitor(judge, data.at(np.delete(np.arange(len(data)), rare)), 1)
    found = of_kept.probe(Copier(data, 2).eval())
    assert of_kept.worst_class != 2, "with no two real images it is not compared"
    assert found["probe/diversity_mean"] == pytest.approx(1, abs=0.1)


def test_a_collapse_is_told_by_a_second_probe_in_a_row(data: Images) -> None:
    monitor = ProbeMonitor(Judge(3, 1, 4).eval(), data, 1)
    monitor.names, monitor.worst_class = ["a", "b", "c"], 2
    late = WARM_UP_KIMG + 1
    records = list[Record]()
    for worst, kimg, words in (
        *((0.0, WARM_UP_KIMG, ""), (0.0, late, ""), (0.0, late, "mode collapse")),
        *((1.0, late, ""), (0.1, late, ""), (1.0, late, ""), (0.1, late, "")),
        *((0.1, late, "class c vary 0.10 times"), (0.25, late, "")),
    ):
        probe = {"progress/kimg": kimg, "probe/diversity_worst_class": worst}
        records.append(dict.fromkeys(PROBE_COLUMNS, 0.0) | probe)
        problem = monitor.collapse_message(records)
        assert words in str(problem) if words else problem is None, (worst, kimg)


@pytest.mark.parametrize("classes", [1, 2, 40, 51, 1000])
def test_a_collapse_is_seen_whatever_the_number_of_classes(classes: int) -> None:
    """Two to eleven images a class, which are not square, and a class that has none."""
    random = np.random.default_rng(classes)
    labels = random.permutation(np.repeat(np.arange(classes), random.integers(2, 12, classes)))
    images = random.integers(0, 256, (len(labels), 1, 8, 12), dtype=np.uint8)
    images += (labels % 7).astype(np.uint8)[:, None, None, None] * 20
    data = Images(images, labels, [str(label) for label in range(max(2, classes + 1))])
    torch.manual_seed(0)
    monitor = ProbeMonitor(Judge(data.classes, 1, 4).eval(), data, 1)
    assert len(monitor.labels) == 1000 and {*monitor.labels.tolist()} == {*range(min(classes, 50))}
    for same, collapsed in (((), False), (range(classes), True)):
        quality = monitor.probe(Copier(data, *same).eval())
        assert (quality["probe/diversity_mean"] < 1e-3) is collapsed
        assert collapsed or quality["probe/diversity_worst_class"] > 0.6, "far from the limit"
        records = [{"progress/kimg": WARM_UP_KIMG + 1, **quality}] * 2
        assert bool(monitor.collapse_message(records)) is collapsed


def test_a_training_stopped_between_two_bad_probes_ends_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(monitoring, "WARM_UP_KIMG", 0.0)
    monkeypatch.setattr(monitoring, "COLLAPSED_DIVERSITY", 1e9)
    judge, params = Judge(3, 1, 4).eval(), params_of(probes=10)
    monitor = ProbeMonitor(judge, DATA, 1)
    train(DATA, params, folder=tmp_path, should_stop=stop_after(1), monitor=monitor)
    for _ in range(2):
        with pytest.raises(Divergence, match="at step 2: mode collapse"):
            train(DATA, params, folder=tmp_path, monitor=ProbeMonitor(judge, DATA, 1))


def test_probes_come_at_their_steps_and_change_no_bit() -> None:
    """So that the metrics have no part in a training's fingerprint, nor the judge but for its probes."""
    monitor = ProbeMonitor(Judge(3, 1, 4).eval(), DATA, 1)
    params, recorded = params_of(probes=3), Recorded()
    trained = train(DATA, params, recorded.log, monitor=monitor)
    probed = [step for step, logged in recorded if "probe/fid_judge" in logged]
    assert probed == [row["step"] for row in trained.probes] == [0, 3, 7, 10]
    assert {tuple(row) for row in trained.probes} == {PROBE_COLUMNS}
    assert digest(trained) == straight(params)
