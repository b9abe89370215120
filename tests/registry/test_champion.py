"""A champion that the store cannot give, and data whose labels are not those that the champion learnt."""

from __future__ import annotations

import contextlib
import http.server
import json
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np
import pytest
import torch
from conftest import MLFLOWS_OWN_WARNINGS
from gated import best as best
from gated import change_params, copied, digits, gated, make_project, train

from cgan.model.file_facts import UnreadableError
from cgan.registry.archive import generator_file
from cgan.registry.champion import agreement
from cgan.registry.client import open_registry

pytestmark = MLFLOWS_OWN_WARNINGS
FILES = "/mlflow-artifacts/artifacts"


def move_files(root: Path, former: str, address: str) -> None:
    """Change where the store's files lie, in every table that says so."""
    places = {"experiments": "artifact_location", "runs": "artifact_uri",
              "logged_models": "artifact_location", "model_versions": "storage_location"}  # fmt: skip
    with contextlib.closing(sqlite3.connect(root / "mlflow.db")) as store, store:
        for table, column in places.items():
            store.execute(
                f"update {table} set {column} = replace({column}, ?, ?)", (former, address)
            )


@pytest.fixture
def root(best: Path, tmp_path: Path) -> Iterator[Path]:
    """A copy of a project whose version 1 is champion, files included."""
    with copied(best, tmp_path / "project") as target:
        move_files(target, best.as_uri(), target.as_uri())
        yield target


class Faults:
    """Of a store's server: what it does with files whose path has these words in it."""

    failing = ""
    slow = ""


@pytest.fixture
def faults(root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Faults]:
    """The project's files behind a server that speaks as MLflow's does, and can fail."""
    told, folder = Faults(), root / "mlartifacts"

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            address = urlsplit(self.path)
            name = unquote(address.path.partition(FILES)[2]).strip("/")
            path = folder / (name or parse_qs(address.query)["path"][0])
            if told.slow and told.slow in str(path):
                time.sleep(3)
            if told.failing and told.failing in str(path):
                self.answer(503, b"maintenance")
            elif not name:
                entries = sorted(path.iterdir()) if path.is_dir() else []
                files = [{"path": e.name, "is_dir": e.is_dir(), "file_size": 1} for e in entries]
                self.answer(200, json.dumps({"files": files}).encode())
            elif path.is_file():
                self.answer(200, path.read_bytes())
            else:
                self.answer(404, b"no such file")

        def do_PUT(self) -> None:
            path = folder / unquote(self.path.partition(FILES)[2]).strip("/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(self.rfile.read(int(self.headers["Content-Length"])))
            self.answer(200, b"{}")

        def answer(self, status: int, content: bytes) -> None:
            with contextlib.suppress(ConnectionError):
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_address[1]}/api/2.0{FILES}"
    move_files(root, folder.as_uri(), address)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    yield told
    server.shutdown()
    server.server_close()


def new_data(images: np.ndarray, labels: np.ndarray) -> None:
    """A new CSV, and the parts and the judge made from it."""
    make_project(Path(), (images, labels))
    change_params(Path(), "gate", against_champion="not_worse")


def refused_for(*words: str) -> None:
    """The gate ends without a verdict, and nobody is promoted or registered."""
    with pytest.raises(UnreadableError) as found:
        gated()
    assert all(word in str(found.value) for word in (*words, "cannot give it now"))
    with open_registry("cgan") as registry:
        assert [version.number for version in registry.versions()] == [registry.champion()] == [1]


def a_file(folder: str, name: str) -> Path:
    [path] = Path("mlartifacts").glob(f"{folder}/**/{name}")
    return path


# ------------------------------------------------------------------------- a store that cannot give it


def test_f73_champion_that_cannot_be_read_now_blocks_until_it_can(
    root: Path, faults: Faults
) -> None:
    train(root, "worse", 30)  # good enough by the bars alone
    for fault in ("failing", "slow"):
        setattr(faults, fault, "generator.safetensors")
        refused_for("models:/cgan/1: the MLflow store sqlite")
        setattr(faults, fault, "")
    report, _ = gated()
    assert "worse than the champion's" in report["summary"], "judged beside the champion"


def test_f73_whatever_else_is_asked_of_the_champion_may_not_fail_either(
    root: Path, faults: Faults
) -> None:
    new_data(*digits(seed=5))
    train(root, "second", 60)
    for name in ("validation.json", "judge.safetensors", "training_data.safetensors"):
        faults.failing = f"gate/{name}"
        refused_for(f"gate/{name} of run")
    faults.failing = ""
    assert gated()[0]["verdict"] == "promoted"


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (lambda path: path.unlink(), "its file is gone from the store"),
        (lambda path: shutil.rmtree(path.parents[1]), "its file is gone from the store"),
        (lambda path: path.write_bytes(b"damaged"), "its file is damaged"),
    ],
    ids=["file gone", "folder gone", "damaged"],
)
@pytest.mark.parametrize("where", ["on the disk", "behind a server"])
def test_f73_champion_that_is_gone_for_good_is_passed_over_and_the_headline_says_so(
    root: Path, request: pytest.FixtureRequest, where: str, harm: Callable[[Path], Any], words: str
) -> None:
    if where == "behind a server":
        request.getfixturevalue("faults")
    train(root, "worse", 30)
    harm(a_file("models", "generator.safetensors"))
    report, _ = gated()
    assert report["verdict"] == "promoted", report["reasons"]
    assert report["summary"] == (
        f"Version 2 is the new champion: its predecessor, version 1, could not be compared: {words}."
    )
    assert report["comparison"] == []
    with open_registry("cgan") as registry:
        assert words in registry.version(2).tags["champion.why"]


def test_f73_a_disk_that_is_not_there_or_fails_is_no_proof_that_files_are_gone(root: Path) -> None:
    model = a_file("models", "generator.safetensors").parents[1]
    aside = model.rename(root / "aside")
    model.symlink_to(model.name)  # any error but "no such file"
    shutil.move("mlartifacts", "elsewhere")
    for make in (
        lambda: None,
        lambda: Path("mlartifacts").mkdir(),
    ):  # nothing mounted, or an empty folder
        make()
        with (
            pytest.raises(UnreadableError, match="cannot give it now"),
            generator_file("models:/cgan/1"),
        ):
            pass
    Path("mlartifacts").rmdir()
    shutil.move("elsewhere", "mlartifacts")
    with (
        pytest.raises(UnreadableError, match="cannot give it now"),
        generator_file("models:/cgan/1"),
    ):
        pass
    model.unlink()
    aside.rename(model)
    with generator_file("models:/cgan/1"):
        pass


# --------------------------------------------------------------------------- labels that are not its own


def swapped(images: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return images, np.array([1, 0, 2])[labels]


@pytest.mark.parametrize(("on_drift", "verdict"), [("block", "blocked"), ("note", "promoted")])
def test_f19_swapped_labels_are_seen_by_the_champion_s_own_judge(
    root: Path, on_drift: str, verdict: str
) -> None:
    """Today's judge learnt the swap: it finds the new generator good, and the champion poor."""
    new_data(*swapped(*digits(seed=5)))
    change_params(root, "gate", on_drift=on_drift)
    train(root, "swapped", 60)
    report, _ = gated()
    assert report["verdict"] == verdict
    [found] = [reason for reason in report["reasons"] if "Check the labels" in reason]
    assert "the champion's judge agrees with 33.3 % of the labels, and did with" in found
    assert "1 in 100 % of the 18 images labelled 0" in found
    assert "0 in 100 % of the 18 images labelled 1" in found
    assert "another data set needs a name of its own" in found
    assert (found.rstrip(".") in report["summary"]) is (verdict == "blocked")


def test_f19_data_that_nobody_can_compare_block_where_the_champion_s_judge_is_gone(
    root: Path,
) -> None:
    new_data(*swapped(*digits(seed=5)))
    train(root, "swapped", 60)
    shutil.rmtree(a_file("*", "judge.safetensors").parent)
    report, _ = gated()
    assert report["verdict"] == "blocked"
    assert "whether the data are like the champion's is not known" in report["reasons"][0]


@pytest.mark.parametrize("noise", [0, 4], ids=["new images", "and 2 % of the labels wrong"])
def test_new_data_of_the_same_kind_are_no_sign_against_anything(root: Path, noise: int) -> None:
    images, labels = digits(seed=5)
    wrong = np.random.default_rng(0).permutation(len(labels))[:noise]
    labels[wrong] = (labels[wrong] + 1) % 3
    new_data(images, labels)
    change_params(root, "gate", min_judge_accuracy=0.8)
    train(root, "second", 60)
    report, _ = gated()
    # So small a generator of noisy labels may be worse than the champion.
    assert noise or report["verdict"] == "promoted", report["reasons"]
    assert not any(word in str(report["reasons"]) for word in ("heck the labels", "no longer like"))


@pytest.mark.parametrize(
    ("confusion", "by_class", "failed"),
    [
        pytest.param([[500, 0], [3, 0]], [1.0, 1.0], [], id="three images prove nothing"),
        pytest.param([[970, 0], [30, 0]], [1.0, 0.0], [], id="a class that it never knew"),
        pytest.param([[960, 0], [24, 6]], [1.0, 0.3], [], id="a class that is hard to tell"),
        pytest.param([[980, 0], [20, 0]], [1.0, 1.0], ["class_agreement"], id="a rare class"),
        pytest.param([[450, 50], [50, 450]], [1.0, 1.0], ["label_agreement"], id="a tenth of all"),
        pytest.param([[490, 10], [10, 490]], [1.0, 1.0], [], id="2 % of all"),
    ],
)
def test_agreement_falls_by_more_than_noise(
    confusion: list[list[int]], by_class: list[float], failed: list[str]
) -> None:
    known = {"agreement": 0.99, "agreement_by_class": by_class}
    checks = agreement(torch.tensor(confusion), known, 0.03)
    assert [check.name for check in checks if not check.passed] == failed
    assert [check.name for check in checks if check.why] == failed
