"""What a user gets wrong in a CSV or in params.yaml: exit code 1 and a message that names the place."""

import gzip
import re
from pathlib import Path

from conftest import ROOT, write_params
from door import many, signs_csv

GOOD = signs_csv(12)
HEADER, *ROWS = GOOD.splitlines()
PARAMS = (ROOT / "params.yaml").read_text()


def field(row: int, column: int, text: str) -> str:
    """The good CSV with one value changed; rows count from 1, column 0 is the label."""
    fields = ROWS[row - 1].split(",")
    fields[column] = text
    return "\n".join([HEADER, *ROWS[: row - 1], ",".join(fields), *ROWS[row:], ""])


def without(column: int) -> str:
    """The good CSV without a column."""
    rows = [line.split(",") for line in (HEADER, *ROWS)]
    return "\n".join([*(",".join(row[:column] + row[column + 1 :]) for row in rows), ""])


# What stands in the file, and in the message; with these params of `validate`.
REFUSED: dict[str, tuple[str | bytes, str, dict[str, int]]] = {
    "no label": (without(0), "label", {}),
    "no square": (without(64), "square.*found 63", {}),
    "a value above": (field(17, 13, "256"), r"row 17\b.*pixel12\b.*256", {}),
    "a value that is none": (field(17, 13, "nan"), r"row 17\b.*pixel12\b", {}),
    "a row too long": (GOOD.replace(ROWS[16], ROWS[16] + ",0"), r"row 17\b", {}),
    "a label too high": (field(17, 0, "3"), r"row 17\b.*label\b.*3\b", {"classes": 3}),
    "too few": (GOOD, "13 images of each class.*found 12", {"min_per_class": 13}),
    "no image of a class": (GOOD, r"class 3\b", {"classes": 4}),
    "another encoding": (GOOD.encode("utf-16"), "UTF-8", {}),
    "a picture": (b"\x89PNG\r\n\x1a\n" + bytes(100), "binary", {}),
    "a web page": ("<!DOCTYPE html><html>log in</html>", "web page", {}),
    "empty": ("", "blank", {}),
}
ACCEPTED: dict[str, bytes] = {
    "as it is": GOOD.encode(),
    "byte order mark": b"\xef\xbb\xbf" + GOOD.encode(),
    "Windows": GOOD.replace("\n", "\r\n").encode(),
    "gzip": gzip.compress(GOOD.encode()),
}


def as_bytes(content: str | bytes) -> bytes:
    return content.encode() if isinstance(content, str) else content


def assert_refused(cases: list[tuple[str, str]], ended: list[tuple[int, str]]) -> None:
    wrong = [
        f"{name}: exit code {code}, expected 1 and {words!r} in:\n{message}"
        for (name, words), (code, message) in zip(cases, ended, strict=True)
        if code != 1
        or not message.startswith("Error: ")
        or "Traceback" in message
        or not re.search(words, message, re.DOTALL)
    ]
    assert not wrong, "\n\n".join(wrong)


def test_a_csv_that_cannot_be_used_is_refused_with_its_place(tmp_path: Path) -> None:
    calls = []
    for name, (content, _, changes) in REFUSED.items():
        folder = tmp_path / name
        folder.mkdir()
        (folder / "train.csv").write_bytes(as_bytes(content))
        write_params(folder, validate=changes)
        calls.append((folder, ["validate", "train.csv"]))
    cases = [(name, rf"train\.csv\b.*{words}") for name, (_, words, _) in REFUSED.items()]
    assert_refused(cases, many(calls))


def test_harmless_variants_of_a_csv_are_accepted(tmp_path: Path) -> None:
    calls = []
    for name, content in ACCEPTED.items():
        folder = tmp_path / name
        folder.mkdir()
        (folder / "train.csv").write_bytes(content)
        calls.append((folder, ["validate", "train.csv"]))
    for (folder, _), (code, words) in zip(calls, many(calls), strict=True):
        assert code == 0 and "3 classes of 12 images" in words, f"{folder.name}: {words}"


def written(key: str, value: str) -> str:
    """params.yaml with another value at the first key of this name, character by character."""
    head, _, rest = PARAMS.partition(f"\n  {key}: ")
    return f"{head}\n  {key}: {value}\n{rest.partition(chr(10))[2]}"


BAD_PARAMS: dict[str, tuple[str | bytes, str]] = {
    "unknown key": (written("lr", "4.5e-3\n  laten_dim: 1"), r"laten_dim\b.{1,35}\blatent_dim\b"),
    "a number as text": (written("lr", "'1e-4'"), r"train\.lr.*number"),
    "out of range": (written("latent_dim", "0"), r"train\.latent_dim.*greater than 0"),
    "no such choice": (written("generator", "deconf"), r"train\.generator.*deconv"),
    "program": (written("lr", '!!python/object/apply:os.system ["touch ran"]'), r"line \d+.*YAML"),
    "two problems": (written("latent_dim", "0").replace("lr: 0", "lr: -0"), "latent_dim.*train.lr"),
}


def test_bad_params_are_refused_by_name_and_nothing_of_them_runs(tmp_path: Path) -> None:
    calls = []
    for name, (content, _) in BAD_PARAMS.items():
        assert content != PARAMS, name
        folder = tmp_path / name
        folder.mkdir()
        (folder / "train.csv").write_text(GOOD)
        (folder / "params.yaml").write_bytes(as_bytes(content))
        calls.append((folder, ["validate", "train.csv"]))
    cases = [(name, rf"params\.yaml\b.*{words}") for name, (_, words) in BAD_PARAMS.items()]
    assert_refused(cases, many(calls))
    assert not list(tmp_path.glob("*/ran"))
