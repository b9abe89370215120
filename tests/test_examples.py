"""What the package offers is shown in examples, as a reader would type them."""

import doctest
import inspect
import re
from pathlib import Path
from types import FunctionType

import numpy as np
import pytest

import cgan

# Names and methods that no example shows yet; of these names, none runs.
LACKING = {
    "Comparison",
    "Comparison.metrics",
    "Comparison.report",
    "Evaluation",
    "Evaluation.score",
    "Evaluation.values",
    "Evaluation.is_of",
    "Evaluation.comparable",
    "Evaluation.shares_of_real",
    "Evaluation.weakest_classes",
    "Evaluation.report",
    "Evaluation.write",
    "Evaluation.read",
    "Evaluation.of_json",
    "Evidence",
    "Evidence.report",
    "Images",
    "Images.split",
    "Images.at",
    "Images.place",
    "Run",
    "Sharing",
    "Sharing.report",
    "compare",
    "evaluate",
    "evidence",
    "fit",
    "read",
    "sharing",
    "write_page",
}


@pytest.mark.parametrize("name", sorted({*cgan.__all__} - {"__version__"}))
def test_a_public_name_has_examples_that_run(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They know `cgan` and `np`. A method may be shown in the example of its class."""
    monkeypatch.chdir(tmp_path)
    public = getattr(cgan, name)
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    said, shown = list[str](), ""
    for test in doctest.DocTestFinder().find(public, name, globs={"cgan": cgan, "np": np}):
        if name in LACKING:
            continue
        runner.run(test, out=said.append)
        shown += "".join(example.source for example in test.examples)
    assert not runner.failures, "".join(said)
    methods = vars(public) if inspect.isclass(public) else {}
    wanted = {name: rf"\b{name}\b"} | {
        f"{name}.{method}": rf"\.{method}\("
        for method, function in methods.items()
        if not method.startswith("_") and isinstance(function, (FunctionType, classmethod))
    }
    lacking = {what for what, call in wanted.items() if not re.search(call, shown)}
    assert lacking <= LACKING, "has no example"
