"""The code that an MLflow model carries along."""

from __future__ import annotations

from imports import imports_of, source_of

from cgan.project import PACKAGE
from cgan.run.records import DRAWING_CODE


def test_a_model_carries_the_code_that_it_draws_with() -> None:
    seen, waiting = set(), {"cgan.serving.mlflow_model"}
    while waiting:
        name = waiting.pop()
        seen.add(name)
        waiting |= (
            imports_of(name) - seen - {"cgan.registry.archive"}
        )  # for names, not for a model's file
    files = {str(source_of(name)).removeprefix("cgan/") for name in seen}
    carried = {
        str(path.relative_to(PACKAGE)) for name in DRAWING_CODE for path in PACKAGE.glob(name)
    }
    assert files < carried
