"""A run's result in a few lines for the terminal."""

from __future__ import annotations

from typing import Any

from medgcsam.journal import Journal
from medgcsam.places import shown
from medgcsam.run_folder import RunFolder, read_json

_SHOWN = ("auroc", "auroc_patient", "auprc", "sensitivity", "specificity", "ppv", "npv", "accuracy", "brier", "ece")


def say_summary(run: RunFolder, journal: Journal) -> None:
    """The test result with intervals, beside the sanity baseline, and where the files are."""
    metrics = read_json(run.metrics)
    test = metrics["partitions"]["test"]
    baseline = metrics.get("baseline", {}).get("partitions", {}).get("test", {})
    any_metric = test["auroc"]
    journal.say()
    if metrics["synthetic"]:
        journal.say("SYNTHETIC DATA")
    if metrics["patients"] == "unknown":
        journal.say("Patients are unknown: each image counts as one, so intervals may be too narrow.")
    journal.say(
        f"{metrics['testing']} testing: {any_metric['n_patients']} patients, {any_metric['n_images']} images, "
        f"{any_metric['n_events']} with {metrics['positive'] or 'the rarest class'}"
    )
    journal.say(f"{'':<14} {'network':<26}{'sanity baseline' if baseline else ''}".rstrip())
    for name in _SHOWN:
        if name in test and test[name]["value"] is not None:
            beside = interval(baseline[name]) if name in baseline else ""
            journal.say(f"{name:<14} {interval(test[name]):<26}{beside}".rstrip())
    point = metrics["operating_point"]
    if metrics["task"] == "binary" and point:
        rule = f"{point['rule']}{'' if point.get('target') is None else ' ' + format(point['target'], 'g')}"
        journal.say(f"threshold      {point['threshold']:.3f} ({rule}, chosen on {point['chosen_on']})")
    journal.say(f"report         {shown(run.report)}", log=False)


def interval(entry: dict[str, Any]) -> str:
    """A metric as ``0.912 [0.861, 0.955]``, without brackets where there is no interval."""
    if entry["value"] is None:
        return "not estimable"
    text = f"{entry['value']:.3f}"
    if entry.get("low") is None or entry.get("high") is None:
        return text
    return f"{text} [{entry['low']:.3f}, {entry['high']:.3f}]"
