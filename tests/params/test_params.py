"""params.yaml: what is refused, and with which words."""

from __future__ import annotations

import datetime
import math
import os
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from ruamel.yaml import YAML

from cgan.errors import ParamsError
from cgan.params.sections import Params, TrainParams, flatten, flatten_names, load_params, read_yaml

Load = Callable[..., Params]
TEXT = (ROOT / "params.yaml").read_text()
RATE = re.findall(r"^  lr: \S+ ", TEXT, re.MULTILINE)[1]  # the first is the judge's


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Load the repository's params.yaml with changes: {"train.lr": 0.1}, or a whole other text."""
    path = tmp_path / "params.yaml"

    def load(changes: dict[str, Any] | None = None, text: str = TEXT) -> Params:
        if changes:
            document = yaml.safe_load(text)
            for name, value in changes.items():
                section, _, key = name.rpartition(".")
                (document[section] if section else document)[key] = value
            text = yaml.safe_dump(document)
        path.write_text(text)
        return load_params(path)

    return load


def refusal(load: Load, changes: dict[str, Any] | None = None, text: str = TEXT) -> str:
    with pytest.raises(ParamsError) as caught:
        load(changes, text)
    return str(caught.value)


def test_the_repository_has_valid_params_with_every_field_and_nothing_else() -> None:
    params = load_params(ROOT / "params.yaml")
    document = yaml.safe_load(TEXT)
    written = [f"{section}.{key}" for section, keys in document.items() for key in keys]
    assert written == flatten_names(Params) == list(flatten(params))
    assert list(flatten(params).values()) == [
        v for keys in document.values() for v in keys.values()
    ]


def test_params_cannot_be_changed_after_loading() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        load_params(ROOT / "params.yaml").train.lr = 1.0  # type: ignore[misc]


@pytest.mark.parametrize(
    ("batch_size", "total_kimg", "steps"), [(64, 160.0, 2500), (100, 0.16, 2), (64, 0.001, 1)]
)
def test_length_is_counted_in_images_and_is_at_least_a_step(
    load: Load, batch_size: int, total_kimg: float, steps: int
) -> None:
    train = load({"train.batch_size": batch_size, "train.total_kimg": total_kimg}).train
    assert train.total_steps == steps


def test_a_whole_number_is_accepted_where_a_number_is_expected(load: Load) -> None:
    assert load({"train.lr": 1}).train.lr == 1.0


@pytest.mark.parametrize(
    ("name", "suggestion"),
    [
        ("train.leraning_rate", "valid here: `generator`, "),
        ("train.ema_halflife", "did you mean `train.ema_half_life_kimg`?"),
        ("train.totl_kimg", "did you mean `train.total_kimg`?"),
        ("preprocess.label_column", "did you mean `validate.label_column`?"),
        ("trian", "did you mean `train`?"),
        ("validation", "did you mean `validate`?"),
    ],
)
def test_f31_unknown_key_is_refused_with_the_nearest(
    load: Load, name: str, suggestion: str
) -> None:
    message = refusal(load, {name: 1})
    assert f"params.yaml: unknown key `{name}`; {suggestion}" in message


def test_f31_key_that_is_no_text_is_refused(load: Load) -> None:
    assert "`train" in refusal(load, {"train.0": 1} | {"train.x": 2})
    message = refusal(load, text=TEXT + "\n7: 8\n")
    assert "7" in message and "\n" not in message


def test_f31_missing_key_and_missing_section_are_named(load: Load) -> None:
    document = yaml.safe_load(TEXT)
    del document["train"]["lr"], document["render"]
    message = refusal(load, text=yaml.safe_dump(document))
    assert "`train.lr` is missing" in message
    assert "`render` is missing" in message


@pytest.mark.parametrize(
    ("written", "advice"),
    [
        ("1e-4", "got the text '1e-4'. YAML needs a dot: write 1.0e-4."),
        ("2E-4", "got the text '2E-4'. YAML needs a dot: write 2.0e-4."),
        ("1.0e2", "got the text '1.0e2'. YAML needs a sign: write 1.0e+2."),
        ("1e2", "got the text '1e2'. YAML needs a dot and a sign: write 1.0e+2."),
        ("'0.00001'", "got the text '0.00001'. Remove the quotes: write 0.00001."),
        ("'1.0e-3'", "got the text '1.0e-3'. Remove the quotes: write 1.0e-3."),
    ],
)
def test_f32_number_that_yaml_reads_as_text_is_refused_with_what_to_write(
    load: Load, written: str, advice: str
) -> None:
    message = refusal(load, text=TEXT.replace(RATE, f"  lr: {written} "))
    assert f"params.yaml: `train.lr` must be a number above 0, {advice}" in message
    fixed = message.rsplit("write ", 1)[1].removesuffix(".")
    value = load(text=TEXT.replace(RATE, f"  lr: {fixed} ")).train.lr
    assert value == float(written.strip("'")), "the advice must work"


@pytest.mark.parametrize("written", ["'1234567'", "1e6", "1.5e+6"])
def test_f32_advice_for_a_whole_number_is_a_whole_number(load: Load, written: str) -> None:
    text = TEXT.replace("max_megabytes: 2000 ", f"max_megabytes: {written} ")
    message = refusal(load, text=text)
    assert "`data.max_megabytes` must be a whole number above 0, got" in message
    if written != "1.5e+6":  # that one is a float already: nothing to advise
        fixed = message.rsplit("rite ", 1)[1].removesuffix(".")
        assert load(text=TEXT.replace("max_megabytes: 2000 ", f"max_megabytes: {fixed} "))


@pytest.mark.parametrize(
    "written",
    ["012", "00", "0o100", "0x40", "0b11", "6_4", "1:30", "1:30.5", "yes", "On", "NO", "-.5", "09"],
)
@pytest.mark.parametrize(
    ("before", "name"),
    [
        ("  latent_dim: 64\n", "train.latent_dim"),
        (RATE, "train.lr"),
        ("  experiment: cgan\n", "tracking.experiment"),
        ("  system_metrics: true\n", "tracking.system_metrics"),
    ],
)
def test_f32_spelling_that_yaml_1_1_and_1_2_read_differently_is_refused(
    load: Load, before: str, name: str, written: str
) -> None:
    key = before.split(":")[0]
    message = refusal(load, text=TEXT.replace(before, f"{key}: {written}\n"))
    assert f"params.yaml: `{name}`: YAML readers differ on what `{written}` means" in message
    assert "\n" not in message
    if name == "tracking.experiment" and ":" not in written:
        text = TEXT.replace(before, f"{key}: '{written}'\n")
        assert load(text=text).tracking.experiment == written, "the advice must work"


def test_f32_exponent_of_yaml_1_2_is_refused_in_a_text_too(load: Load) -> None:
    message = refusal(load, text=TEXT.replace("  experiment: cgan", "  experiment: 1e3"))
    assert "YAML readers differ on what `1e3` means" in message


@given(st.text("0123456789+-.eExXob_:~nNyYfFaAlLuUtTrRsSiI", min_size=1, max_size=8))
@settings(max_examples=200, deadline=None)
def test_f32_what_we_accept_dvc_reads_alike(written: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "x.yaml")
        path.write_text(f"a: {written}\n")
        try:
            ours = read_yaml(path)["a"]
        except ParamsError:
            return
        theirs = YAML(typ="safe").load(path.read_text())["a"]
    assert type(theirs) is type(ours)
    assert repr(theirs) == repr(ours)


@pytest.mark.parametrize("end", ["\x85", "\u2028", "\u2029"])
def test_f32_line_end_of_yaml_1_1_alone_is_refused(load: Load, end: str) -> None:
    message = refusal(load, text=TEXT.replace("  latent_dim: 64", f"  latent_dim: 64{end}  x: 1"))
    line = TEXT[: TEXT.index("  latent_dim: 64")].count("\n") + 1
    assert f"an invisible character U+{ord(end):04X} in line {line} " in message


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("train.lr", 0, "must be a number above 0, got 0"),
        ("train.lr", -1.0, "must be a number above 0, got -1.0"),
        ("train.lr", math.nan, "must be a number above 0, got nan"),
        ("train.lr", math.inf, "must be a number above 0, got inf"),
        ("train.lr", True, "must be a number above 0, got the truth value true"),
        ("train.lr", None, "must be a number above 0, got nothing"),
        ("train.lr", [0.1], "must be a number above 0, got a list"),
        ("train.batch_size", True, "must be a whole number at least 2, got the truth value true"),
        ("train.batch_size", 64.0, "must be a whole number at least 2, got 64.0"),
        ("train.seed", -1, "must be a whole number at least 0 and below 2147483648, got -1"),
        ("train.log_every", 10**9, "must be a whole number above 0 and at most 10000"),
        ("train.generator", "dcgan", "must be one of `deconv`, `upsample`, `embed`, `demo`, got"),
        ("validate.channels", 2, "must be one of `1`, `3`, got 2"),
        (
            "validate.classes",
            1,
            "must be a whole number at least 2 and at most 1000 or null, got 1",
        ),
        ("tracking.system_metrics", 1, "must be true or false, got 1"),
        ("data.path", "", "must be a text, got an empty text"),
        ("data.kaggle", "https://kaggle.com", "such as `digit-recognizer`"),
        ("data.path", datetime.date(2026, 1, 2), "must be a text, got the date 2026-01-02"),
        ("train", None, "must be a section with keys, got nothing"),
    ],
)
def test_f33_value_outside_the_range_is_refused_with_the_range(
    load: Load, name: str, value: Any, words: str
) -> None:
    message = refusal(load, {name: value})
    assert f"params.yaml: `{name}` " in message
    assert words in message and "\n" not in message


@pytest.mark.parametrize("name", ["train.generator", "train.discriminator"])
def test_the_demo_s_former_name_is_answered_with_the_present_one(load: Load, name: str) -> None:
    message = refusal(load, {name: "seed"})
    assert "got the text 'seed'. The demo's network is called `demo` now." in message
    assert "`demo` now" not in refusal(load, {name: "sead"})


@pytest.mark.parametrize("value", ["a\nb", "a\0b", "\x1b[2J", "\u202e"])
@pytest.mark.parametrize("name", ["data.path", "tracking.experiment", "validate.label_column"])
def test_f33_text_that_cannot_be_shown_is_refused(load: Load, name: str, value: str) -> None:
    message = refusal(load, {name: value})
    assert f"`{name}`: " in message and "holds characters that cannot be shown" in message
    assert message.isprintable()


@pytest.mark.parametrize("name", ["train.total_kimg", "train_judge.total_kimg"])
@pytest.mark.parametrize("value", [0.0, 1e300])
def test_f34_no_steps_and_endless_steps_are_refused(load: Load, name: str, value: float) -> None:
    assert f"`{name}` must be a number above 0 and at most 1000000" in refusal(load, {name: value})


def test_f35_duplicate_key_is_refused_with_both_lines(load: Load) -> None:
    message = refusal(load, text=TEXT.replace("  latent_dim: 64", "  latent_dim: 64\n  lr: 1.0"))
    first = TEXT[: TEXT.index("  latent_dim: 64")].count("\n") + 2
    assert f"key `lr` stands twice, in lines {first} and " in message


def test_f35_yaml_bomb_is_refused(load: Load) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 10)]
    assert "YAML aliases. Write the values out instead." in refusal(load, text="\n".join(lines))


def test_f35_deep_huge_and_circular_yaml_are_refused(load: Load) -> None:
    assert "nested too deeply" in refusal(load, text="[" * 100_000)
    assert "1,000,012 bytes, expected at most" in refusal(load, text="a: " + "x" * 1_000_009)
    assert "`train.self`" in refusal(load, text=TEXT.replace("train:\n", "train: &t\n  self: *t\n"))


@pytest.mark.parametrize(
    "value",
    [
        "!!python/object/apply:pathlib.Path.touch [!!python/object/apply:pathlib.Path [ran]]",
        "!!python/name:os.system",
        "!!python/object/new:os.system [touch ran]",
        "!local x",
        "!!bool abc",
        "!!timestamp abc",
        "!!int abc",
    ],
)
def test_f35_foreign_tags_are_refused_and_nothing_runs(
    load: Load, value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    message = refusal(load, text=TEXT.replace(RATE, f"  lr: {value} "))
    assert "params.yaml" in message and "not valid YAML: " in message and "\n" not in message
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("value", ["!!float 1e-4", '!!int "012"', "!!str 1"])
def test_f35_tag_of_a_plain_type_is_refused_too(load: Load, value: str) -> None:
    message = refusal(load, text=TEXT.replace(RATE, f"  lr: {value} "))
    assert "has a YAML tag. Write the value plainly." in message


@pytest.mark.parametrize("name", ["data.member", "tracking.experiment"])
@pytest.mark.parametrize(
    "value", ["/etc/passwd", "../x", "a/../../x", "..\\x", "C:\\x", "\\x", ".."]
)
def test_f36_name_that_leads_outside_is_refused(load: Load, name: str, value: str) -> None:
    message = refusal(load, {name: value})
    assert f"`{name}`: " in message and "leads outside" in message and repr(value) in message


def test_f36_data_path_may_be_anywhere_and_members_may_be_in_folders(load: Load) -> None:
    params = load({"data.path": "/mnt/../x.csv", "data.member": "a/b..c/train.csv"})
    assert (params.data.path, params.data.member) == ("/mnt/../x.csv", "a/b..c/train.csv")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"save_every": 70}, "`save_every` (70) must be a multiple of `log_every` (50)"),
        ({"batch_size": 65}, "`batch_size` (65) must be a multiple of `cpu_parts` (2)"),
        ({"discriminator": "demo"}, "needs `updates: in_turn`"),
        (
            {"discriminator": "demo", "updates": "in_turn"},
            "set `auxiliary_discriminator`, `auxiliary_generator` and `class_logit_weight` to 0.0",
        ),
        ({"auxiliary_generator": 0.2}, "has no loss of the generator's own"),
    ],
)
def test_values_that_do_not_go_together_are_refused(
    load: Load, changes: dict[str, Any], words: str
) -> None:
    message = refusal(load, {f"train.{key}": value for key, value in changes.items()})
    assert message.count("`train`: ") == 1 and words in message


def test_height_without_width_is_refused(load: Load) -> None:
    assert "give both `height` and `width`" in refusal(load, {"validate.height": 28})
    assert load({"validate.height": 30, "validate.width": 20}).validation.width == 20


def test_all_problems_are_told_at_once(load: Load) -> None:
    message = refusal(
        load,
        {"train.lr": 0, "train.bacth": 1, "data.source": "web", "render.columns": "10", "x": 1},
    )
    head, *lines = message.splitlines()
    assert head.endswith("params.yaml: 5 problems:")
    assert [line[:4] for line in lines] == ["  - "] * 5
    for name in ("`train.lr`", "`train.bacth`", "`data.source`", "`render.columns`", "`x`"):
        assert sum(name in line.split(";")[0] for line in lines) == 1


def test_of_a_flood_of_problems_the_first_are_told(load: Load) -> None:
    message = refusal(load, text=TEXT + "".join(f"k{i}: 1\n" for i in range(300)))
    head, *lines = message.splitlines()
    assert "300 problems, the first 20 of them:" in head and len(lines) == 20


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "expected sections with keys, found nothing"),
        ("- a\n- b\n", "expected sections with keys, found a list"),
        ("train:\n\tlr: 1\n", "line 2, column 1: not valid YAML"),
        ("train: {lr: 1", "not valid YAML"),
        ("a: 2020-13-45", "not valid YAML"),
        ("? [a]\n: 1", "not valid YAML"),
        ("a: 1\n---\nb: 2\n", "not valid YAML"),
    ],
)
def test_text_that_is_no_params_file_is_refused_in_one_line(
    load: Load, text: str, words: str
) -> None:
    message = refusal(load, text=text)
    assert words in message and "\n" not in message


def test_file_that_is_missing_or_no_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match=r"not found in .*Run from the project's top folder"):
        load_params(tmp_path / "params.yaml")
    (tmp_path / "params.yaml").write_bytes(b"train: \xff\xfe")
    with pytest.raises(ParamsError, match="Save it as UTF-8"):
        load_params(tmp_path / "params.yaml")
    with pytest.raises(ParamsError, match="not a file"):
        load_params(tmp_path)


@pytest.mark.parametrize("kind", ["fifo", "endless", "huge"])
def test_file_without_end_is_refused_before_it_is_read(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "params.yaml"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "endless":
        path.symlink_to("/dev/zero")
    else:
        with path.open("wb") as file:
            file.truncate(10**12)
    with pytest.raises(ParamsError, match=r"not a file|1,000,000,000,000 bytes, expected"):
        load_params(path)


def test_utf8_byte_order_mark_is_accepted(load: Load) -> None:
    assert load(text="\ufeff" + TEXT)


def test_train_section_can_be_built_without_a_file() -> None:
    train = load_params(ROOT / "params.yaml").train
    assert TrainParams(**train.model_dump()) == train
