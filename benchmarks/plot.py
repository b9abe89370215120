"""The picture of quality over time, for the README."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cgan.files import replacing

from .quality import Curve, Probe, read_curves

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.text import Annotation

OURS = {"fast": "#0b7285", "default": "#1971c2", "best": "#5f3dc4"}
THEIRS = {
    "demo": ("the demo's port", "#c92a2a"),
    "PyTorch-GAN cgan (MLP)": ("PyTorch-GAN (MLP)", "#e8590c"),
    "Keras example's networks": ("Keras example", "#b08900"),
    "malzantot's (conv)": ("malzantot (conv)", "#868e96"),
}
FAINT = "#868e96"
LINE_PT = 12


def draw(figures: dict[str, Any], caption: str, path: Path) -> None:
    """Fréchet distance and errors over seconds of training; a thin line a seed, named at its end."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib.patheffects import withStroke

    curves, floor = read_curves(figures), figures["floor"]
    style: dict[Any, Any] = {"font.size": 10, "axes.spines.top": False, "axes.spines.right": False}
    with plt.rc_context(style):
        figure, axes = plt.subplots(1, 2, figsize=(11, 4.6), dpi=130)
        panels: tuple[tuple[str, Callable[[Probe], float], float], ...] = (
            ("Fréchet distance in the judge's features", lambda p: p.distance, floor["distance"]),
            (
                "drawings that aren't the digit asked for",
                lambda p: max(1 - p.accuracy, 2e-4),
                1 - floor["accuracy"],
            ),
        )
        theirs: dict[Axes, list[Annotation]] = {axis: [] for axis in axes}
        for axis, (title, value, real) in zip(axes, panels, strict=True):
            axis.set(xscale="log", yscale="log", xlabel="seconds of training")
            axis.set_title(title, loc="left", fontsize=11)
            axis.grid(alpha=0.25, which="major", linewidth=0.6)
            axis.axhline(real, color="#2b8a3e", linewidth=1, linestyle=(0, (4, 3)))
            axis.annotate(
                "real images",
                (0.01, real),
                xycoords=("axes fraction", "data"),
                xytext=(0, 3),
                textcoords="offset points",
                color="#2b8a3e",
                fontsize=9,
            )
            for curve in curves:
                name, colour, width = _look(curve)
                times, values = [p.seconds for p in curve.probes], [value(p) for p in curve.probes]
                axis.plot(times, values, color=colour, linewidth=width, marker="o", markersize=3)
                if curve.seed == min(c.seed for c in curves if c.who == curve.who):
                    note = axis.annotate(
                        name,
                        (times[-1], values[-1]),
                        xytext=(-6, -11) if curve.who in OURS else (6, 0),
                        ha="right" if curve.who in OURS else "left",
                        textcoords="offset points",
                        color=colour,
                        fontsize=9.5,
                        fontweight="bold" if curve.who in OURS else "normal",
                        va="center",
                        path_effects=[withStroke(linewidth=3, foreground="white")],
                        annotation_clip=False,
                    )
                    if curve.who not in OURS:
                        theirs[axis].append(note)
            low, high = axis.get_xlim()
            axis.set_xlim(low, high * 3)  # room for the names
            for side in (axis.xaxis, axis.yaxis):
                side.set_major_formatter(lambda v, _: f"{v:g}")
        axes[1].set_yticks([0.01, 0.1, 1], ["1 %", "10 %", "100 %"])
        figure.text(0.012, 0.012, caption, color=FAINT, fontsize=8)
        figure.tight_layout(rect=(0, 0.035, 1, 1), w_pad=3)
        for axis, names in theirs.items():
            _set_apart(names, axis)
        with replacing(path) as temporary:
            figure.savefig(temporary, format="png", facecolor="white")
        plt.close(figure)


def _set_apart(names: list[Annotation], axis: Axes) -> None:
    """Lower each name to a line's height below the one above it: curves can end at the same place."""
    limit = math.inf
    for name in sorted(names, key=lambda name: -name.xy[1]):
        own = axis.transData.transform(name.xy)[1] * 72 / axis.figure.dpi
        height = min(own, limit)
        name.xyann = (name.xyann[0], height - own)
        limit = height - LINE_PT


def _look(curve: Curve) -> tuple[str, str, float]:
    if curve.who in OURS:
        return f"cgan, {curve.who}", OURS[curve.who], 2.0
    name, colour = THEIRS.get(curve.who, (curve.who, FAINT))
    return name, colour, 1.4
