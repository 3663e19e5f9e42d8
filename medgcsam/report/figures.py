"""The figures of a report as SVG text, drawn by matplotlib without pyplot or a display; equal input, equal bytes.

Every function takes numbers that ``medgcsam.evaluation`` made and only draws them. Colours are blue and vermilion, and
every pair of lines differs by dash or marker as well.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from medgcsam.report.drawing import STYLE, blank_figure, svg_text
from medgcsam.report.svg import PALETTE


@matplotlib.rc_context(STYLE)
def roc_figure(
    false_positive_rate: np.ndarray,
    true_positive_rate: np.ndarray,
    *,
    band: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None,
    point: tuple[float, float] | None = None,
) -> str:
    """ROC curve.

    Args:
        false_positive_rate, true_positive_rate: (n,) in [0, 1], ascending from (0, 0) to (1, 1).
        band: false positive rates (m,), and lower and upper sensitivity there (m,).
        point: (false positive rate, sensitivity) at the operating point.
    """
    figure, axes = _unit_square("1 − specificity", "Sensitivity")
    axes.plot([0, 1], [0, 1], color=PALETTE["muted"], linewidth=0.9, linestyle=(0, (2, 2)))
    if band is not None:
        _band(axes, *band)
    axes.plot(false_positive_rate, true_positive_rate, color=PALETTE["first"], label="network")
    if point is not None:
        _mark(axes, point, "operating point")
    axes.legend(loc="lower right")
    return svg_text(figure, "roc")


@matplotlib.rc_context(STYLE)
def precision_recall_figure(
    recall: np.ndarray,
    precision: np.ndarray,
    *,
    prevalence: float,
    point: tuple[float, float] | None = None,
) -> str:
    """Precision over recall, as steps, with the share of events as the level of a test without information.

    Args:
        recall, precision: (n,) in [0, 1], recall ascending.
        prevalence: share of events among the images.
        point: (recall, precision) at the operating point.
    """
    figure, axes = _unit_square("Sensitivity (recall)", "Positive predictive value (precision)")
    axes.axhline(prevalence, color=PALETTE["muted"], linewidth=0.9, linestyle=(0, (2, 2)), label="share of events")
    axes.plot(
        recall, precision, color=PALETTE["first"], drawstyle="steps-pre", solid_joinstyle="miter", label="network"
    )
    if point is not None:
        _mark(axes, point, "operating point")
    axes.legend(loc="lower left")
    return svg_text(figure, "precision-recall")


@matplotlib.rc_context(STYLE)
def reliability_figure(
    series: Sequence[tuple[str, Sequence[Mapping[str, float]]]], *, probabilities: np.ndarray, xlabel: str, ylabel: str
) -> str:
    """Observed frequency against predicted probability with limits, and a histogram of the probabilities below.

    Args:
        series: one or two of (name, points), each point with "predicted", "observed", "low", "high" in [0, 1].
        probabilities: (n,) in [0, 1], what the histogram counts in 20 bins of equal width.
    """
    figure = blank_figure(4.2, 4.6)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[4, 1])
    upper.plot([0, 1], [0, 1], color=PALETTE["muted"], linewidth=0.9, linestyle=(0, (2, 2)), label="perfect")
    looks = [
        {"color": PALETTE["second"], "linestyle": (0, (4, 2)), "marker": "s", "markerfacecolor": PALETTE["paper"]},
        {"color": PALETTE["first"], "linestyle": "-", "marker": "o"},
    ]
    for (name, points), look in zip(series, looks[-len(series) :], strict=True):
        keys = ("predicted", "observed", "low", "high")
        x, y, low, high = (np.array([point[key] for point in points]) for key in keys)
        limits = np.maximum([y - low, high - y], 0)
        upper.errorbar(x, y, yerr=limits, label=name, linewidth=1.3, markersize=4.5, elinewidth=0.7, **look)
    upper.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), ylabel=ylabel)
    upper.legend(loc="upper left")
    lower.hist(
        probabilities,
        bins=np.linspace(0, 1, 21),
        color=PALETTE["muted"],
        alpha=0.6,
        edgecolor=PALETTE["paper"],
        linewidth=0.8,
    )
    lower.set(xlabel=xlabel, ylabel="Images")
    lower.yaxis.set_major_locator(MaxNLocator(3, integer=True))
    return svg_text(figure, "reliability")


@matplotlib.rc_context(STYLE)
def learning_figure(
    epochs: Sequence[int],
    series: Sequence[tuple[str, Sequence[float]]],
    *,
    ylabel: str,
    selected: int | None = None,
    ascent_from: int | None = None,
) -> str:
    """One or two quantities over the epochs.

    Args:
        epochs: (n,) epoch numbers; series: (name, values (n,)), NaN where not measured.
        selected: epoch whose weights are the result; ascent_from: first epoch with a sharpness-aware step.
    """
    figure = blank_figure(4.2, 3.3)
    axes = figure.subplots()
    looks = [
        {"color": PALETTE["first"], "linestyle": "-"},
        {"color": PALETTE["second"], "linestyle": (0, (4, 1.5))},
    ]
    for (name, values), look in zip(series, looks, strict=False):
        axes.plot(epochs, values, label=name, marker="o" if len(epochs) < 3 else None, **look)
    if ascent_from is not None and ascent_from > min(epochs):
        axes.axvspan(
            ascent_from - 0.5,
            max(epochs) + 0.5,
            color=PALETTE["muted"],
            alpha=0.12,
            linewidth=0,
            label="with the ascent step",
        )
    if selected is not None:
        axes.axvline(selected, color=PALETTE["ink"], linewidth=0.9, linestyle=(0, (1, 1.5)), label="selected epoch")
    axes.set(xlabel="Epoch", ylabel=ylabel)
    axes.xaxis.set_major_locator(MaxNLocator(7, integer=True))
    axes.margins(x=0.02)
    axes.legend(loc="best")
    return svg_text(figure, f"learning {ylabel}")


def _unit_square(xlabel: str, ylabel: str) -> tuple[Figure, Axes]:
    figure = blank_figure(4.2, 4.1)
    axes = figure.subplots()
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), xlabel=xlabel, ylabel=ylabel, aspect="equal")
    return figure, axes


def _band(axes: Axes, x: np.ndarray, low: np.ndarray, high: np.ndarray) -> None:
    axes.fill_between(x, low, high, color=PALETTE["first"], alpha=0.18, linewidth=0, label="confidence band")


def _mark(axes: Axes, point: tuple[float, float], name: str) -> None:
    axes.plot(
        *point,
        marker="D",
        markersize=7,
        markerfacecolor=PALETTE["second"],
        markeredgecolor=PALETTE["paper"],
        markeredgewidth=1.2,
        linestyle="none",
        label=name,
        zorder=5,
    )
