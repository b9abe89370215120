"""`sweep.space` of params.yaml: what is refused, and with which words."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from conftest import ROOT

from cgan.errors import ParamsError
from cgan.metric import METRICS
from cgan.params.reading import check_params
from cgan.params.sections import Params

DOCUMENT = yaml.safe_load((ROOT / "params.yaml").read_text())


def load(space: Any, **sweep: Any) -> Params:
    return check_params(
        DOCUMENT | {"sweep": DOCUMENT["sweep"] | {"space": space, **sweep}}, "params.yaml"
    )


REFUSED: list[tuple[Any, str]] = [
    ({"train.leraning": {"low": 1, "high": 2}}, "no such param; did you mean `train.lr`?"),
    ({"train.latent": {"low": 1, "high": 2}}, "did you mean `train.latent_dim`?"),
    ({"gate.promote": {"choices": [True, False]}}, "only params of `train` can be searched"),
    ({"train_judge.width": {"choices": [4, 8]}}, "only params of `train` can be searched"),
    ({"train.seed": {"low": 1, "high": 9}}, "neither `seed` nor `probes`"),
    ({"train.probes": {"low": 1, "high": 9}}, "neither `seed` nor `probes`"),
    ({"train.lr": {"low": -1.0, "high": 1.0}}, "should be greater than 0, found -1.0"),
    ({"train.adam_beta1": {"low": 0.0, "high": 1.0}}, "less than 1, found 1.0"),
    ({"train.latent_dim": {"low": 1.5, "high": 9.5}}, "should be a valid integer"),
    ({"train.generator": {"choices": ["deconv", "conv"]}}, "'deconv', 'upsample', 'embed'"),
    ({"train.generator": {"low": 1, "high": 2}}, "should be 'auto', 'deconv'"),
    ({"train.lr": {"low": 0.2, "high": 0.1}}, "`low` (0.2) must be below `high` (0.1)"),
    ({"train.lr": {"low": 0.1}}, "give either both `low` and `high`, or `choices`"),
    ({"train.lr": {"choices": [0.1, 0.2], "log": True}}, "`choices` stand alone"),
    ({"train.lr": {"low": 0, "high": 0.1, "log": True}}, "with `log`, `low` must be above 0"),
    ({"train.lr": {"low": 0.1, "high": 0.2, "log": True, "step": 0.1}}, "no `step`"),
    ({"train.lr": {"lowest": 0.1, "high": 0.2}}, "unknown key `sweep.space.train.lr.lowest`"),
    ({"train.lr": {"choices": [0.1]}}, "sweep.space.train.lr.choices"),
    ({}, "sweep.space"),
]


def test_a_space_that_cannot_be_searched_is_refused() -> None:
    for space, words in REFUSED:
        with pytest.raises(ParamsError) as caught:
            load(space)
        assert words in str(caught.value) and "sweep.space" in str(caught.value), space


def test_numbers_or_choices_of_auto_and_a_range_from_zero_are_kept() -> None:
    assert load({"train.total_kimg": {"low": 50.0, "high": 100.0}})
    assert load({"train.total_kimg": {"choices": ["auto", 100.0]}})
    space = {"train.r1_gamma": {"low": 0, "high": 1.0}}
    assert load(space).model_dump()["sweep"]["space"] == space


def test_the_objective_is_a_metric() -> None:
    for key in METRICS:
        load({"train.lr": {"low": 0.1, "high": 0.2}}, objective=key)
    with pytest.raises(ParamsError, match=r"`sweep\.objective`: 'beauty'.*conditional_accuracy"):
        load({"train.lr": {"low": 0.1, "high": 0.2}}, objective="beauty")
