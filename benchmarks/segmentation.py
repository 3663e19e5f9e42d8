"""Segmentation against MONAI in one run: augmented patches, sliding windows over a large volume, surface metrics.

    nice python benchmarks/segmentation.py                       # all, into benchmarks/results/segmentation.json
    nice python benchmarks/segmentation.py inference --rounds 5  # one part, to the terminal
    python benchmarks/segmentation.py --quick                    # does it run? Its numbers say nothing

Each part is a module of its own, segmentation_PART.py, which says what is measured and how. In all of them the
competitors take turns round by round; where peaks of memory are measured, each turn is a process of its own. Every
figure is MONAI's time or memory divided by medgcsam's, so more is better, and stands beside its target.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import os
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

import timing
import torch

PARTS = ("patches", "inference", "metrics")
RESULT = Path(__file__).parent / "results" / "segmentation.json"
PACKAGES = ("medgcsam", "monai", "torch", "numpy", "scipy", "surface-distance")
_MET = {True: "met", False: "**missed**", None: ""}


def measure(part: ModuleType, *, rounds: int | None, quick: bool) -> dict[str, Any]:
    """Settings, figures and all results of one part; threads of torch are afterwards as they were."""
    settings = part.QUICK if quick else part.Settings()
    if rounds is not None:
        settings = dataclasses.replace(settings, rounds=rounds)
    threads = torch.get_num_threads()
    try:
        found = part.measure_all(settings)
    finally:
        torch.set_num_threads(threads)
    figures = [figure | {"met": None if quick else _met(figure)} for figure in part.figures(found)]
    return {"settings": dataclasses.asdict(settings), "figures": figures, "results": found}


def _met(figure: dict[str, Any]) -> bool | None:
    return None if figure["target"] is None else figure["value"] >= figure["target"]


def versions() -> dict[str, str | None]:
    """Versions of what is compared and of what it stands on; None where it is not installed."""
    installed = {found.metadata["Name"].lower().replace("_", "-"): found.version for found in metadata.distributions()}
    return {name: installed.get(name) for name in PACKAGES}


def markdown(report: dict[str, Any]) -> str:
    """The report as a page."""
    facts, parts = report["conditions"], report["parts"]
    named = ", ".join(f"{name} {version}" for name, version in facts["versions"].items() if version)
    lines = [
        "# Segmentation against MONAI, on a CPU",
        "",
        *(["**A trial whether it runs: these numbers say nothing.**", ""] if facts["quick"] else []),
        f"{named}; {facts['machine']}; {facts['cores']} cores; OMP_NUM_THREADS "
        f"{facts['omp_num_threads'] or 'not set'}; {facts['date']}; load average {facts['load_average_at_start']} at "
        f"the start, {facts['load_average_at_end']} at the end.",
        "",
        "MONAI's time or memory divided by medgcsam's: ratios of medians, and quartiles of the ratio round by round.",
        "",
        *timing.table(
            ["part", "figure", "ratio", "quartiles", "target", ""],
            [[name, *_cells(figure)] for name, part in parts.items() for figure in part["figures"]],
        ),
        "",
    ]
    for name, part in parts.items():
        lines += importlib.import_module(f"segmentation_{name}").section(part["settings"], part["results"])
    return "\n".join([*lines, f"Made by `{facts['command']}`.", ""])


def _cells(figure: dict[str, Any]) -> list[str]:
    target = "" if figure["target"] is None else f"{figure['target']:g} or more"
    spread = f"{figure['low']:.2f} to {figure['high']:.2f}"
    return [figure["figure"], f"{figure['value']:.2f}", spread, target, _MET[figure["met"]]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)}; all where none is named")
    parser.add_argument("--rounds", type=int, help="of every part; by default each has its own number")
    parser.add_argument("--quick", action="store_true", help="the smallest sizes, to see whether everything runs")
    parser.add_argument(
        "--output", type=Path, help=f"a .json file, a .md file beside it; of a whole run by default {RESULT.name}"
    )
    options = parser.parse_args()
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"no such part: {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    chosen = [name for name in PARTS if name in options.parts or not options.parts]
    given = [*options.parts, *(["--rounds", str(options.rounds)] if options.rounds else [])]
    command = " ".join(["python benchmarks/segmentation.py", *given, *(["--quick"] if options.quick else [])])
    facts = timing.machine()
    parts = {
        name: measure(importlib.import_module(f"segmentation_{name}"), rounds=options.rounds, quick=options.quick)
        for name in chosen
    }
    conditions = facts | {
        "load_average_at_end": timing.load_average(),
        "omp_num_threads": os.environ.get("OMP_NUM_THREADS"),
        "versions": versions(),
        "quick": options.quick,
        "command": command,
    }
    report = {"conditions": conditions, "parts": parts}
    whole = len(chosen) == len(PARTS) and not options.quick
    timing.write(report, markdown(report), options.output or (RESULT if whole else None))


if __name__ == "__main__":
    main()
