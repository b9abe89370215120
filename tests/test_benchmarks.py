"""The benchmarks: all of their parts run."""

import json
from pathlib import Path

import pytest

from benchmarks import __main__ as command
from benchmarks import evaluation_set, sample, service
from benchmarks.scale import SCALES


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
    assert capsys.readouterr().out.count("\n### ") == 4, "a table of each part but the port"
