"""What a message calls a setting: by the name that its reader can write."""

import pytest

from cgan.base.settings import as_keywords, setting


@pytest.mark.parametrize(
    ("arguments", "of_project", "of_python"),
    [
        (("train.lr",), "`train.lr`", "`lr`"),
        (("data.fit", "pad"), "`data.fit: pad`", '`fit="pad"`'),
        (("validate.classes", None), "`validate.classes: null`", "`classes=None`"),
        (("preprocess.holdout_fraction",), "`preprocess.holdout_fraction`", "`fraction`"),
        (("updates", "one_pass"), "`updates: one_pass`", '`updates="one_pass"`'),
    ],
)
def test_a_setting_is_a_param_of_a_project_or_a_keyword(
    arguments: tuple[str, *tuple[object, ...]], of_project: str, of_python: str
) -> None:
    assert setting(*arguments) == of_project
    with as_keywords():
        assert setting(*arguments) == of_python
    assert setting(*arguments) == of_project, "as before"
