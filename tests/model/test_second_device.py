"""What a GPU would refuse, found without one: everything computes on a second device, as on the CPU."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from second_device import DEVICE, SecondDevice
from test_training import params_of
from torch import Tensor

from cgan.errors import ParamsError
from cgan.evaluation import Evaluation
from cgan.images import Images
from cgan.model import hardware
from cgan.model.hardware import Hardware, compute_deterministically, find_device
from cgan.model.local_score import LocalScoreSampler, LocalScoreSettings
from cgan.model.networks import Architecture, build_generator
from cgan.params.sections import EvaluateParams, JudgeParams
from cgan.quality.evaluate import evaluate
from cgan.quality.judge import predict, train_judge
from cgan.training import batches
from cgan.training.loop import train
from cgan.training.monitoring import ProbeMonitor
from cgan.training.state import TrainState
from cgan.training.update import train_step

CPU = torch.device("cpu")
RECIPE = JudgeParams(total_kimg=0.15, batch_size=16, peak_lr=0.05, width=4, seed=1)


def images_of(per_class: tuple[int, ...], seed: int) -> Images:
    """Colour, not square, in no order, classes unequal."""
    random = torch.Generator().manual_seed(seed)
    labels = torch.arange(len(per_class)).repeat_interleave(torch.tensor(per_class))
    labels = labels[torch.randperm(len(labels), generator=random)]
    images = torch.randint(0, 90, (len(labels), 3, 12, 8), generator=random, dtype=torch.uint8)
    images[torch.arange(len(labels)), labels, 3:9] += 140
    return Images(images, labels)


DATA, HELD = images_of((40, 25, 30), 0), images_of((26, 22, 28), 1)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """The second device has one, and the same sums are compared."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def second(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """`auto` finds the second device, and drawing and judging use it."""
    monkeypatch.setattr(hardware, "find_device", lambda *_: DEVICE)
    compute_deterministically()
    with SecondDevice():
        yield


def trained_on(device: torch.device, **changes: Any) -> Tensor:
    """The averaged generator's weights after some steps of a training, with probes."""
    params = params_of(
        cpu_parts=1, previews=1, probes=1, max_shift=1, r1_every=2, total_kimg=0.04, **changes
    )
    judge = train_judge(DATA, RECIPE, device, torch.float32)
    generator = train(DATA, params, monitor=ProbeMonitor(judge, DATA, 1)).generator
    return torch.cat(
        [tensor.cpu().flatten().double() for tensor in generator.state_dict().values()]
    )


@pytest.mark.parametrize(
    ("updates", "generator"),
    [("one_pass", "embed"), ("two_passes", "upsample"), ("in_turn", "deconv")],
)
def test_a_training_computes_on_one_device(
    updates: str, generator: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    choices = {"updates": updates, "generator": generator}
    here = trained_on(CPU, **choices)
    with monkeypatch.context() as patched, SecondDevice():
        patched.setattr(hardware, "find_device", lambda *_: DEVICE)
        there = trained_on(DEVICE, **choices)
    torch.testing.assert_close(there, here, rtol=0, atol=1e-4)


def test_images_that_do_not_fit_on_a_card_are_fed_from_the_hosts_memory(
    second: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    fitting = trained_on(DEVICE)
    fed = []
    monkeypatch.setattr(batches, "fits_in_memory", lambda images, _: fed.append(images.nbytes))
    monkeypatch.setattr("cgan.quality.judge.fits_in_memory", lambda *_: False)
    assert torch.equal(trained_on(DEVICE), fitting) and fed == [DATA.tensors.pixels.nbytes]


def test_judging_and_drawing_compute_on_one_device(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    network = build_generator(
        Architecture("upsample", 3, 3, 12, 8, features=4, latent_dim=4)
    ).eval()
    params = EvaluateParams(samples=300, draws=1, gan_train_kimg=0.2, seed=3)

    def evaluated(device: torch.device) -> Evaluation:
        judge = train_judge(DATA, RECIPE, CPU, torch.float32).to(device)
        return evaluate(network.to(device), DATA, HELD, judge=judge, params=params)

    here = evaluated(CPU)
    with monkeypatch.context() as patched, SecondDevice():
        patched.setattr(hardware, "find_device", lambda *_: DEVICE)
        there = evaluated(DEVICE)
    assert [each.context["device"] for each in (here, there)] == ["cpu", "meta"]
    for key in here.metrics.keys() - {"gan_train_accuracy"}:  # in parts on the CPU
        value = here.score(key).value
        assert there.score(key).value == pytest.approx(value, rel=1e-5, abs=1e-5), key
    assert there.confusion == here.confusion


def test_the_local_score_sampler_draws_on_one_device() -> None:
    settings, labels = LocalScoreSettings(steps=4, sources=20), torch.tensor([2, 0, 1])
    here = LocalScoreSampler(DATA.tensors.pixels, DATA.tensors.labels, settings).draw(labels, 5)
    compute_deterministically()
    with SecondDevice():
        sampler = LocalScoreSampler(DATA.tensors.pixels, DATA.tensors.labels, settings).to(DEVICE)
        assert torch.equal(sampler.draw(labels, 5), here)


# -- It sees what a GPU would refuse ---------------------------------------------------------------------


def a_step_with_labels_on_the_host() -> None:
    hardware_there = Hardware(DEVICE, torch.float32)
    state = TrainState(DATA, params_of(), hardware_there)
    feed = batches.Feed(DATA, params_of(), DEVICE, 10)
    feed.labels = DATA.tensors.labels
    train_step(state, feed)


def a_judge_that_was_left_behind() -> None:
    judge = train_judge(DATA, RECIPE, DEVICE, torch.float32)
    judge.head.to(CPU)
    predict(judge, HELD.tensors.pixels)


def latents_of_the_hosts_generator() -> None:
    torch.randn(3, 4, device=DEVICE, generator=torch.Generator().manual_seed(1))


def pooling_whose_gradient_adds_up_in_any_order() -> None:
    maps = torch.zeros(1, 1, 6, 6).to(DEVICE).requires_grad_()
    torch.nn.functional.adaptive_max_pool2d(maps, 3).sum().backward()


PLANTED: list[tuple[Callable[[], object], str]] = [
    (a_step_with_labels_on_the_host, "on one device, found two"),
    (a_judge_that_was_left_behind, "on one device, found two"),
    (latents_of_the_hosts_generator, "the CPU's generator"),
    (pooling_whose_gradient_adds_up_in_any_order, "no deterministic implementation"),
    (lambda: torch.zeros(3).to(DEVICE).numpy(), "numpy"),
    (lambda: torch.ones(3).to(DEVICE).cumsum(0), "no deterministic implementation"),
]


@pytest.mark.parametrize(("fault", "words"), PLANTED)
def test_planted_faults_are_seen(fault: Callable[[], object], words: str, second: None) -> None:
    with pytest.raises(RuntimeError, match=words):
        fault()


# -- Which device ----------------------------------------------------------------------------------------


def test_f37_devices_are_found_by_name_or_refused_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert find_device("auto", "x") == torch.device("cuda")
    assert find_device("cuda:1", "x") == torch.device("cuda:1")
    for name, words in {
        "cuda:2": "`cuda:2`.* 2 CUDA devices",
        "mps": "no Apple GPU here",
        "gpu": "'gpu'; expected auto, cpu, cuda",
    }.items():
        with pytest.raises(ParamsError, match=f"^train.device is .*{words}"):
            find_device(name, "train.device")


@pytest.mark.parametrize("emulated", [True, False])
def test_bfloat16_is_chosen_where_the_card_has_it(
    emulated: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Turing emulates it, and `is_bf16_supported()` alone says yes."""
    monkeypatch.setattr(hardware, "find_device", lambda *_: torch.device("cuda"))

    def supported(including_emulation: bool = True) -> bool:
        return including_emulation or not emulated

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)
    expected = torch.float32 if emulated else torch.bfloat16
    assert hardware.choose_hardware("auto", "auto").precision == expected


def test_cublas_gets_its_workspace_wherever_it_has_to_be_deterministic(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    compute_deterministically()
    import os

    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"


def test_a_card_whose_memory_is_mostly_taken_keeps_no_images(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        torch.cuda, "mem_get_info", lambda _: (2 * DATA.tensors.pixels.nbytes, 10**9)
    )
    assert hardware.fits_in_memory(DATA.tensors.pixels, torch.device("cuda"))
    monkeypatch.setattr(
        torch.cuda, "mem_get_info", lambda _: (2 * DATA.tensors.pixels.nbytes - 1, 10**9)
    )
    assert not hardware.fits_in_memory(
        DATA.tensors.pixels, torch.device("cuda")
    ) and hardware.fits_in_memory(DATA.tensors.pixels, CPU)
