"""What mutmut lacks for this project; copied into the mutated package as `cgan._mutants`.

- A mutated module is often run as a child: `python -m cgan.stages.train`. There its functions' module
  is called `__main__`, by which mutmut would not know them for the mutant's.
- A child's calls count, and so do those of a fixture for all tests that use it: both decide which
  tests are run for a mutant. mutmut sees only the calls of the test's own process and moment.
- Quick tests first, and those that share a costly fixture next to one another.

It is a plugin of pytest too. Children import it without pytest, so that stays out of the imports.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import sys
from pathlib import Path
from typing import Any

from mutmut.mutation import trampoline
from mutmut.mutation.trampoline import MutantDict  # noqa: F401  # mutated modules import it from here
from mutmut.state import state
from pluggy import HookimplMarker

hook = HookimplMarker("pytest")

QUICK = 1.0
"""Seconds; what takes no longer and shares no fixture is run before all else."""

_of_fixture: dict[int, set[str]] = {}


def mutated(mutants: dict[str, Any], is_classmethod: bool = False) -> Any:
    """mutmut's decorator, for a function that knows its module's real name."""
    wrap = trampoline.wrap_in_trampoline(mutants, is_classmethod)

    def named(function: Any) -> Any:
        function.__module__ = _real_name(function.__module__)
        return wrap(function)

    return named


def _real_name(module: str) -> str:
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    return spec.name if module == "__main__" and spec else module


def _record(function: str, caller: str | None = None) -> None:
    """A call of a mutated function, while mutmut measures which tests reach it."""
    if os.environ.get("MUTANTS_OWNER") == str(os.getpid()):
        state()._stats.add(function)
        return
    module, _, name = function.rpartition(".")
    calls = Path(os.environ.get("MUTANTS_CALLS", os.devnull))
    with contextlib.suppress(OSError), calls.open("a", encoding="utf-8") as file:
        file.write(f"{_real_name(module)}.{name}\n")


trampoline.record_trampoline_hit = _record


def _calls_of_children() -> set[str]:
    file = Path(os.environ["MUTANTS_CALLS"])
    calls = set(file.read_text(encoding="utf-8").split()) if file.exists() else set()
    file.unlink(missing_ok=True)
    return calls


def _shared(item: Any) -> list[Any]:
    """The fixtures of a test that live longer than it, those of pytest itself left out."""
    of_item = [d for all_ in item._fixtureinfo.name2fixturedefs.values() for d in all_]
    return [d for d in of_item if d.scope != "function" and "pytest" not in d.func.__module__]


def pytest_configure(config: Any) -> None:
    os.environ["MUTANTS_OWNER"] = str(os.getpid())
    os.environ["MUTANTS_CALLS"] = str(Path.cwd() / f"calls-{os.getpid()}")
    gc.freeze()  # pytest collects garbage as it ends: not through all of torch, for every mutant
    # mutmut's fork server ignores Ctrl-C; a test's children would inherit that, and outlive their test.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_unconfigure(config: Any) -> None:
    Path(os.environ["MUTANTS_CALLS"]).unlink(missing_ok=True)


@hook(trylast=True)
def pytest_collection_modifyitems(items: list[Any]) -> None:
    items[:] = [item for item in items if "memory" not in item.name]  # mutants take some themselves
    seconds = state().duration_by_test
    of_file: dict[str, float] = {}
    for item in items:
        file = str(item.path)
        of_file[file] = of_file.get(file, 0.0) + seconds.get(item.nodeid, 0.0)

    def order(item: Any) -> tuple[bool, float, str, float]:
        own, file = seconds.get(item.nodeid, 0.0), str(item.path)
        if own <= QUICK and not _shared(item):
            return (False, own, "", 0.0)
        return (True, of_file[file], file, own)

    items.sort(key=order)


@hook(wrapper=True)
def pytest_fixture_setup(fixturedef: Any) -> Any:
    before = state()._stats | _calls_of_children()
    state()._stats = set()
    result = yield
    calls = state()._stats | _calls_of_children()
    if fixturedef.scope != "function":
        _of_fixture[id(fixturedef)] = calls
    state()._stats = before | calls
    return result


@hook(tryfirst=True)
def pytest_runtest_teardown(item: Any) -> None:
    state()._stats |= _calls_of_children()
    for fixture in _shared(item):
        state()._stats |= _of_fixture.get(id(fixture), set())


def pytest_runtest_makereport(item: Any, call: Any) -> None:
    if call.when == "setup" and os.environ.get("MUTANT_UNDER_TEST") == "stats":
        state().duration_by_test[item.nodeid] += call.duration
