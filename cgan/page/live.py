"""The page of a training while it goes on: a file that the browser reads again and again."""

from __future__ import annotations

import base64
import contextlib
import logging
import os
import time
from collections.abc import Iterator, Mapping
from html import escape
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cgan.errors import percent
from cgan.project import RUN_PAGE
from cgan.tracking.records import read_records
from cgan.tracking.tracker import Tracker

LIVE = Path(".cgan/live.html")
SHARE = 0.005  # of the training's time, at most, that writing takes
LINES = {"discriminator": "#1f77b4", "generator": "#d95f02"}  # of the losses
HEAD = """<!doctype html><html lang="en"><meta charset="utf-8"><link rel="icon" href="data:,">
<meta name="viewport" content="width=device-width, initial-scale=1"><style>:root{color-scheme:light dark}
body{font:1rem/1.5 system-ui,sans-serif;max-width:36rem;margin:auto;padding:1rem}text{fill:currentColor}
progress,svg,img{width:100%}img{image-rendering:pixelated}text{font-size:12px}</style>"""

log = logging.getLogger(__name__)


class LivePage(Tracker):
    """A tracker in front of another. Whatever happens to the page, the training goes on."""

    def __init__(self, behind: Tracker, folder: Path, title: str, total_kimg: float) -> None:
        self.behind, self.folder, self.title, self.total_kimg = behind, folder, title, total_kimg
        self.points: dict[str, dict[int, float]] = {}  # of each metric by step
        self.due, self.kimg = 0.0, 0.0
        sent, waiting, _ = read_records(folder)  # of an interrupted training
        for record in sent + waiting:
            if record["kind"] == "metrics":
                self._keep(record["metrics"], record["step"])

    @contextlib.contextmanager
    def kept(self) -> Iterator[LivePage]:
        """Around the training: the page says how it ended, and is not read again."""
        self._write("The training has begun.")
        log.info("Watch it learn: %s (`cgan watch` opens it).", LIVE)
        link = f'<a href="{os.path.relpath(RUN_PAGE, LIVE.parent)}">{RUN_PAGE}</a>'
        ended = f"The training is done. When the later stages have run, {link} shows the result."
        try:
            yield self
        except BaseException as error:
            ended = f"The training stopped: {escape(str(error) or type(error).__name__)}."
            raise
        finally:
            self.due = self.due if self.due == np.inf else 0.0
            self._write(ended, goes_on=False)

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        self.behind.log_metrics(metrics, step)
        self._keep(metrics, step)
        if rate := metrics.get("progress/images_per_s"):
            left = (self.total_kimg - self.kimg) * 1000 / rate
            words = f"about {left:.0f} s left" if left < 90 else f"about {left / 60:.0f} min left"
            self._write(f"{self.kimg:,.0f} of {self.total_kimg:,.0f} thousand images; {words}.")

    def log_image(self, name: str, image: NDArray[np.uint8], step: int) -> None:
        self.behind.log_image(name, image, step)

    def send(self, step: int) -> None:
        self.behind.send(step)

    def _keep(self, metrics: Mapping[str, float], step: int) -> None:
        self.kimg = metrics.get("progress/kimg", self.kimg)
        for key, value in metrics.items():
            self.points.setdefault(key, {})[step] = value

    def _write(self, words: str, goes_on: bool = True) -> None:
        """Never half of it, and not soon after the last time."""
        if (began := time.perf_counter()) < self.due:
            return
        again = '<meta http-equiv="refresh" content="3">' if goes_on else ""
        try:
            LIVE.parent.mkdir(parents=True, exist_ok=True)
            temporary = LIVE.with_suffix(".tmp")
            temporary.write_text(HEAD + again + self._body(words), encoding="utf-8")
            temporary.replace(LIVE)
        except Exception as error:
            log.warning("%s could not be written: %s. The training goes on.", LIVE, error)
            began = -np.inf  # nor is it tried again
        self.due = (now := time.perf_counter()) + max(1.0, (now - began) / SHARE)

    def _body(self, words: str) -> str:
        title, body = escape(self.title), ""
        if pictures := sorted((self.folder / "previews").glob("step-*.png")):
            step = int(pictures[-1].stem.removeprefix("step-"))
            png = base64.b64encode(pictures[-1].read_bytes()).decode()
            body += (
                f'<h2>Step {step:,}</h2><img alt="One row of drawings per class" '
                f'src="data:image/png;base64,{png}">'
            )
        if right := self.points.get("probe/conditional_accuracy"):
            body += f"<p>{percent([*right.values()][-1])} of the drawings show the right class.</p>"
        return (
            f"<title>{title}</title><h1>{title}</h1><p>{words} Written at {time.strftime('%X')}.</p>"
            f'<progress value="{self.kimg}" max="{self.total_kimg}"></progress>{body}{self._losses()}'
        )

    def _losses(self) -> str:
        """Lines over the steps, as SVG; nothing before there are two points."""
        lines = [sorted(self.points.get(f"loss/{name}", {}).items()) for name in LINES]
        points = np.array(lines).reshape(-1, 2)
        if len(points) < 2 * len(LINES):
            return ""
        least, most = points.min(axis=0), points.max(axis=0)
        drawn = f'<text y="12">{most[1]:.3g}</text><text y="150">{least[1]:.3g}</text>'
        for n, (name, colour) in enumerate(LINES.items()):
            parts = (np.array(lines[n]) - least) / np.maximum(most - least, 1e-9)
            at = " ".join(f"{40 + 430 * x:.1f},{148 - 140 * y:.1f}" for x, y in parts)
            drawn += f'<polyline fill="none" stroke="{colour}" stroke-width="2" points="{at}"/>'
            drawn += f'<text x="{40 + 230 * n}" y="168" style="fill:{colour}">{name}</text>'
        return f'<h2>Losses</h2><svg viewBox="0 0 480 174" role="img" aria-label="Losses">{drawn}</svg>'
