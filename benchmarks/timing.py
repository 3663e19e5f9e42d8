"""What the benchmarks share: competitors taking turns, medians, ratios with quartiles, facts of the machine, files."""

from __future__ import annotations

import datetime
import json
import os
import platform
import random
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

Times = dict[str, list[float]]


def stopwatch(run: Callable[[], Any]) -> float:
    """Milliseconds that ``run`` takes on the CPU."""
    start = time.perf_counter()
    run()
    return 1e3 * (time.perf_counter() - start)


def one_after_the_other(parts: Iterable[Callable[[], Any]]) -> None:
    """Call each of ``parts``."""
    for part in parts:
        part()


def interleave(
    runs: Mapping[str, Callable[[], Any]],
    *,
    rounds: int,
    warmup: int = 2,
    before: Callable[[], Any] | None = None,
    clock: Callable[[Callable[[], Any]], float] = stopwatch,
) -> Times:
    """Milliseconds of every round by competitor; ``warmup`` rounds before them are not counted.

    In each round every competitor runs once, in an order drawn anew (seed 0), so that a busy machine slows all of them
    alike and none profits from its neighbour's cache. ``before`` runs ahead of each of them, outside of the time.
    """
    times: Times = {name: [] for name in runs}
    order, generator = list(runs), random.Random(0)
    for number in range(warmup + rounds):
        generator.shuffle(order)
        for name in order:
            if before is not None:
                before()
            passed = clock(runs[name])
            if number >= warmup:
                times[name].append(passed)
    return times


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """Lower quartile, median and upper quartile; of one value three times that value."""
    if len(values) == 1:
        return values[0], values[0], values[0]
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high


def ratio(above: Sequence[float], below: Sequence[float]) -> dict[str, float]:
    """Ratio of the medians, and the quartiles of the ratios round by round."""
    low, _, high = quartiles([a / b for a, b in zip(above, below, strict=True)])
    value = statistics.median(above) / statistics.median(below)
    return {"value": round(value, 4), "low": round(low, 4), "high": round(high, 4)}


def milliseconds(times: Times) -> dict[str, dict[str, float]]:
    """Median and quartiles per competitor."""
    table = {}
    for name, values in times.items():
        low, middle, high = quartiles(values)
        table[name] = {"median": round(middle, 4), "low": round(low, 4), "high": round(high, 4)}
    return table


def mixture(parts: Sequence[tuple[float, Sequence[float]]]) -> list[float]:
    """Weighted sum of competitors' times, round by round: the mean step of a schedule that changes over."""
    return [
        sum(weight * value for (weight, _), value in zip(parts, values, strict=True))
        for values in zip(*(series for _, series in parts), strict=True)
    ]


def machine() -> dict[str, Any]:
    """Processor, system and Python, date, and the load of the machine now."""
    return {
        "machine": f"{_processor()}, {platform.machine()}, {platform.system()}, Python {platform.python_version()}",
        "cores": os.cpu_count(),
        "date": datetime.date.today().isoformat(),
        "load_average_at_start": load_average(),
    }


def load_average() -> float | None:
    """Processes that wanted a core in the last minute; None where the system does not say."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown processor"


def table(head: Sequence[str], rows: Sequence[Sequence[str]], *, numbers: int = 0) -> list[str]:
    """Lines of a Markdown table; the last ``numbers`` columns are set to the right."""
    rule = ["---"] * (len(head) - numbers) + ["---:"] * numbers
    cells = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    return [f"| {' | '.join(head)} |", f"|{'|'.join(rule)}|", *(f"| {' | '.join(row)} |" for row in cells)]


def write(report: Mapping[str, Any], page: str, output: Path | None) -> None:
    """Print the page; with ``output``, a .json path, write the report there and the page beside it as .md."""
    print(page)
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        output.with_suffix(".md").write_text(page, encoding="utf-8")
