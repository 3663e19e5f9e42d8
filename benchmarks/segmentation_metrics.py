"""HD95 and NSD of a lesion and of an organ in a large volume: medgcsam against MONAI and surface-distance.

All get the same two masks in the form that they take, with one thread of torch, and take turns round by round. medgcsam
measures the surfaces once for both numbers; it is also timed with each of them alone. Before the time is taken, the
numbers are compared: NSD with both others (of MONAI with use_subvoxels), HD95 with surface-distance. MONAI's HD95 is
another one, of border voxels that all count alike; it is given beside.

Run by segmentation.py.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import surface_distance
import timing
import torch
from monai.metrics import compute_hausdorff_distance, compute_surface_dice
from scipy.ndimage import zoom

from medgcsam.evaluation import case_metrics, surface_distances
from medgcsam.evaluation.surfaces import bounding_box

SPACING, TOLERANCE = (0.8, 0.8, 2.0), 2.0  # mm
CASES = {"lesion": (12, 5.0), "organ": (45, 1.3)}
"""Radius in voxels, and how many times as fast as MONAI this must be."""
OURS, MONAI, DEEPMIND = "medgcsam", "MONAI", "surface-distance"
WHOLE = "medgcsam, all of a case"


@dataclass(frozen=True)
class Settings:
    """How much is measured."""

    rounds: int = 11
    shape: tuple[int, int, int] = (256, 256, 128)
    structures: tuple[str, ...] = ("lesion", "organ")
    threads: int = 1


QUICK = Settings(rounds=2, shape=(40, 44, 36), structures=("lesion",))


def pair(radius: float, *, shape: tuple[int, ...], seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A ball in the middle with a wavy border, and a prediction a little beside it with another border."""
    generator = np.random.default_rng(seed)
    grid = np.ogrid[tuple(slice(0, n) for n in shape)]
    masks = []
    for shift in (0.0, 1.5):
        distance = np.sqrt(sum((axis - n / 2 - shift) ** 2 for axis, n in zip(grid, shape, strict=True)))
        coarse = generator.normal(size=[max(2, n // 8) for n in shape])
        waves = zoom(coarse, [n / m for n, m in zip(shape, coarse.shape, strict=True)], order=1)
        masks.append(distance < radius + 2 * waves)
    return masks[0], masks[1]


def measured(reference: np.ndarray, predicted: np.ndarray, which: str) -> dict[str, float]:
    """HD95 and NSD, or one of them, by medgcsam."""
    box = bounding_box(reference, predicted)
    found = surface_distances(reference[box], predicted[box], SPACING)
    numbers = {"HD95": found.hausdorff, "NSD": lambda: found.within(TOLERANCE)}
    return {name: number() for name, number in numbers.items() if which in (name, "HD95 and NSD")}


def runs(reference: np.ndarray, predicted: np.ndarray) -> dict[str, dict[str, Callable[[], dict[str, float]]]]:
    """What is measured: the numbers asked for -> who -> a call that gives them."""
    tensors = [torch.from_numpy(mask)[None, None].float() for mask in (predicted, reference)]

    def monai(which: str) -> dict[str, float]:
        options = {"include_background": True, "spacing": SPACING}
        found = {}
        if which != "NSD":
            found["HD95"] = compute_hausdorff_distance(*tensors, percentile=95, **options).item()
        if which != "HD95":
            found["NSD"] = compute_surface_dice(*tensors, [TOLERANCE], use_subvoxels=True, **options).item()
        return found

    def deepmind() -> dict[str, float]:
        found = surface_distance.compute_surface_distances(reference, predicted, SPACING)
        return {
            "HD95": float(surface_distance.compute_robust_hausdorff(found, 95)),
            "NSD": float(surface_distance.compute_surface_dice_at_tolerance(found, TOLERANCE)),
        }

    def whole() -> dict[str, float]:
        found = case_metrics(reference, predicted, spacing=SPACING, tolerance=TOLERANCE)
        return {"HD95": found["hd95"], "NSD": found["nsd"]}

    table: dict[str, dict[str, Callable[[], dict[str, float]]]] = {}
    for which in ("HD95 and NSD", "HD95", "NSD"):
        table[which] = {
            OURS: lambda which=which: measured(reference, predicted, which),
            MONAI: lambda which=which: monai(which),
        }
    table["HD95 and NSD"] |= {DEEPMIND: deepmind, WHOLE: whole}
    return table


def measure(radius: float, *, shape: tuple[int, ...], rounds: int) -> dict[str, Any]:
    """Numbers, times and ratios to medgcsam's for one size of structure."""
    reference, predicted = pair(radius, shape=shape)
    competitors = runs(reference, predicted)
    numbers = {name: run() for name, run in competitors["HD95 and NSD"].items()}
    for name, own in numbers.items():
        np.testing.assert_allclose(own["NSD"], numbers[DEEPMIND]["NSD"], atol=1e-6)
        if name != MONAI:
            np.testing.assert_allclose(own["HD95"], numbers[DEEPMIND]["HD95"], atol=1e-9)
    result: dict[str, Any] = {"radius": radius, "numbers": numbers, "tasks": {}}
    for which, calls in competitors.items():
        times = timing.interleave(calls, rounds=rounds, warmup=1)
        ratios = {name: timing.ratio(times[name], times[OURS]) for name in calls if name not in (OURS, WHOLE)}
        result["tasks"][which] = {"milliseconds": timing.milliseconds(times), "times_as_long_as_medgcsam": ratios}
    return result


def measure_all(settings: Settings) -> dict[str, Any]:
    """Each structure by its name."""
    torch.set_num_threads(settings.threads)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MONAI's and surface-distance's deprecations, at every call
        return {
            name: measure(CASES[name][0], shape=settings.shape, rounds=settings.rounds) for name in settings.structures
        }


def figures(results: dict[str, Any]) -> list[dict[str, Any]]:
    """MONAI's times for both numbers and for each of them."""
    return [
        {
            "figure": f"seconds, {name}, {which}: {MONAI} / {OURS}",
            **task["times_as_long_as_medgcsam"][MONAI],
            "target": CASES[name][1],
        }
        for name, case in results.items()
        for which, task in case["tasks"].items()
    ]


def section(settings: dict[str, Any], results: dict[str, Any]) -> list[str]:
    """Lines of the page."""
    rows, words = [], []
    for name, case in results.items():
        for which, task in case["tasks"].items():
            for who, times in task["milliseconds"].items():
                ratio = task["times_as_long_as_medgcsam"].get(who)
                shown = f"{ratio['value']:.2f} ({ratio['low']:.2f} to {ratio['high']:.2f})" if ratio else ""
                rows.append([
                    f"{name}, radius {case['radius']}", which, who,
                    f"{times['median']:.1f} ({times['low']:.1f} to {times['high']:.1f})", "1" if who == OURS else shown,
                ])  # fmt: skip
        given = case["numbers"]
        words.append(
            f"{name}: NSD {given[OURS]['NSD']:.6f} by all three; HD95 {given[OURS]['HD95']:.4f} mm by medgcsam and "
            f"surface-distance, {given[MONAI]['HD95']:.4f} mm by MONAI, which counts border voxels"
        )
    head = ["structure", "numbers", "by", "ms (median, quartiles)", "times as long as medgcsam"]
    return [
        "## HD95 and NSD",
        "",
        f"A ball with a wavy border and a prediction beside it, in {'x'.join(map(str, settings['shape']))} voxels of "
        f"{'x'.join(map(str, SPACING))} mm, tolerance {TOLERANCE:g} mm, {settings['threads']} thread(s), "
        f"{settings['rounds']} interleaved rounds.",
        "",
        *timing.table(head, rows, numbers=2),
        "",
        f'The numbers. {". ".join(words)}. "All of a case" has Dice, average surface distance, sizes and connected '
        "parts besides.",
        "",
    ]
