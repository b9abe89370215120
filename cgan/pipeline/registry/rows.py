"""The gate's table: every check that it makes is a row.

To check one more number, write its function and a row; where it has a param, its default and range in
`params/sections.py`. docs/benchmarks.md says what each row alone catches.
"""

from __future__ import annotations

from typing import Any

from cgan.params.sections import GateParams
from cgan.pipeline.registry.checks import CHAMPION_GROUP, DATA_GROUP, LIMITS_GROUP, Check, Row
from cgan.pipeline.registry.drawings import (
    accuracy,
    accuracy_change,
    copies,
    distance_change,
    diversity,
    drawn_outliers,
    drawn_shift,
    excess_distance,
)
from cgan.pipeline.registry.todays_data import (
    MAX_CLASS_LOSS,
    class_loss,
    class_shift,
    data_outliers,
)

DATA_ROWS = (  # of a `DataComparison`
    Row(
        "max_class_shift", "standard deviations by which new images of a class differ", class_shift
    ),
    Row(
        "max_outliers",
        "new images that are like none before, beyond chance",
        data_outliers,
        "data_outliers",
    ),
    Row(
        MAX_CLASS_LOSS,
        "share of a class's images that is lost, beyond chance",
        class_loss,
        "class_loss",
    ),
)
DRAWING_ROWS = (  # of `Drawings`
    Row("max_outliers", "drawings that are like no real image, beyond chance", drawn_outliers),
    Row("max_drawn_shift", "standard deviations by which a class's drawings differ", drawn_shift),
    Row("min_relative_accuracy", "accuracy, as a part of real images'", accuracy),
    Row("max_copies_over_floor", "near copies, beyond the share among unseen images", copies),
    Row("min_worst_class_diversity", "diversity of a class, beside real images", diversity),
    Row("max_fid_over_floor", "Fréchet distance above that of real images", excess_distance),
)
CHAMPION_ROWS = (  # of `Drawings`, too
    Row("against_champion", "Fréchet distance", distance_change, "fid_judge"),
    Row(None, "conditional accuracy", accuracy_change, "conditional_accuracy"),
)
ROWS = {DATA_GROUP: DATA_ROWS, LIMITS_GROUP: DRAWING_ROWS, CHAMPION_GROUP: CHAMPION_ROWS}


def check_group(group: str, subject: Any, limits: GateParams, heading: str = "") -> list[Check]:
    """The checks of a group's rows that have a value; `heading`: of their table, in place of the group's."""
    checks = (row.check(heading or group, subject, limits) for row in ROWS[group])
    return [check for check in checks if check]
