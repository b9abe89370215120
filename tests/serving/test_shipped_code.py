"""The code that an MLflow model carries along."""

from __future__ import annotations

from imports import imports_of, source_of

from cgan.run.records import DRAWING_CODE


def test_a_model_carries_exactly_the_code_that_it_draws_with() -> None:
    seen, waiting = set(), {"cgan.serving.mlflow_model"}
    while waiting:
        name = waiting.pop()
        seen.add(name)
        waiting |= (
            imports_of(name) - seen - {"cgan.registry.archive"}
        )  # for names, not for a model's file
    files = {str(source_of(name)).removeprefix("cgan/") for name in seen}
    packages = {f"{name.rpartition('/')[0]}/__init__.py" for name in files if "/" in name}
    assert files | packages | {"__init__.py"} == set(DRAWING_CODE)
