"""The page of `dvc plots`, in a real browser: pictures in a reader's order, and nothing from a network."""

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from browser import browsing
from conftest import ROOT, commit, run
from PIL import Image


@pytest.mark.slow
def test_plots_show_pictures_and_diff_sets_two_beside_each_other(tmp_path: Path) -> None:
    project = tmp_path / "project"
    (project / ".dvc").mkdir(parents=True)
    for name in ("config", "plots.html"):
        shutil.copy(ROOT / ".dvc" / name, project / ".dvc")
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    pictures = [plot for stage in stages.values() for plot in stage.get("plots", [])]
    (project / "dvc.yaml").write_text(yaml.safe_dump({"plots": pictures}))

    def draw(brightness: int) -> None:
        for name in pictures:
            (project / name).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((60, 880, 3), brightness, np.uint8)).save(project / name)

    draw(200)
    commit(project)
    draw(90)
    names = ["samples_grid", "reports_losses", "reports_logits", "reports_confusion_matrix"]
    with browsing(tmp_path / "profile") as page:
        for command in ("show", "diff"):
            run(sys.executable, "-m", "dvc", "plots", command, cwd=project)
            page.open((project / "dvc_plots/index.html").as_uri())
            boxes = page.run(
                """[...document.querySelectorAll("body > div")]
                .sort((a, b) => a.getBoundingClientRect().top - b.getBoundingClientRect().top)
                .map(box => box.id)"""
            )
            assert boxes == [f"{name}_png" for name in names]
            assert page.elsewhere() == []
            assert not page.run("[...document.images].some(image => !image.naturalWidth)")
            assert page.run("document.documentElement.scrollWidth") <= 1280
        tops = "[...document.querySelectorAll('#samples_grid_png img')].map(i => i.offsetTop)"
        assert len(page.run(tops)) == 2 and len(set(page.run(tops))) == 1
