"""The gate's table: every check that it makes is a row.

To check one more number, write its function and a row; where it has a param, its default and range in
`params/sections.py`.
"""

from __future__ import annotations

from typing import Any

from cgan.params.sections import GateParams
from cgan.pipeline.registry.checks import CHAMPION, DATA, DRAWINGS, Check, Row
from cgan.pipeline.registry.drawings import (
    accuracy_change,
    copies,
    distance_change,
    diversity,
    drawing_accuracy,
    drawn_shift,
    excess_distance,
    judge_accuracy,
    outlier_share,
    worst_class_accuracy,
)
from cgan.pipeline.registry.todays_data import agreement, class_agreement, class_mix, class_shift

DATA_ROWS = (  # of a `todays_data.Comparison`
    Row("max_class_shift", "standard deviations by which a class's images differ", class_shift),
    Row(0.25, "share of a class's images that is lost beyond chance", class_mix, "class_mix"),
    Row("max_agreement_drop", "labels that the judge of before no longer sees", agreement),
    # Good data lose none.
    Row(0.05, "labels of a class that it no longer sees", class_agreement, "class_agreement"),
)
DRAWING_ROWS = (  # of `drawings.Drawings`
    Row("min_judge_accuracy", "held-out images that the judge gets right", judge_accuracy),
    Row("min_conditional_accuracy", "drawings that show the class asked for", drawing_accuracy),
    Row("min_worst_class_accuracy", "drawings of a class that show it", worst_class_accuracy),
    Row("max_copies_over_floor", "near copies, beyond the share among unseen images", copies),
    Row("max_fid_over_floor", "Fréchet distance above that of real images", excess_distance),
    Row("min_worst_class_diversity", "diversity of a class, beside real images", diversity),
    Row("max_drawn_shift", "standard deviations by which a class's drawings differ", drawn_shift),
    Row("max_outliers", "drawings that look like no real image, beyond chance", outlier_share),
)
CHAMPION_ROWS = (  # of `drawings.Drawings`, too
    Row("against_champion", "Fréchet distance", distance_change, "fid_judge"),
    Row(None, "conditional accuracy", accuracy_change, "conditional_accuracy"),
)
ROWS = {DATA: DATA_ROWS, DRAWINGS: DRAWING_ROWS, CHAMPION: CHAMPION_ROWS}


def check_group(group: str, subject: Any, limits: GateParams, heading: str = "") -> list[Check]:
    """The checks of a group's rows that have a value; `heading`: of their table, in place of the group's."""
    checks = (row.check(heading or group, subject, limits) for row in ROWS[group])
    return [check for check in checks if check]
