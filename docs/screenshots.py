"""Retake the screenshots of the docs: the pages of MLflow and `dvc plots`; Prefect's pages.

    pip install playwright && playwright install chromium
    python docs/screenshots.py              # of what was trained and registered here, two runs at least
    python docs/screenshots.py production   # of the servers of `make up`: the latest run with a verdict
    python docs/screenshots.py page NAME    # of reports/run.html: NAME.png and NAME-believe.png

A browser that is installed already can be named: `CHROMIUM=/usr/bin/chromium`.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import Page, sync_playwright

from cgan.params.reading import load_params

IMAGES = Path(__file__).parent / "images"
MAX_BYTES = 300_000
RUNS = "api/2.0/mlflow/runs/search"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def serving(command: list[str], health: str, environment: dict[str, str]) -> Iterator[None]:
    """A server in a process group of its own, from its first healthy answer to the end of the block."""
    process = subprocess.Popen(
        command, env=environment, start_new_session=True, stdout=subprocess.DEVNULL
    )
    try:
        for _ in range(120):
            with contextlib.suppress(OSError), urllib.request.urlopen(health, timeout=2):
                break
            if process.poll() is not None:
                sys.exit(f"{' '.join(command)} ended with exit code {process.returncode}.")
            time.sleep(1)
        else:
            sys.exit(f"{health} does not answer.")
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=30)


def post(url: str, question: dict[str, Any]) -> Any:
    request = urllib.request.Request(
        url, json.dumps(question).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


def shoot(page: Page, name: str) -> None:
    """What the window shows, in 256 colours or fewer: at most MAX_BYTES."""
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
    page.wait_for_timeout(patience_ms)


def production_pages(page: Page) -> None:
    """The morning's pages, from the servers that `make up` started in the working directory."""
    site = "http://127.0.0.1:4200"
    judged = {"name": {"any_": ["Promoted", "Blocked"]}}
    question = {"sort": "START_TIME_DESC", "flow_runs": {"state": judged}, "limit": 1}
    run = post(f"{site}/api/flow_runs/filter", question)[0]
    visit(page, f"{site}/runs/flow-run/{run['id']}")
    page.get_by_text("Artifacts", exact=True).last.click()
    page.wait_for_timeout(2000)
    shoot(page, "production-run")


def mlflow_pages(page: Page) -> None:
    port = free_port()
    site = f"http://127.0.0.1:{port}"
    environment = dict(os.environ)
    command = [sys.executable, "-m", "cgan.cli", "ui", "--port", str(port)]
    with serving(command, f"{site}/health", environment):
        run_id = json.loads(Path("models/mlflow_run.json").read_text(encoding="utf-8"))["run_id"]
        address = f"{site}/api/2.0/mlflow/runs/get?run_id={run_id}"
        with urllib.request.urlopen(address, timeout=30) as answer:
            experiment = json.load(answer)["run"]["info"]["experiment_id"]
        visit(page, f"{site}/#/experiments/{experiment}/runs?workflowType=machine_learning", 6000)
        shoot(page, "mlflow-runs")
        run = f"{site}/#/experiments/{experiment}/runs/{run_id}"
        visit(page, run)
        shoot(page, "mlflow-run")
        visit(page, f"{run}/model-metrics", 8000)
        shoot(page, "mlflow-metrics")
        visit(page, f"{run}/artifacts/grid.png")
        shoot(page, "mlflow-artifacts")
        visit(page, f"{site}/#/models/{load_params().gate.model}/versions/1")
        shoot(page, "mlflow-version")
        asked = {"experiment_ids": [experiment], "max_results": 2}
        two = [found["info"]["run_id"] for found in post(f"{site}/{RUNS}", asked)["runs"]]
        compared = f"runs={json.dumps(two)}&experiments={json.dumps([experiment])}"
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


def page_of_the_run(page: Page, name: str) -> None:
    visit(page, Path("reports/run.html").resolve().as_uri(), 1500)
    shoot(page, name)
    drawings = page.get_by_role("heading", name="Drawings, not chosen by hand")
    drawings.click()
    drawings.evaluate("heading => heading.scrollIntoView()")
    page.wait_for_timeout(1500)
    shoot(page, f"{name}-believe")


def plots_page(page: Page) -> None:
    subprocess.run([sys.executable, "-m", "dvc", "plots", "show"], check=True)
    visit(page, Path("dvc_plots/index.html").resolve().as_uri(), 1000)
    shoot(page, "dvc-plots")


def main() -> None:
    IMAGES.mkdir(exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=os.environ.get("CHROMIUM"), args=["--no-sandbox"]
        )
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        if sys.argv[1:] == ["production"]:
            page.set_viewport_size({"width": 1440, "height": 1000})
            production_pages(page)
        elif sys.argv[1:2] == ["page"]:
            page_of_the_run(page, sys.argv[2])
        else:
            mlflow_pages(page)
            plots_page(page)
        browser.close()


if __name__ == "__main__":
    main()
