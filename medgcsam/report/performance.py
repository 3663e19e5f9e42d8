"""Section on how well the network did: the numbers of metrics.json with intervals, methods and the baseline."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from markupsafe import Markup

from medgcsam.report.facts import Facts
from medgcsam.report.numbers import percent, tagged, tagged_count, tagged_interval
from medgcsam.report.tables import NAMES, metric_name, row, table

_BESIDE_BASELINE = ("auroc", "auprc", "sensitivity", "specificity", "brier")
_FIRST_OF_CLASS = ("auroc", "auprc", "sensitivity", "specificity", "ppv", "npv")


class Methods:
    """Letters for the methods of a table, each method listed once."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def letter(self, metric: dict[str, Any]) -> str:
        """The letter of a metric's method, with the reason where a number is missing; a new one where it is new."""
        text = str(metric.get("method") or "method not recorded")
        if metric.get("reason"):
            text += f"; {metric['reason']}"
        if text not in self.texts:
            self.texts.append(text)
        number = self.texts.index(text)
        return (chr(96 + number // 26) if number >= 26 else "") + chr(97 + number % 26)


def entries(metrics: dict[str, Any], partition: str = "test") -> dict[str, dict[str, Any]]:
    """The metrics of a partition, name -> entry, without what is no metric."""
    found = (metrics.get("partitions") or {}).get(partition) or {}
    return {name: value for name, value in found.items() if isinstance(value, dict) and "value" in value}


def by_class(found: dict[str, Any], classes: Iterable[str]) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Split entries into those of the whole and those of each class, ``METRIC_CLASS``."""
    suffixed = {f"{metric}_{name}": (metric, name) for metric in NAMES for name in classes}
    whole = {key: value for key, value in found.items() if key not in suffixed}
    of_class: dict[str, dict[str, Any]] = {name: {} for name in classes}
    for key, value in found.items():
        if key in suffixed:
            metric, name = suffixed[key]
            of_class[name][metric] = value
    return whole, {name: values for name, values in of_class.items() if values}


def performance_view(facts: Facts) -> dict[str, Any]:
    """All metrics on the test partition with their intervals, per class, and beside the sanity baseline."""
    metrics = facts.metrics
    methods = Methods()
    several = metrics["task"] != "binary"
    whole, of_class = by_class(entries(metrics), metrics["classes"] if several else ())
    validation, _ = by_class(entries(metrics, "validation"), metrics["classes"] if several else ())
    level = f"{percent(facts.confidence)} interval"
    view: dict[str, Any] = {
        "several": several,
        "baseline": _baseline_table(metrics, whole, level),
        "loses": _loses(metrics, whole),
        "table": _table("Test partition: every metric.", whole, methods, level),
        "classes": [],
        "validation": None,
        "methods": methods.texts,
    }
    if of_class:
        present = {key for values in of_class.values() for key in values}
        rest = [key for key in NAMES if key in present and key not in _FIRST_OF_CLASS]
        view["classes"] = [
            _class_table("Each class against the rest.", of_class, _FIRST_OF_CLASS, level, counts=True),
            _class_table("Each class against the rest, further metrics.", of_class, rest, level, counts=False),
        ]
    if validation:
        view["validation"] = _table("Validation partition.", validation, methods, level)
    return view


def _table(title: str, found: dict[str, Any], methods: Methods, level: str) -> dict[str, Any]:
    known = [key for key in NAMES if key in found]
    rows = [
        row(
            metric_name(key),
            tagged(found[key]["value"]),
            tagged_interval(found[key]),
            *_counts(found[key]),
            methods.letter(found[key]),
            kind="main" if key == "auroc" else "",
        )
        for key in [*known, *(key for key in found if key not in known)]
    ]
    head = ["Metric", "Value", level, "Patients", "Images", "Events", "Method"]
    return table(title, head, rows, note="The letters of the methods stand at the end of this section.")


def _counts(metric: dict[str, Any]) -> list[Markup]:
    return [tagged_count(metric.get(key)) for key in ("n_patients", "n_images", "n_events")]


def value_with_interval(metric: dict[str, Any] | None) -> Markup:
    """Value above its interval, for a table cell; alone where there is none."""
    if metric is None:
        return Markup('<span class="missing">–</span>')
    if metric.get("low") is None and metric.get("high") is None:
        return tagged(metric["value"])
    return Markup('{} <span class="ci">{}</span>').format(tagged(metric["value"]), tagged_interval(metric))


def _class_table(
    title: str, of_class: dict[str, dict[str, Any]], keys: Iterable[str], level: str, *, counts: bool
) -> dict[str, Any]:
    keys = list(keys)
    rows = []
    for name, values in of_class.items():
        sizes = [tagged_count(values.get("auroc", {}).get(key)) for key in ("n_images", "n_events")] if counts else []
        rows.append(row(name, *sizes, *(value_with_interval(values.get(key)) for key in keys)))
    head = ["Class", *(["Images", "Events"] if counts else []), *(metric_name(key) for key in keys)]
    return table(title, head, rows, note=f"Under each value: {level}.")


def _baseline_table(metrics: dict[str, Any], network: dict[str, Any], level: str) -> dict[str, Any] | None:
    baseline = metrics.get("baseline") or {}
    simple = entries(baseline)
    keys = [key for key in _BESIDE_BASELINE if key in simple and key in network]
    if not keys:
        return None
    rows = [
        row("Network", *(value_with_interval(network[key]) for key in keys), kind="main"),
        row("Sanity baseline", *(value_with_interval(simple[key]) for key in keys)),
    ]
    note = f"Under each value: {level}. Baseline: {baseline.get('method') or 'method not recorded'}, on the same split."
    head = ["Model", *(metric_name(key) for key in keys)]
    return table("The network beside the sanity baseline.", head, rows, note=note)


def _loses(metrics: dict[str, Any], network: dict[str, Any]) -> bool:
    """Whether the baseline's AUROC is at least the network's."""
    simple = entries(metrics.get("baseline") or {}).get("auroc", {}).get("value")
    own = network.get("auroc", {}).get("value")
    return simple is not None and own is not None and simple >= own
