"""The sizes that the README promises, through all stages that make something."""

import importlib
import json
import shutil
from functools import partial
from pathlib import Path

import pytest
from conftest import write_params
from PIL import Image
from synthetic import make_images, write_csv
from toy_project import STAGES

from cgan.drawing.generator import Generator
from cgan.project import BESIDE_REAL
from cgan.stages import render
from cgan.training.state import estimate_batch_norm


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("classes", "side", "channels"), [(2, 9, 3), (1000, 8, 1), (2, 256, 3)])
def test_smallest_and_largest_images_and_many_classes_go_through_all_stages(
    project: Path,
    empty_store: Path,
    monkeypatch: pytest.MonkeyPatch,
    classes: int,
    side: int,
    channels: int,
) -> None:
    few = partial(estimate_batch_norm, batches=2)  # its 10,000 drawings take minutes
    monkeypatch.setattr("cgan.training.loop.estimate_batch_norm", few)
    shutil.copyfile(empty_store, project / "mlflow.db")
    write_csv(project / "inbox/digits.csv", *make_images(12, classes, side, channels))
    names = [f"<b>{label}</b> & *co*" for label in range(classes)]
    write_params(
        project,
        validate={"channels": channels, "class_names": names},
        train_judge={"total_kimg": 0.2},
        train={"total_kimg": 0.032, "previews": 0},  # four steps
        evaluate={"samples": max(100, classes * 2), "gan_train_kimg": 0.0, "draws": 1},
    )
    for name in [*STAGES][1:-1]:
        importlib.import_module(f"cgan.stages.{name}").main()
    generator = Generator.load("models/generator.safetensors")
    assert generator.class_names == names
    drawn = generator.draw([names[0], classes - 1])
    assert drawn.shape == (2, side, side, *([3] if channels == 3 else []))
    report = json.loads(Path("reports/evaluation.json").read_text())
    assert len(report["conditional_accuracy"]["by_class"]) == classes
    page = Path("reports/run.html").read_text(encoding="utf-8")
    assert 500_000 < len(page) < 8_000_000 and "<b>0</b>" not in page
    for picture in [*Path("samples").glob("*.png"), Path("reports/confusion_matrix.png")]:
        with Image.open(picture) as image:
            image.load()
            pixels = image.width * image.height * len(image.getbands())
            widest = render.WIDEST if picture == BESIDE_REAL else 900
            assert pixels < 50_000_000 and (
                image.width <= widest or picture.parent.name == "reports"
            )
