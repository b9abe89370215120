"""dvc.yaml says of each stage what it really reads: its code, its params, its files."""

import ast
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT, closure, source_of

from cgan.base.errors import ParamsError
from cgan.pipeline import project
from cgan.stages import params as params_stage

DVC: dict[str, Any] = yaml.safe_load((ROOT / "dvc.yaml").read_text())
STAGES: dict[str, dict[str, Any]] = DVC["stages"]
PARAMS: dict[str, Any] = yaml.safe_load((ROOT / "params.yaml").read_text())

CHECKS = {"cgan.params.sections", "cgan.params.checks", "cgan.pipeline.params_file"}
CHANGES_NO_RESULT = {
    # Tracking: tells of a result, and may change at any time without a new training.
    *(f"cgan.pipeline.tracking.{name}" for name in ("live", "run", "store", "logged_model")),
    *("cgan.stages.origin", "cgan.drawing.mlflow_model"),
    # Where MLflow keeps a generator: a stage loads a file. How long it will take.
    *("cgan.pipeline.registry.runs", "cgan.pipeline.progress"),
    # Starts the stage; holds the paths, which dvc.yaml holds too.
    *("cgan.stages.runner", "cgan.pipeline.project"),
    # Words for the user, how a notebook shows an object, and how bytes get to the disk, not which.
    *(f"cgan.base.{name}" for name in ("errors", "progress", "settings", "text", "files")),
    # The values of params.yaml are under `params`, and the defaults of keys that it lacks are in what the
    # stage params makes. A check refuses a value or lets it pass. As a dependency, each new param would
    # repeat every stage.
    *CHECKS,
}


def entries(stage: str, *kinds: str) -> list[str]:
    return [entry for kind in kinds for entry in STAGES[stage].get(kind, [])]


def module_of(stage: str) -> str:
    return str(STAGES[stage]["cmd"].removeprefix("python -m "))


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_the_code_that_it_imports(stage: str) -> None:
    """And on a package where it needs half of it; training where it needs all: else, it trains too often."""
    no_part = CHANGES_NO_RESULT - CHECKS if stage == "params" else CHANGES_NO_RESULT
    needed = {source_of(name) for name in closure(module_of(stage), no_part)}
    declared = {Path(dep) for dep in entries(stage, "deps") if dep.startswith("cgan/")}
    for dep in declared:
        covered = {path for path in needed if path == dep or path.parent == dep}
        modules = set(dep.glob("*.py")) - {dep / "__init__.py"}
        enough = len(modules) if stage == "train" else max(1, len(modules)) / 2
        assert len(covered) >= enough, f"{dep} is needed in part, or not at all"
        needed -= covered
    assert not needed


def outputs(stage: str) -> set[str]:
    return {*entries(stage, "outs", "metrics", "plots")}


def overlaps(path: str, others: set[str]) -> bool:
    """Is it one of them, in one of them, or a folder of one of them?"""
    return any(f"{a}/".startswith(f"{b}/") for o in others for a, b in ((path, o), (o, path)))


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_the_outputs_that_its_code_names(stage: str) -> None:
    named = set()
    for module in closure(module_of(stage), CHANGES_NO_RESULT):
        for node in ast.walk(ast.parse(source_of(module).read_text())):
            value = getattr(project, getattr(node, "id", getattr(node, "attr", "")), None)
            for path in value if type(value) is tuple else [value]:
                named |= {str(path)} if isinstance(path, Path) else set()
    declared = {*entries(stage, "deps")}
    outs_of_others = {out for other in STAGES if other != stage for out in outputs(other)}
    differing = {out for out in outs_of_others if overlaps(out, named) != overlaps(out, declared)}
    # A training tells where its data came from; only valid data are split; defaults are in params.json.
    expected = {"train": {"data/raw"}, "preprocess": {"reports/validation.json"}}.get(stage, set())
    if entries(stage, "params"):
        expected |= {"reports/params.json"}
    assert differing == expected


def test_each_section_of_params_belongs_to_one_stage() -> None:
    others = {"params", "render", "page", "record"}
    owned = [
        section
        for stage in STAGES
        if stage not in others
        for section in entries(stage, "params")
        # Where judge and evaluation compute, too; and by which both stages read and group the data.
        if (stage, section) != ("preprocess", "validate")
        and section not in ("train.device", "preprocess.group", "gate.min_judge_accuracy")
    ]
    assert len(owned) == len(STAGES) - len(others) and not entries("render", "params")
    assert "params.yaml" in entries("params", "deps"), "it checks all of the file"
    keys = ("min_relative_accuracy", "min_worst_class_diversity")
    assert entries("page", "params") == [f"gate.{key}" for key in keys]
    assert sorted(owned) == sorted(set(PARAMS) - {"gate", "sweep", "tracking"})


def test_a_key_that_is_lacking_has_its_default_or_is_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DVC cannot go without those that dvc.yaml names."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(ROOT / "dvc.yaml", tmp_path)

    def checked(lacking: str) -> Any:
        text = (ROOT / "params.yaml").read_text()
        Path("params.yaml").write_text(re.sub(lacking, "\n", text))
        params_stage.main()
        return json.loads(Path("reports/params.json").read_text())

    assert checked(r"\n# nothing") == {"valid": True}
    defaults = {"train.max_width": 512, "train.lr": 0.0045}
    assert checked(r"\n  (lr|max_width): .*") == {"valid": True, "defaults": defaults}
    for lacking, words in {
        r"\n  device: .*": '`train.device` is missing.*Under `train:` add `device: "auto"`',
        r"\n  group: .*": "Under `preprocess:` add `group: null`",
        r"\nevaluate:\n(  .*\n)+": "`evaluate` is missing.*`evaluate:` add `samples: 10000`",
    }.items():
        with pytest.raises(ParamsError, match=words):
            checked(lacking)


def test_every_output_is_cached_and_no_stage_is_frozen() -> None:
    """So that a stage can be restored. An output with an option, such as `cache: false`, is no text."""
    known, found = {"desc", "cmd", "deps", "params", "outs", "metrics", "plots"}, list[str]()
    for name, stage in STAGES.items():
        assert stage.keys() <= known, name
        found += entries(name, "outs", "metrics", "plots")
    assert all(type(out) is str for out in found)
    assert {artifact["path"] for artifact in DVC["artifacts"].values()} <= {*found}
