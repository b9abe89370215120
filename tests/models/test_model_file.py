"""Model files: what is written, what is refused."""

import contextlib
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import uneven

from cgan.base.errors import ModelError
from cgan.models import model_file
from cgan.models.local_score import LocalScoreSampler, LocalScoreSettings
from cgan.models.model_file import (
    digest_of,
    load_generator,
    load_tensors,
    save_generator,
    save_tensors,
)
from cgan.models.networks import Architecture, build_generator

GENERATOR = Architecture("deconv", 3, 3, 12, 8, features=2, latent_dim=4)
SAMPLED = uneven(channels=3).tensors
TENSORS = {
    "weight": torch.arange(24.0).view(2, 3, 4),
    "count": torch.tensor(7),
    "empty": torch.zeros(0, dtype=torch.float64),
    "low": torch.ones(3, dtype=torch.bfloat16),
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "x.safetensors"


def test_tensors_and_facts_survive_a_round_trip(path: Path) -> None:
    save_tensors(path, "checkpoint", TENSORS, {"step": 12345})
    with torch.device("meta"):  # whatever the default is
        tensors, facts = load_tensors(path, "checkpoint")
    assert facts["step"] == 12345 and facts["digest"] == digest_of(TENSORS) == digest_of(tensors)
    for name, tensor in TENSORS.items():
        assert tensors[name].dtype == tensor.dtype and torch.equal(tensors[name], tensor)
        assert tensors[name].device.type == "cpu"


def test_equal_content_gives_equal_bytes(tmp_path: Path) -> None:
    image, one, other = torch.randn(2, 3, 4, 4), tmp_path / "one", tmp_path / "other"
    save_tensors(one, "k", {"b": image, "a": torch.ones(3)}, {"x": 1, "y": [2.5, None]})
    channels_last = image.to(memory_format=torch.channels_last)
    save_tensors(other, "k", {"a": torch.ones(3), "b": channels_last}, {"y": [2.5, None], "x": 1})
    assert one.read_bytes() == other.read_bytes()


def test_any_flipped_bit_is_found(path: Path) -> None:
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


@pytest.mark.parametrize("kind", ["deconv", "upsample", "demo"])
def test_loaded_generator_draws_what_the_saved_one_draws(path: Path, kind: str) -> None:
    network = build_generator(Architecture(kind, 3, 1, 28, 28, features=4, latent_dim=4)).eval()
    save_generator(path, network, {"data_digest": "ab", "params": {"lr": 0.1}})
    loaded, facts = load_generator(path)
    latents, labels = torch.randn(4, 4), torch.tensor([0, 1, 2, 0])
    with torch.no_grad():
        assert torch.equal(loaded(latents, labels), network(latents, labels))
    assert not loaded.training and not any(w.requires_grad for w in loaded.parameters())
    assert loaded.architecture == network.architecture
    assert facts["torch"] == torch.__version__ and facts["data_digest"] == "ab"
    convs = [w for w in loaded.parameters() if w.dim() == 4]
    assert all(w.is_contiguous(memory_format=torch.channels_last) for w in convs)


def test_a_loaded_sampler_draws_what_the_saved_one_draws(path: Path) -> None:
    sampler = LocalScoreSampler(SAMPLED.pixels, SAMPLED.labels, LocalScoreSettings(steps=3))
    save_generator(path, sampler, {"data_digest": "ab"})
    loaded, facts = load_generator(path)
    asked = torch.tensor([2, 0, 1, 2])
    assert torch.equal(loaded.draw(asked, 5), sampler.draw(asked, 5))
    assert (loaded.classes, loaded.shape, facts["data_digest"]) == (3, (3, 8, 12), "ab")


def sampler_facts(**changes: Any) -> dict[str, Any]:
    sizes = {"classes": 3, "channels": 3, "height": 8, "width": 12}
    settings = asdict(LocalScoreSettings())
    return {"kind": "local_score", **sizes, "settings": settings, **changes}


WEIGHTS = build_generator(GENERATOR).state_dict()
IMAGES = {"images": SAMPLED.pixels, "labels": SAMPLED.labels}


@pytest.mark.parametrize(
    ("tensors", "architecture", "words"),
    [
        (WEIGHTS, asdict(replace(GENERATOR, features=3)), "generator .* linear.weight: copying a "),
        (WEIGHTS, asdict(replace(GENERATOR, kind="upsample")), r"generator .*layers\.6\.bias"),
        (IMAGES, sampler_facts(settings={"colour": 1}), "generator .*colour"),
        (IMAGES, sampler_facts(classes=4), "generator .*'classes': 3"),
        (IMAGES, sampler_facts(height=12, width=8), "generator .*'height': 8, 'width': 12"),
        ({**IMAGES, "labels": SAMPLED.labels[1:]}, sampler_facts(), "generator .*56 images"),
    ],
)
def test_what_does_not_fit_the_architecture_is_refused(
    path: Path, tensors: dict[str, Any], architecture: dict[str, Any], words: str
) -> None:
    save_tensors(path, "generator", tensors, {"architecture": architecture})
    with pytest.raises(ModelError, match=f"x.safetensors: .* are not those of a {words}"):
        load_generator(path)


def test_no_discriminator_is_read_as_none_and_weights_never(path: Path) -> None:
    model_file.save_discriminator(path, None, {})
    assert model_file.load_discriminator(path)[0] is None
    save_tensors(path, "discriminator", {"w": torch.zeros(1)}, {"architecture": None})
    with pytest.raises(ModelError, match="not those of a discriminator"):
        model_file.load_discriminator(path)
