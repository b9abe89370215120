"""Params: which values are refused in which words, and what writes into params.yaml."""

import copy
import datetime
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from conftest import ROOT
from dvc.utils.serialize import parse_yaml as dvc_reads

from cgan.errors import ParamsError
from cgan.params.checks import check_params, check_train
from cgan.params.closed import CLOSED
from cgan.params.sections import Params, TrainChoices, flatten, param_names
from cgan.pipeline.params_file import load_params, parse_yaml
from cgan.training.auto import resolve

Load = Callable[..., Params]
TEXT = (ROOT / "params.yaml").read_text()
DOCUMENT = yaml.safe_load(TEXT)


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Check the repository's params with changes, {"train.lr": 0.1}; or load another text."""
    path = tmp_path / "params.yaml"

    def load(changes: dict[str, Any] | None = None, text: str = TEXT) -> Params:
        if not changes:
            path.write_text(text)
            return load_params(path)
        document = copy.deepcopy(DOCUMENT)
        for name, value in changes.items():
            section, _, key = name.rpartition(".")
            (document[section] if section else document)[key] = value
        return check_params(document, path)

    return load


def refusal(load: Load, changes: dict[str, Any] | None = None, text: str = TEXT) -> str:
    with pytest.raises(ParamsError) as caught:
        load(changes, text)
    return str(caught.value)


def test_the_repository_has_every_param_with_its_default(load: Load) -> None:
    params = load_params(ROOT / "params.yaml")
    keys = [f"{section}.{key}" for section in DOCUMENT for key in DOCUMENT[section]]
    assert sorted(keys) == sorted(param_names())
    assert flatten(params) == flatten(DOCUMENT)
    assert flatten(params.model_dump()) == flatten(Params().model_dump()), "the defaults in code"
    shortened = re.sub(r"\n  (lr|max_width|classes): .*", "", TEXT)
    shortened = re.sub(r"\nevaluate:\n(  .*\n)+", "\n", shortened)
    assert load(text=shortened) == params, "also where the file lacks a key or a section"


def test_params_by_name_are_checked_as_those_of_a_file() -> None:
    found = check_train({"lr": np.float64(0.25), "seed": np.int64(7)}, "fit()")
    assert found == TrainChoices(lr=0.25, seed=7) and type(found.lr) is float
    for values, words in (
        ({"bacth": 2}, "fit(): unknown key `bacth`; did you mean `batch_size`?"),
        ({"epochs": 2}, "fit(): unknown key `epochs`; did you mean `total_kimg`?"),
        ({"lr": "fast"}, "fit(): `lr`: "),
        ({"objective": "logistic"}, "fit(): `objective` is closed since 1.0: it is a part of"),
        ({"lr": 0, "batch_size": 1}, "fit(): 2 problems:\n  - `lr`: "),
    ):
        with pytest.raises(ParamsError) as caught:
            check_train(values, "fit()")
        assert str(caught.value).startswith(words)


def test_length_is_counted_in_images_and_is_at_least_a_step(load: Load) -> None:
    for batch_size, total_kimg, steps in ((64, 160.0, 2500), (100, 0.16, 2), (64, 0.001, 1)):
        train = load({"train.batch_size": batch_size, "train.total_kimg": total_kimg}).train
        assert resolve(train).total_steps == steps


NAMES = "validate.class_names"
# A param, what stands there → what the message says; files are in promises/test_reading.py.
REFUSED: list[tuple[str, Any, str]] = [
    ("train.leraning_rate", 1, "`train.leraning_rate`; did you mean `train.lr`?"),
    ("train.bacth", 1, "did you mean `train.batch_size`?"),
    ("preprocess.label_column", 1, "did you mean `validate.label_column`?"),
    ("train.lr", 0, "greater than 0, found 0."),
    ("train.lr", True, "found True."),
    ("train.lr", math.nan, "found nan."),
    ("validate.classes", 1, "2, found 1."),
    ("validate.classes", 1001, "1000, found 1001."),
    ("train.batch_size", 0, "2, found 0."),
    ("train.seed", 2**31, f"found {2**31}."),
    ("train.decay_from", 1.1, "equal to 1, found 1.1."),
    ("gate.promote", 1, "boolean, found 1."),
    ("data.path", "", "`data.path`: "),
    ("data.path", datetime.date(2026, 1, 2), "found datetime.date(2026, 1, 2)"),
    ("train.max_shift", 1.5, "'auto', found 1.5."),
    ("tracking.experiment", "x" * 501, "at most 500 characters"),
    *(
        (name, path, f"{path!r} leads outside")
        for name in ("data.member", "tracking.experiment")
        for path in ("/etc/passwd", "a/../../x", "C:\\x")
    ),
    ("train.batch_size", 65, "multiple of 2, found 65."),
    ("validate.height", 28, "give both `height` and `width`"),
    (NAMES, [0, 1], f"`{NAMES}.0`: "),
    (NAMES, ["a", "\u202eb"], "cannot be shown"),
    (NAMES, ["a", " b"], "' b' has a comma, or a space at an end"),
    (NAMES, ["a", "b" * 61], "at most 60 characters"),
    (NAMES, ["b", "a", "a"], "`class_names` has 'a' twice"),
    (NAMES, ["a"], "`class_names` has 1 names"),
    ("sweep.objective", "beauty", "'beauty' is no metric"),
    *(
        ("sweep.space", {key: {"low": 1, "high": 2}}, f"`sweep.space.{key}`: no param of `train`")
        for key in ("train.leraning", "gate.promote", "train_judge.seed", "train.seed")
    ),
    *(
        ("sweep.space", {f"train.{name}": dimension}, f"`sweep.space.train.{name}{words}")
        for name, dimension, words in (
            ("lr", {"low": 0.2, "high": 0.1}, "`: `low` (0.2) must be below `high` (0.1)"),
            ("lr", {"low": 0.1}, ".high` is missing"),
            ("lr", {"choices": [0.1, 0.2], "log": True}, ".log`; remove it"),
            ("lr", {"low": 0, "high": 0.1, "log": True}, "`: with `log`, `low` must be above 0"),
            ("lr", {"choices": [0.1]}, ".choices`: "),
        )
    ),
    ("sweep.space", {}, "`sweep.space`: "),
]


@pytest.mark.parametrize(("name", "value", "words"), REFUSED)
def test_what_cannot_be_used_is_refused_in_words(
    name: str, value: Any, words: str, load: Load
) -> None:
    message = refusal(load, {name: value})
    assert words in message and message.replace("\n", "").isprintable()


def test_params_that_exclude_each_other_are_refused(load: Load) -> None:
    one = {"train.auxiliary_generator": 0.2, "train.updates": "one_pass"}
    assert "has no loss of the generator's own" in refusal(load, one)
    assert "write `lr` under `train:`." in refusal(load, text=TEXT + "train.lr: 3\n")


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


@pytest.mark.parametrize("closed", CLOSED)
def test_a_closed_key_says_what_to_do(closed: str, load: Load) -> None:
    key, _, value = closed.partition(": ")
    message = refusal(load, {key: value or 1, "train.lr": 0})
    assert f"  - `{closed}` is closed since 1.0: {CLOSED[closed]}.\n" in f"{message}\n"
    assert "2 problems:\n" in message and "`train.lr`: " in message


def test_all_problems_are_told_at_once_and_a_missing_file(load: Load, tmp_path: Path) -> None:
    wrong = {
        "train.lr": 0,
        "train.bacth": 1,
        "data.source": "web",
        "evaluate.samples": "10",
        "x": 1,
    }
    head, *lines = refusal(load, wrong).splitlines()
    assert head.endswith("params.yaml: 5 problems:")
    assert [line[:4] for line in lines] == ["  - "] * 5
    for name in wrong:
        assert sum(f"`{name}`" in line.split(";")[0] for line in lines) == 1
    with pytest.raises(ParamsError, match=r"not found in .*Run from the project's top folder"):
        load_params(tmp_path / "params.yaml")
    with pytest.raises(ParamsError, match="cannot be read"):
        load_params(tmp_path)


def test_what_is_unusual_but_valid_is_accepted(load: Load) -> None:
    assert load(text="\ufeff" + TEXT)
    names = {"validate.class_names": ["<b>x</b>", "T-shirt/top", "猫"]}
    for changes in (
        {"data.path": "/mnt/../x.csv", "data.member": "a/b..c/train.csv"},
        {"validate.height": 30, "validate.width": 20, NAMES: ["a", "b"]},
        names,
        names | {"validate.classes": 3},
    ):
        assert flatten(load(changes)) == flatten(load()) | changes
    lr = {"low": 1, "high": 2, "log": True}
    space = {"train.total_kimg": {"choices": ["auto", 100.0]}, "train.lr": lr}
    params = load({"sweep.space": space})
    assert params.model_dump(exclude_unset=True)["sweep"]["space"] == space
    kimg, rate = (params.sweep.space[f"train.{key}"].has for key in ("total_kimg", "lr"))
    assert [*map(rate, (0.9, 1, 2, 2.1, "auto"))] == [False, True, True, False, False]
    assert kimg("auto") and not kimg(99.0)
    again = check_params(params.model_dump(by_alias=True), "as a sweep passes it on")
    assert again.sweep == params.sweep
    message = refusal(load, names | {"validate.classes": 4})
    assert "`class_names` has 3 names and `classes` is 4. Give one name a class" in message
