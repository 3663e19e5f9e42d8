"""Do 95% intervals of segmentation hold the truth in 95% of simulated studies, where test patients are few?

Patients differ in how hard they are, a structure is shown by chance, Dice is the logistic function of a normal number.
Two kinds of interval are looked at: that of one run (metrics.json) and those of a comparison over folds and seeds
(comparison.json): of the mean of a setting, of the difference of two settings that are alike, and of the difference to
a baseline. A study whose structures have too few patients for an interval is left out and counted.

    nice python benchmarks/coverage_segmentation.py --output benchmarks/results/coverage_segmentation.json
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import expit, ndtri
from timing import machine, table, write

from medgcsam.evaluation.structure_means import mean_over_structures
from medgcsam.study.cases import Cases
from medgcsam.study.grid import Grid
from medgcsam.study.results import Result

CONFIDENCE = 0.95
NETWORK, BASELINE, HARDNESS, NOISE = 1.0, 0.3, 1.0, 0.5
"""On the logit scale: means of Dice, and the SD of patients and of what is neither the patient's nor the seed's."""


@dataclass(frozen=True)
class Design:
    """A study: test patients of each fold, and the chance of each structure to be shown by a patient."""

    patients: int
    shown: tuple[float, ...]
    folds: int = 1
    seeds: int = 1
    sd_seed: float = 0.0

    @property
    def words(self) -> str:
        """As a cell of a table."""
        of_folds = f"{self.folds} folds of {self.patients}" if self.folds > 1 else f"{self.patients}"
        return f"{of_folds}; {', '.join(f'{share:.0%}' for share in self.shown)}"


RUNS = (
    Design(3, (1,)), Design(5, (1,)), Design(7, (1,)), Design(8, (1, 1, 1)), Design(8, (0.6,) * 4), Design(12, (1,)),
    Design(12, (1, 0.6)), Design(12, (1, 0.6, 0.5, 0.4)), Design(20, (0.6,) * 4),
    Design(24, (1, 1, 0.6, 0.5, 0.4, 0.3)), Design(40, (1, 0.7, 0.3)),
)  # fmt: skip
STUDIES = (
    Design(7, (1,), 5, 3, 0.15), Design(7, (1,), 5, 1), Design(7, (1, 0.6), 5, 3, 0.05),
    Design(5, (0.6,) * 2, 5, 3, 0.05), Design(4, (0.6,) * 4, 5, 3, 0.02), Design(4, (1,), 5, 1),
    Design(12, (1, 0.6), 1, 3, 0.05), Design(6, (1,), 1, 3, 0.15), Design(20, (0.6,) * 4, 1, 3, 0.15),
)  # fmt: skip


def truth(mean: float, sd_seed: float = 0.0) -> float:
    """Mean Dice of all patients and seeds that there might be."""
    normal = ndtri((np.arange(200_000) + 0.5) / 200_000)
    return float(expit(mean + np.sqrt(HARDNESS**2 + NOISE**2 + sd_seed**2) * normal).mean())


def run_coverage(design: Design, repeats: int) -> dict[str, Any]:
    """Share of simulated runs whose interval of mean Dice holds the truth, and how many had an interval."""
    expected, held = truth(NETWORK), []
    spread = np.hypot(HARDNESS, NOISE)
    for repeat in range(repeats):
        rng = np.random.default_rng([repeat, design.patients, len(design.shown)])
        dice = expit(NETWORK + spread * rng.normal(size=(design.patients, len(design.shown))))
        shown = rng.random(dice.shape) < np.array(design.shown)
        found = mean_over_structures(np.where(shown, dice, np.nan), [f"s{k}" for k in range(len(design.shown))])
        limits = found.interval("logit", CONFIDENCE)
        if np.isfinite(limits.low):
            held.append(limits.low <= expected <= limits.high)
    return {"mean": _share(held), "studies": len(held), "of": repeats}


def study(design: Design, rng: np.random.Generator) -> list[Result]:
    """The finished runs of two settings that are alike, with a baseline of the same patients."""
    names, found = [f"s{k}" for k in range(len(design.shown))], []
    for fold in range(design.folds):
        hard = HARDNESS * rng.normal(size=(design.patients, len(names)))
        shown = rng.random(hard.shape) < np.array(design.shown)
        patients = np.array([f"{fold}-{k}" for k in range(design.patients)])

        def answers(mean: float, hard: np.ndarray = hard, shown: np.ndarray = shown) -> np.ndarray:
            dice = np.where(shown, expit(mean + hard + NOISE * rng.normal(size=hard.shape)), np.nan)
            nothing = np.full(hard.shape, np.nan)
            return np.stack([dice, dice, nothing, nothing], axis=2)

        beside, labels = answers(BASELINE), np.where(shown, 1.0, np.nan)
        for setting in ("adam", "gcsam"):
            for seed in range(design.seeds):
                cases = Cases(patients, patients, labels, answers(NETWORK + design.sd_seed * rng.normal()))
                metrics = {"task": "segmentation", "structures": names}
                found.append(Result(setting, seed, fold, cases, beside, metrics, None))
    return found


def study_coverage(design: Design, repeats: int, replicates: int) -> dict[str, Any]:
    """Share of simulated studies whose intervals hold the truth, per kind of interval."""
    network, baseline = truth(NETWORK, design.sd_seed), truth(BASELINE)
    held: dict[str, list[bool]] = {"mean": [], "difference": [], "beyond": []}
    for repeat in range(repeats):
        rng = np.random.default_rng([repeat, design.patients, design.folds, len(design.shown)])
        grid = Grid.of(study(design, rng), replicates=replicates, seed=repeat)
        seeds, folds = grid.block("adam", "gcsam")
        found = {
            "mean": (grid.mean("gcsam", "dice", seeds, folds).interval_of_share(CONFIDENCE), network),
            "difference": (grid.mean_difference("gcsam", "adam", "dice", seeds, folds).interval(CONFIDENCE), 0.0),
            "beyond": (grid.beyond_baseline("gcsam", "dice", seeds, folds).interval(CONFIDENCE), network - baseline),
        }
        for name, (limits, expected) in found.items():
            if np.isfinite(limits.low):
                held[name].append(limits.low <= expected <= limits.high)
    return {name: _share(one) for name, one in held.items()} | {"studies": len(held["mean"]), "of": repeats}


def _share(held: Sequence[bool]) -> float | None:
    return float(np.mean(held)) if held else None


def markdown(report: dict[str, Any]) -> str:
    """The report as a page."""
    facts = report["conditions"]
    lines = [
        "# Coverage of the intervals of segmentation",
        "",
        f"Share of simulated studies whose {CONFIDENCE:.0%} interval of mean Dice holds the truth. {facts['machine']}.",
        "",
        "One run (metrics.json):",
        "",
    ]
    rows = [[one["design"], _percent(one["mean"]), f"{one['studies']} of {one['of']}"] for one in report["runs"]]
    lines += table(["test patients; patients who show each structure", "mean", "with an interval"], rows, numbers=2)
    lines += [
        "",
        f"A comparison (comparison.json, {facts['replicates']} bootstrap samples). Where two settings are alike, the "
        "interval of their difference holds 0 more often than it should: it is never narrower than these seeds alone "
        "make it, and the covariance between seeds counts as 0 where it is below.",
        "",
    ]
    rows = [
        [one["design"], f"{one['seeds']}", *(_percent(one[name]) for name in ("mean", "difference", "beyond"))]
        + [f"{one['studies']} of {one['of']}"]
        for one in report["studies"]
    ]
    head = ["test patients; patients who show each structure", "seeds", "mean", "difference of settings"]
    lines += table([*head, "difference to the baseline", "with an interval"], rows, numbers=5)
    return "\n".join([*lines, "", f"Made by `{facts['command']}`.", ""])


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f}%"


def measure(repeats: int, studies: int, replicates: int) -> dict[str, Any]:
    """All designs."""
    return {
        "runs": [{"design": one.words} | run_coverage(one, repeats) for one in RUNS],
        "studies": [
            {"design": one.words, "seeds": one.seeds} | study_coverage(one, studies, replicates) for one in STUDIES
        ],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=2000, help="simulated runs of a design")
    parser.add_argument("--studies", type=int, default=400, help="simulated comparisons of a design")
    parser.add_argument("--replicates", type=int, default=200, help="bootstrap samples of a comparison")
    parser.add_argument("--output", type=Path, help="a .json file; a .md file is written beside it")
    options = parser.parse_args()
    command = "python benchmarks/coverage_segmentation.py"
    conditions = {**machine(), "replicates": options.replicates, "command": command}
    found = measure(options.repeats, options.studies, options.replicates)
    report = {"conditions": conditions, **found}
    write(report, markdown(report), options.output)


if __name__ == "__main__":
    main()
