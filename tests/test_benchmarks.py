"""The benchmarks: they run, and say what is below its bar."""

import contextlib
import json
from pathlib import Path

import pytest
import typer

from benchmarks import __main__ as command
from benchmarks import evaluation_set, sample, service, throughput
from benchmarks.scale import SCALES
from benchmarks.throughput import PORT


def test_ratios_are_within_rounds_and_have_a_bar() -> None:
    # the machine is half as fast in the second round: rates scatter, ratios don't
    assert throughput.ratios([800, 400, 810], [100, 50, 90]) == (8.0, 8.0, 9.0)
    for rate, held in ((900.0, True), (700.0, False)):
        rates = {"preset `fast`": [rate], PORT: [100.0]}
        result = throughput.tabulated({1: rates, 2: rates}, rates, "some digits")
        assert [check.held for check in result.checks] == [held]
        assert f"| preset `fast` | {rate:.0f} | {rate / 100:.0f}× |" in result.tables[0].markdown()
        with contextlib.nullcontext() if held else pytest.raises(typer.Exit):
            command.fail_on_broken_promises(result)


@pytest.mark.slow
def test_all_parts_run_and_leave_their_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CGAN_KAGGLE_ZIP", str(tmp_path / "absent.zip"))
    for module in (evaluation_set, command):
        monkeypatch.setattr(module, "CACHE", tmp_path)
    command.run(SCALES["tiny"])
    kept = {path.stem: json.loads(path.read_text()) for path in (tmp_path / "tiny").glob("*.json")}
    assert kept.keys() == {*command.PARTS, "port"}
    assert {"date", "machine", "commit", "torch", "busy"} <= kept["quality"]["facts"].keys()
    served = kept["service"]
    assert set(served["steady"]["statuses"]) == {"200"}, "ten digits, fifty times a second"
    assert set(served["crowd"]["statuses"]) <= {"200", "429"}
    assert served["grown_mb"] < service.MEMORY_MB
    assert len(sample.small(SCALES["tiny"]).tables[0].rows) == 6
    assert capsys.readouterr().out.count("\n### ") == 5, "a table of each part but the port"
