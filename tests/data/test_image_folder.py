"""Folders of pictures, one a class: what becomes of them, and what is refused."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from cgan.cli import app
from cgan.data.csv_reader import read_csv
from cgan.data.csv_report import validated_params
from cgan.data.sources import DEFAULTS, SourceInfo, fetch, plain_csv
from cgan.errors import SourceError
from cgan.files import read_json
from cgan.project import CSV as CSV_OF_STAGES
from cgan.project import VALIDATION
from cgan.stages import download, validate

CSV = Path("train.csv")


def picture(path: str, size: tuple[int, int] = (10, 10), mode: str = "L", value: Any = 7) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value).save(path)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two classes of grey pictures, with what a desktop leaves beside them."""
    monkeypatch.chdir(tmp_path)
    for name, value in (("cat", 10), ("apple", 20)):
        for number in range(2):
            picture(f"own/{name}/{number}.png", value=value + number)
    picture("own/.thumbnails/0.png")
    picture("own/cat/.hidden.png")
    Path("own/cat/notes.txt").touch()
    return tmp_path


def fetched(path: str = "own", **changes: Any) -> SourceInfo:
    return fetch(DEFAULTS.model_copy(update={"path": path, **changes}), CSV)


@pytest.mark.parametrize("packed", [False, True])
def test_a_folder_or_a_zip_of_folders_is_a_csv_with_its_names(packed: bool) -> None:
    if packed:
        shutil.make_archive("own", "zip", ".", "own")
    info = fetched("own.zip" if packed else "own")
    assert (info.class_names, info.rows) == (["apple", "cat"], 4)
    assert [file[-10:] for file in info.files or []][1::2] == ["pple/1.png", "/cat/1.png"]
    assert CSV.read_text().splitlines()[1:3] == ["0" + ",20" * 100, "0" + ",21" * 100]
    Image.fromarray(np.full((10, 10), 0x8000, np.uint16)).save("own/apple/2.png")
    fetched()
    assert CSV.read_text().splitlines()[3] == "0" + ",128" * 100, "16 bits keep their brightness"


def test_numbers_stand_in_their_order_and_are_no_names() -> None:
    for number in range(11):
        picture(f"digits/{number}/a.png", value=number)
    assert fetched("digits").class_names is None
    assert [line.split(",")[:2] for line in CSV.read_text().splitlines()[1:]] == [
        [str(n), str(n)] for n in range(11)
    ]


def test_colours_are_three_planes_and_every_format_is_read(folder: Path) -> None:
    shutil.rmtree("own")
    for number, (suffix, mode) in enumerate([("png", "RGBA"), ("jpg", "RGB"), ("gif", "P")]):
        value = 1 if mode == "P" else (200, 100, 50, 255)[: len(mode)]
        picture(f"own/a/{number}.{suffix}", mode=mode, value=value)
        picture(f"own/b/{number}.{suffix}", mode=mode, value=value)
    text = (Path(__file__).parents[2] / "params.yaml").read_text()
    text = text.replace("source: sample", "source: file").replace("data/inbox", "own")
    text = text.replace("class_names: null", "class_names: [b, a]")
    Path("params.yaml").write_text(text.replace("min_per_class: 10", "min_per_class: 2"))
    download.main()
    validate.main()  # needs no `channels: 3`
    report = read_json(VALIDATION)
    assert report["shape"] == {"channels": 3, "height": 10, "width": 10}
    assert report["params"]["class_names"] == ["a", "b"], "in the order of the folders"
    table = read_csv(CSV_OF_STAGES, validated_params(report, ""))
    assert CliRunner().invoke(app, ["validate", "own"]).exit_code == 0
    assert table.images[0, :, 5, 5].tolist() == [200, 100, 50]
    assert np.abs(table.images[1, :, 5, 5].astype(int) - [200, 100, 50]).max() < 4


def test_a_photograph_that_is_stored_on_its_side_stands_upright() -> None:
    turned = Image.Exif()
    turned[0x0112] = 6
    for name in ("cat", "apple"):
        Image.new("L", (9, 12), 7).save(f"photos-{name}.png")
        Path("photos", name).mkdir(parents=True)
        Path(f"photos-{name}.png").rename(f"photos/{name}/upright.png")
        Image.new("L", (12, 9), 7).save(f"photos/{name}/on-its-side.jpg", exif=turned)
    fetched("photos")
    assert {line.count(",") for line in CSV.read_text().splitlines()} == {9 * 12}


def test_other_sizes_are_named_and_the_param_fits_them() -> None:
    picture("own/cat/wide.png", size=(30, 20))
    with pytest.raises(SourceError, match=r"of 10 × 10 .*30 × 20 \(own/cat/wide.*one size"):
        fetched()
    for name in ("cat", "apple"):
        picture(f"photos/{name}/0.jpg", size=(400, 300))
    with pytest.raises(SourceError, match=r"of 400 × 300 .*at most 256 × 256.*`data\.side: 32`"):
        fetched("photos")
    assert not CSV.exists()
    fetched(side=16)
    assert {line.count(",") for line in CSV.read_text().splitlines()} == {256}


def test_what_cannot_be_used_is_refused_by_name_and_validate_reads_a_folder_too() -> None:
    def refused(words: str, **changes: Any) -> None:
        with pytest.raises(SourceError, match=words):
            fetched(**changes)
        assert not CSV.exists()

    with plain_csv(Path("own"), DEFAULTS) as (csv, name, *_):
        assert csv.is_file() and name == "own (unpacked)"
    refused(r"more than 0 MB of CSV.*`data\.side`", max_megabytes=0)
    Path("own/cat/bad.png").write_text("<html>")
    refused("own/cat/bad.png: not a readable")
    Path("own/cat").rename("own/a,b")
    refused("folder 'a,b' cannot name a class: .*comma")
    shutil.rmtree("own")
    refused("own does not exist")
