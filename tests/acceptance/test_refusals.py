"""What a user gets wrong in a CSV or in params.yaml: exit code 1 and a message that names the place."""

import bz2
import gzip
import io
import re
import zipfile
from collections.abc import Callable
from pathlib import Path

from conftest import ROOT, write_params
from door import many, signs_csv

GOOD = signs_csv(12)
HEADER, *ROWS = GOOD.splitlines()
LABELS = [int(row[0]) for row in ROWS]
PARAMS = (ROOT / "params.yaml").read_text()


def lines(*rows: str) -> str:
    return "\n".join(rows) + "\n"


def field(row: int, column: int, text: str) -> str:
    """The good CSV with one value changed; rows count from 1, column 0 is the label."""
    fields = ROWS[row - 1].split(",")
    fields[column] = text
    return lines(HEADER, *ROWS[: row - 1], ",".join(fields), *ROWS[row:])


def columns(change: Callable[[list[str]], list[str]]) -> str:
    return lines(*(",".join(change(row.split(","))) for row in (HEADER, *ROWS)))


def pixels_from(first: int, by: int) -> str:
    """The good CSV with the names of its pixel columns counted on from one of them."""
    return re.sub(r"pixel(\d+)", lambda m: f"pixel{int(m[1]) + by * (int(m[1]) >= first)}", GOOD)


def labelled(*names: object) -> str:
    """The good CSV with these labels instead of 0, 1, 2."""
    return lines(HEADER, *(f"{names[n]}{row[1:]}" for n, row in zip(LABELS, ROWS, strict=True)))


def scaled() -> str:
    rows = (row.split(",") for row in ROWS)
    return lines(HEADER, *(",".join([n, *(f"{int(v) / 255:.6g}" for v in p)]) for n, *p in rows))


def zipped(**members: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.csv", content)
    return file.getvalue()


PIXEL = r"row 17\b.*column pixel12\b.*0 to 255, found "
LABEL = r"row 17\b.*column label\b.*"
# What stands in the file → what the message says, in this order; by the settings of `validate`.
Cases = dict[str, tuple[str | bytes, str]]
REFUSED: Cases = {
    "empty": ("", "UTF-8.*blank"),
    "header alone": (HEADER + "\n\n", "0 rows"),
    "a pixel column is missing": (pixels_from(12, 1), "column 14.*12, found `pixel13`.*missing"),
    "no square": (columns(lambda row: row[:-1]), "square.*pixel columns, found 63"),
    "disorder": (GOOD.replace("pixel3,pixel4", "pixel4,pixel3"), "column 5.*3, found `pixel4`"),
    "a column stands twice": (GOOD.replace("pixel12,", "pixel11,"), "column 14.*12.*pixel11"),
    "test.csv": (columns(lambda row: row[1:]), "`label,pixel0.*test.csv"),
    "an index first": ("," + GOOD.replace("\n", "\n7,")[:-2], "begins with `,label,.*first"),
    "no header": (lines(*ROWS), "header such as `label,pixel0"),
    "semicolons": (GOOD.replace(",", ";"), "label;pixel0.*commas"),
    "pixel too high": (field(17, 13, "256"), f"{PIXEL}'256'"),
    "pixel below 0": (field(17, 13, "-1"), f"{PIXEL}'-1'"),
    "pixel with a fraction": (field(17, 13, "3.5"), rf"{PIXEL}'3\.5'"),
    "pixel NaN": (field(17, 13, "NaN"), f"{PIXEL}'NaN'"),
    "pixel blank": (field(17, 13, ""), f"{PIXEL}''"),
    "pixel with an underscore": (field(17, 13, "1_0"), f"{PIXEL}'1_0'"),
    "pixel with thousands": (field(17, 13, '"1,234"'), r"row 17\b"),
    "pixel of another script": (field(17, 13, "٣"), f"{PIXEL}'٣'"),
    "pixel that goes on and on": (field(17, 13, "1" * 5_000_000), r"row 17\b"),
    "already scaled": (scaled(), r"row 1\b.*0 to 255, found '0\."),
    "black and white": (lines(HEADER, *(f"{n}{',0,1' * 32}" for n in LABELS)), "above 1"),
    "two faults": (field(3, 7, "x")[:3000] + field(17, 13, "256")[3000:], r"row 3\b.*row 17\b"),
    "a row too long": (GOOD.replace(ROWS[16], ROWS[16] + ",0"), r"row 17\b.*65 values, found 66"),
    "cut off": (GOOD[:-60], r"row 36\b.*65 values, found"),
    "the header again": (lines(HEADER, *ROWS[:3], HEADER, *ROWS[3:]), r"row 4\b.*'label'"),
    "UTF-16": (GOOD.encode("utf-16"), "UTF-16.*UTF-8"),
    "EBCDIC": (GOOD.encode("cp500"), "another encoding"),
    "a web page": ("\n <!DOCTYPE html><html>log in</html>", "web page"),
    "a gap in labels": (labelled(0, 1, 5), r"class 2, 3, 4\b.*0, 1, 5\b.*without a gap.*pandas"),
    "labels are names": (labelled("a", "b", "c"), r"row 1\b.*label.*'a'.*pandas"),
    "one class": (labelled(0, 0, 0), "2 classes or more, found 0 alone"),
    "a slip in a label": (field(17, 0, "57"), r"\b57\b"),
    "an endless header": ("label," * 1_000_000, "first line.*4 MB"),
    "a bzip2 archive": (bz2.compress(GOOD.encode()), "binary"),
}
OF_THREE_CLASSES: Cases = {
    "label too high": (field(17, 0, "3"), rf"{LABEL}0 to 2, found '3'"),
    "label below 0": (field(17, 0, "-1"), f"{LABEL}'-1'"),
    "label blank": (field(17, 0, ""), f"{LABEL}''"),
}
TOO_FEW: Cases = {"too few": (GOOD, r"expected 13 images.*found 12.*min_per_class")}
NO_IMAGE: Cases = {"no image of a class": (GOOD, r"class 3\b.*validate\.classes")}
SETTINGS = [
    (REFUSED, {}),
    (OF_THREE_CLASSES, {"classes": 3}),
    (TOO_FEW, {"min_per_class": 13}),
    (NO_IMAGE, {"classes": 4}),
]
ARCHIVES: Cases = {
    "cut.csv.gz": (gzip.compress(GOOD.encode())[:-40], "damaged|cut"),
    "two.zip": (zipped(a=GOOD, b=GOOD), "a.csv, b.csv"),
}
ACCEPTED: dict[str, bytes] = {
    "as it is": GOOD.encode(),
    "byte order mark": b"\xef\xbb\xbf" + GOOD.encode(),
    "Windows": GOOD.replace("\n", "\r\n").encode(),
    "quoted": re.sub(r"[^,\n]+", r'"\g<0>"', GOOD).encode(),
    "padded": GOOD.replace(",", ", ").encode(),
    "blank lines": (GOOD.replace("\n", "\n\n") + "\r\n").encode(),
    "no last line end": GOOD[:-1].encode(),
    "with decimals": field(17, 13, "12.0").encode(),
    "counted from 1": pixels_from(0, 1).encode(),
    "row x column": re.sub(
        r"pixel(\d+)", lambda m: f"{int(m[1]) // 8 + 1}x{int(m[1]) % 8 + 1}", GOOD
    ).encode(),
    "gzip": gzip.compress(GOOD.encode()),
    "zip": zipped(train=GOOD),
}


def test_a_csv_that_cannot_be_used_is_refused_with_row_column_and_advice(tmp_path: Path) -> None:
    calls, cases = [], []
    for number, (group, changes) in enumerate([*SETTINGS, (ARCHIVES, {})]):
        for name, (content, words) in group.items():
            folder = tmp_path / f"{number} {name}"
            folder.mkdir()
            file = name if group is ARCHIVES else "train.csv"
            (folder / file).write_bytes(as_bytes(content))
            write_params(folder, validate=changes)
            calls.append((folder, ["validate", file]))
            cases.append((name, rf"{re.escape(file)}\b.*{words}"))
    assert_refused(cases, many(calls))


def test_harmless_variants_of_a_csv_are_accepted(tmp_path: Path) -> None:
    calls = []
    for name, content in ACCEPTED.items():
        path = tmp_path / name / f"train.{name if name == 'zip' else 'csv'}"
        path.parent.mkdir()
        path.write_bytes(content)
        calls.append((path.parent, ["validate", path.name]))
    for (folder, _), (code, words) in zip(calls, many(calls), strict=True):
        assert code == 0 and "3 classes of 12 images" in words, f"{folder.name}: {words}"


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


# -- params.yaml -------------------------------------------------------------------------------------


def written(key: str, value: str) -> str:
    """params.yaml with another value at the first key of this name, character by character."""
    head, _, rest = PARAMS.partition(f"\n  {key}: ")
    return f"{head}\n  {key}: {value}\n{rest.partition(chr(10))[2]}"


BAD_PARAMS: Cases = {
    "unknown key": (written("lr", "4.5e-3\n  laten_dim: 1"), r"laten_dim\b.{1,35}\blatent_dim\b"),
    "unknown section": (PARAMS.replace("\nevaluate:", "\nevaluating:"), "evaluating.*evaluate"),
    "duplicate key": (written("lr", "1.0e-3\n  lr: 2.0e-3"), r"line \d+.*duplicate.*lr"),
    "a number as text": (written("lr", "'1e-4'"), r"train\.lr.*number"),
    "a bool for a number": (written("latent_dim", "true"), r"train\.latent_dim.*valid integer"),
    "a fraction for a whole number": (written("latent_dim", "1.5"), r"train\.latent_dim.*integer"),
    "not a number": (written("lr", ".nan"), r"train\.lr"),
    "infinite": (written("lr", ".inf"), r"train\.lr"),
    "out of range": (written("latent_dim", "0"), r"train\.latent_dim.*greater than 0"),
    "no such choice": (written("generator", "deconf"), r"train\.generator.*deconv"),
    "outside the folder": (written("member", "../../etc/passwd"), r"data\.member"),
    "program": (written("lr", '!!python/object/apply:os.system ["touch ran"]'), r"line \d+.*YAML"),
    "a tab": (PARAMS.replace("  lr: ", "\tlr: "), r"line \d+.*YAML"),
    "not UTF-8": (PARAMS.encode("utf-16"), "UTF-8"),
    "empty": ("", "params.yaml"),
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
