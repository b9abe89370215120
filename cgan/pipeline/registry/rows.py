"""The gate's table: every check that it makes is a row.

To check one more number, write its function and a row; where it has a param, its default and range in
`params/sections.py`. docs/benchmarks.md says what each row alone catches.
"""

from typing import Any

from cgan.params.sections import GateParams
from cgan.pipeline.registry import drawings, todays_data
from cgan.pipeline.registry.checks import CHAMPION_GROUP, DATA_GROUP, LIMITS_GROUP, Check, Row

DATA_ROWS = (  # of a `DataComparison`
    Row(
        "class_shift",
        "max_class_shift",
        "deviations by which a class's new images differ",
        todays_data.shift,
    ),
    Row("data_outliers", "max_outliers", "new images like none before", todays_data.outliers),
    Row(
        "class_loss",
        todays_data.MAX_CLASS_LOSS,
        "part of its share that a class has lost",
        todays_data.class_loss,
    ),
)
DRAWING_ROWS = (  # of `Drawings`
    Row("outliers", "max_outliers", "drawings that are like no real image", drawings.outliers),
    Row(
        "drawn_shift",
        "max_drawn_shift",
        "deviations by which a class's drawings differ",
        drawings.shift,
    ),
    Row(
        "relative_accuracy",
        "min_relative_accuracy",
        "accuracy, as a part of real images'",
        drawings.accuracy,
    ),
    Row(
        "copies_over_floor",
        "max_copies_over_floor",
        "near copies, beyond those among real images",
        drawings.copies,
    ),
    Row(
        "worst_class_diversity",
        "min_worst_class_diversity",
        "diversity, as a part of real images'",
        drawings.diversity,
    ),
    Row(
        "fid_over_floor",
        "max_fid_over_floor",
        "Fréchet distance, less real images'",
        drawings.excess_distance,
    ),
)
CHAMPION_ROWS = (  # of `Drawings`, too
    Row("fid_judge", "against_champion", "Fréchet distance", drawings.distance_change),
    Row("conditional_accuracy", None, "conditional accuracy", drawings.accuracy_change),
)
ROWS = {DATA_GROUP: DATA_ROWS, LIMITS_GROUP: DRAWING_ROWS, CHAMPION_GROUP: CHAMPION_ROWS}


def check_group(group: str, subject: Any, limits: GateParams, heading: str = "") -> list[Check]:
    """The checks of a group's rows that have a value; `heading`: of their table, in place of the group's."""
    checks = (row.check(heading or group, subject, limits) for row in ROWS[group])
    return [check for check in checks if check]
