"""Params: which values are refused in which words, and what writes into params.yaml."""

import copy
import functools
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from conftest import ROOT
from dvc.utils.serialize import parse_yaml as dvc_reads

from cgan.base.errors import ParamsError
from cgan.base.settings import as_keywords
from cgan.params.checks import check_params, check_section
from cgan.params.presets import PRESETS
from cgan.params.sections import AutoTrainParams, Params, flatten, param_names
from cgan.pipeline.params_file import apply_preset, load_params, parse_yaml, set_params
from cgan.training.auto import resolve

TEXT = (ROOT / "params.yaml").read_text()
DOCUMENT = yaml.safe_load(TEXT)


def checked(changes: dict[str, Any]) -> Params:
    """The repository's params with changes, {"train.lr": 0.1}."""
    document = copy.deepcopy(DOCUMENT)
    for name, value in changes.items():
        section, _, key = name.rpartition(".")
        (document[section] if section else document)[key] = value
    return check_params(document, "params.yaml")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "params.yaml"
    path.write_text(TEXT)
    return path


def test_the_repository_has_every_param_with_its_default(path: Path) -> None:
    params = load_params(path)
    keys = [f"{section}.{key}" for section in DOCUMENT for key in DOCUMENT[section]]
    assert sorted(keys) == sorted(param_names())
    assert flatten(params) == flatten(DOCUMENT)
    assert flatten(params.model_dump()) == flatten(Params().model_dump()), "the defaults in code"
    shortened = re.sub(r"\n  (lr|max_width|classes): .*", "", TEXT)
    path.write_text("\ufeff" + re.sub(r"\nevaluate:\n(  .*\n)+", "\n", shortened))
    assert load_params(path) == params, "also where the file lacks a key or a section"
    with pytest.raises(ParamsError, match="not found in"):
        load_params(path.with_name("x"))


def test_params_by_name_are_checked_as_those_of_a_file() -> None:
    check = functools.partial(check_section, AutoTrainParams, "train", name="fit()")
    found = check({"lr": np.float64(0.25), "seed": np.int64(7)})
    assert found == AutoTrainParams(lr=0.25, seed=7) and type(found.lr) is float
    for values, words in (
        ({"bacth_size": 2}, "fit(): unknown key `bacth_size`; did you mean `batch_size`?"),
        ({"lr": 0, "batch_size": 1}, "fit(): 2 problems:\n  - `lr`: "),
    ):
        with pytest.raises(ParamsError) as caught, as_keywords():
            check(values)
        assert str(caught.value).startswith(words)


def test_length_is_counted_in_images_and_is_at_least_a_step() -> None:
    for batch_size, kimg, steps in ((64, 160.0, 2500), (100, 0.16, 2), (64, 0.001, 1)):
        assert resolve(AutoTrainParams(batch_size=batch_size, total_kimg=kimg)).total_steps == steps


NAMES = "validate.class_names"
# Params and their values → what the message says; files are in promises/test_reading.py.
REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"train.leraning_rate": 1}, "`train.leraning_rate`; remove it."),
    ({"train.lr": True}, "found True."),
    ({"train.lr": math.nan}, "found nan."),
    ({"validate.classes": 1}, "2, found 1."),
    ({"validate.classes": 1001}, "1000, found 1001."),
    ({"train.batch_size": 65}, "multiple of 2, found 65."),
    ({"train.seed": 2**31}, f"found {2**31}."),
    ({"train.decay_from": 1.1}, "equal to 1, found 1.1."),
    ({"gate.promote": 1}, "boolean, found 1."),
    ({"train.max_shift": 1.5}, "'auto', found 1.5."),
    *(({"data.member": p}, "leads outside") for p in ("/etc/passwd", "a/../../x", "C:\\x")),
    ({"tracking.experiment": "../x"}, "'../x' leads outside"),
    ({"validate.height": 28}, "give both `height` and `width`"),
    # All at once.
    (
        {"x": 1, "train.lr": 0, "train.bacth": 1, "evaluate.samples": "10"},
        "yaml: 4 problems:\n  - ",
    ),
    ({NAMES: [0, 1]}, f"`{NAMES}.0`: "),
    ({NAMES: ["a", "\u202eb"]}, "cannot be shown"),
    ({NAMES: ["a", " b"]}, "' b' has a comma, or a space at an end"),
    ({NAMES: ["a", "b" * 61]}, "at most 60 characters"),
    ({NAMES: ["b", "a", "a"]}, "has 3 names, 2 different ones, and"),
    ({NAMES: [*"abc"], "validate.classes": 4}, "3 different ones, and `classes` is 4. Give each"),
    (
        {"train.auxiliary_generator": 0.2, "train.updates": "one_pass"},
        "has no loss of the generator's own",
    ),
    *(
        ({"sweep.space": {key: {"low": 1, "high": 2}}}, f"`sweep.space.{key}`: '{key}' is no param")
        for key in ("train.leraning", "gate.promote", "train.seed")
    ),
    *(
        ({"sweep.space": {"train.lr": dimension}}, f"`sweep.space.train.lr{words}")
        for dimension, words in (
            ({"low": 0.2, "high": 0.1}, "`: give `choices`, or `low` (0.2) below `high` (0.1)"),
            ({"low": "x", "high": 0.1}, ".low`: "),
            ({"low": 0.1}, "`: give `choices`, or `low` (0.1) below `high` (0)"),
            ({"low": 0, "high": 0.1, "log": True}, "`: with `log`, `low` must be above 0"),
            ({"choices": [0.1]}, ".choices`: "),
        )
    ),
]


@pytest.mark.parametrize(("changes", "words"), REFUSED)
def test_what_cannot_be_used_is_refused_in_words(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ParamsError) as caught:
        checked(changes)
    assert words in str(caught.value) and str(caught.value).replace("\n", "").isprintable()


def test_a_value_is_read_by_yaml_1_2() -> None:
    """By YAML 1.1 most of these are something else: 10, 90, true."""
    for written, value in (
        *(("012", 12), ("09", 9), ("0o100", 64), ("0x40", 64), ("0b11", 3), ("6_4", 64)),
        *(("1e-4", 1e-4), ("2E2", 200.0), ("1.0e2", 100.0), ("-.5", -0.5), ("+1", 1)),
        *((word, word) for word in ("yes", "On", "NO", "1:30", "12:30:00", "1e", "0o")),
        *(("TRUE", True), ("~", None), ("''", "")),
    ):
        text = f"a: {written}\n"
        assert repr(parse_yaml(text, "x.yaml")) == repr({"a": value}), written
        assert repr(dvc_reads(text, "x.yaml")) == repr({"a": value}), written


def test_what_is_unusual_but_valid_is_accepted() -> None:
    lr = {"low": 1, "high": 2, "log": True}
    space = {"train.total_kimg": {"choices": ["auto", 100.0]}, "train.lr": lr}
    for changes in (
        {"data.path": "/mnt/../x.csv", "data.member": "a/b..c/train.csv"},
        {"validate.height": 30, "validate.width": 20, NAMES: ["a", "b"]},
        {NAMES: ["<b>x</b>", "T-shirt/top", "猫"], "validate.classes": 3},
    ):
        assert flatten(checked(changes)) == flatten(checked({})) | changes
    params = checked({"sweep.space": space})
    assert params.model_dump(exclude_unset=True)["sweep"]["space"] == space
    kimg, rate = (params.sweep.space[f"train.{key}"].has for key in ("total_kimg", "lr"))
    assert [*map(rate, (0.9, 1, 2, 2.1, "auto"))] == [False, True, True, False, False]
    assert kimg("auto") and not kimg(99.0)
    again = check_params(params.model_dump(by_alias=True), "as a sweep passes it on")
    assert again.sweep == params.sweep


# --- What writes into params.yaml ---------------------------------------------------------------


def differing(path: Path) -> list[tuple[str, str]]:
    lines = zip(TEXT.splitlines(), path.read_text().splitlines(), strict=True)
    return [(old, new) for old, new in lines if old != new]


def test_overrides_change_the_values_characters_only(path: Path) -> None:
    changed = set_params({"train.lr": 1e-5, "train": {"seed": 7}, "validate.classes": 10}, path)
    expected = {"train.lr": (0.0045, 1e-5), "train.seed": (1, 7), "validate.classes": (None, 10)}
    assert changed == expected
    assert load_params(path) == checked({key: value for key, (_, value) in changed.items()})
    different = differing(path)
    assert len(different) == 3
    for old, new in different:
        assert old.partition("#")[2] == new.partition("#")[2] and old.find("#") == new.find("#")
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
    unknown: dict[str, Any] = {"train.lrr": 1.0}
    for override, words in (
        (unknown, "unknown key `train.lrr`; did you mean `train.lr`"),
        ({"train.lr": 0, "train.seed": -1}, "2 problems"),
    ):
        with pytest.raises(ParamsError, match=f"^overrides: {words}"):
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
