"""What writes into params.yaml: single values and presets."""

from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT

from cgan.errors import ParamsError
from cgan.params.presets import PRESETS, preset_params
from cgan.pipeline.params_file import apply_preset, load_params, set_params

TEXT = (ROOT / "params.yaml").read_text()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "params.yaml"
    path.write_text(TEXT)
    return path


def differing(path: Path) -> list[tuple[str, str]]:
    lines = zip(TEXT.splitlines(), path.read_text().splitlines(), strict=True)
    return [(old, new) for old, new in lines if old != new]


def test_overrides_change_the_values_characters_only(path: Path) -> None:
    changed = set_params({"train.lr": 1e-5, "train": {"seed": 7}, "validate.classes": 10}, path)
    assert changed == {
        "train.lr": (0.0045, 1e-5),
        "train.seed": (1, 7),
        "validate.classes": (None, 10),
    }
    params = load_params(path)
    assert (params.train.lr, params.train.seed, params.validation.classes) == (1e-5, 7, 10)
    different = differing(path)
    assert len(different) == 3
    assert all(old.partition("#")[2] == new.partition("#")[2] for old, new in different)
    assert all(old.find("#") == new.find("#") for old, new in different), "the comments' columns"
    assert set_params({"train.lr": 1e-5}, path) == {}


def test_a_value_is_written_where_none_or_no_key_was(path: Path) -> None:
    text = TEXT.replace("classes: null  ", "classes:").replace("width: null", "width:")
    path.write_text(text.replace("  max_width: 512", "#"))
    found = {"classes": 12, "height": 30, "width": 20}
    assert set_params({"validate": found, "train.max_width": 512}, path) == {
        **{f"validate.{key}": (None, value) for key, value in found.items()},
        "train.max_width": (512, 512),
    }
    assert found.items() <= load_params(path).validation.model_dump().items()
    assert "max_width: 512" in path.read_text()


def test_a_wrong_override_changes_nothing(path: Path) -> None:
    cases: list[tuple[dict[str, Any], str]] = [
        ({"train.lrr": 1.0}, r"overrides: unknown key `train.lrr`; did you mean `train.lr`"),
        ({"train": 3}, r"overrides: `train`: "),
        ({"train.lr.x": 3}, r"overrides: unknown key `train.lr.x`"),
        ({"train.lr": 0, "train.seed": -1}, r"overrides: 2 problems"),
    ]
    for override, message in cases:
        with pytest.raises(ParamsError, match=message):
            set_params(override, path)
        assert path.read_text() == TEXT


def test_a_preset_is_written_and_says_what_it_changed(path: Path) -> None:
    for name in set(PRESETS) - {"default"}:
        changed = apply_preset(name, path)
        assert changed and all(key.startswith("train.") for key in changed)
        assert len(differing(path)) == len(changed)
        apply_preset("default", path)
        assert path.read_text() == TEXT, "`git diff` is empty again"
    assert apply_preset("default", path) == {}


def test_the_demo_has_the_numbers_of_the_r_program() -> None:
    numbers = {"latent_dim": 96, "generator_width": 96, "batch_size": 64, "total_kimg": 153.6}
    numbers |= {"lr": 1.0, "decay_from": 1.0, "ema_half_life_kimg": 0.0}
    expected = {**numbers, "generator": "demo", "precision": "float32"}
    assert expected.items() <= preset_params("demo").items()
