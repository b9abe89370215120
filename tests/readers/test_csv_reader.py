"""What is read of a CSV, what its report says, and what is refused beyond acceptance/test_refusals.py."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
from conftest import peak_bytes
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from synthetic import csv_lines, make_images

from cgan.errors import DataError, SourceError
from cgan.images import Images
from cgan.params.sections import DataParams, ValidateParams
from cgan.readers import csv_reader, csv_report, sources
from cgan.readers.csv_reader import read_csv

IMAGES, LABELS = make_images()
LINES = csv_lines(IMAGES, LABELS)
DEFAULTS = ValidateParams()


def accepts(folder: Path, content: str | list[str], **params: Any) -> Images:
    path = folder / "train.csv"
    path.write_text(content if isinstance(content, str) else "\n".join(content) + "\n", newline="")
    return read_csv(path, DEFAULTS.model_copy(update=params))


def report_of(folder: Path, content: str | list[str], **params: Any) -> dict[str, Any]:
    images = accepts(folder, content, **params)
    return csv_report.report_on(images, DEFAULTS.model_copy(update=params), "train.csv")


def refuses(folder: Path, content: str | list[str], **params: Any) -> str:
    """The message with which this content is refused, by the reader or by the report."""
    with pytest.raises(DataError) as caught:
        report_of(folder, content, **params)
    return str(caught.value)


def with_field(row: int, column: int, text: str) -> list[str]:
    """The valid lines with one value changed; `row` counts from 1, column 0 is the label."""
    fields = LINES[row].split(",")
    fields[column] = text
    return [*LINES[:row], ",".join(fields), *LINES[row + 1 :]]


# --- valid files --------------------------------------------------------------------------------


def test_images_and_labels_are_those_that_were_written_in_the_shape_of_the_data_or_the_params(
    tmp_path: Path, digits_csv: Path
) -> None:
    table = read_csv(digits_csv, DEFAULTS)
    assert np.array_equal(table.pixels, IMAGES) and np.array_equal(table.labels, LABELS)
    assert table.pixels.dtype == np.uint8 and table.labels.dtype == np.int64
    assert table.classes == 3 and table.notes == ()
    images, labels = make_images(channels=3)
    table = accepts(tmp_path, csv_lines(images, labels), channels=3)
    assert np.array_equal(table.pixels, images)
    table = accepts(tmp_path, csv_lines(images[:, :2], labels), height=16, width=8)
    assert np.array_equal(table.pixels[:, 0], images[:, :2].reshape(-1, 16, 8))
    table = accepts(tmp_path, "\n".join(with_field(1, 0, "300")))
    assert table.labels[0] == 300 and "last line has no line end" in table.notes[0]


@pytest.mark.parametrize("rows_at_once", [1, 35, 1000])
def test_f88_rows_are_parsed_in_blocks_and_it_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows_at_once: int
) -> None:
    report = report_of(tmp_path, LINES)
    monkeypatch.setattr(csv_reader, "VALUES_PER_BLOCK", 65 * rows_at_once)
    table = accepts(tmp_path, LINES)
    assert np.array_equal(table.pixels, IMAGES) and np.array_equal(table.labels, LABELS)
    assert report_of(tmp_path, LINES) == report
    fault = refuses(tmp_path, with_field(36, 64, "256"))
    assert "row 36 (line 37), column pixel63: 256 is outside" in fault


def test_f88_shortest_rows_find_room(tmp_path: Path) -> None:
    lines = [LINES[0], *("0" + ",7" * 64 for _ in range(9))]
    for end in ("", "\n", "\r\n\r\n"):
        table = accepts(tmp_path, "\n".join(lines) + end)
        assert len(table.labels) == 9 and (table.pixels == 7).all()


def test_a_column_of_groups_may_stand_between_label_and_pixels(tmp_path: Path) -> None:
    groups = ["group", *["tile 1", '"tile 2"', ""] * 12]
    lines = [line.replace(",", f",{g},", 1) for line, g in zip(LINES, groups, strict=True)]
    table = accepts(tmp_path, lines)
    assert np.array_equal(table.pixels, IMAGES) and np.array_equal(table.labels, LABELS)
    assert table.groups is not None and len(np.unique(table.groups)) == 2 + 12
    assert (table.groups[::3] == table.groups[0]).all() and table.groups[1] != table.groups[0]
    lines[2] = ",".join([*lines[2].split(",")[:5], "256", *lines[2].split(",")[6:]])
    assert "row 2 (line 3), column pixel3: 256" in refuses(tmp_path, lines)


# --- refused files ------------------------------------------------------------------------------


def test_f06_f07_faults_are_counted_and_the_first_shown_with_row_line_and_column(
    tmp_path: Path,
) -> None:
    lines = [LINES[0], *(f"7{line[1:]}" if i % 2 else line for i, line in enumerate(LINES[1:]))]
    message = refuses(tmp_path, lines, classes=3)
    assert "18 faults, among them:" in message and "row 2 (line 3)" in message
    assert message.count("column label: 7 ") == csv_reader.MAX_SHOWN_FAULTS
    for text in ("9" * 23, "1 0", '"1', '"', '"1"0', "3\x1f", "3\r"):
        message = refuses(tmp_path, with_field(17, 13, text))
        assert "row 17 (line 18), column pixel12: " in message, text
    lines = with_field(17, 13, "256")  # blank lines are no rows
    assert "row 17 (line 20)" in refuses(tmp_path, [*lines[:5], "", "", *lines[5:]])


def test_of_many_faults_one_of_each_kind_is_shown_and_then_those_of_other_rows(
    tmp_path: Path,
) -> None:
    lines = [*LINES]
    lines[3] = ",".join([lines[3].split(",")[0], *["300"] * 64])
    for row, column, text in ((8, 0, "7"), (20, 5, "x"), (21, 0, ""), (30, 9, "256")):
        fields = lines[row].split(",")
        lines[row] = ",".join([*fields[:column], text, *fields[column + 1 :]])
    message = refuses(tmp_path, lines, classes=3)
    assert "68 faults, among them:" in message and "pandas" not in message
    assert re.findall(r"- row (\d+) .*: (.*)\.", message) == [
        ("3", "300 is outside 0–255"),
        ("8", "7 is outside the classes 0–2"),
        ("20", "'x' is not a whole number"),
        ("21", "blank"),
        ("30", "256 is outside 0–255"),
    ]


def test_a_text_is_told_from_a_table(tmp_path: Path) -> None:
    message = refuses(tmp_path, ["# cgan", "", "Give cgan a CSV, or a folder"])
    assert "the first line, `# cgan`," in message


def test_f13_small_classes_are_named_and_so_is_a_slip_once_classes_are_set(tmp_path: Path) -> None:
    few = [line for line in LINES if line.startswith("1,")][:4]
    assert "class 1 has 8." in refuses(tmp_path, [line for line in LINES if line not in few])
    assert "`validate.class_names` has 2 names" in refuses(tmp_path, LINES, class_names=["a", "b"])
    lines = with_field(17, 0, "57")
    assert re.search(r"\b57\b.*`validate.classes`", refuses(tmp_path, lines))
    assert "row 17 (line 18), column label: 57" in refuses(tmp_path, lines, classes=3)


@pytest.mark.parametrize("classes", [3, None])
@pytest.mark.parametrize(
    "names", [(0, 1, 5), (1, 2, 3), (0, 500, 999), (0, 1, 5000), (-1, 0, 1), ("a", "b", "c")]
)
def test_f83_the_advice_for_labels_that_do_not_count_from_0_makes_a_valid_csv(
    tmp_path: Path, names: tuple[int | str, ...], classes: int | None
) -> None:
    column = {"label_column": "it's a class"}
    lines = [LINES[0].replace("label", "it's a class", 1)]
    lines += [f"{names[int(row[0])]}{row[1:]}" for row in LINES[1:]]
    message = refuses(tmp_path, lines, classes=classes, **column)
    advice = re.search(r"`(frame = pandas\.read_csv\(old\);[^`]*)`", message)
    assert advice and "`validate.class_names` to the old ones" in message, message
    path = tmp_path / "train.csv"
    exec(advice[1], {"pandas": pandas, "old": path, "new": path})
    table = read_csv(path, DEFAULTS.model_copy(update=column))
    assert np.array_equal(table.labels, LABELS) and np.array_equal(table.pixels, IMAGES)


def test_f83_rows_with_other_faults_are_not_to_be_renumbered(tmp_path: Path) -> None:
    for column, text in ((0, ""), (5, "300")):
        lines = [*with_field(3, 0, "77")[:4], *with_field(17, column, text)[4:]]
        message = refuses(tmp_path, lines, classes=3)
        assert "2 faults:" in message and "pandas" not in message


@pytest.mark.parametrize(
    "field", ["1" * 50_000_000, '"' + "1\n" * 25_000_000], ids=["digits", "open quote"]
)
def test_f17_field_of_megabytes_is_refused_in_bounded_memory(tmp_path: Path, field: str) -> None:
    (tmp_path / "train.csv").write_text("\n".join(with_field(17, 13, field)))
    imports = (
        "import pandas; from cgan.readers import csv_reader; from cgan.errors import DataError\n"
    )
    imports += "from cgan.params.sections import ValidateParams"
    code = (
        "try: csv_reader.read_csv('train.csv', ValidateParams())\n"
        "except DataError as error: assert 'row 17 (line 18)' in str(error)\n"
        "else: raise AssertionError"
    )
    assert peak_bytes(code, tmp_path, imports) < 30e6, "the field has 50 MB"


def test_f18_oversized_file_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "huge.csv"
    with path.open("wb") as file:
        file.truncate(5_000_000_000_000)  # sparse: takes no room, and hours to read
    with pytest.raises(SourceError, match=r"more than 2,000 MB.*`data.max_megabytes`"):
        sources.read_source(path, DataParams(), DEFAULTS)


@pytest.mark.parametrize("added", [1, 500, -1])  # -1: all are gone
def test_f20_file_that_changes_while_it_is_read_is_refused(
    digits_csv: Path, monkeypatch: pytest.MonkeyPatch, added: int
) -> None:
    parse = pandas.read_csv

    def slow_parse(*args: Any, **options: Any) -> Any:
        values = parse(*args, **options)
        with digits_csv.open("a" if added > 0 else "w") as file:
            file.write((LINES[1] + "\n") * added)
        return values

    monkeypatch.setattr(pandas, "read_csv", slow_parse)
    monkeypatch.setattr(csv_reader, "VALUES_PER_BLOCK", 65 * 12)
    words = "changed while being read" if added > 0 else "changed while|it was cut off"
    with pytest.raises(DataError, match=words):
        read_csv(digits_csv, DEFAULTS)


# --- any bytes ----------------------------------------------------------------------------------


def strict_values(data: bytes) -> list[list[int]] | None:
    """The reader's meaning in the plainest words: None where a pixel is not 0–255, or a label not 0–999."""
    field = re.compile(rb'[ \t]*(?:"\s*)?(\+?\d+|-0+)(?:\s*")?[ \t\r]*')
    lines = [line.split(b",") for line in data.split(b"\n")[1:] if line.strip()]
    if any(len(line) != 65 or not all(map(field.fullmatch, line)) for line in lines):
        return None
    rows = [[int(field.sub(rb"\1", value)) for value in line] for line in lines]
    inside = all(label <= 999 and max(pixels) <= 255 for label, *pixels in rows)
    return rows if rows and inside else None


@given(data=st.data())
@settings(max_examples=150, deadline=None, suppress_health_check=[*HealthCheck])
def test_reader_is_exact_or_refuses_whatever_the_bytes(tmp_path: Path, data: st.DataObject) -> None:
    content = bytearray("\n".join(LINES[:4]).encode() + b"\n")
    for _ in range(data.draw(st.integers(0, 3))):
        at = data.draw(st.integers(len(LINES[0]) + 1, len(content)))
        cut = data.draw(st.integers(0, 3))
        signs = st.sampled_from([b",", b"\n", b'"', b" ", b"-", b".", b"\r"])
        content[at : at + cut] = data.draw(st.binary(max_size=4) | signs)
    path = tmp_path / "fuzzed.csv"
    path.write_bytes(content)
    try:
        table = read_csv(path, DEFAULTS, name="fuzzed.csv")
    except DataError as error:
        assert str(error).startswith("fuzzed.csv") and len(str(error)) < 1500
    else:
        rows = np.column_stack([table.labels, table.pixels.reshape(len(table.labels), -1)])
        assert rows.tolist() == strict_values(bytes(content))


# --- the report ---------------------------------------------------------------------------------


def test_f14_imbalance_and_few_images_of_a_class_are_warnings(tmp_path: Path) -> None:
    images, labels = make_images(per_class=csv_report.FEW_IMAGES)
    keep = (labels != 1) | (np.cumsum(labels == 1) <= 10)
    uneven = csv_lines(images[keep], labels[keep])
    imbalance, few = report_of(tmp_path, uneven, max_imbalance=3.0)["warnings"]
    assert "50 of 0, 10 of 1, 5 times fewer" in imbalance and "Few images: 10 of 1. " in few
    assert report_of(tmp_path, uneven)["warnings"] == [few]
    assert report_of(tmp_path, csv_lines(images, labels))["warnings"] == []
    (dark,) = report_of(tmp_path, csv_lines(images // 16, labels))["warnings"]
    assert dark.startswith("Dark: no value is above 15 of 255.") and "by 17" in dark
    named = report_of(tmp_path, uneven, class_names=["a", "b", "c"])["warnings"]
    assert "Few images: 10 of b. " in named[0]
    (few,) = report_of(tmp_path, LINES)["warnings"]
    assert few.startswith("Few images: 12 of each of 3 classes. ")


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (["Cat", "dog", "cat"], "look alike: 'Cat' and 'cat'. If they are one class"),
        (["für", "a", "fu\u0308r"], r"look alike: 'f\xfcr' and 'fu\u0308r'. "),
        (["01", "7", "1"], "look alike: '01' and '1'. "),
        (["10", "100", "1.0"], ""),
    ],
)
def test_names_that_look_alike_are_told(tmp_path: Path, names: list[str], told: str) -> None:
    first, *others = report_of(tmp_path, LINES, class_names=names)["warnings"]
    assert told in first if told else not others


def test_f15_f16_a_report_counts_images_duplicates_contradictions_blank_and_constant_ones(
    tmp_path: Path,
) -> None:
    images = IMAGES.copy()
    images[8], images[9] = 0, 9
    lines = csv_lines(images, LABELS)
    again = f"{(LABELS[5] + 1) % 3},{lines[6].partition(',')[2]}"
    report = report_of(tmp_path, [*lines, lines[3], lines[3], again])
    kinds = ("rows", "duplicates", "conflicting_labels", "constant_images")
    assert [report[kind] for kind in kinds] == [39, 3, 1, 2]
    report["shape"]["width"] *= 2
    assert csv_report.summary(report).startswith("39 images of 16 × 8 pixels, 3 classes of 12 to ")
    assert sum(report["class_counts"]) == 39
    warnings = "\n".join(report["warnings"])
    assert "Duplicates: 3 (row 37 (line 38) is row 3 (line 4), " in warnings
    assert (
        "Conflicting labels: 1 of these copies are of another class (row 39 (line 40) is"
        in warnings
    )
    assert "Constant images: 2, blank ones too (row 9 (line 10), row 10 (line 11))." in warnings
    assert len(report["warnings"]) == 4, "and few images"
