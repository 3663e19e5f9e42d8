"""Augmentation of a batch: medgcsam's one batched resampling against MONAI's dict transforms, image by image.

Both do the same work on images in memory: rotation, shift and scale in one bilinear resampling, contrast about the
mean, brightness, gamma and noise, each with new draws for every image. The competitors take turns round by round, so
that a busy machine slows all of them alike; what counts is the ratio of the medians.

    python benchmarks/augment.py --output benchmarks/results/augment.json
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import monai
import torch
from monai.data import set_track_meta
from monai.transforms import (
    Compose,
    RandAdjustContrastd,
    RandAffined,
    RandGaussianNoised,
    RandScaleIntensityFixedMeand,
    RandShiftIntensityd,
)

from medgcsam.pipeline.augment import Augment

EXTENT = SimpleNamespace(
    enabled=True,
    flip_horizontal=False,
    flip_vertical=False,
    rotate_degrees=10.0,
    shift=0.05,
    scale=0.1,
    brightness=0.1,
    contrast=0.1,
    gamma=0.1,
    noise=0.02,
)


def ours(batch: torch.Tensor) -> Callable[[], torch.Tensor]:
    """medgcsam on the whole batch."""
    augment, generator = Augment(EXTENT), torch.Generator().manual_seed(0)
    return lambda: augment(batch, generator)


def monai_dict(batch: torch.Tensor, *, track_meta: bool) -> Callable[[], torch.Tensor]:
    """MONAI's dict transforms on each image, then a stack."""
    rows, cols = batch.shape[-2:]
    key = ["image"]
    transform = Compose(
        [
            RandAffined(
                key,
                prob=1.0,
                rotate_range=math.radians(EXTENT.rotate_degrees),
                translate_range=(EXTENT.shift * rows, EXTENT.shift * cols),
                scale_range=EXTENT.scale,
                mode="bilinear",
                padding_mode="border",
            ),
            RandScaleIntensityFixedMeand(key, prob=1.0, factors=EXTENT.contrast),
            RandShiftIntensityd(key, prob=1.0, offsets=EXTENT.brightness),
            RandAdjustContrastd(key, prob=1.0, gamma=(1 / (1 + EXTENT.gamma), 1 + EXTENT.gamma)),
            RandGaussianNoised(key, prob=1.0, std=EXTENT.noise),
        ]
    )
    transform.set_random_state(seed=0)

    def run() -> torch.Tensor:
        set_track_meta(track_meta)
        return torch.stack([torch.as_tensor(transform({"image": image})["image"]) for image in batch])

    return run


def measure(runs: dict[str, Callable[[], torch.Tensor]], *, rounds: int) -> dict[str, list[float]]:
    """Milliseconds of every round by competitor; two rounds before are not counted."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(rounds + 2):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            if number >= 2:
                times[name].append(1e3 * (time.perf_counter() - start))
    return times


def summary(times: dict[str, list[float]], *, images: int) -> dict[str, dict[str, float]]:
    """Per competitor: milliseconds per image (median, quartiles) and the ratio of its median to medgcsam's."""
    base = statistics.median(times["medgcsam"])
    result = {}
    for name, values in times.items():
        low, middle, high = statistics.quantiles(values, n=4)
        result[name] = {
            "ms_per_image": round(middle / images, 4),
            "quartiles": [round(low / images, 4), round(high / images, 4)],
            "ratio": round(middle / base, 2),
        }
    return result


def markdown(report: dict) -> str:
    """The report as a page."""
    facts = report["conditions"]
    lines = [
        "# Augmentation of a batch in memory",
        "",
        f"{facts['batch']} images of {facts['size']}x{facts['size']}, {facts['threads']} thread(s), CPU; "
        f"{facts['rounds']} interleaved rounds; torch {facts['torch']}, MONAI {facts['monai']}, {facts['machine']}.",
        "",
        "| | ms per image (median) | quartiles | ratio of medians |",
        "|---|---:|---:|---:|",
    ]
    for name, row in report["results"].items():
        low, high = row["quartiles"]
        lines.append(f"| {name} | {row['ms_per_image']:.2f} | {low:.2f} to {high:.2f} | {row['ratio']:.2f} |")
    return "\n".join([*lines, "", f"Made by `{facts['command']}`.", ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, help="a .json file; a .md file is written beside it")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    batch = torch.rand(options.batch, 1, options.size, options.size, generator=torch.Generator().manual_seed(0))
    runs = {
        "medgcsam": ours(batch),
        "MONAI dict transforms, MetaTensor": monai_dict(batch, track_meta=True),
        "MONAI dict transforms, plain tensors": monai_dict(batch, track_meta=False),
    }
    report = {
        "conditions": {
            "size": options.size,
            "batch": options.batch,
            "rounds": options.rounds,
            "threads": options.threads,
            "torch": torch.__version__,
            "monai": monai.__version__,
            "machine": f"{platform.machine()}, {platform.system()}, Python {platform.python_version()}",
            "command": f"python benchmarks/augment.py --size {options.size} --batch {options.batch} "
            f"--rounds {options.rounds} --threads {options.threads}",
        },
        "results": summary(measure(runs, rounds=options.rounds), images=options.batch),
    }
    page = markdown(report)
    print(page)
    if options.output:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        options.output.with_suffix(".md").write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
