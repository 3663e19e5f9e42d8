"""Figures repeat byte for byte, leave matplotlib as it was, and stand in a page without clashing."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys

import matplotlib
import numpy as np

from medgcsam.report.figures import learning_figure, precision_recall_figure, reliability_figure, roc_figure
from medgcsam.report.svg import PALETTE, inline_svg

GRID = np.linspace(0, 1, 21)
DRAW = """
import hashlib, sys
import numpy as np
from medgcsam.report.figures import roc_figure
grid = np.linspace(0, 1, 21)
svg = roc_figure(grid, grid**0.3, band=(grid, grid**0.5, grid**0.2), point=(0.2, 0.6))
print(hashlib.sha256(svg.encode()).hexdigest(), "matplotlib.pyplot" in sys.modules)
"""


def draw_roc() -> str:
    return roc_figure(GRID, GRID**0.3, band=(GRID, GRID**0.5, GRID**0.2), point=(0.2, 0.6))


def draw_all() -> dict[str, str]:
    points = [{"predicted": p, "observed": p**2, "low": p**3, "high": min(1.0, p + 0.1)} for p in (0.1, 0.5, 0.9)]
    return {
        "roc": draw_roc(),
        "pr": precision_recall_figure(GRID, 1 - GRID / 2, prevalence=0.4, point=(0.5, 0.75)),
        "reliability": reliability_figure(
            [("before", points), ("after", points)], probabilities=GRID, xlabel="Predicted", ylabel="Observed"
        ),
        "learning": learning_figure(
            [1, 2, 3], [("a", [3, 2, 1]), ("b", [3, float("nan"), 2])], ylabel="Loss", selected=2
        ),
    }


def test_another_process_with_another_hash_seed_draws_the_same_bytes_without_pyplot():
    environment = {**os.environ, "PYTHONHASHSEED": "7"}
    done = subprocess.run([sys.executable, "-c", DRAW], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [hashlib.sha256(draw_roc().encode()).hexdigest(), "False"]


def test_drawing_leaves_no_setting_behind():
    before = dict(matplotlib.rcParams)
    draw_all()
    assert dict(matplotlib.rcParams) == before


def test_figures_side_by_side_have_unique_ids_that_resolve():
    page = "".join(inline_svg(svg, name=name, label="a figure") for name, svg in draw_all().items())
    ids = re.findall(r' id="([^"]+)"', page)
    assert ids
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'href="#([^"]+)"', page)) | set(re.findall(r"url\(#([^)]+)\)", page)) == set(ids)


def test_inline_figures_load_nothing_and_take_the_colours_of_the_page():
    for name, svg in draw_all().items():
        text = str(inline_svg(svg, name=name, label="a figure"))
        assert "http" not in text
        assert "<style" not in text
        assert not any(colour in text for colour in PALETTE.values())
        assert set(re.findall(r"var\(--figure-(\w+)\)", text)) <= set(PALETTE)
        assert not re.search(r"#(?!\w+-)[0-9a-f]{6}\b", text), "a colour that dark mode would not change"


def test_the_label_of_a_figure_is_escaped():
    text = str(inline_svg(draw_roc(), name="roc", label='ROC of "><script>alert(1)</script>'))
    assert "<script" not in text
    assert text.count('aria-label="') == 1


def test_the_curve_passes_where_the_numbers_say():
    """The drawn diamond lies at its data coordinates, read back through the axis ticks."""
    svg = roc_figure(np.array([0.0, 0.25, 1.0]), np.array([0.0, 0.75, 1.0]), point=(0.25, 0.75))
    low, high = _tick_positions(svg)
    found = re.findall(rf'<use xlink:href="#\w+" x="([\d.]+)" y="([\d.]+)" style="fill: {PALETTE["second"]}', svg)
    x, y = (float(number) for number in found[0])
    assert abs((x - low[0]) / (high[0] - low[0]) - 0.25) < 1e-3
    assert abs((y - low[1]) / (high[1] - low[1]) - 0.75) < 1e-3


def _tick_positions(svg: str) -> tuple[tuple[float, float], tuple[float, float]]:
    """Pixel positions (x, y) of the data points (0, 0) and (1, 1), from the six ticks 0.0, 0.2 ... of both axes."""
    places = {}
    for axis in "xy":
        ticks = svg.split(f'<g id="{axis}tick_')[1:]
        uses = [re.search(r'<use xlink:href="#\w+" x="([\d.]+)" y="([\d.]+)"', tick) for tick in ticks]
        at = [float(use.group("xy".index(axis) + 1)) for use in uses]
        assert len(at) == 6
        places[axis] = (at[0], at[5])
    return (places["x"][0], places["y"][0]), (places["x"][1], places["y"][1])
