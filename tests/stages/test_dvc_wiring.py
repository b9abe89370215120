"""dvc.yaml says of each stage what it really reads: its code, its params, its files."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT, write_params
from imports import closure, source_of

from cgan import project
from cgan.errors import ParamsError
from cgan.stages import params as params_stage

DVC: dict[str, Any] = yaml.safe_load((ROOT / "dvc.yaml").read_text())
STAGES: dict[str, dict[str, Any]] = DVC["stages"]
PARAMS: dict[str, Any] = yaml.safe_load((ROOT / "params.yaml").read_text())

CHECKS = {"cgan.params.sections", "cgan.params.checks", "cgan.pipeline.params_file"}
CHANGES_NO_RESULT = {
    # Tracking: tells of a result, and may change at any time without a new training.
    "cgan.pipeline.tracking.live",
    "cgan.pipeline.tracking.run",
    "cgan.pipeline.tracking.store",
    "cgan.pipeline.tracking.tags",
    "cgan.pipeline.tracking.logged_model",
    "cgan.stages.origin",
    "cgan.drawing.mlflow_model",
    # Where MLflow keeps a generator: a stage loads a file.
    "cgan.pipeline.registry.client",
    # How long it will take.
    "cgan.pipeline.progress",
    # Starts the stage; holds the paths, which dvc.yaml holds too.
    "cgan.stages.runner",
    "cgan.project",
    # Words for the user, and how a notebook shows an object.
    "cgan.errors",
    "cgan.extras",
    "cgan.notebook",
    "cgan.settings",
    "cgan.text",
    # The values of params.yaml are under `params`, and the defaults of keys that it lacks are in what the
    # stage params makes. A check refuses a value or lets it pass. As a dependency, each new param would
    # repeat every stage.
    *CHECKS,
    # How bytes get to the disk, not which.
    "cgan.files",
}


def entries(stage: str, *kinds: str) -> list[str]:
    return [entry for kind in kinds for entry in STAGES[stage].get(kind, [])]


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_the_code_that_it_imports_and_on_a_package_where_it_needs_half_of_it(
    stage: str,
) -> None:
    module = STAGES[stage]["cmd"].removeprefix("python -m ")
    no_part = CHANGES_NO_RESULT - CHECKS if stage == "params" else CHANGES_NO_RESULT
    needed = {source_of(name) for name in closure(module, no_part)}
    declared = {Path(dep) for dep in entries(stage, "deps") if dep.startswith("cgan/")}
    for dep in declared:
        covered = {path for path in needed if path == dep or path.parent == dep}
        modules = set(dep.glob("*.py")) - {dep / "__init__.py"}
        assert 2 * len(covered) >= max(1, len(modules)), f"{dep} is needed in part, or not at all"
        needed -= covered
    assert not needed


def outputs(stage: str) -> set[str]:
    return {*entries(stage, "outs", "metrics", "plots")}


def overlaps(path: str, others: set[str]) -> bool:
    """Is it one of them, in one of them, or a folder of one of them?"""
    return any(f"{a}/".startswith(f"{b}/") for o in others for a, b in ((path, o), (o, path)))


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_what_other_stages_made_that_its_code_names(stage: str) -> None:
    named = set()
    for module in closure(STAGES[stage]["cmd"].removeprefix("python -m "), CHANGES_NO_RESULT):
        for node in ast.walk(ast.parse(source_of(module).read_text())):
            value = getattr(project, getattr(node, "id", getattr(node, "attr", "")), None)
            for path in value if type(value) is tuple else [value]:
                named |= {str(path)} if isinstance(path, Path) else set()
    declared = {*entries(stage, "deps")}
    outs_of_others = {out for other in STAGES if other != stage for out in outputs(other)}
    differing = {out for out in outs_of_others if overlaps(out, named) != overlaps(out, declared)}
    # A training tells where its data came from; only valid data are split; defaults that are in use are
    # in reports/params.json.
    expected = {"train": {"data/raw"}, "preprocess": {"reports/validation.json"}}.get(stage, set())
    if entries(stage, "params"):
        expected |= {"reports/params.json"}
    assert differing == expected


def test_the_training_depends_on_no_module_that_it_does_not_import() -> None:
    """So that a change elsewhere trains nothing."""
    needed = closure("cgan.stages.train", CHANGES_NO_RESULT)
    for dep in entries("train", "deps"):
        for path in Path(dep).glob("*.py") if dep.startswith("cgan/") else ():
            name = ".".join(path.with_suffix("").parts)
            assert path.name == "__init__.py" or name in needed, path


def test_each_section_of_params_belongs_to_one_stage_and_each_with_outputs_has_one() -> None:
    others = {"params", "render", "page", "record"}
    owned = [
        section
        for stage in STAGES
        if stage not in others
        for section in entries(stage, "params")
        # Where judge and evaluation compute, too; and by which both stages read and group the data.
        if (stage, section) != ("preprocess", "validate")
        and section not in ("train.device", "preprocess.group")
    ]
    assert len(owned) == len(STAGES) - len(others) and not entries("render", "params")
    assert "params.yaml" in entries("params", "deps"), "it checks all of the file"
    keys = ("min_worst_class_accuracy", "min_worst_class_diversity", "min_judge_accuracy")
    assert entries("page", "params") == [f"gate.{key}" for key in keys]
    assert sorted(owned) == sorted(set(PARAMS) - {"gate", "sweep", "tracking"})


def dvc(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    command = [sys.executable, "-m", "dvc", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)


def edit_params(**sections: dict[str, Any]) -> None:
    Path("params.yaml").unlink()
    write_params(Path(), **sections)


@pytest.fixture
def reproduced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[Path, bytes]:
    """A DVC repository with this dvc.yaml, in which every output is there; the working directory. Its files
    that stages made."""
    monkeypatch.chdir(tmp_path)
    for name in ("dvc.yaml", "params.yaml", ".dvcignore", "cgan"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, tmp_path / name)
    dvc("init", "--no-scm", "--quiet")
    edit_params()
    (tmp_path / "data/inbox").mkdir(parents=True)
    contents = {}
    for name in STAGES:
        for out in sorted(outputs(name)):
            inside = {"data/raw": "source.json", "samples/previews": "step-000000.png"}
            path = Path(out, inside.get(out, ""))
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text('{\n  "valid": true\n}\n' if name == "params" else out)
            contents[path] = path.read_bytes()
    done = dvc("commit", "--force")
    assert done.returncode == 0, done.stderr
    return contents


def test_a_wrong_param_ends_the_first_stage_before_any_output_is_removed_and_a_right_one_only_it(
    reproduced: dict[Path, bytes],
) -> None:
    contents = {path: content for path, content in reproduced.items() if path.name != "params.json"}
    for wrong in (
        {"evaluate": {"samples": 0}, "train": {"seed": 2}},  # with a training that is stale
        {"gate": {"promote": "perhaps"}, "data": {"height": 9, "width": 9}},
    ):
        edit_params(**wrong)
        done = dvc("repro", "render")
        assert done.returncode and "params.yaml: `" in done.stderr, done.stderr
        assert re.findall("Running stage '(.*)'", done.stdout) == ["params"]
        assert {path: path.read_bytes() for path in contents if path.is_file()} == contents
    edit_params(gate={"promote": False})
    assert re.findall("Running stage '(.*)'", dvc("repro").stdout) == ["params"]
    assert json.loads(dvc("status", "--json").stdout) == {}, "what Python left is no change"


def test_defaults_that_are_in_use_are_named_for_dvc_and_what_it_names_itself_has_to_be_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(ROOT / "dvc.yaml", tmp_path)
    text = (ROOT / "params.yaml").read_text()
    for lacking, expected in (
        (r"", {"valid": True}),
        (
            r"\n  (lr|max_width): .*",
            {"valid": True, "defaults": {"train.max_width": 512, "train.lr": 0.0045}},
        ),
    ):
        Path("params.yaml").write_text(re.sub(lacking, "", text))
        params_stage.main()
        assert json.loads(Path("reports/params.json").read_text()) == expected
    for lacking, words in (
        (r"\n  device: .*", '`train.device` is missing.*Under `train:` add `device: "auto"`'),
        (r"\n  group: .*", "Under `preprocess:` add `group: null`"),
        (r"\n  min_judge_accuracy: .*", "Under `gate:` add `min_judge_accuracy: 0.9`"),
        (
            r"\nevaluate:\n(  .*\n)+",
            "`evaluate` is missing.*Under `evaluate:` add `samples: 10000`",
        ),
    ):
        Path("params.yaml").write_text(re.sub(lacking, "\n", text))
        with pytest.raises(ParamsError, match=words):
            params_stage.main()


def test_every_output_stays_in_the_cache_and_no_stage_is_frozen_or_always_changed() -> None:
    """So that a stage can be restored. An output with an option, such as `cache: false`, is no text."""
    known, found = {"desc", "cmd", "deps", "params", "outs", "metrics", "plots"}, list[str]()
    for name, stage in STAGES.items():
        assert stage.keys() <= known, name
        found += entries(name, "outs", "metrics", "plots")
    assert all(type(out) is str for out in found)
    assert {artifact["path"] for artifact in DVC["artifacts"].values()} <= {*found}
