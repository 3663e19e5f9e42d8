"""What all figures of a report have in common: style, margins in inches, and SVG text that repeats byte for byte."""

from __future__ import annotations

import io
import re

import matplotlib
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from medgcsam.report.svg import PALETTE

STYLE = {
    "svg.fonttype": "none",
    "font.family": ["DejaVu Sans"],
    "font.size": 9.0,
    "axes.edgecolor": PALETTE["muted"],
    "axes.labelcolor": PALETTE["ink"],
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": PALETTE["grid"],
    "grid.linewidth": 0.6,
    "xtick.color": PALETTE["muted"],
    "ytick.color": PALETTE["muted"],
    "xtick.labelcolor": PALETTE["ink"],
    "ytick.labelcolor": PALETTE["ink"],
    "lines.linewidth": 1.7,
    "legend.frameon": False,
    "legend.fontsize": 8.0,
    "legend.labelcolor": PALETTE["ink"],
    "path.simplify": True,
}


def blank_figure(width: float, height: float, *, left: float = 0.55) -> Figure:
    """A figure of ``width`` x ``height`` inches, ``left`` inches of which are for the labels of its left axis."""
    # Fixed margins in inches: a layout engine would draw everything twice to find about the same.
    figure = Figure(figsize=(width, height))
    FigureCanvasSVG(figure)
    figure.subplots_adjust(
        left=left / width, right=1 - 0.08 / width, bottom=0.48 / height, top=1 - 0.08 / height, hspace=0.12
    )
    return figure


def svg_text(figure: Figure, salt: str) -> str:
    """The figure as an SVG document; ``salt`` names it, so that its ids repeat."""
    stream = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": f"medgcsam {salt}"}):
        figure.savefig(
            stream,
            format="svg",
            transparent=True,
            metadata={"Date": None, "Creator": None, "Format": None, "Type": None},
        )
    return re.sub(r"(\d+\.\d\d)\d+", r"\1", stream.getvalue())
