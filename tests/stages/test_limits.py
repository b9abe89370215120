"""The sizes that the README promises and much data, through all stages that make something."""

import importlib
import shutil
from functools import partial
from pathlib import Path

import pytest
import yaml
from conftest import ROOT, TINY, UNEVEN, peak_bytes, plain, uneven, write_csv, write_params
from PIL import Image

from benchmarks.large_data import write_csv as write_large_csv
from cgan.drawing.generator import Generator
from cgan.quality.evaluation import Evaluation
from cgan.training.state import estimate_batch_norm

STAGES = [*yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("classes", "side", "channels"), [(2, 9, 3), (1000, 8, 1), (2, 256, 3)])
def test_extreme_images_and_many_classes_go_through_all_stages(
    tmp_path: Path,
    empty_store: Path,
    monkeypatch: pytest.MonkeyPatch,
    classes: int,
    side: int,
    channels: int,
) -> None:
    few = partial(estimate_batch_norm, batches=2)  # its 10,000 drawings take minutes
    monkeypatch.setattr("cgan.training.loop.estimate_batch_norm", few)
    monkeypatch.chdir(tmp_path)
    shutil.copyfile(empty_store, "mlflow.db")
    data = uneven(counts=[12] * classes, channels=channels, height=side, width=side)
    write_csv(tmp_path / "inbox/digits.csv", plain(data))
    names = [f"<b>{label}</b> & *co*" for label in range(classes)]
    write_params(tmp_path, **TINY)
    write_params(tmp_path, **UNEVEN)
    write_params(
        tmp_path,
        validate={"channels": channels, "class_names": names, "height": None, "width": None},
        train_judge={"total_kimg": 0.2},
        train={"total_kimg": 0.032},  # four steps
        evaluate={"samples": max(100, classes * 2), "gan_train_kimg": 0.0},
    )
    for name in STAGES[1:-1]:
        importlib.import_module(f"cgan.stages.{name}").main()
    generator = Generator.load("models/generator.safetensors")
    assert generator.class_names == names
    drawn = generator.draw([names[0], classes - 1])
    assert drawn.shape == (2, side, side, *([3] if channels == 3 else []))
    assert len(Evaluation.read(Path("reports/evaluation.json")).classes) == classes
    page = Path("reports/run.html").read_text(encoding="utf-8")
    assert 100_000 < len(page) < 8_000_000 and "<b>0</b>" not in page
    for picture in [*Path("samples").glob("*.png"), Path("reports/confusion_matrix.png")]:
        with Image.open(picture) as image:
            image.load()
            pixels = image.width * image.height * len(image.getbands())
            assert pixels < 50_000_000
            assert image.width <= 1300 or picture.parent.name == "reports"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_stage_on_60_000_rows_takes_bounded_memory(tmp_path: Path, empty_store: Path) -> None:
    """As `python -m benchmarks large` measures a million."""
    shutil.copyfile(empty_store, tmp_path / "mlflow.db")
    csv = write_large_csv(tmp_path / "large.csv", 60_000)
    write_params(tmp_path, **TINY)
    evaluate = {"samples": 2000, "gan_train_kimg": 0.0}
    split = {"holdout_fraction": 0.1}
    write_params(tmp_path, data={"path": str(csv)}, preprocess=split, evaluate=evaluate)
    images = 60_000 * 784
    peaks = {}
    for name in STAGES[1:]:
        start = f"import runpy\nrunpy.run_module('cgan.stages.{name}', run_name='__main__')"
        peaks[name] = peak_bytes(start, tmp_path)
    assert peaks["download"] < 100e6, peaks
    assert max(peaks["validate"], peaks["preprocess"]) < 250e6 + 2 * images, peaks  # pandas too
    assert max(peaks.values()) < 550e6 + 2 * images, peaks  # torch, matplotlib
