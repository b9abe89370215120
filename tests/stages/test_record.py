"""Stage record: numbers, tables and pictures of a generator on the page of the run that trained it."""

import re
from pathlib import Path
from typing import Any

import pytest
from recording import RecordingTracker, reopened

from cgan.errors import CganError
from cgan.files import write_json
from cgan.model.model_file import load_generator, save_network
from cgan.model.networks import Architecture, build_generator
from cgan.project import CARD, EVALUATION, GENERATOR, RUN_REFERENCE
from cgan.stages import record

REPORT: dict[str, Any] = {
    "conditional_accuracy": {
        "value": 0.91,
        "floor": 0.92,
        "by_class": [0.93, 0.61],
        "floor_by_class": [0.95, None],
    },
    "fid_judge": {
        "value": 11.0,
        "floor": 1.5,
        "by_class": [12.0, None],
        "floor_by_class": [2.0, None],
    },
    "different": {"by_class": [200.0, None], "floor_by_class": [900.0, None]},
    "heldout_by_class": [7, 0],
    "worst_class_accuracy": {"value": 0.61},
    "copies": {"value": 0.02, "floor": 0.01},
}


@pytest.fixture
def tracker(project: Path, monkeypatch: pytest.MonkeyPatch) -> RecordingTracker:
    """A project after the stages before, whose run is this tracker."""
    save_network(GENERATOR, build_generator(Architecture("deconv", 2, 1, 8, 8, 4, 6)), {})
    digest = load_generator(GENERATOR)[1]["digest"]
    write_json(EVALUATION, {**REPORT, "measurement_context": {"generator_digest": digest}})
    write_json(RUN_REFERENCE, {"run_name": "a run"})
    for paths in record.FILES.values():
        for path in paths:
            path.parent.mkdir(exist_ok=True)
            path.touch()
    return reopened(record, monkeypatch)


def test_numbers_tables_and_pictures_are_recorded(tracker: RecordingTracker) -> None:
    record.main()
    keys = ("conditional_accuracy", "worst_class_accuracy", "fid_judge", "copies")
    numbers = {f"quality/{key}": REPORT[key]["value"] for key in keys}
    assert tracker.metrics == [(0, numbers)], "a later step would be drawn as a chart of one dot"
    note = tracker.tags["mlflow.note.content"]
    assert note.startswith("accuracy ↑ **91.0 %** · distance ↓ **11**\n")
    assert "(get-artifact?path=strip.png&run_uuid={run_id})" in note
    assert tracker.models == ["model"]
    files = {("", "quality.csv"), ("", "quality_by_class.csv"), ("", "strip.png")}
    assert files | {("reports", "generator.png")} < set(tracker.files)
    card = CARD.read_text()
    assert ("", "README.md") in tracker.files and '- name: "a run"' in card
    assert "Least often recognized: 1 (61.0 %), 0 (93.0 %)." in card
    assert (CARD.parent / re.findall(r"!\[Drawings\]\((.+)\)", card)[0]).is_file()


@pytest.mark.parametrize(
    "content", ["", "[]", '{"measurement_context": {"generator_digest": "another"}}']
)
def test_numbers_that_are_not_of_this_generator_are_refused(
    tracker: RecordingTracker, content: str
) -> None:
    EVALUATION.write_text(content)
    with pytest.raises(CganError, match=r"evaluation\.json: "):
        record.main()
    assert tracker.metrics == [] and tracker.files == []
