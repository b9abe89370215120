"""docs/upgrade.md: by its tables a params.yaml of 0.1.0 becomes valid, and each of their rows is needed."""

import re
from typing import Any

import pytest
from conftest import ROOT
from ruamel.yaml import YAML

from cgan.errors import ParamsError
from cgan.params.checks import check_params

PAGE = (ROOT / "docs/upgrade.md").read_text()
GONE, NEW = PAGE.split("\n## Params that are ")[1:]
LINE = r"`([a-z_]+(?:\.[a-z_]+)?): ([^`]+)`"
ROWS = re.findall(rf"^\| {LINE} \| (.+) \|$", GONE, re.MULTILINE)


def document() -> dict[str, Any]:
    loaded: dict[str, Any] = YAML(typ="safe").load(ROOT / "params.yaml")
    return loaded


def checked(values: dict[str, Any]) -> dict[str, Any]:
    params = check_params(values, "params.yaml").model_dump(by_alias=True)
    return {
        f"{section}.{name}": value for section, of in params.items() for name, value in of.items()
    }


def put(into: dict[str, Any], key: str, value: str) -> None:
    section, name = key.split(".")
    into.setdefault(section, {})[name] = YAML(typ="safe").load(value)


@pytest.mark.parametrize(("key", "value", "instead"), ROWS, ids=[row[0] for row in ROWS])
def test_a_param_that_is_gone_is_refused_and_the_line_that_the_page_names_is_valid(
    key: str, value: str, instead: str
) -> None:
    old = document()
    put(old, key, value)
    with pytest.raises(ParamsError, match=re.escape(f"unknown key `{key.partition('.')[0]}")):
        check_params(old, "params.yaml")
    lines = re.findall(LINE, instead)
    assert lines or instead.startswith("nothing")
    new = document()
    for name, written in lines:
        put(new, name, written)
    found = checked(new)
    assert all(found[name] == YAML(typ="safe").load(written) for name, written in lines)


def test_the_params_that_are_called_new_have_the_values_that_the_page_shows() -> None:
    rows = re.findall(r"^\| `([a-z_]+)` \| (.+) \|$", NEW, re.MULTILINE)
    bare = document()
    shown: dict[str, Any] = {}
    for section, keys in rows:
        for name, value in re.findall(LINE, keys):
            shown[f"{section}.{name}"] = YAML(typ="safe").load(value)
            bare[section].pop(name, None)
    found = checked(bare)
    assert len(shown) > 25 and {key: found[key] for key in shown} == shown
    assert len(ROWS) == 19
