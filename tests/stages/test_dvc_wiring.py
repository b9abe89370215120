"""dvc.yaml says of each stage what it really reads: its code, its params, its files."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml
from conftest import ROOT
from imports import closure, source_of

from cgan.page import assemble, run_page
from cgan.page.run_facts import SHOWN_SECTIONS
from cgan.stages import record

DVC: dict[str, Any] = yaml.safe_load((ROOT / "dvc.yaml").read_text())
STAGES: dict[str, dict[str, Any]] = DVC["stages"]
MAKING = [stage for stage in STAGES if stage != "record"]  # that one tells of what they made
PARAMS: dict[str, Any] = yaml.safe_load((ROOT / "params.yaml").read_text())

CHANGES_NO_RESULT = {
    # Tracking: tells of a result, and may change at any time without a new training.
    "cgan.tracking.tracker",
    "cgan.tracking.records",
    "cgan.tracking.runs",
    "cgan.tracking.delivery",
    "cgan.tracking.store",
    "cgan.drawing.logged_model",
    "cgan.stages.origin",
    "cgan.drawing.mlflow_model",
    # Where MLflow keeps a generator: a stage loads a file.
    "cgan.registry.client",
    # Starts the stage; holds the paths, which dvc.yaml holds too.
    "cgan.stages.runner",
    "cgan.project",
    # Words for the user.
    "cgan.errors",
    # Knows no defaults: params.yaml holds each value, and those are under `params`. A check of it
    # refuses a value or lets it pass. As a dependency, each new knob would repeat every stage.
    "cgan.params.sections",
    "cgan.params.reading",
    # How bytes get to the disk, not which.
    "cgan.files",
}


def entries(stage: str, kind: str) -> list[str | dict[str, Any]]:
    return STAGES[stage].get(kind, [])


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_exactly_the_code_that_it_imports(stage: str) -> None:
    module = STAGES[stage]["cmd"].removeprefix("python -m ")
    needed = {str(source_of(name)) for name in closure(module, CHANGES_NO_RESULT)}
    declared = {dep for dep in entries(stage, "deps") if str(dep).endswith(".py")}
    assert declared == needed


def test_each_section_of_params_belongs_to_one_stage_and_each_that_makes_something_has_one() -> (
    None
):
    telling = {"page", "record"}
    owned = [
        section for stage in MAKING if stage not in telling for section in entries(stage, "params")
    ]
    assert len(owned) == len(STAGES) - len(telling) and not entries("record", "params")
    assert entries("page", "params") == owned  # it shows them all
    assert list(SHOWN_SECTIONS) == owned
    assert sorted(map(str, owned)) == sorted(set(PARAMS) - {"gate", "sweep", "tracking"})


def test_the_page_depends_on_every_file_that_is_put_together_in_it() -> None:
    parts = {*run_page.TEMPLATES, *assemble.PLAY, *assemble.EVIDENCE}
    declared = {str(dep) for dep in entries("page", "deps") if str(dep).startswith("cgan/page/")}
    assert {dep for dep in declared if not dep.endswith(".py")} == {f"cgan/page/{p}" for p in parts}


def test_a_new_run_is_always_recorded_whatever_the_cache_restores() -> None:
    """The file that names the run is an input, so DVC has nothing to restore for a new one."""
    recorded = {str(path) for paths in record.FILES.values() for path in paths}
    inputs = {str(dep) for dep in entries("record", "deps") if not str(dep).endswith(".py")}
    assert inputs == recorded | {"models/mlflow_run.json", "models/generator.safetensors"}


def test_every_output_stays_in_the_cache_and_no_stage_is_frozen_or_always_changed() -> None:
    """So that a stage can be restored."""
    found = set()
    for name in STAGES:
        outputs = [out for kind in ("outs", "metrics", "plots") for out in entries(name, kind)]
        options = [option for out in outputs if isinstance(out, dict) for option in out.values()]
        kept = not [o for o in options if o.get("cache") is False or o.get("persist")]
        assert name == "record" or (outputs and kept), name
        assert not STAGES[name].get("frozen") and not STAGES[name].get("always_changed")
        found |= {out if isinstance(out, str) else next(iter(out)) for out in outputs}
    assert {artifact["path"] for artifact in DVC["artifacts"].values()} <= found


def test_every_plot_is_a_picture_so_that_the_page_loads_nothing_and_has_its_place_there() -> None:
    """What is not a picture, DVC draws with a library that the page takes from the internet."""
    plots = [str(plot) for stage in STAGES for plot in entries(stage, "plots")]
    assert plots and all(plot.endswith(".png") for plot in plots) and "plots" not in DVC
    page = (ROOT / ".dvc/plots.html").read_text()
    assert "html_template = plots.html" in (ROOT / ".dvc/config").read_text()
    placed = set(re.findall(r"#(\w+) \{ order", page))
    assert placed <= {re.sub(r"[/.]", "_", plot) for plot in plots}
