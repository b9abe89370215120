"""`cgan gate` from end to end, in a real MLflow store: trainings come, are judged, promoted, blocked."""

import base64
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from conftest import ROOT, Project, fit_again, gated, of_store, write_params
from mlflow import MlflowClient

from cgan.base.errors import CganError, ModelError
from cgan.base.files import read_json, write_json
from cgan.data.images import load_images, save_images
from cgan.drawing.generator import Generator
from cgan.models.model_file import load_generator, save_generator
from cgan.models.networks import Architecture, build_generator
from cgan.models.sampling import encode_png
from cgan.pipeline.params_file import load_params
from cgan.pipeline.project import GATE_REPORT, GENERATOR, JUDGE, RUN_LOCATION
from cgan.pipeline.registry import assessment
from cgan.pipeline.registry.checks import CHAMPION_GROUP, LIMITS_GROUP, ROWS
from cgan.pipeline.registry.client import open_registry
from cgan.pipeline.tracking.store import experiment_id
from cgan.quality.judge import load_judge, save_judge

GOOD, WORSE = 150, 20  # steps of a fit beside the champion


def aliases() -> dict[str, int]:
    with open_registry("cgan") as registry:
        return registry.aliases()


def versions() -> list[tuple[int, str]]:
    with open_registry("cgan") as registry:
        return [(version.number, version.verdict) for version in registry.versions()]


def test_a_worse_generator_is_blocked_and_registered_once(
    copied: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever trained equal weights; and wherever the gate before was killed."""
    report, _ = gated()
    assert report["verdict"] == "unchanged" and "the champion already" in report["sentence"]
    fit_again("worse", WORSE)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(MlflowClient, "update_model_version", Mock(side_effect=KeyboardInterrupt))
        gated()  # killed, half recorded
    assert aliases() == {"champion": 1, "challenger": 2}
    report, said = gated()
    words = r"Judging the generator beside version 1, the champion: about \d+ s …"
    assert re.fullmatch(words, said[0])
    assert report["verdict"] == "blocked"
    assert any("worse than the champion's" in reason for reason in report["reasons"])
    assert said[-1].startswith("BLOCKED: Version 2 is blocked: ")
    assert "\nLimits:\n" in said[-1] and "\nBeside the champion:\n" in said[-1]
    fit_again("asbad", WORSE)
    again, _ = gated()
    assert (again["reasons"], again["checks"]) == (report["reasons"], report["checks"])
    assert versions() == [(2, "blocked"), (1, "passed")]
    assert aliases() == {"champion": 1, "challenger": 2}


def test_of_an_equal_generator_every_difference_is_nothing(copied: Project) -> None:
    """Both draw with the same latents, and see the same replicates."""
    with open_registry("cgan") as registry:
        found = assessment.assess(registry, registry.version(1), load_params(), print).report
    assert found.verdict == "blocked" and assessment.OTHER_DATA not in found.reasons
    beside = [check for check in found.facts["checks"] if check["group"] == CHAMPION_GROUP]
    assert len(beside) == len(ROWS[CHAMPION_GROUP]) == 2
    assert all((check["value"], check["interval"]) == (0, (0, 0)) for check in beside)


def test_a_good_generator_waits_or_is_champion_until_rolled_back(
    copied: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit_again("second", GOOD)
    write_params(copied.folder, gate={"promote": False, "against_champion": "not_worse"})
    report, _ = gated()
    assert report["verdict"] == "passed", report["reasons"]
    assert aliases() == {"champion": 1, "challenger": 2}
    write_params(copied.folder, gate={"promote": True})
    client = copied.client()

    def assess_meanwhile(*about: Any) -> assessment.Assessment:  # somebody takes the champion away
        client.delete_registered_model_alias("cgan", "champion")
        return assess(*about)

    assess = assessment.assess
    with monkeypatch.context() as patch, pytest.raises(ModelError, match="became champion meanw"):
        patch.setattr(assessment, "assess", assess_meanwhile)
        gated()
    client.set_registered_model_alias("cgan", "champion", "1")
    report, _ = gated()
    assert report["verdict"] == "promoted", report["reasons"]
    assert aliases() == {"champion": 2} and report["champion"]["version"] == 1
    assert len(report["checks"]) == len(ROWS[LIMITS_GROUP]) + len(ROWS[CHAMPION_GROUP])
    assert all(check["passed"] for check in report["checks"])
    version = client.get_model_version_by_alias("cgan", "champion")
    assert "## Limits" in (version.description or "")
    assert version.tags["champion.instead_of"] == "1"
    run_id = report["challenger"]["run_id"]
    files = {Path(file.path).name for file in client.list_artifacts(run_id, "gate")}
    assert files == {"gate.json", "gate.md", "judge.safetensors", "training_data.safetensors"}
    with open_registry("cgan") as registry:
        registry.rollback("it draws badly on the wall")
    report, _ = gated()
    assert report["verdict"] == "unchanged" and "badly on the wall" in report["sentence"]
    assert aliases() == {"champion": 1}


# ------------------------------------------------------------- what does not belong, what is damaged


def other_part(name: str, of: str = "", rows: int | None = None, **changes: Any) -> None:
    """Write a part of the data anew: of the first rows, and changed."""
    paths = [Path(f"data/processed/{part}.safetensors") for part in (of or name, name)]
    save_images(paths[1], replace(load_images(paths[0]).at(slice(rows)), **changes), part=name)


def other_judge() -> None:
    judge, _ = load_judge(JUDGE)
    next(judge.parameters()).data += 1
    save_judge(JUDGE, judge, {"data_digest": "0" * 64})


def other_generator() -> None:
    """Of another training than the run in the store."""
    network, facts = load_generator(GENERATOR)
    save_generator(GENERATOR, network, facts | {"steps": 6})


def unrecorded() -> None:
    """As after `dvc repro train`: the model comes with the stage record."""
    client = MlflowClient("sqlite:///mlflow.db")
    made_by = f"source_run_id = '{read_json(RUN_LOCATION)['run_id']}'"
    [model] = client.search_logged_models([experiment_id(client, "cgan")], made_by)
    client.delete_logged_model(model.model_id)


def other_run() -> None:
    write_json(RUN_LOCATION, read_json(RUN_LOCATION) | {"run_key": "other"})


SPOILT: dict[str, Callable[[], Any]] = {
    "generator.*: trained on other data .*`dvc repro`": lambda: other_part("train", rows=99),
    "judge.*: trained on other data": other_judge,
    "holdout.*: .* found eeeeeeeeeeee": lambda: other_part("holdout", source_sha256="e" * 64),
    "holdout.*: 41 of its 41 images": lambda: other_part("holdout", "train", 41),
    "mlflow_run.json: missing .*`dvc repro`": RUN_LOCATION.unlink,
    "has no run with the key other that trained": other_run,
    "has no run with the key second that trained": other_generator,
    "no complete generator .*`dvc repro .*record`, then `cgan gate` again": unrecorded,
    "no MLflow store .* `dvc repro --force --downstream train`": Path("mlflow.db").unlink,
}


@pytest.mark.parametrize("words", SPOILT)
def test_what_is_missing_or_of_another_training_is_refused(copied: Project, words: str) -> None:
    fit_again("second", 2)
    GATE_REPORT.unlink()
    SPOILT[words]()
    with pytest.raises(CganError, match=words):
        gated()
    assert not GATE_REPORT.exists()
    assert not Path("mlflow.db").exists() or versions() == [(1, "passed")]


def test_a_generator_of_something_else_is_not_registered(copied: Project) -> None:
    """The champion's file is as it would be, had it learnt other classes of another CSV."""
    path = of_store("models/*/artifacts/**/generator.safetensors")
    fit_again("second", GOOD)
    for classes, names, words in (
        (4, None, r"\(4, 1, 8, 12, None\)"),
        (3, ["stop", "go", "no"], r"\(3, 1, 8, 12, \['stop', 'go', 'no'\]\)"),
    ):
        network = build_generator(Architecture("deconv", classes, 1, 8, 12, 4, 4))
        save_generator(path, network, {"data_digest": "0" * 64, "class_names": names})
        with pytest.raises(ModelError, match=rf"expected \(3, .*, found {words}\. .*`gate\.model`"):
            gated()
    assert versions() == [(1, "passed")]


# -------------------------------------------------------------------------------- the registered model

LOADED = """
import mlflow, pandas
model = mlflow.pyfunc.load_model("models:/cgan@champion")
drawn = model.predict(pandas.DataFrame({"label": [0, 1, 2]}), params={"seed": 7})
import cgan
print(cgan.__file__, *drawn["png_base64"])
"""


@pytest.mark.slow
def test_the_registered_model_draws_as_its_file_without_us(
    finished: Project, tmp_path: Path
) -> None:
    drawn = Generator.load(finished.folder / GENERATOR).draw([0, 1, 2], seed=7)
    variables = {"MLFLOW_TRACKING_URI": f"sqlite:///{finished.folder / 'mlflow.db'}"}
    variables |= {"PATH": os.environ["PATH"], "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false"}
    command = [sys.executable, "-I", "-W", "ignore", "-c", LOADED]
    said = subprocess.check_output(command, cwd=tmp_path, env=variables, text=True)
    package, *pictures = said.split()
    assert not package.startswith(str(ROOT)), "the package that comes with the model"
    assert [base64.b64decode(each) for each in pictures] == [encode_png(each) for each in drawn]
