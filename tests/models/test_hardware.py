"""Which device computes, and how precisely. On a GPU itself: tests/test_gpu.py."""

import pytest
import torch

from cgan.base.errors import ParamsError
from cgan.models import hardware
from cgan.models.hardware import choose_hardware, find_device

CUDA = torch.device("cuda")


def test_devices_are_found_by_name_or_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert find_device("auto", "x") == CUDA
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for name in ("cuda:99", "mps", "gpu"):
        with pytest.raises(ParamsError, match=rf"^train.device is `{name}`: \w.* `auto` or `cpu`"):
            find_device(name, "train.device")
    assert choose_hardware("auto", "float32").device == torch.device("cpu")
    assert choose_hardware("cpu", "bfloat16").precision == torch.bfloat16


@pytest.mark.parametrize("has_it", [True, False])
def test_bfloat16_is_chosen_where_the_card_has_it(
    has_it: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Turing emulates it, and `is_bf16_supported()` alone says yes."""
    monkeypatch.setattr(hardware, "find_device", lambda *_: CUDA)
    monkeypatch.setattr(
        torch.cuda,
        "is_bf16_supported",
        lambda including_emulation=True: including_emulation or has_it,
    )
    expected = torch.bfloat16 if has_it else torch.float32
    assert choose_hardware("auto", "auto").precision == expected


def test_a_card_with_little_memory_keeps_no_images(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = torch.zeros(10, 1, 8, 8, dtype=torch.uint8)
    for free, fits in ((2 * pixels.nbytes, True), (2 * pixels.nbytes - 1, False)):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _, free=free: (free, 10**9))
        assert hardware.fits_in_memory(pixels, CUDA) is fits
    assert hardware.fits_in_memory(pixels, torch.device("cpu"))
