"""Model files: what is written, what is refused."""

import contextlib
import json
import struct
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from uneven import uneven

from cgan.errors import ModelError
from cgan.model.local_score import LocalScoreSampler, LocalScoreSettings
from cgan.model.model_file import (
    digest_of,
    load_discriminator,
    load_generator,
    load_tensors,
    save_discriminator,
    save_generator,
    save_tensors,
)
from cgan.model.networks import Architecture, build_generator
from cgan.training.checkpoints import load_checkpoint, save_checkpoint

GENERATOR = Architecture("deconv", 3, 3, 12, 8, features=2, latent_dim=4)
TENSORS = {
    "weight": torch.arange(24.0).view(2, 3, 4),
    "count": torch.tensor(7),
    "empty": torch.zeros(0, dtype=torch.float64),
    "low": torch.ones(3, dtype=torch.bfloat16),
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    save_tensors(tmp_path / "x.safetensors", "checkpoint", TENSORS, {"step": 12345})
    return tmp_path / "x.safetensors"


def test_tensors_and_facts_survive_a_round_trip(file: Path) -> None:
    tensors, facts = load_tensors(file, "checkpoint")
    assert facts["step"] == 12345 and facts["digest"] == digest_of(TENSORS) == digest_of(tensors)
    for name, tensor in TENSORS.items():
        assert tensors[name].dtype == tensor.dtype and torch.equal(tensors[name], tensor)


def test_equal_content_gives_equal_bytes(tmp_path: Path) -> None:
    image = torch.randn(2, 3, 4, 4)
    for index, memory in enumerate((torch.contiguous_format, torch.channels_last)):
        tensors = {"b": image.to(memory_format=memory), "a": torch.ones(3)}
        facts = {"x": 1, "y": [2.5, None]}
        if index:
            tensors, facts = (dict(reversed(d.items())) for d in (tensors, facts))  # type: ignore[assignment]
        save_tensors(tmp_path / str(index), "k", tensors, facts)
    assert (tmp_path / "0").read_bytes() == (tmp_path / "1").read_bytes()


def test_any_flipped_bit_is_found(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_tensors(path, "checkpoint", {"w": torch.tensor([1.0, 2.0])}, {"step": 12345})
    content = path.read_bytes()
    whole = load_tensors(path, "checkpoint")
    for position in range(len(content)):
        damaged = bytearray(content)
        damaged[position] ^= 1 << position % 8
        path.write_bytes(damaged)
        # A flip that JSON doesn't notice, in white space, reads the same.
        with contextlib.suppress(ModelError):
            tensors, facts = load_tensors(path, "checkpoint")
            assert digest_of(tensors) == digest_of(whole[0]) and facts == whole[1], position


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        (
            {"features": 3},
            "size mismatch for linear.weight: copying a param with shape torch.Size([24, ",
        ),
        ({"kind": "upsample"}, "layers.6.bias"),
    ],
)
def test_weights_of_another_architecture_are_refused(
    tmp_path: Path, changes: dict[str, Any], difference: str
) -> None:
    tensors = build_generator(GENERATOR).state_dict()
    path = tmp_path / "g.safetensors"
    claimed = asdict(replace(GENERATOR, **changes))
    save_tensors(path, "generator", tensors, {"architecture": claimed})
    with pytest.raises(ModelError, match="are not those of a generator") as caught:
        load_generator(path)
    assert difference in str(caught.value) and str(path) in str(caught.value)


def test_a_file_names_no_device_and_loads_to_the_cpu(file: Path) -> None:
    raw = file.read_bytes()
    header = json.loads(raw[8 : 8 + struct.unpack("<Q", raw[:8])[0]])
    for name, entry in header.items():
        if name != "__metadata__":
            assert entry.keys() == {"dtype", "shape", "data_offsets"}
    assert b"cuda" not in raw and b"cpu" not in raw
    with torch.device("meta"):  # whatever the default is
        tensors, _ = load_tensors(file, "checkpoint")
    assert {tensor.device.type for tensor in tensors.values()} == {"cpu"}


@pytest.mark.gpu
def test_a_checkpoint_from_cuda_is_the_same_on_the_cpu(tmp_path: Path) -> None:
    on_card = {name: tensor.cuda() for name, tensor in TENSORS.items()}
    save_checkpoint(tmp_path, 3, on_card)
    loaded = load_checkpoint(tmp_path)
    assert loaded is not None and loaded[0] == 3 and digest_of(loaded[1]) == digest_of(TENSORS)
    assert {tensor.device.type for tensor in loaded[1].values()} == {"cpu"}


@pytest.mark.parametrize("kind", ["deconv", "upsample", "demo"])
def test_loaded_generator_draws_what_the_saved_one_draws(tmp_path: Path, kind: str) -> None:
    network = build_generator(Architecture(kind, 3, 1, 28, 28, features=4, latent_dim=4)).eval()
    save_generator(tmp_path / "g", network, {"data_digest": "ab", "params": {"lr": 0.1}})
    loaded, facts = load_generator(tmp_path / "g")
    latents, labels = torch.randn(4, 4), torch.tensor([0, 1, 2, 0])
    with torch.no_grad():
        assert torch.equal(loaded(latents, labels), network(latents, labels))
    assert not loaded.training and not any(w.requires_grad for w in loaded.parameters())
    assert loaded.architecture == network.architecture
    assert facts["torch"] == torch.__version__ and facts["data_digest"] == "ab"
    convs = [w for w in loaded.parameters() if w.dim() == 4]
    assert all(w.is_contiguous(memory_format=torch.channels_last) for w in convs)


SAMPLED = uneven(channels=3).tensors


def test_a_loaded_sampler_draws_what_the_saved_one_draws(tmp_path: Path) -> None:
    sampler = LocalScoreSampler(SAMPLED.pixels, SAMPLED.labels, LocalScoreSettings(steps=3))
    save_generator(tmp_path / "g", sampler, {"data_digest": "ab"})
    loaded, facts = load_generator(tmp_path / "g")
    asked = torch.tensor([2, 0, 1, 2])
    assert torch.equal(loaded.draw(asked, 5), sampler.draw(asked, 5))
    assert (loaded.classes, loaded.shape, facts["data_digest"]) == (3, (3, 8, 12), "ab")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"settings": {"colour": 1}}, "colour"),
        ({"classes": 4}, "0 to 3"),
        ({"height": 12, "width": 8}, "(56, 3, 8, 12)"),
    ],
)
def test_a_sampler_s_file_that_no_stage_writes_is_refused(
    tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    path = tmp_path / "g.safetensors"
    sizes = {"classes": 3, "channels": 3, "height": 8, "width": 12, "settings": {}}
    tensors = {"images": SAMPLED.pixels, "labels": SAMPLED.labels}
    facts = {"architecture": {"kind": "local_score", **sizes, **changes}}
    save_tensors(path, "generator", tensors, facts)
    with pytest.raises(ModelError, match="local score sampler") as caught:
        load_generator(path)
    assert words in str(caught.value) and str(path) in str(caught.value)


def test_no_discriminator_is_read_as_none_and_a_file_of_weights_never(tmp_path: Path) -> None:
    path = tmp_path / "d.safetensors"
    save_discriminator(path, None, {})
    assert load_discriminator(path)[0] is None
    save_tensors(path, "discriminator", {"w": torch.zeros(1)}, {"architecture": None})
    with pytest.raises(ModelError, match="not those of a discriminator"):
        load_discriminator(path)
