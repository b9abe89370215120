"""The pages that people open, in a real browser: they ask this machine alone, and fit on its screen."""

import shutil
import sys
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import numpy as np
import pytest
import yaml
from browser import Page, browsing
from conftest import ROOT, free_port, run, wait_until
from PIL import Image
from toy_project import commit
from tracked import log_steps, mlflow_server, training
from tracked import root as root

from cgan.files import read_json
from cgan.hosts import mlflow_page
from cgan.pipeline.tracking.run import open_run
from cgan.pipeline.tracking.store import STRIP_MARKDOWN
from cgan.project import STRIP, TRAINING
from cgan.stages.record import AT_THE_END, BY_STEP, NOTE_TAG
from flows import production

pytestmark = pytest.mark.slow
PATIENCE_S = 3.0  # for what a page asks for after it is there


def test_the_browser_sees_what_a_page_asks_of_other_hosts(tmp_path: Path) -> None:
    """A page whose script, picture and workers ask elsewhere: the other tests are able to fail."""
    worker = "data:text/javascript,fetch('https://worker.example/')"
    (tmp_path / "page.html").write_text(
        f"""<p>There</p><img src="https://picture.example/">
        <script>
            new Worker("{worker}"); new SharedWorker("{worker.replace("worker.", "shared.")}");
            fetch("https://text.example/"); new WebSocket("wss://socket.example/");
        </script>"""
    )
    with browsing(tmp_path / "profile") as page:
        page.open(f"file://{tmp_path}/page.html", "There")

        def hosts() -> set[str]:
            page.look(0.1)
            return {str(urlsplit(url).hostname).partition(".")[0] for url in page.elsewhere()}

        wait_until(lambda: hosts() == {"picture", "worker", "shared", "text", "socket"})


def test_the_pages_of_our_servers_ask_no_other_host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prefect and MLflow as `make up` starts them; MLflow's is `cgan ui`."""
    for name in ("MLFLOW_TRACKING_URI", "DVC_ROOT"):
        monkeypatch.delenv(name, raising=False)
    root = tmp_path / "project"
    root.mkdir()
    (root / "dvc.yaml").touch()
    shutil.copytree(ROOT / "flows", root / "flows")  # the worker is of this commit
    commit(root)
    monkeypatch.chdir(root)
    try:
        ports = [free_port(), free_port()]
        for name, port in zip(("PREFECT_PORT", "MLFLOW_PORT"), ports, strict=True):
            monkeypatch.setenv(name, str(port))
        list(production.up(root))
        prefect, mlflow = (f"http://127.0.0.1:{port}" for port in ports)
        picture = {"type": "markdown", "key": "grid", "data": "![Nine](data:image/png;base64,AAAA)"}
        artifact = httpx.post(f"{prefect}/api/artifacts/", json=picture, timeout=60).json()["id"]
        named = {"experiment_id": "0", "run_name": "best"}
        made = httpx.post(f"{mlflow}/api/2.0/mlflow/runs/create", json=named, timeout=60)
        run_id = made.json()["run"]["info"]["run_id"]
        pages = {
            f"{prefect}/": "Dashboard",
            f"{prefect}/runs": "Runs",
            f"{prefect}/deployments": "Deployments",
            f"{prefect}/work-pools": "Work Pools",
            f"{prefect}/artifacts/artifact/{artifact}": "grid",
            f"{mlflow}/": "Experiments",
            f"{mlflow}/#/experiments/0": "Default",
            f"{mlflow}/#/experiments/0/runs/{run_id}": "best",
            f"{mlflow}/#/models": "Models",
        }
        with browsing(tmp_path / "profile") as page:
            for address, words in pages.items():
                page.open(address, words)
                page.look(PATIENCE_S)
                assert page.elsewhere() == [], address
            assert len(page.requests) > 10 * len(pages)
    finally:
        list(production.down(root))


# The words that the table of runs shows whole.
IN_TABLE = """(() => {
  const table = document.querySelector(".ag-root-wrapper").getBoundingClientRect();
  const words = [...document.querySelectorAll(".ag-cell *, .ag-header-cell *")];
  const shown = words.filter(each => !each.children.length && each.scrollWidth <= each.clientWidth + 1
    && each.getBoundingClientRect().right <= table.right);
  return shown.map(each => each.textContent.trim());
})()"""


@pytest.mark.filterwarnings("ignore")  # MLflow's own
def test_a_browser_that_is_new_here_sees_the_run_its_numbers_and_its_pictures(root: Path) -> None:
    """From the address that `make ui` prints."""
    with training() as tracker:
        log_steps(tracker)
    known = read_json(TRAINING)
    with open_run(known) as run:
        for step in (0, 500):
            run.log_image(BY_STEP, np.full((240, 300), step % 251, np.uint8), step, 0)
        run.log_image(AT_THE_END, np.full((240, 300), 200, np.uint8), 500, 0)
        numbers = {"quality/conditional_accuracy": 0.98765, "quality/fid_judge": 1.5}
        run.log_metrics((*number, 0, known["ended_ms"]) for number in numbers.items())
        run.set_tags({NOTE_TAG: STRIP_MARKDOWN})
        Image.fromarray(np.full((58, 580), 90, np.uint8)).save(root / STRIP.name)
        run.log_files([root / STRIP.name])
        place = run.mlflow_run.info.experiment_id, run.run_id
    pictures = """[...document.images]
        .filter(i => i.src.includes("get-artifact") && i.naturalWidth > 200).length"""
    with (
        mlflow_server(root, free_port(), shared=False) as site,
        browsing(root / "profile", 1366, 768) as page,
    ):
        page.open(mlflow_page(site, place[0]), known["run_name"][:20])
        page.look(PATIENCE_S)
        shown = set(page.run(IN_TABLE))
        assert {known["run_name"], "quality/fid_judge", "0.98765", "1.5"} <= shown
        for genai in ("Prompts", "Evaluation runs"):
            assert genai not in page.run("document.body.innerText")
        page.open(mlflow_page(site, *place), "0.98765")
        page.until(f"{pictures} === 1")  # a drawing of each class, in the description
        page.open("about:blank")
        metrics = mlflow_page(site, *place).replace("?", "/model-metrics?")
        page.open(metrics, "A first look")
        page.until(f"{pictures} === 2")  # at the end, and by step
        page.look(PATIENCE_S)
        assert page.elsewhere() == []


def plots_page(folder: Path, *command: str) -> Path:
    run(sys.executable, "-m", "dvc", "plots", *command, cwd=folder)
    return folder / "dvc_plots/index.html"


def check(page: Page, html: Path, width: int) -> list[str]:
    """The pictures of the page from top to bottom, each once."""
    page.open(html.as_uri())
    page.look(PATIENCE_S / 3)
    assert page.elsewhere() == []
    assert page.run("[...document.images].filter(image => !image.naturalWidth).length") == 0
    assert page.run("document.documentElement.scrollWidth") <= width
    rights = "Math.max(...[...document.images].map(i => i.getBoundingClientRect().right))"
    assert page.run(rights) <= width, "no picture is cut off"
    boxes: list[str] = page.run(
        """[...document.querySelectorAll("body > div")]
        .sort((a, b) => a.getBoundingClientRect().top - b.getBoundingClientRect().top)
        .map(box => box.id)"""
    )
    return boxes


def test_plots_show_and_diff_are_pages_of_pictures_in_a_reader_s_order_that_need_no_network(
    tmp_path: Path,
) -> None:
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
    with browsing(tmp_path / "profile", width=1280) as page:
        boxes = check(page, plots_page(project, "show"), 1280)
        names = ["samples_grid", "reports_losses", "reports_logits", "reports_confusion_matrix"]
        assert boxes == [f"{name}_png" for name in names]
        assert check(page, plots_page(project, "diff"), 1280) == boxes
        beside = page.run(
            """[...document.querySelectorAll("#samples_grid_png img")]
            .map(image => image.getBoundingClientRect().top)"""
        )
        assert len(beside) == 2 and beside[0] == beside[1]
