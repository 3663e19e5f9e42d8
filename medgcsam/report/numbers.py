"""How a number is written in a report: one function for every decimal, so that page and metrics.json never differ."""

from __future__ import annotations

import math
from numbers import Integral, Real
from typing import Any

from markupsafe import Markup, escape

NOT_ESTIMABLE = "not estimable"


def decimal(value: Any) -> str:
    """A number of metrics.json to three decimals; None, NaN and infinity read "not estimable"."""
    if value is None or isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
        return NOT_ESTIMABLE
    text = f"{float(value):.3f}"
    return text.removeprefix("-") if float(text) == 0 else text


def percent(share: float) -> str:
    """A share that somebody chose, such as the level of an interval, in percent with all its digits: "97.5%"."""
    return f"{100 * share:.10g}%"


def whole(value: Any) -> str:
    """A count, with commas between thousands; None reads "not recorded"."""
    if value is None or isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
        return "not recorded"
    return f"{round(value):,}"


def duration(seconds: Any) -> str:
    """A time in seconds, in words for a reader: "42 s", "3 min 20 s", "2 h 5 min"."""
    if seconds is None or isinstance(seconds, bool) or not isinstance(seconds, Real) or not math.isfinite(seconds):
        return "not recorded"
    total = round(seconds)
    if total < 60:
        return f"{total} s"
    minutes, rest = divmod(total, 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min"


def tagged(value: Any) -> Markup:
    """``decimal`` inside an HTML ``<data>`` element that carries the full number of metrics.json."""
    text = decimal(value)
    if text == NOT_ESTIMABLE:
        return Markup('<span class="missing">{}</span>').format(text)
    return Markup('<data value="{}">{}</data>').format(repr(float(value)), text)


def tagged_count(value: Any) -> Markup:
    """``whole`` inside a ``<data>`` element; without the element where the value is no whole number."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, Integral) or isinstance(value, bool):
        return escape(whole(value))
    return Markup('<data value="{}">{}</data>').format(int(value), whole(value))


def tagged_interval(metric: dict[str, Any]) -> Markup:
    """``low`` and ``high`` of a metric as "0.861 to 0.951"; a dash where both are absent, "no limit" where one is."""
    low, high = metric.get("low"), metric.get("high")
    if low is None and high is None:
        return Markup('<span class="missing">–</span>')
    open_end = Markup('<span class="missing">no limit</span>')
    sides = [open_end if side is None else tagged(side) for side in (low, high)]
    return Markup("{} to {}").format(*sides)
