"""The benchmarks: all of their parts run."""

from pathlib import Path

import pytest

from benchmarks import __main__ as command
from benchmarks import quality
from benchmarks.common import SCALES
from cgan.base.files import read_json


@pytest.mark.slow
def test_all_parts_run_and_leave_their_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("CGAN_KAGGLE_ZIP", raising=False)
    monkeypatch.setattr(command, "FOLDER", tmp_path)
    command.run(SCALES["tiny"], [])
    kept = {path.stem: read_json(path) for path in (tmp_path / "tiny").glob("*.json")}
    assert kept.keys() == {*command.PARTS}
    assert all(" cores, " in each["measured_on"] for each in kept.values())
    assert set(kept["service"]["statuses"]) == {"200"}, "ten digits, fifty times a second"
    assert capsys.readouterr().out.count(" threads, cpu") == 1
    assert len(quality.of_small_sets(SCALES["tiny"]).tables[0].rows) == 6
