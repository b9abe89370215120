"""`sweep.space` of params.yaml in Optuna's terms. Checked as a whole before anything starts."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Mapping
from typing import Any

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from cgan.errors import ParamsError
from cgan.params.reading import check_params, is_whole
from cgan.params.sections import Dimension, Params

TRAIN = "train."
DIGITS = 3  # of a value that is searched: more would make no difference, and look as if
TRIED = 2000  # combinations of values


def distributions(params: Params) -> dict[str, BaseDistribution]:
    """Under names without `train.`, which would be all that there is room for in a plot."""
    return {
        key.removeprefix(TRAIN): _distribution(key, each)
        for key, each in params.sweep.space.items()
    }


def _distribution(key: str, each: Dimension) -> BaseDistribution:
    if each.choices is not None:
        return CategoricalDistribution(each.choices)
    low, high = each.low, each.high
    assert low is not None and high is not None
    if is_whole(key):
        return IntDistribution(int(low), int(high), log=each.log, step=int(each.step or 1))
    return FloatDistribution(float(low), float(high), log=each.log, step=each.step)


def rounded(params: Params, suggested: Mapping[str, Any]) -> dict[str, Any]:
    """By Optuna's names → as in params.yaml: with DIGITS digits, and still within their range."""
    found = {}
    for name, value in suggested.items():
        key = TRAIN + name
        each = params.sweep.space[key]
        if isinstance(value, float) and each.choices is None and each.step is None:
            assert each.low is not None and each.high is not None
            value = min(max(float(f"{value:.{DIGITS}g}"), float(each.low)), float(each.high))
        found[key] = value
    return found


def present(params: Params) -> dict[str, Any]:
    """What params.yaml holds now, by Optuna's names, where the space has that value."""
    now = params.train.model_dump()
    found = {}
    for key, each in params.sweep.space.items():
        value = now[key.removeprefix(TRAIN)]
        if each.choices is not None:
            inside = value in each.choices
        else:
            assert each.low is not None and each.high is not None
            inside = not isinstance(value, str) and each.low <= value <= each.high
        if inside:
            found[key.removeprefix(TRAIN)] = value
    return found


def is_present(params: Params, values: Mapping[str, Any]) -> bool:
    """Are these what params.yaml holds now?"""
    now = params.train.model_dump()
    return dict(values) == {key: now[key.removeprefix(TRAIN)] for key in params.sweep.space}


def check_combinations(params: Params) -> None:
    """Raise ParamsError for values of the space that do not go together, such as a batch of odd size.

    All combinations of ends and choices are tried where they are few, else TRIED of them by chance.
    """
    for values in _combinations(params):
        try:
            check_params(with_values(params, values), "sweep.space")
        except ParamsError as error:
            told = ", ".join(f"{key} = {value}" for key, value in values.items())
            raise ParamsError(
                f"{error} Values of the space must go together in every combination; here: {told}."
            ) from None


def _combinations(params: Params) -> Iterator[dict[str, Any]]:
    keys = list(params.sweep.space)
    values = [each.bounds() for each in params.sweep.space.values()]
    count = 1
    for each in values:
        count *= len(each)
    if count <= TRIED:
        for found in itertools.product(*values):
            yield dict(zip(keys, found, strict=True))
        return
    dice = random.Random(0)
    for _ in range(TRIED):
        yield {key: dice.choice(each) for key, each in zip(keys, values, strict=True)}


def with_values(params: Params, values: Mapping[str, Any]) -> dict[str, Any]:
    """The document of params.yaml with other values of `train`."""
    document = params.model_dump(by_alias=True)
    changed = {key.removeprefix(TRAIN): value for key, value in values.items()}
    return {**document, "train": {**document["train"], **changed}}
