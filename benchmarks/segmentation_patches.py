"""Augmented patches for segmentation: medgcsam against MONAI's CacheDataset, dict transforms and DataLoader.

All give batches of patches with their labels, half of them on a structure, ready for the network on a CPU: mirrored,
turned, scaled and shifted, then contrast, brightness, gamma and noise, each by the same largest amount and drawn anew
for every patch. medgcsam reads float16 memory maps and looks beyond the border of the patch where it is turned; MONAI
has float32 volumes in memory and continues the border of the patch (the cheaper way of its two).

MONAI is written in two ways, each without and with two worker processes: plainly, as in its tutorials, and tuned:
without the tracking of transforms (``set_track_meta(False)``) and with the voxels of the structures looked up once and
cached (``FgBgToIndicesd``). Every competitor runs with one and with two threads, and the fastest of each side counts.

Run by segmentation.py.
"""

from __future__ import annotations

import math
import statistics
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import timing
import torch
from monai.data import CacheDataset, DataLoader, set_track_meta
from monai.transforms import (
    Compose,
    EnsureTyped,
    FgBgToIndicesd,
    RandAdjustContrastd,
    RandAffined,
    RandCropByPosNegLabeld,
    RandFlipd,
    RandGaussianNoised,
    RandScaleIntensityFixedMeand,
    RandShiftIntensityd,
)

from medgcsam.pipeline.augment_patches import AugmentPatches
from medgcsam.pipeline.patches import PatchBatches

EXTENT = SimpleNamespace(
    enabled=True,
    flip_horizontal=True,
    flip_vertical=False,
    flip_depth=False,
    rotate_degrees=10.0,
    shift=0.05,
    scale=0.1,
    brightness=0.1,
    contrast=0.1,
    gamma=0.1,
    noise=0.02,
)
PER_IMAGE = 2
TARGET = 2.0  # times as many patches per second


@dataclass(frozen=True)
class Settings:
    """How much is measured."""

    rounds: int = 9
    images: int = 16
    threads: tuple[int, ...] = (1, 2)
    workers: tuple[int, ...] = (0, 2)
    volume: int = 128  # voxels along each axis
    picture: int = 512  # pixels along each axis


QUICK = Settings(rounds=2, images=2, threads=(1,), workers=(0,), volume=24, picture=32)


@dataclass
class Maps:
    """What ``PatchBatches`` asks of a store, over memory maps of one structure."""

    images: np.memmap
    labels: np.memmap
    voxels: list[tuple[np.ndarray]]
    intensity: str = "display"

    def __len__(self) -> int:
        return len(self.images)

    def image(self, row: int) -> np.memmap:
        return self.images[row]

    def label(self, row: int) -> np.memmap:
        return self.labels[row]

    def foreground(self, row: int) -> tuple[np.ndarray]:
        return self.voxels[row]


def make_store(folder: Path, count: int, shape: tuple[int, ...], seed: int = 0) -> Maps:
    """Noise 0..1 with one brighter ball each, whose voxels are the structure; about 1% of the volume."""
    generator = np.random.default_rng(seed)
    size = (count, 1, *shape)
    images = np.lib.format.open_memmap(folder / "images.npy", "w+", np.float16, size)
    labels = np.lib.format.open_memmap(folder / "labels.npy", "w+", np.uint8, size)
    voxels = []
    radius = 0.13 * min(shape) if len(shape) == 3 else 0.06 * min(shape)
    axes = np.ogrid[tuple(slice(0, n) for n in shape)]
    for row in range(count):
        centre = generator.uniform(0.2, 0.8, len(shape)) * shape
        ball = sum((axis - c) ** 2 for axis, c in zip(axes, centre, strict=True)) <= radius**2
        images[row, 0] = 0.7 * generator.random(shape, dtype=np.float32) + 0.3 * ball
        labels[row, 0] = ball
        found = np.argwhere(ball).astype(np.int32)
        voxels.append((generator.permutation(found)[:2000],))
    return Maps(images, labels, voxels)


def ours(store: Maps, patch: tuple[int, ...], batch: int, *, threads: int) -> Callable[[], int]:
    """An epoch of ``PatchBatches``; gives the number of patches."""
    batches = PatchBatches(
        store,
        range(len(store)),
        patch=patch,
        batch_size=batch,
        per_image=PER_IMAGE,
        structures=("ball",),
        augment=AugmentPatches(EXTENT, patch=patch),
    )
    numbers = iter(range(10**9))

    def run() -> int:
        torch.set_num_threads(threads)
        return sum(min(len(images), len(targets)) for images, targets, _ in batches.epoch(next(numbers)))

    return run


def transforms(patch: tuple[int, ...], *, indices: bool) -> Compose:
    """MONAI's for the same augmentation; what is not random is cached."""
    both = ["image", "label"]
    known = {"fg_indices_key": "label_fg_indices", "bg_indices_key": "label_bg_indices"} if indices else {}
    return Compose(
        [
            EnsureTyped(both),
            *([FgBgToIndicesd("label")] if indices else []),
            RandCropByPosNegLabeld(
                both, label_key="label", spatial_size=patch, pos=1, neg=1, num_samples=PER_IMAGE, **known
            ),
            RandFlipd(both, prob=0.5, spatial_axis=0),
            RandAffined(
                both,
                prob=1.0,
                rotate_range=[math.radians(EXTENT.rotate_degrees)] * (3 if len(patch) == 3 else 1),
                translate_range=[EXTENT.shift * n for n in patch],
                scale_range=[EXTENT.scale] * len(patch),
                mode=("bilinear", "nearest"),
                padding_mode="border",
            ),
            RandScaleIntensityFixedMeand("image", prob=1.0, factors=EXTENT.contrast),
            RandShiftIntensityd("image", prob=1.0, offsets=EXTENT.brightness),
            RandAdjustContrastd("image", prob=1.0, gamma=(1 / (1 + EXTENT.gamma), 1 + EXTENT.gamma)),
            RandGaussianNoised("image", prob=1.0, std=EXTENT.noise),
        ]
    )


def peer(
    store: Maps, patch: tuple[int, ...], batch: int, *, threads: int, tuned: bool, workers: int
) -> Callable[[], int]:
    """An epoch of MONAI's DataLoader over a CacheDataset; gives the number of patches."""
    set_track_meta(not tuned)
    items = [
        {"image": np.array(store.image(row), dtype=np.float32), "label": np.array(store.label(row))}
        for row in range(len(store))
    ]
    data = CacheDataset(items, transforms(patch, indices=tuned), progress=False, num_workers=0)
    loader = DataLoader(
        data,
        batch_size=batch // PER_IMAGE,
        shuffle=True,
        num_workers=workers,
        persistent_workers=workers > 0,  # else they would be started anew in each epoch
    )

    def run() -> int:
        torch.set_num_threads(threads)
        set_track_meta(not tuned)
        count = 0
        for item in loader:
            images, targets = torch.as_tensor(item["image"]).float(), torch.as_tensor(item["label"])[:, 0].long()
            count += min(len(images), len(targets))
        return count

    return run


def measure(name: str, options: Settings, shape: tuple[int, ...], patch: tuple[int, ...], batch: int) -> dict:
    """All competitors on one kind of data: patches per second and the ratio to the fastest peer."""
    with tempfile.TemporaryDirectory() as folder:
        store = make_store(Path(folder), options.images, shape)
        runs = {}
        for threads in options.threads:
            runs[f"medgcsam, {threads} thread(s)"] = ours(store, patch, batch, threads=threads)
            for tuned in (False, True):
                for workers in options.workers:
                    label = f"MONAI, {'tuned' if tuned else 'plain'}, num_workers {workers}, {threads} thread(s)"
                    runs[label] = peer(store, patch, batch, threads=threads, tuned=tuned, workers=workers)
        times = timing.interleave(runs, rounds=options.rounds, warmup=1)
        set_track_meta(True)
    patches = PER_IMAGE * options.images
    medians = {name: statistics.median(values) for name, values in times.items()}
    mine, best = (min((name for name in runs if side in name), key=medians.get) for side in ("medgcsam", "MONAI"))
    return {
        "name": name,
        "volume": list(shape),
        "patch": list(patch),
        "batch": batch,
        "patches_per_second": {
            name: {key: round(1e3 * patches / value, 2) for key, value in found.items()}
            for name, found in timing.milliseconds(times).items()
        },
        "ours": mine,
        "peer": best,
        "ratio": timing.ratio(times[best], times[mine]),
    }


def measure_all(settings: Settings) -> list[dict[str, Any]]:
    """Volumes and pictures, patches of half their length."""
    volume, picture = settings.volume, settings.picture
    return [
        measure("3-D", settings, (volume,) * 3, (volume // 2,) * 3, 4),
        measure("2-D", settings, (picture,) * 2, (picture // 2,) * 2, 8),
    ]


def figures(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The fastest of each side."""
    return [
        {"figure": f"seconds, {found['name']}: {found['peer']} / {found['ours']}", **found["ratio"], "target": TARGET}
        for found in results
    ]


def section(settings: dict[str, Any], results: list[dict[str, Any]]) -> list[str]:
    """Lines of the page."""
    lines = [
        "## Augmented patches",
        "",
        f"{settings['images']} images, {PER_IMAGE} patches of each in an epoch, {settings['rounds']} interleaved "
        "epochs. Medians and quartiles; the fastest of each side counts.",
        "",
    ]
    for found in results:
        lines += [f"{found['name']}: patches of {_by(found['patch'])} from {_by(found['volume'])}.", ""]
        base = found["patches_per_second"][found["ours"]]["median"]
        rows = [
            [name, f"{rate['median']:.1f}", f"{rate['high']:.1f} to {rate['low']:.1f}", f"{base / rate['median']:.2f}"]
            for name, rate in found["patches_per_second"].items()
        ]
        lines += [*timing.table(["", "patches per second", "quartiles", "fastest medgcsam to it"], rows, numbers=3), ""]
    return lines


def _by(shape: list[int]) -> str:
    return "x".join(str(n) for n in shape)
