"""Sliding windows over a volume on the CPU: medgcsam's against MONAI's, time and peak memory, each in a fresh process.

Both run the same network over the same windows (half overlapping, Gaussian weights) of one volume of noise, which lies
as float16 in a file. MONAI's is used plainly: the volume as one float32 tensor, `sliding_window_inference`, then
softmax and float16, which is what medgcsam's gives. Its time and peak are also taken before the softmax. The contenders
take turns round by round, in an order drawn anew. Where others use the machine too, CPU seconds tell more than seconds.

Memory is the highest resident set of the process (VmHWM) less the resident set just before the inference, when
libraries, network and the map of the file are loaded; pages of the mapped file count while they are resident.

Run by segmentation.py; as a script this is one turn of one contender: CONTENDER FOLDER NETWORK SETTINGS (JSON).
"""

from __future__ import annotations

import dataclasses
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from monai.inferers import sliding_window_inference
from timing import ratio, table

from medgcsam.networks import build_segmentation_network
from medgcsam.pipeline.stages import stages
from medgcsam.training.sliding_window import sliding_window

OUTPUTS = 2
OURS = {"medgcsam, result in RAM": "cpu", "medgcsam, result on disk": "disk"}
MONAI = "MONAI"
CONTENDERS = (*OURS, MONAI)
TARGETS = {"seconds": 1.0, "peak MB": 2.0}  # of the competitor's through ours
Turns = dict[str, list[dict[str, float]]]


@dataclass(frozen=True)
class Settings:
    """How much is measured."""

    rounds: int = 3
    bare_rounds: int = 5  # with a network that only copies
    shape: tuple[int, int, int] = (512, 512, 300)
    patch: int = 128
    network: str = "unet_small"
    width: int = 8
    threads: int = 1


QUICK = Settings(rounds=1, bare_rounds=1, shape=(48, 40, 36), patch=32)


class Copy(torch.nn.Module):
    """Gives its input for each output: what remains is the work of the sliding window itself."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.cat([images] * OUTPUTS, dim=1)


def network(name: str, width: int, patch: int) -> torch.nn.Module:
    """The network of both, weights by seed 0; "none" for ``Copy``."""
    if name == "none":
        return Copy()
    found = stages([patch] * 3, None, 4)
    torch.manual_seed(0)
    module = build_segmentation_network(
        SimpleNamespace(name=name, width=width, dropout=0.0, deep_supervision=False),
        dimensions=3,
        channels=1,
        outputs=OUTPUTS,
        patch=[patch] * 3,
        kernels=[kernel for kernel, _ in found],
        strides=[stride for _, stride in found],
    )
    return module.eval()


def resident(*, most: bool = False) -> float:
    """MB of this process in RAM now, or the most so far.

    Not by ru_maxrss: a process started with vfork begins with that of its parent, which has run other parts before.
    """
    wanted = "VmHWM" if most else "VmRSS"
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(wanted):
            return int(line.split()[1]) / 1024
    raise RuntimeError("needs Linux")


def contend(contender: str, folder: Path, name: str, settings: Settings) -> None:
    """One contender's turn; prints its figures as JSON and leaves its probabilities beside the volume."""
    torch.set_num_threads(settings.threads)
    module = network(name, settings.width, settings.patch)
    volume = np.load(folder / "volume.npy", mmap_mode="r")
    figures = {"before": resident()}
    start, used = time.perf_counter(), time.process_time()
    if contender == MONAI:
        images = torch.from_numpy(volume.astype(np.float32))[None]
        del volume
        with torch.inference_mode():
            roi = [settings.patch] * 3
            logits = sliding_window_inference(images, roi, 1, module, overlap=0.5, mode="gaussian")
            figures |= {"seconds_logits": time.perf_counter() - start, "peak_logits": resident(most=True)}
            figures["cpu_logits"] = time.process_time() - used
            result = torch.softmax(logits, dim=1)[0].half().numpy()
    else:
        result = sliding_window(
            module,
            volume,
            patch=[settings.patch] * 3,
            overlap=0.5,
            outputs=OUTPUTS,
            overlapping=False,
            device="cpu",
            precision="fp32",
            intensity="zscore",
            stitch=OURS[contender],
            scratch=folder,
        )
    figures |= {"seconds": time.perf_counter() - start, "cpu": time.process_time() - used, "peak": resident(most=True)}
    np.save(folder / f"{CONTENDERS.index(contender)}.npy", result)
    print(json.dumps(figures))


def turns(settings: Settings, folder: Path, *, network: str, rounds: int) -> Turns:
    """Figures of every round by contender."""
    found: Turns = {name: [] for name in CONTENDERS}
    order, generator = list(CONTENDERS), random.Random(0)
    text = json.dumps(dataclasses.asdict(settings))
    for _ in range(rounds):
        generator.shuffle(order)
        for name in order:
            command = [sys.executable, __file__, name, str(folder), network, text]
            answer = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            found[name].append(json.loads(answer.splitlines()[-1]))
    return found


def difference(folder: Path) -> float:
    """Largest absolute difference between the probabilities of medgcsam's and MONAI's."""
    ours, theirs = (np.load(folder / f"{number}.npy", mmap_mode="r") for number in (0, CONTENDERS.index(MONAI)))
    return max(
        float(np.abs(ours[:, i].astype(np.float32) - theirs[:, i].astype(np.float32)).max())
        for i in range(ours.shape[1])
    )


def summary(found: Turns) -> dict[str, dict[str, list[float]]]:
    """Per line of the table and round: seconds, CPU seconds, and MB."""
    lines = {}
    for name, rounds in found.items():
        kinds = {"logits": "_logits", "probabilities": ""} if name == MONAI else {"": ""}
        for kind, suffix in kinds.items():
            lines[f"{name}, {kind}" if kind else name] = {
                "seconds": [r["seconds" + suffix] for r in rounds],
                "CPU seconds": [r["cpu" + suffix] for r in rounds],
                "peak MB": [r["peak" + suffix] - r["before"] for r in rounds],
            }
    return lines


def tables(lines: dict[str, dict[str, list[float]]]) -> list[str]:
    """Medians with their ranges, and the ratios of medians."""
    columns = list(next(iter(lines.values())))

    def shown(values: list[float]) -> str:
        digits = 0 if max(values) >= 100 else 1
        return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"

    ratios = [
        [
            f"{name} / {other}",
            *(f"{ratio(lines[name][column], lines[other][column])['value']:.2f}" for column in columns),
        ]
        for name in OURS
        for other in lines
        if other.startswith(MONAI)
    ]
    return [
        *table(["", *columns], [[name, *map(shown, line.values())] for name, line in lines.items()], numbers=3),
        "",
        *table(["ratio of medians", *columns], ratios, numbers=3),
        "",
    ]


def measure_all(settings: Settings) -> dict[str, Any]:
    """Both networks over one volume in a temporary folder, and how far the probabilities are apart."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_volume(folder / "volume.npy", settings.shape)
        bare = turns(settings, folder, network="none", rounds=settings.bare_rounds)
        found = turns(settings, folder, network=settings.network, rounds=settings.rounds)
        gap = difference(folder)
    return {"with_network": summary(found), "without_a_network": summary(bare), "difference": gap}


def write_volume(path: Path, shape: tuple[int, ...]) -> None:
    """Noise as float16, plane by plane, so that a large volume needs little memory."""
    volume = np.lib.format.open_memmap(path, mode="w+", dtype=np.float16, shape=(1, *shape))
    generator = np.random.default_rng(0)
    for plane in volume[0]:
        plane[:] = generator.standard_normal(plane.shape, dtype=np.float32)


def figures(results: dict[str, Any]) -> list[dict[str, Any]]:
    """Time and memory of MONAI's to the same probabilities, and to its logits, which are less work."""
    lines, rows = results["with_network"], []
    for other in (name for name in lines if name.startswith(MONAI)):
        for name in OURS:
            for column, values in lines[name].items():
                words = f"{column}: {other} / {name}"
                rows.append({"figure": words, **ratio(lines[other][column], values), "target": TARGETS.get(column)})
    return rows


def section(settings: dict[str, Any], results: dict[str, Any]) -> list[str]:
    """Lines of the page."""
    return [
        "## Sliding windows over a large volume",
        "",
        f"A volume of {' x '.join(map(str, settings['shape']))} voxels of noise, float16 in a file; "
        f"{settings['network']} of width {settings['width']}, {OUTPUTS} outputs, windows of {settings['patch']} voxels "
        f"per axis, half overlapping, one at a time; {settings['threads']} thread(s); {settings['rounds']} interleaved "
        "rounds, each contender in a fresh process; medians, smallest to largest.",
        "",
        "Time runs from the mapped file to the result. Memory is the highest resident set of the process (VmHWM) "
        "less the resident set just before the inference, when libraries, network and the map of the file are loaded; "
        "pages of the mapped file count while they are resident, the system's file cache does not. MONAI's is used "
        "plainly: the volume as one float32 tensor, `sliding_window_inference`, then softmax and float16, as medgcsam "
        "gives it; its first line is taken before the softmax.",
        "",
        *tables(results["with_network"]),
        "The same with a network that only copies its input: the work of the sliding window itself, "
        f"{settings['bare_rounds']} rounds.",
        "",
        *tables(results["without_a_network"]),
        f"Largest difference between the probabilities of both: {results['difference']:.1e}.",
        "",
    ]


if __name__ == "__main__":
    contend(sys.argv[1], Path(sys.argv[2]), sys.argv[3], Settings(**json.loads(sys.argv[4])))
