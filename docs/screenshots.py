"""Retake the pictures of the docs from real runs and servers of HEAD, in a clone of its own.

    CHROMIUM=$(which chromium) python docs/screenshots.py --hands hands.csv.gz  # 10 to 15 minutes

`--hands`: Sign Language Digits, a CSV of 32×32 colour. Without it the pictures of hands stay as they are.
`CHROMIUM`: a browser, else that of `playwright install chromium`. What the pictures show stands in facts.json
beside them.
"""

import argparse
import contextlib
import gzip
import json
import os
import socket
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import Page, sync_playwright

ROOT = Path(__file__).parents[1]
IMAGES = ROOT / "docs/images"
MAX_BYTES = 300_000
PICTURES = (
    *("run-page", "run-page-hands", "run-page-hands-believe", "production-run"),
    *("mlflow-run", "mlflow-compare", "mlflow-version"),
)
FOREIGN = ("CGAN_", "DVC_", "GIT_", "MLFLOW_", "PREFECT_")  # of the environment: settings of yours


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


class Project:
    """A clone of HEAD with its servers. A picture may show its folder and its user, not yours."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.prefect, self.mlflow = (f"http://127.0.0.1:{free_port()}" for _ in range(2))
        own = {key: value for key, value in os.environ.items() if not key.startswith(FOREIGN)}
        own |= {"HOME": str(folder.parent), "LOGNAME": "you", "USER": "you", "TZ": "UTC"}
        own |= {"PREFECT_API_URL": f"{self.prefect}/api", "PYTHONPATH": str(folder)}
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        self.environment = own | {"PATH": path}
        subprocess.run(["git", "clone", "--quiet", ROOT, folder], check=True)
        # With the lock of another machine, DVC would not look into its run cache.
        (folder / "dvc.lock").unlink()

    def run(self, *command: str, check: bool = True) -> None:
        """`python -m COMMAND` in the clone."""
        told = [sys.executable, "-m", *command]
        subprocess.run(told, cwd=self.folder, env=self.environment, check=check)

    def read(self, name: str) -> Any:
        return json.loads((self.folder / name).read_text(encoding="utf-8"))

    @contextlib.contextmanager
    def serving(self) -> Iterator[None]:
        ports = (self.prefect.rpartition(":")[2], self.mlflow.rpartition(":")[2])
        try:
            self.environment |= {"PREFECT_PORT": ports[0], "MLFLOW_PORT": ports[1]}
            self.run("flows.production", "up")
            self.run("flows.production", "deploy")
            yield
        finally:
            self.run("flows.production", "down")

    def train(self, changes: dict[str, str]) -> dict[str, Any]:
        """The pipeline with these texts of params.yaml replaced. What the run is called, and its numbers."""
        path = self.folder / "params.yaml"
        text = path.read_text(encoding="utf-8")
        for old, new in changes.items():
            text = text.replace(f" {old}", f" {new}")
        path.write_text(text, encoding="utf-8")
        self.run("dvc", "repro")
        made = self.read("models/training.json") | self.read("models/mlflow_run.json")
        kept = {key: made[key] for key in ("run_id", "run_name", "training_s")}
        return kept | {"accuracy": self.read("reports/headline.json")["conditional_accuracy"]}


def asked(url: str, question: dict[str, Any] | None = None) -> Any:
    request = urllib.request.Request(url, headers={"Content-Type": "application/json"})
    request.data = json.dumps(question).encode() if question else None
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


def shoot(page: Page, name: str) -> None:
    """What the window shows, in 256 colours or fewer: at most MAX_BYTES."""
    assert name in PICTURES
    with Image.open(BytesIO(page.screenshot())) as picture:
        path = IMAGES / f"{name}.png"
        for colours in (256, 128, 64):
            picture.convert("RGB").quantize(colours).save(path, optimize=True)
            if path.stat().st_size <= MAX_BYTES:
                break
    print(f"{path}: {path.stat().st_size:,} bytes")


def visit(page: Page, address: str, patience_ms: int = 4000) -> None:
    page.goto(address)
    with contextlib.suppress(Exception):  # pages that poll never come to rest
        page.wait_for_load_state("networkidle", timeout=15_000)
    with contextlib.suppress(Exception):  # a panel of MLflow's that opens by itself
        page.get_by_role("button", name="Close", exact=True).first.click(timeout=2000)
    page.wait_for_timeout(patience_ms)


def production_page(page: Page, project: Project) -> str:
    """The night's run in Prefect, with its artifacts. Returns its state."""
    ended = {"flow_runs": {"end_time": {"is_null_": False}}, "limit": 1}
    run = asked(f"{project.prefect}/api/flow_runs/filter", ended)[0]
    page.set_viewport_size({"width": 1440, "height": 1000})
    visit(page, f"{project.prefect}/runs/flow-run/{run['id']}")
    page.get_by_text("Artifacts", exact=True).last.click()
    page.wait_for_timeout(2000)
    shoot(page, "production-run")
    page.set_viewport_size({"width": 1280, "height": 800})
    return str(run["state"]["name"])


def mlflow_pages(page: Page, project: Project, run_id: str, other_id: str) -> None:
    site = project.mlflow
    found = asked(f"{site}/api/2.0/mlflow/runs/get?run_id={run_id}")
    experiment = found["run"]["info"]["experiment_id"]
    run = f"{site}/#/experiments/{experiment}/runs/{run_id}"
    visit(page, f"{run}?workflowType=machine_learning")
    shoot(page, "mlflow-run")
    visit(page, f"{site}/#/models/cgan/versions/1")
    shoot(page, "mlflow-version")
    compared = f"runs={json.dumps([run_id, other_id])}&experiments={json.dumps([experiment])}"
    visit(page, f"{site}/#/compare-runs?{compared}")
    grids = page.get_by_text("grid.png").last
    grids.scroll_into_view_if_needed()
    grids.dispatch_event("click")
    page.wait_for_timeout(3000)
    page.get_by_text("Artifacts", exact=True).last.scroll_into_view_if_needed()
    page.mouse.move(800, 400)
    page.mouse.wheel(0, 500)
    page.wait_for_timeout(1000)
    shoot(page, "mlflow-compare")


def page_of_the_run(page: Page, project: Project, name: str) -> str:
    """Returns the verdict at its top."""
    visit(page, (project.folder / "reports/run.html").as_uri(), 1500)
    cards = page.locator(".class-cards").bounding_box()  # below what draws
    assert cards
    page.set_viewport_size({"width": 1280, "height": int(cards["y"] + cards["height"]) + 16})
    page.wait_for_timeout(1500)
    shoot(page, name)
    page.set_viewport_size({"width": 1280, "height": 800})
    if f"{name}-believe" in PICTURES:
        drawings = page.get_by_role("heading", name="Random and worst drawings")
        drawings.click()
        drawings.evaluate("heading => heading.scrollIntoView()")
        page.wait_for_timeout(1500)
        shoot(page, f"{name}-believe")
    return page.locator(".verdict").inner_text()


def retake(page: Page, project: Project, hands: Path | None) -> dict[str, Any]:
    """All pictures. Returns facts about the runs that they show."""
    with project.serving():
        project.run("prefect", "deployment", "run", "cgan/nightly", "--watch", check=False)
        facts = {"production": production_page(page, project)}
        sample = project.train({})  # the night's results, from DVC's cache
        sample["verdict"] = page_of_the_run(page, project, "run-page")
        project.run("cgan.cli", "preset", "fast")
        fast = project.train({})
        facts |= {"sample": sample, "fast": fast}
        if hands:
            project.run("cgan.cli", "preset", "default")
            opened = gzip.open if hands.suffix == ".gz" else open
            with opened(hands, "rb") as file:
                (project.folder / "data/inbox/hands.csv").write_bytes(file.read())
            changes = {"source: sample": "source: file", "channels: 1": "channels: 3"}
            changes |= {"generator: auto": "generator: upsample"}  # which a browser runs
            facts["hands"] = project.train(changes)
            facts["hands"]["verdict"] = page_of_the_run(page, project, "run-page-hands")
        mlflow_pages(page, project, sample["run_id"], fast["run_id"])
    return facts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--hands", type=Path, metavar="CSV", help="or a .csv.gz")
    hands = parser.parse_args().hands
    with tempfile.TemporaryDirectory() as temporary, sync_playwright() as playwright:
        project = Project(Path(temporary) / "cgan")
        browser = playwright.chromium.launch(
            executable_path=os.environ.get("CHROMIUM"), args=["--no-sandbox"]
        )
        page = browser.new_page(viewport={"width": 1280, "height": 800}, timezone_id="UTC")
        facts = retake(page, project, hands and hands.resolve())
        browser.close()
        head = ["git", "rev-parse", "HEAD"]
        commit = subprocess.check_output(head, cwd=project.folder, encoding="utf-8").strip()
    text = json.dumps({"commit": commit} | facts, indent=2)
    (IMAGES / "facts.json").write_text(f"{text}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
