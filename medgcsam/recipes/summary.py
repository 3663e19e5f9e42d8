"""A run's result in a few lines for the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from medgcsam.journal import Journal
from medgcsam.places import shown
from medgcsam.run_folder import RunFolder, read_json

_SHOWN_OF_SEGMENTATION = (
    "dice", "dice_with_empty", "nsd", "hd95_mm", "hd95_px", "asd_mm", "asd_px", "volume_error_ml", "volume_error_px",
    "area_error_mm2", "area_error_px", "missed", "false_positive", "both_empty",
)  # fmt: skip
_DECIMALS = {
    "hd95_mm": 1, "hd95_px": 1, "asd_mm": 2, "asd_px": 2, "volume_error_ml": 2, "volume_error_px": 1,
    "area_error_mm2": 1, "area_error_px": 1,
}  # fmt: skip
"""Of what has a unit: as fine as the images are. Shares and everything else have three."""
_LEAST_WIDTHS = (13, 24, 0, 0)  # so that what is said below the numbers begins where they do
_SHOWN = ("auroc", "auroc_patient", "auprc", "sensitivity", "specificity", "ppv", "npv", "accuracy", "brier", "ece")


def say_summary(run: RunFolder, journal: Journal) -> None:
    """The test result with intervals, beside the baseline, and where the files are."""
    metrics = read_json(run.metrics)
    journal.say()
    if metrics["synthetic"]:
        journal.say("SYNTHETIC DATA")
    if metrics["patients"] == "unknown":
        journal.say("Patients are unknown: each image counts as one, so intervals may be too narrow.")
    if metrics["task"] == "segmentation":
        _say_segmentation(metrics, journal)
    else:
        _say_classification(metrics, journal)
    journal.say(f"report         {shown(run.report)}", log=False)


def _say_segmentation(metrics: dict[str, Any], journal: Journal) -> None:
    """Means over the structures, and Dice and what was missed or invented of each."""
    from medgcsam.report.measured import all_tested, tolerance_words

    test, baseline = metrics["partitions"]["test"], _baseline(metrics)
    structures, tested = metrics["structures"], all_tested(metrics)
    sizes = f"{tested[0]} patients, {tested[1]} images, " if tested else ""
    journal.say(f"{metrics['testing']} testing: {sizes}{', '.join(structures)}")
    names = list(_SHOWN_OF_SEGMENTATION)
    if len(structures) > 1:
        names += [f"{name}_{one}" for one in structures for name in ("dice", "missed", "false_positive")]
    _say_beside(names, test, baseline, journal, title="threshold baseline", patients=True)
    if tolerance := tolerance_words(metrics):
        journal.say(f"tolerance      {tolerance} (of nsd)")


def _say_classification(metrics: dict[str, Any], journal: Journal) -> None:
    test, any_metric = metrics["partitions"]["test"], metrics["partitions"]["test"]["auroc"]
    journal.say(
        f"{metrics['testing']} testing: {any_metric['n_patients']} patients, {any_metric['n_images']} images, "
        f"{any_metric['n_events']} with {metrics['positive'] or 'the rarest class'}"
    )
    _say_beside(_SHOWN, test, _baseline(metrics), journal, title="sanity baseline")
    point = metrics["operating_point"]
    if metrics["task"] == "binary" and point:
        rule = f"{point['rule']}{'' if point.get('target') is None else ' ' + format(point['target'], 'g')}"
        journal.say(f"threshold      {point['threshold']:.3f} ({rule}, chosen on {point['chosen_on']})")


def _baseline(metrics: dict[str, Any]) -> dict[str, Any]:
    return metrics.get("baseline", {}).get("partitions", {}).get("test", {})


def _say_beside(
    names: Sequence[str],
    test: dict[str, Any],
    baseline: dict[str, Any],
    journal: Journal,
    *,
    title: str,
    patients: bool = False,
) -> None:
    """A line for each metric that has a value, the baseline's beside it; ``patients``: and how many it is about."""
    lines = [["", "network", title if baseline else "", "patients" if patients else ""]]
    for name in names:
        if name in test and test[name]["value"] is not None:
            beside = interval(baseline[name], name) if name in baseline else ""
            about = str(test[name]["n_patients"]) if patients else ""
            lines.append([name, interval(test[name], name), beside, about])
    kept = [place for place in range(4) if place < 2 or any(line[place] for line in lines)]
    for line in aligned([[line[place] for place in kept] for line in lines], least=[_LEAST_WIDTHS[k] for k in kept]):
        journal.say(line)


def aligned(lines: Sequence[Sequence[str]], *, least: Sequence[int] | None = None) -> list[str]:
    """Lines of cells as lines of text, each column as wide as its widest cell and, with ``least``, no narrower."""
    cells = [max(len(cell) for cell in column) for column in zip(*lines, strict=True)]
    widths = [max(pair) for pair in zip(cells, least or [0] * len(cells), strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]


def decimal(value: float, metric: str) -> str:
    """A value of ``metric`` with as many decimals as tell something: ``0.912`` of Dice, ``12.3`` of HD95 in mm."""
    text = f"{value:.{_DECIMALS.get(metric, 3)}f}"
    return text.removeprefix("-") if float(text) == 0 else text


def interval(entry: dict[str, Any], metric: str) -> str:
    """An entry as ``0.912 [0.861, 0.955]``, without brackets where there is no interval; a count as it is."""
    if entry["value"] is None:
        return "not estimable"
    if isinstance(entry["value"], int):
        return str(entry["value"])
    text = decimal(entry["value"], metric)
    if entry.get("low") is None or entry.get("high") is None:
        return text
    return f"{text} [{decimal(entry['low'], metric)}, {decimal(entry['high'], metric)}]"
