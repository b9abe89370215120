from __future__ import annotations

import contextlib
import json
import re
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer
from torch import nn

from benchmarks import __main__ as command
from benchmarks import (
    contenders,
    large,
    quality,
    reading,
    service,
    size,
    synthetic_csv,
    tables,
    throughput,
)
from benchmarks import ground as grounds
from benchmarks.contenders import (
    PEERS,
    PORT,
    KerasExample,
    Ours,
    Peer,
    PytorchGan,
)
from benchmarks.ground import as_dataset, preset
from benchmarks.scale import SCALES
from cgan.data import csv_reader, csv_report
from cgan.data.dataset import Dataset
from cgan.errors import CganError
from cgan.model.sampling import draw
from cgan.training import loop as training
from cgan.training.loop import train
from cgan.training.state import estimate_batch_norm

SHORT: dict[str, Any] = {
    "total_kimg": 0.16,
    "log_every": 2,
    "save_every": 2,
    "previews": 0,
    "batch_size": 16,
    "device": "cpu",
}


@pytest.fixture(scope="module")
def digits() -> Dataset:
    """200 random pictures of 28 × 28 in ten classes."""
    random = np.random.default_rng(0)
    images = random.integers(0, 255, (200, 1, 28, 28), dtype=np.uint8)
    return as_dataset(images, np.arange(200) % 10, 10)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of its own, and the embedded digits."""
    monkeypatch.setenv("CGAN_KAGGLE_ZIP", str(tmp_path / "absent.zip"))
    for module in (grounds, size, command):
        monkeypatch.setattr(module, "CACHE", tmp_path / "bench")
    monkeypatch.setattr(command, "ROOT", tmp_path)
    return tmp_path / "bench"


def weights(network: nn.Module) -> int:
    return sum(weight.numel() for weight in network.parameters())


@pytest.mark.parametrize("name", ["fast", "demo"])
def test_what_is_timed_is_the_training_that_the_pipeline_runs(
    name: str, digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (contenders, training):  # 10,000 drawings of the demo's network take 10 s, twice
        monkeypatch.setattr(module, "estimate_batch_norm", partial(estimate_batch_norm, batches=2))
    params = preset(name, **SHORT)
    ours = Ours(name, digits, params)
    # one part is computed by torch's own threads, and their number is in the bits
    threads = 2 if params.cpu_parts > 1 else torch.get_num_threads()
    ours.train(params.total_steps - 3, threads)
    ours.train(3, threads)
    asked = torch.arange(20) % 10
    trained = train(digits, params)
    assert ours.step == params.total_steps
    assert torch.equal(ours.draw(asked, 5), draw(trained.generator, asked, 5))


@pytest.mark.parametrize(
    ("peer", "generator", "discriminator"),
    [
        # layer by layer as published: inputs × outputs + biases, norms twice their features
        (
            PytorchGan,
            100 + (110 * 128 + 128) + (128 * 256 + 256) + 512 + (256 * 512 + 512) + 1024
            + (512 * 1024 + 1024) + 2048 + (1024 * 1024 + 1024),
            100 + (1034 * 512 + 512) + 2 * (512 * 512 + 512) + 513,
        ),
        (
            KerasExample,
            (138 * 6762 + 6762) + (16 * 138 * 128 + 128) + (16 * 128 * 128 + 128) + (49 * 128 + 1),
            (9 * 11 * 64 + 64) + (9 * 64 * 128 + 128) + 129,
        ),
    ],
)  # fmt: skip
def test_peers_have_the_weights_of_their_originals(
    peer: type[Peer], generator: int, discriminator: int, digits: Dataset
) -> None:
    own = peer(digits)
    assert (weights(own.generator), weights(own.discriminator)) == (generator, discriminator)


def test_ratios_are_taken_within_rounds_and_a_check_fails_below_its_bar() -> None:
    # the machine is half as fast in the second round: rates scatter, ratios don't
    assert throughput.ratios([800, 400, 810], [100, 50, 90]) == (8.0, 8.0, 9.0)
    # whether the hardware has bfloat16 or emulates it
    for rate, bfloat16, held in ((900.0, 1e12, True), (700.0, 1e12, False), (700.0, 1e10, False)):
        rates = {2: {"preset `fast`": [rate], PORT: [100.0]}}
        rates[1] = rates[2]
        (check,) = throughput.tell(
            rates, rates[2], {"preset `fast`": 1e7, PORT: 2e8},
            {"bfloat16": bfloat16, "float32": 1e11}, 2, 1, "some digits",
        ).checks  # fmt: skip
        assert check.held is held
        assert str(check).startswith("holds" if held else "DOES NOT HOLD")


def probe(seconds: float, accuracy: float, distance: float) -> dict[str, float]:
    return {
        "step": 10, "kimg": seconds * 4, "seconds": seconds, "cpu_seconds": 2 * seconds,
        "accuracy": accuracy, "distance": distance,
    }  # fmt: skip


def figures(
    port_ends_at: tuple[float, float] = (0.3, 40.0),
) -> tuple[dict[str, Any], dict[str, Any]]:
    curves = [
        {"who": "fast", "seed": 1, "threads": 2,
         "probes": [probe(1, 0.5, 20), probe(3, 0.95, 1.1), probe(6, 0.99, 0.5)]},
        {"who": "demo", "seed": 1, "threads": 2, "probes": [probe(90, *port_ends_at)]},
    ]  # fmt: skip
    rates = {PORT: [320.0], "preset `fast`": [3000.0]}
    return {"images_per_s": {"1": rates, "2": rates}}, {"curves": curves}


def test_ports_time_is_extrapolated_from_its_rate_until_it_was_measured() -> None:
    curve = quality.read_curves(figures()[1])[0]
    assert [curve.time_to(bar) for bar in ((0.9, 30), (0.5, 1), (0.999, 30))] == [3, 6, None]
    result = quality.compare_with_port(*figures())
    (check,) = result.checks
    # 870 steps of 64 images at 320 a second: 174 s, against 3 s
    assert check.held
    assert check.found.startswith("58×")
    assert [row[-1] for row in result.tables[0].rows] == ["extrapolated"] * 3
    result = quality.compare_with_port(*figures(port_ends_at=(0.9, 1.1)))
    assert result.tables[0].rows[1][1:5:2] == ["90", "30×"]
    assert [row[-1] for row in result.tables[0].rows] == ["by its rate", "measured", "by its rate"]
    assert result.tables[0].rows[0][1] == "1125"  # 360,000 images at 320 a second
    rates, found = figures()
    found["curves"][0]["probes"] = [probe(1, 0.5, 20)]  # never arrives
    assert not quality.compare_with_port(rates, found).checks[0].held


def test_every_reader_reads_the_same(cache: Path) -> None:
    source, _ = grounds.csv_file()
    path = cache / "few.csv"
    path.write_text("\n".join(source.read_text().splitlines()[:40]) + "\n")
    found = [reading.in_this_process(name, str(path)) for name in reading.READERS]
    assert {one["images"] for one in found} == {39}
    assert len({one["checksum"] for one in found}) == 1
    assert all(one["peak_mb"] >= one["before_mb"] > 10 for one in found)


def test_names_of_parts_runs_and_places_in_the_docs_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    known = {"fast", "default", "best", "demo", *(peer.name for peer in PEERS)}
    assert {run.who for scale in SCALES.values() for run in scale.runs} <= known
    page = command.PAGE.read_text()
    for name in ("short", "all", "gpu"):
        place = f"<!-- bench:{name} -->.*<!-- /bench:{name} -->"
        assert len(re.findall(place, page, re.DOTALL)) == 1
    with pytest.raises(CganError, match=r"no part `speed`\. There are: throughput, quality"):
        command.run(SCALES["tiny"], ["speed"], write=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(CganError, match=r"no CUDA device.*--device cpu"):
        command.gpu("cuda")


@pytest.mark.slow
def test_all_parts_run_and_leave_their_figures(
    cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command.run(SCALES["tiny"], None, write=False)
    kept = {path.stem: json.loads(path.read_text()) for path in (cache / "tiny").glob("*.json")}
    assert kept.keys() == {*command.PARTS, "port"}
    curves, facts = kept["quality"]["curves"], kept["quality"]["facts"]
    assert {curve["who"] for curve in curves} == {"fast", "PyTorch-GAN cgan (MLP)"}
    assert all(probe["seconds"] > 0 for curve in curves for probe in curve["probes"])
    assert {"date", "machine", "commit", "torch", "busy"} <= facts.keys()
    assert (cache / "tiny/quality_over_time.png").read_bytes().startswith(b"\x89PNG")
    served = kept["service"]
    assert set(served["steady"]["statuses"]) == {"200"}, "ten digits, fifty times a second"
    assert set(served["crowd"]["statuses"]) <= {"200", "429"}
    assert served["grown_mb"] < service.MEMORY_MB
    printed = capsys.readouterr().out
    for title in ("Time to quality: seconds of", "Drawing 100 digits", "What tracking costs a tr"):
        assert title in printed


@pytest.mark.slow
def test_gpu_command_runs_on_the_cpu_for_a_trial(
    cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command.gpu("cpu")
    assert "Training on the GPU: images a second" in capsys.readouterr().out
    assert (cache / "tiny/gpu.json").is_file()


@pytest.mark.parametrize("held", [True, False])
def test_figures_are_written_and_a_broken_promise_fails_the_command(
    held: bool, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page, picture = tmp_path / "page.md", tmp_path / "images/plot.png"
    page.write_text(
        "before\n<!-- bench:short -->\nformer figures\n<!-- /bench:short -->\n<!-- bench:b -->\n"
    )
    (cache / "short").mkdir(parents=True)
    (cache / "short/quality_over_time.png").write_bytes(b"picture")
    monkeypatch.setattr(command, "PAGE", page)
    monkeypatch.setattr(command, "PICTURE", picture)
    result = tables.Result([tables.Table("Speed", ["who"])], [tables.Check("fast", "9×", held)])
    facts = {**command.machine.facts(), "busy": 0.5}
    failure = contextlib.nullcontext() if held else pytest.raises(typer.Exit)
    with failure:
        command.finish("short", facts, {"x": result}, write=True, seconds=1)
    text = page.read_text()
    assert text.startswith("before\n<!-- bench:short -->\n") and "former" not in text
    assert text.endswith("<!-- /bench:short -->\n<!-- bench:b -->\n")
    with pytest.raises(CganError, match=r"<!-- /bench:b -->.*restore the file"):
        tables.replace_between_markers(page, "b", "x")
    assert "### Speed" in text
    assert "**Not for quoting**: other processes took 50%" in text
    assert f"- {'holds' if held else 'DOES NOT HOLD'}: fast: 9×" in text
    assert picture.read_bytes() == b"picture"


@pytest.mark.parametrize(("classes", "side", "channels"), [(10, 28, 1), (23, 64, 3)])
def test_synthetic_csvs_are_valid_and_have_the_classes_that_were_asked_for(
    tmp_path: Path, classes: int, side: int, channels: int
) -> None:
    path = synthetic_csv.write_csv(tmp_path / "x.csv", 700, classes, side, channels, imbalance=5)
    assert (
        path.read_bytes()
        == synthetic_csv.write_csv(
            tmp_path / "y.csv", 700, classes, side, channels, imbalance=5
        ).read_bytes()
    )
    params = csv_reader.DEFAULTS.model_copy(update={"channels": channels, "min_per_class": 2})
    report = csv_report.report_on_file(path, params, "x")
    assert (report["rows"], report["classes"], report["duplicates"]) == (700, classes, 0)
    assert report["shape"] == {"channels": channels, "height": side, "width": side}
    assert report["class_counts"][0] > 2 * report["class_counts"][-1]


@pytest.mark.skipif(not Path(large.TIME).is_file(), reason="/usr/bin/time is not installed")
def test_a_stage_s_memory_and_seconds_are_its_own(tmp_path: Path) -> None:
    held = bytearray(200_000_000)  # of this process, and no part of what is measured
    held[::4096] = b"x" * len(held[::4096])
    code = "import time; held = b'x' * 60_000_000; time.sleep(0.3)"
    found = large.timed([sys.executable, "-c", code], tmp_path)
    assert 60 < found["peak_mb"] < 100 and found["seconds"] > 0.3 and found["cpu_s"] < 10
    with pytest.raises(CganError, match="no such stage"):
        large.timed([sys.executable, "-c", "raise SystemExit('no such stage')"], tmp_path)
