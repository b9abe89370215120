"""The fingerprint under which a training keeps its checkpoints: it tells apart whatever trains other bits."""

from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from conftest import CPU, closure, copy_code, params_of

from cgan.base.files import fingerprint
from cgan.data.images import Images
from cgan.models.hardware import Hardware
from cgan.params.sections import TrainParams
from cgan.training import provenance

TRAIN = params_of()

CHANGES_NO_WEIGHT = {
    # What it reads is compared with its digest, and the digest is in the fingerprint.
    *("cgan.data.arrays", "cgan.data.images"),
    # Probes and previews look at the averaged generator; `test_probes_…` in test_monitoring.py.
    *("cgan.quality.judge", "cgan.quality.proportions", "cgan.base.progress"),
    "cgan.data.contact_sheet",
    # The values are in the fingerprint; `total_steps`, which is computed there, has a test in test_params.py.
    "cgan.params.sections",
    # How bytes get to the disk, not which; words for the user.
    *("cgan.base.files", "cgan.base.errors", "cgan.base.settings", "cgan.base.text"),
}


def fingerprint_of(
    params: TrainParams = TRAIN, hardware: Hardware = CPU, judge: str = "ee", **facts: Any
) -> tuple[str, dict[str, Any]]:
    pixels, labels = torch.zeros(6, 1, 8, 8, dtype=torch.uint8), torch.arange(6) % 3
    facts = {"pixels": pixels, "labels": labels, "source_sha256": "aa", "notes": (), **facts}
    data = Images(**facts)
    facts = provenance.determining_facts(params, data, hardware, judge)
    return fingerprint(facts), facts


FINGERPRINT, FACTS = fingerprint_of()


def other(value: Any, kind: Any) -> Any:
    """Another value of the same kind."""
    if choices := get_args(kind):
        return next(choice for choice in choices if choice != value)
    return value + ("x" if kind is str else 1)


def differing(facts: dict[str, Any]) -> set[str]:
    assert facts.keys() == FACTS.keys()
    return {key for key in facts if facts[key] != FACTS[key]}


def test_every_param_of_the_training_changes_the_fingerprint() -> None:
    for name, field in TrainParams.model_fields.items():
        if name.startswith("score_"):  # of the local score sampler: no GAN reads them
            continue
        value = other(getattr(TRAIN, name), field.annotation) if name != "generator" else "upsample"
        changed, facts = fingerprint_of(TRAIN.model_copy(update={name: value}))
        assert changed != FINGERPRINT and differing(facts) == {"params"}, name


@pytest.mark.parametrize(
    ("key", "changes"),
    [
        ("data", {"source_sha256": "cc"}),
        ("data", {"pixels": torch.ones(6, 1, 8, 8).byte()}),
        ("data", {"class_names": ["a", "b", "c"]}),
        # `validate.classes: 4` makes a class that has no image yet: same data, larger networks.
        ("classes", {"class_names": ["0", "1", "2", "3"]}),
        ("judge", {"judge": "ff"}),  # else probes.csv could be of two judges
        ("device", {"hardware": Hardware(torch.device("cuda"), torch.float32)}),
        ("precision", {"hardware": Hardware(torch.device("cpu"), torch.bfloat16)}),
    ],
)
def test_whatever_else_determines_the_result_changes_it(key: str, changes: dict[str, Any]) -> None:
    changed, facts = fingerprint_of(**changes)
    assert changed != FINGERPRINT and differing(facts) == {key}


def test_another_torch_format_or_line_that_computes_changes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy_code(tmp_path)
    monkeypatch.setattr(provenance, "CODE_FOLDER", tmp_path / "cgan")
    assert fingerprint_of()[0] == FINGERPRINT, "the same text, elsewhere"
    for name in ("training/update", "models/networks"):
        with (tmp_path / f"cgan/{name}.py").open("a") as source:
            source.write("# a comment included\n")
        assert differing(fingerprint_of()[1]) == {"code"}
    monkeypatch.setattr(provenance, "FORMAT", -1)
    monkeypatch.setattr(torch, "__version__", "9.9")
    assert differing(fingerprint_of()[1]) == {"code", "format", "torch"}


def test_every_module_that_computes_is_in_the_fingerprint() -> None:
    imported = closure("cgan.training.loop")
    computing = {name for name in imported if name.split(".")[1] in provenance.HASHED_PACKAGES}
    assert imported - computing == CHANGES_NO_WEIGHT
