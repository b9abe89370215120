"""What is read of a CSV, and what its report says; what is refused: promises/test_reading.py."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import peak_bytes
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from synthetic import csv_lines, make_images

from cgan.errors import DataError
from cgan.images import Images
from cgan.params.sections import ValidateParams
from cgan.readers import csv_reader, csv_report
from cgan.readers.csv_reader import read_csv

IMAGES, LABELS = make_images()
LINES = csv_lines(IMAGES, LABELS)
DEFAULTS = ValidateParams()


def accepts(folder: Path, lines: list[str], **params: Any) -> Images:
    path = folder / "train.csv"
    path.write_text("\n".join(lines) + "\n", newline="")
    return read_csv(path, DEFAULTS.model_copy(update=params))


def report_of(folder: Path, lines: list[str], **params: Any) -> dict[str, Any]:
    images = accepts(folder, lines, **params)
    return csv_report.report_on(images, DEFAULTS.model_copy(update=params), "train.csv")


def refuses(folder: Path, lines: list[str], **params: Any) -> str:
    """The message with which this content is refused, by the reader or by the report."""
    with pytest.raises(DataError) as caught:
        report_of(folder, lines, **params)
    return str(caught.value)


def with_field(row: int, column: int, text: str, lines: list[str] = LINES) -> list[str]:
    """The lines with one value changed; `row` counts from 1, column 0 is the label."""
    fields = lines[row].split(",")
    fields[column] = text
    return [*lines[:row], ",".join(fields), *lines[row + 1 :]]


# --- valid files --------------------------------------------------------------------------------


def test_images_have_the_shape_of_the_data_or_the_params(tmp_path: Path) -> None:
    table = accepts(tmp_path, LINES)
    assert np.array_equal(table.pixels, IMAGES) and np.array_equal(table.labels, LABELS)
    assert table.pixels.dtype == np.uint8 and table.labels.dtype == np.int64
    assert table.classes == 3 and table.lines.tolist() == [*range(2, 38)]
    images, labels = make_images(channels=3)
    table = accepts(tmp_path, csv_lines(images, labels), channels=3)
    assert np.array_equal(table.pixels, images)
    table = accepts(tmp_path, csv_lines(images[:, :2], labels), height=16, width=8)
    assert np.array_equal(table.pixels[:, 0], images[:, :2].reshape(-1, 16, 8))


@pytest.mark.parametrize("rows_at_once", [1, 35])
def test_blocks_change_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows_at_once: int
) -> None:
    monkeypatch.setattr(csv_reader, "VALUES_PER_BLOCK", 65 * rows_at_once)
    table = accepts(tmp_path, [*LINES[:5], "", "", *LINES[5:]])
    assert np.array_equal(table.pixels, IMAGES) and np.array_equal(table.labels, LABELS)
    assert table.lines.tolist() == [*range(2, 6), *range(8, 40)], "blank lines are no rows"
    fault = refuses(tmp_path, with_field(36, 64, "256"))
    assert "row 36 (line 37), column pixel63: expected a whole number from 0 to 255" in fault


def test_the_shortest_rows_find_room(tmp_path: Path) -> None:
    table = accepts(tmp_path, [LINES[0], *("0" + ",7" * 64 for _ in range(9))])
    assert len(table.labels) == 9 and (table.pixels == 7).all()


def test_groups_may_stand_between_label_and_pixels(tmp_path: Path) -> None:
    groups = ["group", *["tile 1", '"tile 2"', ""] * 12]
    lines = [line.replace(",", f",{g},", 1) for line, g in zip(LINES, groups, strict=True)]
    table = accepts(tmp_path, lines)
    assert np.array_equal(table.pixels, IMAGES) and np.array_equal(table.labels, LABELS)
    assert table.groups is not None and len(np.unique(table.groups)) == 2 + 12
    assert (table.groups[::3] == table.groups[0]).all() and table.groups[1] != table.groups[0]
    message = refuses(tmp_path, with_field(2, 5, "256", lines))
    assert re.findall("row .*", message) == [
        "row 2 (line 3), column pixel3: expected a whole number from 0 to 255, found '256'"
    ]


@pytest.mark.parametrize(
    "field", ["1" * 50_000_000, '"' + "1\n" * 25_000_000], ids=["digits", "open quote"]
)
def test_a_field_of_megabytes_takes_bounded_memory(tmp_path: Path, field: str) -> None:
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


# --- any bytes ----------------------------------------------------------------------------------


@given(data=st.data())
@settings(max_examples=150, deadline=None, suppress_health_check=[*HealthCheck])
def test_a_reader_of_any_bytes_is_exact_or_refuses(tmp_path: Path, data: st.DataObject) -> None:
    """Exact: as pandas reads the values as texts, and Python these as numbers."""
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
        texts = pd.read_csv(path, dtype=str, skip_blank_lines=True).dropna(how="all")
        assert np.array_equal(texts.to_numpy().astype(float), rows)


# --- the report ---------------------------------------------------------------------------------


def test_a_report_counts_and_names_what_is_odd(tmp_path: Path) -> None:
    images = IMAGES.copy()
    images[8], images[9] = 0, 9
    lines = csv_lines(images, LABELS)
    again = f"{(LABELS[5] + 1) % 3},{lines[6].partition(',')[2]}"
    report = report_of(tmp_path, [*lines, lines[3], lines[3], again], class_names=["a", "b", "c"])
    kinds = ("rows", "duplicates", "conflicting_labels", "constant_images")
    assert [report[kind] for kind in kinds] == [39, 3, 1, 2]
    report["shape"]["width"] *= 2
    assert csv_report.summary(report).startswith("39 images of 16 × 8 pixels, 3 classes of 12 to ")
    assert sum(report["class_counts"]) == 39
    few, duplicates, conflicts, constant = report["warnings"]
    assert re.match(r"Few images: 1\d of [abc], 1\d of [abc], 1\d of [abc]\. ", few)
    assert duplicates.startswith("Duplicates: 3 (row 37 (line 38) is row 3 (line 4), ")
    assert conflicts.startswith("Conflicting labels: 1 (row 39 (line 40) is")
    assert constant.startswith("Constant images: 2 (row 9 (line 10), row 10 (line 11)).")


def test_many_images_of_each_class_get_no_warning(tmp_path: Path) -> None:
    lines = csv_lines(*make_images(per_class=csv_report.FEW_IMAGES))
    assert report_of(tmp_path, lines)["warnings"] == []
    (few,) = report_of(tmp_path, LINES)["warnings"]
    assert few.startswith("Few images: 12 of each of 3 classes. ")
