"""Figures of a segmentation as SVG text: a measure in every case, and the agreement of sizes. See ``figures``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, StrMethodFormatter

from medgcsam.report.drawing import STYLE, blank_figure, svg_text
from medgcsam.report.svg import PALETTE

MOST_POINTS = 400
"""In a row of a figure; of more cases this many are drawn, evenly spread over the ranks."""
_LETTERS = 16
"""Of a structure's name beside its row."""


@dataclass(frozen=True)
class Strip:
    """One row of ``case_figure``: name, values (n,) and which of them (n,) bool are of missed structures."""

    name: str
    values: np.ndarray
    missed: np.ndarray


@matplotlib.rc_context(STYLE)
def case_figure(strips: Sequence[Strip], *, xlabel: str, salt: str, distances: bool = False) -> str:
    """A row per structure: every case as a point over a box from the first to the third quartile.

    Args:
        strips: from top to bottom, each with at least one value.
        xlabel: the measure and its unit; salt: what the ids of the SVG are made from.
        distances: from 0 on without end, so that the axis is logarithmic above 1; else values lie in [0, 1].
    """
    figure = blank_figure(4.2, 0.9 + 0.62 * len(strips), left=1.1)
    axes = figure.subplots()
    for number, strip in enumerate(strips):
        _strip(axes, number, strip)
    figure.subplots_adjust(right=1 - 0.2 / 4.2)
    axes.set(xlabel=xlabel, ylim=(len(strips) - 0.5, -0.5))
    if distances:
        axes.set_xscale("symlog", linthresh=1)
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.set_xlim(0, max(10.0, 1.2 * max(float(strip.values.max()) for strip in strips)) if distances else 1)
    axes.set_yticks(range(len(strips)), [_short(strip.name) for strip in strips], parse_math=False)
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")
    if any(strip.missed.any() for strip in strips) and any((~strip.missed).any() for strip in strips):
        # Above the axes, where no case can lie.
        axes.legend(*_one_of_each(axes), loc="lower right", bbox_to_anchor=(1, 1), ncols=2, borderaxespad=0.1)
        figure.subplots_adjust(top=1 - 0.32 / figure.get_figheight())
    return svg_text(figure, salt)


@matplotlib.rc_context(STYLE)
def agreement_figure(
    mean: np.ndarray, difference: np.ndarray, *, bias: float, low: float, high: float, unit: str, salt: str
) -> str:
    """Bland and Altman's figure of predicted and reference sizes.

    Args:
        mean: (n,) mean of predicted and reference size; difference: (n,) predicted minus reference, both in ``unit``.
        bias, low, high: mean difference and limits of agreement.
        salt: what the ids of the SVG are made from.
    """
    figure = blank_figure(4.2, 3.3, left=0.75)
    axes = figure.subplots()
    drawn = evenly(np.argsort(mean, kind="stable"), MOST_POINTS)
    axes.axhline(0, color=PALETTE["muted"], linewidth=0.8)
    axes.axhline(bias, color=PALETTE["second"], linewidth=1.4, label="mean difference")
    for number, limit in enumerate((low, high)):
        label = None if number else "limits of agreement"
        axes.axhline(limit, color=PALETTE["second"], linewidth=1.1, linestyle=(0, (4, 2)), label=label)
    axes.plot(mean[drawn], difference[drawn], color=PALETTE["first"], **_dots())
    axes.set(xlabel=f"Mean of predicted and reference ({unit})", ylabel=f"Predicted − reference ({unit})")
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, borderaxespad=0.1)
    figure.subplots_adjust(top=1 - 0.32 / figure.get_figheight())
    return svg_text(figure, salt)


def evenly(order: np.ndarray, most: int) -> np.ndarray:
    """At most ``most`` of an order, evenly spaced, first and last among them."""
    return order if len(order) <= most else order[np.linspace(0, len(order) - 1, most).round().astype(int)]


def _strip(axes: Axes, number: int, strip: Strip) -> None:
    q1, median, q3 = np.percentile(strip.values, [25, 50, 75])
    axes.barh(number, q3 - q1, left=q1, height=0.5, color=PALETTE["muted"], alpha=0.22, linewidth=0)
    axes.plot([median, median], [number - 0.25, number + 0.25], color=PALETTE["ink"], linewidth=1.6)
    order = evenly(np.argsort(strip.values, kind="stable"), MOST_POINTS)
    # Multiples of the golden ratio: neighbours in rank lie apart, and the same cases give the same picture.
    heights = number + 0.4 * ((np.arange(len(order)) * 0.6180339887 + 0.5) % 1 - 0.5)
    missed = strip.missed[order]
    axes.plot(strip.values[order][~missed], heights[~missed], color=PALETTE["first"], label="found", **_dots())
    marks = {"marker": "D", "markersize": 4.5, "markeredgewidth": 0.7, "markeredgecolor": PALETTE["paper"]}
    axes.plot(
        strip.values[order][missed], heights[missed], color=PALETTE["second"], label="missed",
        linestyle="none", clip_on=False, **marks,
    )  # fmt: skip


def _dots() -> dict[str, object]:
    return {
        "marker": "o", "markersize": 3.8, "linestyle": "none", "alpha": 0.75, "markeredgewidth": 0, "clip_on": False,
    }  # fmt: skip


def _one_of_each(axes: Axes) -> tuple[list[object], list[str]]:
    handles, labels = axes.get_legend_handles_labels()
    found = dict(zip(labels, handles, strict=True))
    return list(found.values()), list(found)


def _short(name: str) -> str:
    return name if len(name) <= _LETTERS else f"{name[: _LETTERS - 1]}…"
