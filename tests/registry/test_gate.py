"""`cgan gate` from end to end, in a real MLflow store: trainings come, are judged, promoted, blocked."""

import ast
import base64
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ROOT, run_python, write_params
from gated import gated, of_store, train
from gated import root as root
from gated import second as second
from mlflow import MlflowClient
from tracked import Store

from cgan.drawing.generator import Generator
from cgan.errors import CganError, ModelError
from cgan.files import read_json, write_json
from cgan.images import load_images, save_images
from cgan.model.model_file import load_generator, save_generator
from cgan.model.networks import Architecture, build_generator
from cgan.model.sampling import encode_png
from cgan.pipeline.params_file import load_params
from cgan.pipeline.registry import judging
from cgan.pipeline.registry.client import Registry, open_registry
from cgan.pipeline.registry.decision import LIMITS, TOLERATED_LOSSES
from cgan.pipeline.registry.gate import _verdict_key
from cgan.pipeline.tracking.store import experiment_id
from cgan.quality.judge import load_judge, save_judge
from cgan.verdict import Report


def client_of(root: Path) -> MlflowClient:
    return MlflowClient(f"sqlite:///{root / 'mlflow.db'}")


def gate_numbers(root: Path) -> list[tuple[str, str, int, float]]:
    """Run, key, step and value, in the order of their time; each once, unless a judgement had another
    result."""
    query = (
        "select run_uuid, key, step, value from metrics where key like 'gate/%' order by timestamp"
    )
    found = [tuple(row) for row in Store(root / "mlflow.db").rows(query)]
    assert len(found) == len(set(found)), found
    return found


def aliases() -> dict[str, int]:
    with open_registry("cgan") as registry:
        return registry.aliases()


def versions() -> list[tuple[int, str]]:
    with open_registry("cgan") as registry:
        return [(version.number, version.verdict) for version in registry.versions()]


def test_the_first_good_generator_is_promoted_and_mlflow_says_why(second: Path) -> None:
    report = json.loads((second / "reports/gate.json").read_text())
    assert (report["verdict"], report["champion"]) == ("promoted", None)
    passed = {check["name"]: check["passed"] for check in report["checks"]}
    assert passed == dict.fromkeys((limit.param[4:] for limit in LIMITS), True)
    assert f"PROMOTED: {report['summary']}" in (second / "said.txt").read_text()
    client = client_of(second)
    version = client.get_model_version_by_alias("cgan", "champion")
    assert version.run_id and "## Limits" in (version.description or "")
    assert version.tags["champion.instead_of"] == "none"
    files = {Path(file.path).name for file in client.list_artifacts(version.run_id, "gate")}
    assert files == {"gate.json", "gate.md", "judge.safetensors", "training_data.safetensors"}


def test_equal_weights_are_registered_once_whoever_trained_them(second: Path) -> None:
    for key in ("first", "again"):
        train(second, key, 30)
        report, _ = gated()
        assert report["verdict"] == "unchanged" and "the champion already" in report["summary"]
    train(second, "worse", 20)
    report, said = gated()
    assert report["verdict"] == "blocked"
    words = "Judging the generator beside version 1, the champion: half a minute for the sample …"
    assert said[0] == words
    train(second, "asbad", 20)
    report, said = gated()
    assert not any("Judging" in line for line in said), "nothing is judged"
    assert report["verdict"] == "blocked", "a job of CI that is run again stays red"
    assert "Version 2 is blocked: nothing has changed" in report["summary"]
    assert report["summary"].count("is blocked") == 1
    assert said[-2].startswith("BLOCKED: ") and "In MLflow, the page of version 2 has" in said[-1]
    assert versions() == [(2, "blocked"), (1, "passed")]


def test_a_verdict_that_stands_is_found_without_torch(second: Path) -> None:
    code = "import sys, cgan.pipeline.registry.gate; known = sys.modules.items(); "
    code += "print([n for n, m in known if n[:4] == 'cgan' and not hasattr(m, '__path__')]); "
    code += "from cgan.cli import app; app(['gate'], standalone_mode=False); "
    needed, said = run_python(code + "assert 'torch' not in sys.modules", second).split("\n", 1)
    assert said.startswith("UNCHANGED: Version 1") and len(ast.literal_eval(needed)) <= 20


def test_a_verdict_holds_for_one_champion_and_all_it_depends_on() -> None:
    params, files = load_params(ROOT / "params.yaml"), [{"digest": name} for name in "abc"]
    known = _verdict_key(1, params, files)
    assert (
        known
        == _verdict_key(1, params.model_copy(deep=True), files)
        != _verdict_key(2, params, files)
    )
    for other in ("xbc", "axc", "abx"):
        assert _verdict_key(1, params, [{"digest": name} for name in other]) != known
    for section in ("gate", "evaluate"):
        values = getattr(params, section)
        for name, value in values:
            changed = "other" if isinstance(value, str) else (value or 0) + 1
            section_of = {section: values.model_copy(update={name: changed})}
            judged_again = _verdict_key(1, params.model_copy(update=section_of), files) != known
            assert judged_again is (name not in ("model", "promote")), name


def test_of_an_equal_generator_every_difference_is_exactly_nothing(second: Path) -> None:
    """Both draw with the same latents, and see the same replicates."""
    params = load_params()
    with open_registry("cgan") as registry:
        version = registry.version(1)
        setup = judging.prepare(registry, version, params)
        report = Report("", "", "", [], "")
        assert judging.evaluate_and_decide(report, setup, params) == "blocked" and not setup.note
    rows = report.facts["comparison"]
    assert {row["name"] for row in rows} == TOLERATED_LOSSES.keys()
    assert all((row["value"], row["interval"]) == (0, (0, 0)) for row in rows)
    assert report.facts["measured"] == report.facts["champion_measured"]


def test_copies_of_training_images_are_counted_and_unseen_ones_are_none(second: Path) -> None:
    with open_registry("cgan") as registry:
        setup = judging.prepare(registry, None, load_params())
    copied = []
    for part in (setup.inputs.train, setup.inputs.held_out):
        rows = [(part.tensors.labels == label).nonzero()[:, 0] for label in range(part.classes)]
        picked = torch.stack([rows[label][:15] for label in range(part.classes)], dim=1).flatten()
        drawn = part.tensors.pixels[picked.repeat(len(setup.conditions.drawn_labels))]
        evaluation = setup.conditions.measure(drawn[: len(setup.conditions.drawn_labels)])
        share = evaluation.score("copies").value
        assert share is not None
        copied.append(share)
    assert copied[0] > 0.9 and copied[1] < 0.2


def test_a_better_generator_waits_or_is_champion_until_a_rollback(second: Path) -> None:
    train(second, "second", 150)
    write_params(second, gate={"promote": False})
    report, _ = gated()
    assert report["verdict"] == "passed", report["reasons"]
    assert aliases() == {"champion": 1, "challenger": 2}
    assert gated()[0]["verdict"] == "unchanged"
    write_params(second, gate={"promote": True})
    report, _ = gated()
    assert report["verdict"] == "promoted", report["reasons"]
    assert aliases() == {"champion": 2} and report["champion"]["version"] == 1
    row = next(row for row in report["comparison"] if row["name"] == "fid_judge")
    assert row["passed"] and row["interval"][1] < 0
    own = {(f"gate/{name}", 0, value) for name, value in report["measured"].items()}
    run_id = report["challenger"]["run_id"]
    assert {number[1:] for number in gate_numbers(second) if number[0] == run_id} == own
    with open_registry("cgan") as registry:
        registry.rollback("it draws badly on the wall")
    report, _ = gated()
    assert report["verdict"] == "unchanged" and "badly on the wall" in report["summary"]
    assert aliases() == {"champion": 1}


def test_a_worse_generator_is_blocked_and_judged_anew_if_limits_change(
    second: Path,
) -> None:
    train(second, "worse", 20)
    reports, numbers = [], []
    for section in ({}, {"gate": {"min_judge_accuracy": 0.5}}, {"evaluate": {"seed": 11}}):
        write_params(second, **section)
        reports.append(gated()[0])
        numbers.append(gate_numbers(second))
        assert reports[-1]["verdict"] == "blocked"
    assert any("worse than the champion's" in reason for reason in reports[0]["reasons"])
    assert aliases() == {"champion": 1, "challenger": 2} and numbers[0] == numbers[1]
    distances = [reports[n]["measured"]["fid_judge"] for n in (0, 2)]
    place = (reports[0]["challenger"]["run_id"], "gate/fid_judge", 0)
    assert [n[3] for n in numbers[2] if n[:3] == place] == distances and len({*distances}) == 2
    assert not gated()[0]["checks"], "nothing has changed"
    other_part("holdout", rows=-1)
    assert gated()[0]["checks"], "another hold-out"


# ------------------------------------------------------------- what does not belong, what is damaged


def other_part(name: str, of: str = "", rows: int | None = None, **facts: Any) -> None:
    """Write a part of the data anew: of the first rows, and with other facts."""
    paths = [Path(f"data/processed/{part}.safetensors") for part in (of or name, name)]
    data = load_images(paths[0])
    save_images(paths[1], data.at(slice(rows)), **({"part": name} | facts))


def other_judge() -> None:
    judge, _ = load_judge("models/judge.safetensors")
    save_judge("models/judge.safetensors", judge, {"data_digest": "0" * 64})


def other_generator() -> None:
    """Of another training than the run in the store."""
    network, facts = load_generator("models/generator.safetensors")
    save_generator("models/generator.safetensors", network, facts | {"steps": 6})


def unrecorded() -> None:
    """As after `dvc repro train`: the model comes with the stage record."""
    client = client_of(Path())
    (model,) = client.search_logged_models([experiment_id(client, "cgan")])
    client.delete_logged_model(model.model_id)


def other_run() -> None:
    path = Path("models/mlflow_run.json")
    write_json(path, read_json(path) | {"run_key": "other"})


UNKNOWN_RUN = "has no run with the key first that trained"
SPOILT: dict[str, tuple[Callable[[], Any], str]] = {
    "other data": (
        lambda: other_part("train", rows=99),
        r"generator.safetensors: trained on other data .*`dvc repro`",
    ),
    "judge": (other_judge, r"judge.safetensors: trained on other data"),
    "hold-out of another CSV": (
        lambda: other_part("holdout", csv_sha256="e" * 64),
        r"holdout.safetensors: .* found eeeeeeeeeeee\.",
    ),
    "other split": (lambda: other_part("holdout", "train", 41), r"holdout.*: 41 of its 41 images"),
    "no generator": (Path("models/generator.safetensors").unlink, "Make it with `dvc repro`"),
    "no reference": (
        Path("models/mlflow_run.json").unlink,
        r"mlflow_run\.json: missing .*`dvc repro`",
    ),
    "another run": (other_run, "has no run with the key other that trained"),
    "another generator": (other_generator, UNKNOWN_RUN),
    "not recorded": (
        unrecorded,
        r"no complete generator .*`dvc repro`.*then run `cgan gate` again",
    ),
    "no store": (
        Path("mlflow.db").unlink,
        "no MLflow store .* came from elsewhere .* `dvc repro --force --downstream train`",
    ),
}


@pytest.mark.parametrize("name", SPOILT)
def test_what_is_missing_or_of_another_training_is_refused(root: Path, name: str) -> None:
    train(root, "first", 2)
    spoil, words = SPOILT[name]
    spoil()
    with pytest.raises(CganError, match=words):
        gated()
    assert not Path("reports/gate.json").exists()
    assert name == "no store" or versions() == []


def test_a_generator_of_something_else_is_refused_and_not_registered(second: Path) -> None:
    """The champion's file is as it would be, had it learnt other classes of another CSV."""
    path = of_store("models/*/artifacts/**/generator.safetensors")
    train(second, "second", 150)
    for classes, names, words in (
        (4, None, "4 classes of 8 × 8 × 1"),
        (3, ["stop", "go", "no"], r"3 classes of 8 × 8 × 1 \(stop, go, no\)"),
    ):
        network = build_generator(Architecture("deconv", classes, 1, 8, 8, 4, 4))
        save_generator(path, network, {"data_digest": "0" * 64, "class_names": names})
        with pytest.raises(ModelError, match=rf"draws 3 .* draws {words}\. .*`gate\.model`"):
            gated()
    assert versions() == [(1, "passed")]


# ------------------------------------------------------------------------------ kills, two at once


@pytest.mark.parametrize(
    ("owner", "name", "nth"),
    [
        pytest.param(Registry, "promote", 1, id="judged, not promoted", marks=pytest.mark.slow),
        pytest.param(MlflowClient, "update_model_version", 1, id="half recorded"),
        pytest.param(MlflowClient, "set_registered_model_alias", 2, id="before the last alias"),
    ],
)
def test_a_gate_that_was_killed_is_finished_by_the_next_one(
    second: Path, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, nth: int
) -> None:
    train(second, "second", 150)
    real, calls = getattr(owner, name), []

    def dying(*arguments: Any, **named: Any) -> Any:
        calls.append(name)
        if len(calls) == nth:
            raise KeyboardInterrupt
        return real(*arguments, **named)

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, dying)
        with pytest.raises(KeyboardInterrupt):
            gated()
    assert aliases()["champion"] == 1
    gated()
    assert len(gate_numbers(second)) == 14  # seven of either version
    assert versions() == [(2, "passed"), (1, "passed")]
    assert aliases() == {"champion": 2}
    version = client_of(second).get_model_version_by_alias("cgan", "champion")
    assert "Fréchet distance" in version.tags["champion.why"]
    assert "Version 2 is good enough to be champion" in (version.description or "")


def test_a_champion_that_went_meanwhile_is_replaced_by_nobody(
    second: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(second, "second", 150)
    real = judging.evaluate_and_decide

    def meanwhile(*arguments: Any) -> Any:
        client_of(second).delete_registered_model_alias("cgan", "champion")
        return real(*arguments)

    monkeypatch.setattr(judging, "evaluate_and_decide", meanwhile)
    with pytest.raises(ModelError, match="champion before: version 1, now: none"):
        gated()
    assert "champion" not in aliases()


# -------------------------------------------------------------------------------- the registered model

LOADED = """
import sys, mlflow, pandas
model = mlflow.pyfunc.load_model(sys.argv[1])
drawn = model.predict(pandas.DataFrame({"label": [0, 1, 2]}), params={"seed": 7})
import cgan
print(cgan.__file__, *drawn["png_base64"])
"""


@pytest.mark.slow
def test_the_registered_model_draws_as_its_file_without_this_project(
    root: Path, tmp_path: Path
) -> None:
    train(root, "first", 30)
    assert gated()[0]["verdict"] == "promoted"
    generator = Generator.load("models/generator.safetensors")
    expected = [encode_png(image) for image in generator.draw([0, 1, 2], seed=7)]
    variables = {
        "PATH": os.environ["PATH"],
        "MLFLOW_TRACKING_URI": f"sqlite:///{root / 'mlflow.db'}",
    }
    variables["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] = "false"
    command = [sys.executable, "-I", "-W", "ignore", "-c", LOADED, "models:/cgan@champion"]
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    said = subprocess.check_output(command, cwd=elsewhere, env=variables, text=True)
    package, *drawn = said.split()
    assert not package.startswith(str(ROOT)), "the package that comes with the model"
    assert [base64.b64decode(each) for each in drawn] == expected
