"""Large data: memory that does not grow with it."""

import io
import shutil
from pathlib import Path

import pytest
from conftest import ROOT, TINY, peak_bytes, write_params
from PIL import Image
from synthetic import make_images, write_csv
from toy_project import STAGES

from benchmarks.synthetic_csv import write_csv as write_large_csv
from cgan.data.dataset import load_dataset
from cgan.params.reading import load_params
from cgan.stages import download, preprocess, validate
from cgan.training.fitting import filled
from cgan.training.loop import train

PROC = pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="memory is read from /proc"
)
PIXELS = 784


def test_previews_and_contact_sheet_show_the_first_50_of_many_classes(project: Path) -> None:
    images, labels = make_images(per_class=3, classes=52)
    write_csv(project / "inbox/digits.csv", images, labels)
    write_params(project, validate={"min_per_class": 2})
    for stage in (download, validate, preprocess):
        stage.main()
    with Image.open("reports/real_samples.png") as sheet:
        assert sheet.height == (6 * 8 + 2) * 50 + 2
    chosen = filled(load_params().train.model_copy(update={"previews": 1}))
    previews = train(load_dataset("data/processed/train.safetensors"), chosen).previews
    with Image.open(io.BytesIO(previews[0])) as picture:
        assert picture.height == 50 * 9 + 1 and picture.width > 8 * 9 + 1


@PROC
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_f88_every_stage_on_60_000_rows_takes_bounded_memory(
    tmp_path: Path, empty_store: Path
) -> None:
    """As `python -m benchmarks large` measures a million."""
    shutil.copyfile(empty_store, tmp_path / "mlflow.db")
    shutil.copytree(ROOT / "presets", tmp_path / "presets")
    csv = write_large_csv(tmp_path / "large.csv", 60_000)
    write_params(tmp_path, **TINY)
    evaluate = {"samples": 2000, "draws": 1, "gan_train_kimg": 0.0}
    own = {"data": {"path": str(csv)}, "preprocess": {"holdout_fraction": 0.1}}
    write_params(tmp_path, **own, evaluate=evaluate)
    images = 60_000 * PIXELS
    peaks = {}
    for name in [*STAGES][1:]:
        start = f"import runpy\nrunpy.run_module('cgan.stages.{name}', run_name='__main__')"
        peaks[name] = peak_bytes(start, tmp_path)
    assert peaks["download"] < 100e6, peaks
    assert max(peaks["validate"], peaks["preprocess"]) < 250e6 + 2 * images, peaks  # pandas too
    assert max(peaks.values()) < 550e6 + 2 * images, peaks  # torch, matplotlib
