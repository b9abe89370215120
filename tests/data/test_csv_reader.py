"""What is read of a CSV; what is refused and what is counted: promises/test_reading.py."""

import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import csv_lines, peak_bytes, plain, uneven
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cgan.base.errors import DataError
from cgan.data import csv_reader
from cgan.data.csv_reader import read_csv
from cgan.data.images import Images
from cgan.data.validation import validation
from cgan.params.sections import ValidateParams

DATA = plain(uneven(counts=[12, 14, 10], width=8))
LINES = csv_lines(DATA)
DEFAULTS = ValidateParams()


def read(lines: list[str], **params: Any) -> Images:
    content = "\n".join(lines) + "\n"
    return read_csv(io.BytesIO(content.encode()), DEFAULTS.model_copy(update=params), "train.csv")


def with_field(row: int, column: int, text: str, lines: list[str] = LINES) -> list[str]:
    """The lines with one value changed; `row` counts from 1, column 0 is the label."""
    fields = lines[row].split(",")
    fields[column] = text
    return [*lines[:row], ",".join(fields), *lines[row + 1 :]]


def test_images_have_the_shape_of_the_data_or_the_params() -> None:
    colour, tall = plain(uneven(channels=3, width=8)), plain(uneven(height=16, width=8))
    for data, params in ((colour, {"channels": 3}), (tall, {"height": 16, "width": 8})):
        table = read(csv_lines(data), **params)
        assert np.array_equal(table.pixels, data.pixels)
        assert np.array_equal(table.labels, data.labels)
        assert table.pixels.dtype == np.uint8 and table.labels.dtype == np.int64
        assert table.classes == 3 and table.lines.tolist() == [*range(2, len(data) + 2)]


@pytest.mark.parametrize("rows_at_once", [1, 35])
def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch, rows_at_once: int) -> None:
    monkeypatch.setattr(csv_reader, "VALUES_PER_BLOCK", 65 * rows_at_once)
    table = read([*LINES[:5], "", "", *LINES[5:]])
    assert np.array_equal(table.pixels, DATA.pixels) and np.array_equal(table.labels, DATA.labels)
    assert table.lines.tolist() == [*range(2, 6), *range(8, 40)], "blank lines are no rows"
    with pytest.raises(DataError, match=r"row 36 \(line 37\), column pixel63: expected a whole"):
        read(with_field(36, 64, "256"))


def test_groups_may_stand_between_label_and_pixels() -> None:
    groups = ["group", *["tile 1", '"tile 2"', ""] * 12]
    lines = [line.replace(",", f",{g},", 1) for line, g in zip(LINES, groups, strict=True)]
    table = read(lines)
    assert np.array_equal(table.pixels, DATA.pixels) and np.array_equal(table.labels, DATA.labels)
    assert table.groups is not None and len(np.unique(table.groups)) == 2 + 12
    assert (table.groups[::3] == table.groups[0]).all() and table.groups[1] != table.groups[0]
    with pytest.raises(DataError) as caught:
        read(with_field(2, 5, "256", lines))
    (fault,) = re.findall("row .*", str(caught.value))
    assert fault.startswith("row 2 (line 3), column pixel3: ") and fault.endswith("found '256'")


@pytest.mark.parametrize(
    "field", ["1" * 50_000_000, '"' + "1\n" * 25_000_000], ids=["digits", "open quote"]
)
def test_a_field_of_megabytes_takes_bounded_memory(tmp_path: Path, field: str) -> None:
    (tmp_path / "train.csv").write_text("\n".join(with_field(17, 13, field)))
    code = (
        "try: cgan.read('train.csv')\n"
        "except CganError as error: assert 'row 17 (line 18)' in str(error)\n"
        "else: raise AssertionError"
    )
    imports = "import pandas, cgan; from cgan.base.errors import CganError; cgan.read"
    assert peak_bytes(code, tmp_path, imports) < 30e6, "the field has 50 MB"


@given(data=st.data())
@settings(max_examples=150, deadline=None, suppress_health_check=[*HealthCheck])
def test_a_reader_of_any_bytes_is_exact_or_refuses(data: st.DataObject) -> None:
    """Exact: as pandas reads the values as texts, and Python these as numbers."""
    content = bytearray("\n".join(LINES[:4]).encode() + b"\n")
    for _ in range(data.draw(st.integers(0, 3))):
        at = data.draw(st.integers(len(LINES[0]) + 1, len(content)))
        cut = data.draw(st.integers(0, 3))
        signs = st.sampled_from([b",", b"\n", b'"', b" ", b"-", b".", b"\r"])
        content[at : at + cut] = data.draw(st.binary(max_size=4) | signs)
    try:
        table = read_csv(io.BytesIO(content), DEFAULTS, "fuzzed.csv")
    except DataError as error:
        assert str(error).startswith("fuzzed.csv") and len(str(error)) < 1500
    else:
        rows = np.column_stack([table.labels, table.pixels.reshape(len(table.labels), -1)])
        texts = pd.read_csv(io.BytesIO(content), dtype=str, skip_blank_lines=True).dropna(how="all")
        assert np.array_equal(texts.to_numpy().astype(float), rows)


def test_fewer_than_fifty_images_of_a_class_get_a_warning() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (150, 8, 16), dtype=np.uint8)
    for count, words in ((50, ""), (49, "Few images: 49 of each of 3 classes. ")):
        data = Images(noise[: 3 * count], np.arange(3 * count) % 3, notes=())
        reasons = validation(data, DEFAULTS, "train.csv").reasons
        assert "".join(reasons).startswith(words) and len(reasons) == bool(words)
