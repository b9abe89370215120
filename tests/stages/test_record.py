"""Stage record: numbers, tables and pictures of a generator on the page of the run that trained it."""

import re
from pathlib import Path

import pytest
from finished_project import finish
from recording import RecordingTracker, reopened

from cgan.errors import CganError, percent
from cgan.evaluation import Evaluation
from cgan.project import CARD, EVALUATION
from cgan.quality.table import tracked
from cgan.stages import record


@pytest.fixture
def tracker(project: Path, digits_csv: Path, monkeypatch: pytest.MonkeyPatch) -> RecordingTracker:
    """A project after the stages before, whose run is this tracker."""
    finish(digits_csv)
    for path in [path for paths in record.FILES.values() for path in paths]:
        path.parent.mkdir(exist_ok=True)
        path.touch()
    return reopened(record, monkeypatch)


def test_numbers_tables_and_pictures_are_recorded(tracker: RecordingTracker) -> None:
    evaluation = Evaluation.read(EVALUATION)
    record.main()
    assert tracker.metrics == [(0, tracked(evaluation))], "a later step would be a chart of one dot"
    note, right = tracker.tags["mlflow.note.content"], evaluation.score("conditional_accuracy")
    assert note.startswith(f"accuracy ↑ **{percent(right.value or 0)}** · distance ↓ **")
    assert "(get-artifact?path=strip.png&run_uuid={run_id})" in note
    assert tracker.models == ["model"]
    files = {("", "quality.csv"), ("", "quality_by_class.csv"), ("", "strip.png")}
    assert files | {("reports", "generator.png")} < set(tracker.files)
    card = CARD.read_text()
    assert ("", "README.md") in tracker.files and '- name: "a run"' in card
    worst = min(row.accuracy or 0 for row in evaluation.classes)
    assert f" ({percent(worst)})" in card.partition("Least often recognized: ")[2]
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
