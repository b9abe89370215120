"""What the package offers is shown in examples, as a reader would type them."""

import doctest
import inspect
import re
from pathlib import Path
from types import FunctionType
from typing import Any

import numpy as np
import pytest

import cgan
from cgan.params.sections import JudgeParams


@pytest.fixture(scope="module")
def tiny() -> dict[str, Any]:
    pixels = np.random.default_rng(1).integers(0, 256, (150, 8, 8), np.uint8)
    images = cgan.Images(pixels, np.arange(150) % 3, ["cat", "dog", "owl"])
    train, held_out = images.split(0.4, seed=1)
    run = cgan.fit(train, "fast", total_kimg=0.1, progress=False)
    return {"train": train, "held_out": held_out, "run": run}


@pytest.mark.parametrize("name", sorted({*cgan.__all__} - {"__version__"}))
def test_a_public_name_has_examples_that_run(
    name: str, tiny: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They know `cgan`, `np`, `Path`, `train`, `held_out` and a `run`; what they train is trained for a
    moment. A method may be shown in the example of its class."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("cgan.utility.pretrained.is_installed", lambda: False)
    for module in ("utility.evidence", "quality.evaluate", "privacy.sharing"):
        monkeypatch.setattr(f"cgan.{module}.JudgeParams", lambda: JudgeParams(total_kimg=0.2))
    public = getattr(cgan, name)
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    said, shown = list[str](), ""
    for test in doctest.DocTestFinder().find(
        public, name, globs={"cgan": cgan, "np": np, "Path": Path, **tiny}
    ):
        runner.run(test, out=said.append)
        shown += "".join(example.source for example in test.examples)
    assert not runner.failures, "".join(said)
    methods = vars(public) if inspect.isclass(public) else {}
    wanted = {name: "."} | {
        f"{name}.{method}": rf"\.{method}\("
        for method, function in methods.items()
        if not method.startswith("_") and isinstance(function, (FunctionType, classmethod))
    }
    lacking = {what for what, call in wanted.items() if not re.search(call, shown)}
    assert not lacking, "has no example"


def arguments(function: Any) -> list[str]:
    def shown(each: inspect.Parameter) -> str:
        if each.kind is each.VAR_KEYWORD:
            return f"**{each.name}"
        return each.name if each.default is each.empty else f"{each.name}="

    return [shown(each) for each in inspect.signature(function).parameters.values()]


def test_public_names_are_those_that_the_docs_freeze() -> None:
    """An argument or attribute that is written down stays; what is added has a default."""
    page = Path("docs/python.md").read_text().partition("## What stays")[2]
    names, public = set[str](), None
    for name, written in re.findall(r"(\S*\.\w+)(\([^)]*\))?", page.split("```")[1]):
        if name.startswith("cgan."):
            names.add(name.removeprefix("cgan."))
            member = public = getattr(cgan, name.removeprefix("cgan."))
        else:  # a field without a default is no attribute of its class
            fields = getattr(public, "__dataclass_fields__", {})
            member = fields.get(name[1:]) or getattr(public, name[1:])
        if written:
            frozen = [each for each in written.strip("()").split(", ") if each]
            now = arguments(member)
            assert [each for each in now if each in frozen] == frozen, name
            assert all(each.endswith("=") for each in {*now} - {*frozen, "self"}), name
    assert names == {*cgan.__all__} - {"__version__"}
