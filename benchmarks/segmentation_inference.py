"""Sliding windows over a volume on the CPU: medgcsam's against MONAI's, time and peak memory, each in a fresh process.

Both run the same network over the same windows (half overlapping, Gaussian weights) of one volume of noise, which lies
as float16 in a file. MONAI's is used plainly: the volume as one float32 tensor, `sliding_window_inference`, then
softmax and float16, which is what medgcsam's gives. Its time and peak are also taken before the softmax. The contenders
take turns round by round, in an order drawn anew. Where others use the machine too, CPU seconds tell more than seconds.

Memory is the highest resident set of the process (ru_maxrss) less the resident set just before the inference, when
libraries, network and the map of the file are loaded; pages of the mapped file count while they are resident.

    nice python benchmarks/segmentation_inference.py --output benchmarks/results/segmentation_inference.json
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import monai
import numpy as np
import torch
from monai.inferers import sliding_window_inference
from timing import machine, table, write

from medgcsam.networks import build_segmentation_network
from medgcsam.pipeline.stages import stages
from medgcsam.training.sliding_window import sliding_window

OUTPUTS = 2
OURS = {"medgcsam, result in RAM": "cpu", "medgcsam, result on disk": "disk"}
MONAI = "MONAI"
CONTENDERS = (*OURS, MONAI)


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


def resident() -> float:
    """MB of this process in RAM now."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("needs Linux")


def peak() -> float:
    """Most MB of this process in RAM so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def contend(options: argparse.Namespace) -> None:
    """One contender's turn; prints its figures as JSON and leaves its probabilities beside the volume."""
    torch.set_num_threads(options.threads)
    module = network(options.network, options.width, options.patch)
    volume = np.load(options.folder / "volume.npy", mmap_mode="r")
    figures = {"before": resident(), "peak_before": peak()}
    start, used = time.perf_counter(), time.process_time()
    if options.contender == MONAI:
        images = torch.from_numpy(volume.astype(np.float32))[None]
        del volume
        with torch.inference_mode():
            roi = [options.patch] * 3
            logits = sliding_window_inference(images, roi, 1, module, overlap=0.5, mode="gaussian")
            figures |= {"seconds_logits": time.perf_counter() - start, "peak_logits": peak()}
            figures["cpu_logits"] = time.process_time() - used
            result = torch.softmax(logits, dim=1)[0].half().numpy()
    else:
        result = sliding_window(
            module,
            volume,
            patch=[options.patch] * 3,
            overlap=0.5,
            outputs=OUTPUTS,
            overlapping=False,
            device="cpu",
            precision="fp32",
            intensity="zscore",
            stitch=OURS[options.contender],
            scratch=options.folder,
        )
    figures |= {"seconds": time.perf_counter() - start, "cpu": time.process_time() - used, "peak": peak()}
    np.save(options.folder / f"{CONTENDERS.index(options.contender)}.npy", result)
    print(json.dumps(figures))


def turns(options: argparse.Namespace, folder: Path, *, network: str, rounds: int) -> dict[str, list[dict[str, float]]]:
    """Figures of every round by contender."""
    found: dict[str, list[dict[str, float]]] = {name: [] for name in CONTENDERS}
    order, generator = list(CONTENDERS), random.Random(0)
    for _ in range(rounds):
        generator.shuffle(order)
        for name in order:
            command = [sys.executable, __file__, "--contender", name, "--folder", str(folder)]
            command += ["--network", network]
            for key in ("width", "patch", "threads"):
                command += [f"--{key}", str(getattr(options, key))]
            answer = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            found[name].append(json.loads(answer.splitlines()[-1]))
    return found


def difference(folder: Path) -> float:
    """Largest absolute difference between the probabilities of medgcsam's and MONAI's."""
    ours, theirs = (np.load(folder / f"{number}.npy", mmap_mode="r") for number in (0, CONTENDERS.index(MONAI)))
    return max(
        float(np.abs(ours[:, i].astype(np.float32) - theirs[:, i].astype(np.float32)).max())
        for i in range(ours.shape[1])
    )


def summary(found: dict[str, list[dict[str, float]]]) -> dict[str, dict[str, list[float]]]:
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

    def ratio(name: str, other: str, column: str) -> str:
        return f"{statistics.median(lines[name][column]) / statistics.median(lines[other][column]):.2f}"

    ratios = [
        [f"{name} / {other}", *(ratio(name, other, column) for column in columns)]
        for name in OURS
        for other in lines
        if other.startswith(MONAI)
    ]
    return [
        *table(["", *columns], [[name, *map(shown, line.values())] for name, line in lines.items()], numbers=3),
        "",
        *table(["ratio of medians", *columns], ratios, numbers=3),
    ]


def markdown(report: dict) -> str:
    """The report as a page."""
    facts = report["conditions"]
    return "\n".join(
        [
            "# Sliding-window inference of a large volume on a CPU",
            "",
            f"A volume of {facts['shape']} voxels of noise, float16 in a file; {facts['network']} of width "
            f"{facts['width']}, {OUTPUTS} outputs, windows of {facts['patch']} voxels per axis, half overlapping, one "
            f"at a time; {facts['threads']} thread(s); {facts['rounds']} interleaved rounds, each contender in a fresh "
            "process; medians, smallest to largest.",
            "",
            f"torch {facts['torch']}, MONAI {facts['monai']}, {facts['machine']}; {facts['date']}, load average at the "
            f"start {facts['load_average_at_start']} on {facts['cores']} cores.",
            "",
            "Time runs from the mapped file to the result. Memory is the highest resident set of the process "
            "(ru_maxrss) less the resident set just before the inference, when libraries, network and the map of the "
            "file are loaded; pages of the mapped file count while they are resident, the system's file cache does "
            "not. MONAI's is used plainly: the volume as one float32 tensor, `sliding_window_inference`, then softmax "
            "and float16, as medgcsam gives it; its first line is taken before the softmax.",
            "",
            *tables(report["results"]),
            "",
            "The same with a network that only copies its input: the work of the sliding window itself, "
            f"{facts['rounds'] + 2} rounds.",
            "",
            *tables(report["without_a_network"]),
            "",
            f"Largest difference between the probabilities of both: {report['difference']:.1e}.",
            "",
            f"Made by `{facts['command']}`.",
            "",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", type=int, nargs=3, default=[512, 512, 300])
    parser.add_argument("--patch", type=int, default=128)
    parser.add_argument("--network", default="unet_small")
    parser.add_argument("--width", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, help="a .json file; a .md file is written beside it")
    parser.add_argument("--contender", choices=CONTENDERS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.contender:
        contend(options)
        return
    facts = machine()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        volume = np.lib.format.open_memmap(
            folder / "volume.npy", mode="w+", dtype=np.float16, shape=(1, *options.shape)
        )
        generator = np.random.default_rng(0)
        for plane in volume[0]:
            plane[:] = generator.standard_normal(plane.shape, dtype=np.float32)
        del volume
        bare = turns(options, folder, network="none", rounds=options.rounds + 2)
        found = turns(options, folder, network=options.network, rounds=options.rounds)
        gap = difference(folder)
    shape = " x ".join(map(str, options.shape))
    command = f"python benchmarks/segmentation_inference.py --rounds {options.rounds} --threads {options.threads}"
    conditions = {key: getattr(options, key) for key in ("network", "width", "patch", "threads", "rounds")}
    versions = {"torch": torch.__version__, "monai": monai.__version__}
    report = {
        "conditions": {**facts, **versions, **conditions, "shape": shape, "command": command},
        "results": summary(found),
        "without_a_network": summary(bare),
        "difference": gap,
    }
    write(report, markdown(report), options.output)


if __name__ == "__main__":
    main()
