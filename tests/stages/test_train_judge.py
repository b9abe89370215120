"""What the stage says of a judge that is not able to judge, and when it trains one."""

from __future__ import annotations

from cgan.stages.train_judge import cannot_judge


def test_a_judge_below_the_gates_bar_is_told_early_with_advice() -> None:
    assert cannot_judge(0.95, 0.91, 0.98, needed=0.90) == ""
    assert cannot_judge(0.93, 0.90, 0.96, needed=0.90) == ""
    maybe = cannot_judge(0.91, 0.88, 0.94, needed=0.90)
    assert "91.0% of the held-out images (88.0% to 94.0%)" in maybe
    assert "the gate may promote nothing below 90% (`gate.min_judge_accuracy`)" in maybe
    sure = cannot_judge(0.68, 0.66, 0.70, needed=0.90)
    assert "the gate will promote nothing" in sure and "add images" in sure
