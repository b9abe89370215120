"""The page of a training while it goes on: a file that the browser reads again and again."""

import base64
import contextlib
import logging
import os
import time
from collections.abc import Iterable, Iterator
from html import escape
from pathlib import Path

import numpy as np

from cgan.errors import percent
from cgan.files import write_text
from cgan.project import RUN_PAGE
from cgan.tracking.records import Record, read_records

LIVE = Path(".cgan/live.html")
SHARE = 0.005  # of the training's time, at most, that writing takes
LINES = {"discriminator": "#1f77b4", "generator": "#d95f02"}  # of the losses
HEAD = """<!doctype html><html lang="en"><meta charset="utf-8"><link rel="icon" href="data:,">
<meta name="viewport" content="width=device-width, initial-scale=1"><style>:root{color-scheme:light dark}
body{font:1rem/1.5 system-ui,sans-serif;max-width:36rem;margin:auto;padding:1rem}text{fill:currentColor}
progress,svg,img{width:100%}img{image-rendering:pixelated}text{font-size:12px}</style>"""

log = logging.getLogger(__name__)


class LivePage:
    """Shows what a training's folder holds. Whatever happens to the page, the training goes on."""

    def __init__(self, folder: Path, title: str, total_kimg: float) -> None:
        self.folder, self.title, self.total_kimg, self.due = folder, escape(title), total_kimg, 0.0

    @contextlib.contextmanager
    def kept(self) -> Iterator[None]:
        """Around the training: the page says how it ended, and is not read again."""
        self.write()
        log.info("Watch it learn: %s (`cgan watch` opens it).", LIVE)
        link = f'<a href="{os.path.relpath(RUN_PAGE, LIVE.parent)}">{RUN_PAGE}</a>'
        ended = f"The training is done. When the later stages have run, {link} shows the result."
        try:
            yield
        except BaseException as error:
            ended = f"The training stopped: {escape(str(error) or type(error).__name__)}."
            raise
        finally:
            self.due = self.due if self.due == np.inf else 0.0
            self.write(ended)

    def between(self, steps: Iterable[int]) -> Iterator[int]:
        """The steps, and the page after each of them."""
        for step in steps:
            yield step
            self.write()

    def write(self, ended: str = "") -> None:
        """Not soon after the last time."""
        if (began := time.perf_counter()) < self.due:
            return
        again = "" if ended else '<meta http-equiv="refresh" content="3">'
        try:
            write_text(LIVE, HEAD + again + self._body(ended))
        except Exception as error:
            log.warning("%s could not be written: %s. The training goes on.", LIVE, error)
            began = -np.inf  # nor is it tried again
        self.due = (now := time.perf_counter()) + max(1.0, (now - began) / SHARE)

    def _body(self, ended: str) -> str:
        sent, waiting, _ = read_records(self.folder)
        records = [record for record in sent + waiting if record["kind"] == "metrics"]
        newest = {key: value for record in records for key, value in record["metrics"].items()}
        kimg, total, words = newest.get("progress/kimg", 0.0), self.total_kimg, ended
        if rate := newest.get("progress/images_per_s", 0.0):
            left = (total - kimg) * 1000 / rate
            time_left = f"{left:.0f} s" if left < 90 else f"{left / 60:.0f} min"
            words = words or f"{kimg:,.0f} of {total:,.0f} thousand images; about {time_left} left."
        body = (
            f"<title>{self.title}</title><h1>{self.title}</h1>"
            f"<p>{words or 'The training has begun.'} Written at {time.strftime('%X')}.</p>"
            f'<progress value="{kimg}" max="{total}"></progress>'
        )
        if pictures := sorted((self.folder / "previews").glob("step-*.png")):
            step = int(pictures[-1].stem.removeprefix("step-"))
            png = base64.b64encode(pictures[-1].read_bytes()).decode()
            body += (
                f'<h2>Step {step:,}</h2><img alt="One row of drawings per class" '
                f'src="data:image/png;base64,{png}">'
            )
        if (right := newest.get("probe/conditional_accuracy")) is not None:
            body += f"<p>{percent(right)} of the drawings show the right class.</p>"
        return body + _losses(records)


def _losses(records: list[Record]) -> str:
    """Lines over the steps, as SVG; nothing before there are two points."""
    told = {r["step"]: r["metrics"] for r in records if "loss/generator" in r["metrics"]}
    if len(told) < 2:
        return ""
    x, *lines = np.array(
        [(step, *(told[step][f"loss/{name}"] for name in LINES)) for step in sorted(told)]
    ).T
    least, most = np.min(lines), np.max(lines)
    drawn = f'<text y="12">{most:.3g}</text><text y="150">{least:.3g}</text>'
    for n, (name, colour) in enumerate(LINES.items()):
        right = 40 + 430 * (x - x[0]) / (x[-1] - x[0])
        down = 148 - 140 * (lines[n] - least) / max(most - least, 1e-9)
        at = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(right, down, strict=True))
        drawn += f'<polyline fill="none" stroke="{colour}" stroke-width="2" points="{at}"/>'
        drawn += f'<text x="{40 + 230 * n}" y="168" style="fill:{colour}">{name}</text>'
    return f'<h2>Losses</h2><svg viewBox="0 0 480 174" role="img" aria-label="Losses">{drawn}</svg>'
