"""What a message calls a setting: by the name that its reader can write."""

import pytest
from conftest import uneven

import cgan
from cgan.errors import CganError
from cgan.settings import as_keywords, setting


def test_a_setting_is_a_param_of_a_project_and_a_keyword_of_a_call() -> None:
    cases: list[tuple[tuple[str, *tuple[object, ...]], str, str]] = [
        (("train.lr",), "`train.lr`", "`lr`"),
        (("data.fit", "pad"), "`data.fit: pad`", '`fit="pad"`'),
        (("train.lr", 0.5), "`train.lr: 0.5`", "`lr=0.5`"),
        (("validate.classes", None), "`validate.classes: null`", "`classes=None`"),
        (("preprocess.holdout_fraction",), "`preprocess.holdout_fraction`", "`fraction`"),
        (("--per-class", 4), "`--per-class 4`", "`per_class=4`"),
        (("updates", "one_pass"), "`updates: one_pass`", '`updates="one_pass"`'),
    ]
    for arguments, of_project, of_python in cases:
        assert setting(*arguments) == of_project
        with as_keywords():
            assert setting(*arguments) == of_python
    assert setting("train.lr") == "`train.lr`", "as before"


def test_evidence_names_its_keywords() -> None:
    train, held_out = uneven().split(0.3)
    generator = cgan.fit(train, preset="local_score", progress=False).generator
    for keyword, value in (("per_class", 2), ("device", "tpu")):
        with pytest.raises(CganError, match=f"`{keyword}"):
            cgan.evidence(train, held_out, generator, **{keyword: value})  # type: ignore[arg-type]
