"""Cost of GCSAM on a CUDA device: perturb + restore, whole steps in each precision, graphs, torch.compile.

Needs torch and medgcsam.optim only; pytorch_optimizer is measured where it is installed. Competitors take turns round
by round; a time is that between two CUDA events around a turn, from an idle device to the end of all work. Kernel
launches are counted by torch.profiler, allocations by the caching allocator's statistics, waits of the host by torch's
sync debug mode. ``--device cpu`` runs the same lines without a GPU, to try the script: what a CPU cannot tell stays
empty.

    python benchmarks/gpu.py --output benchmarks/results/gpu.json
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from gpu_probe import Cpu, Cuda
from gpu_runs import (
    BASES,
    PRECISIONS,
    Probe,
    batch,
    captured_ascent,
    captured_step,
    compiled_steps,
    recompilations,
    set_precision,
    whole_steps,
)
from optimizer_runs import DAVDA54, PEER, PRIMITIVES, competitors, primitives, with_schedules
from peers import davda54_sam, versions
from plain_networks import plain_shapes
from timing import interleave, machine, milliseconds, mixture, one_after_the_other, ratio, table, write
from torch import nn

SIZES = {"resnet18": (64, 32), "resnet50": (224, 64), "tiny": (16, 8)}
LIST_TARGETS = {"GCSAM / pytorch_optimizer": 0.6, "GCSAM / sum of primitives": 1.2}
STEP_TARGETS = {"full": 2.05, "start 0.6, half batch": 1.25, "ascent=momentum": 1.06}


def _counted(probe: Probe, run: Callable[[], Any]) -> dict[str, Any]:
    return {"launches": probe.launches(run), "allocations": probe.allocations(run)}


def measure_list(probe: Probe, name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Perturb + restore on one parameter list: times, launches, allocations, waits, by competitor."""
    generator = torch.Generator().manual_seed(0)
    shapes = plain_shapes(name)
    parameters = [nn.Parameter(0.05 * torch.randn(s, generator=generator).to(probe.name)) for s in shapes]
    fresh = [0.01 * torch.randn(s, generator=generator).to(probe.name) for s in shapes]
    gradients = [gradient.clone() for gradient in fresh]
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient
    halves, parts = competitors(parameters, davda54_sam(options.davda54)), primitives(parameters, gradients)
    runs = {competitor: partial(one_after_the_other, pair) for competitor, pair in halves.items()}
    with torch.no_grad():
        times = interleave(
            {**runs, **parts},
            rounds=options.rounds,
            warmup=options.warmup,
            before=lambda: torch._foreach_copy_(gradients, fresh),
            clock=probe.clock,
        )
        times["sum of primitives"] = mixture([(1.0, times[part]) for part in PRIMITIVES])
        counted = {
            competitor: {
                "launches": probe.launches(run),
                "allocations": probe.allocations(run),
                "wait": probe.wait(run),
            }
            for competitor, run in runs.items()
        }
    ratios = {f"GCSAM / {peer}": ratio(times["GCSAM"], times[peer]) for peer in times if peer.startswith(PEER)}
    ratios["GCSAM / sum of primitives"] = ratio(times["GCSAM"], times["sum of primitives"])
    if DAVDA54 in times:
        ratios[f"SAM / {DAVDA54}"] = ratio(times["SAM"], times[DAVDA54])
    return {
        "tensors": len(shapes),
        "millions": round(sum(s.numel() for s in shapes) / 1e6, 2),
        "largest_bytes": 4 * max(s.numel() for s in shapes),
        "milliseconds": milliseconds(times),
        "ratios": ratios,
        "counted": counted,
    }


def measure_steps(probe: Probe, network: str, base: str, precision: str, options: argparse.Namespace) -> dict[str, Any]:
    """Whole steps: times and their ratios to AdamW, launches and memory of AdamW, GCSAM and its momentum ascent."""
    size, count = SIZES[network]
    data = batch(probe, options.size or size, options.batch or count)
    set_precision(precision)
    runs = whole_steps(probe, network, data, base, precision, davda54_sam(options.davda54))
    times = with_schedules(interleave(runs, rounds=options.rounds, warmup=options.warmup, clock=probe.clock))
    counted = {name: _counted(probe, runs[name]) for name in ("AdamW", "full", "ascent=momentum")}
    set_precision("fp32")
    return {
        "milliseconds": milliseconds(times),
        "ratios": {name: ratio(values, times["AdamW"]) for name, values in times.items() if name != "AdamW"},
        "counted": counted,
    }


def measure_compiled(probe: Probe, network: str, options: argparse.Namespace) -> dict[str, Any]:
    """Recompilations by lever, and whole steps of compiled models in bf16."""
    data = batch(probe, options.size or SIZES[network][0], options.batch or SIZES[network][1])
    counts = recompilations(probe, network, data)
    runs = compiled_steps(probe, network, data)
    times = interleave(runs, rounds=options.rounds, warmup=max(3, options.warmup), clock=probe.clock)
    ratios = {name: ratio(values, times["AdamW"]) for name, values in times.items() if name != "AdamW"}
    return {"recompilations": counts, "milliseconds": milliseconds(times), "ratios": ratios}


def measure_graphs(probe: Probe, network: str, options: argparse.Namespace) -> dict[str, Any]:
    """Graph capture of ascend + restore and of a whole step, compared with eager calls bit for bit."""
    set_precision("fp32")
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
    data = batch(probe, options.size or 64, options.batch or 16)
    found = {"ascend + restore": captured_ascent(probe, network), "whole step": captured_step(probe, network, data)}
    torch.backends.cudnn.deterministic = False
    return found


def _value(value: Any) -> str:
    return "" if value is None else str(value)


def _ratios(ratios: dict[str, dict[str, float]], targets: dict[str, float]) -> list[str]:
    rows = []
    for name, found in ratios.items():
        row = [name, f"{found['value']:.3f}", f"{found['low']:.3f} to {found['high']:.3f}", "", ""]
        if name in targets:
            row[3:] = [f"{targets[name]:g} or less", "met" if found["value"] <= targets[name] else "**missed**"]
        rows.append(row)
    return table(["", "ratio of medians", "quartiles", "target", ""], rows)


def _counts(rows: dict[str, dict[str, Any]], times: dict[str, dict[str, float]]) -> list[str]:
    cells = []
    for name, counted in rows.items():
        launches, memory = counted["launches"] or {}, counted["allocations"] or {}
        wait = {None: "", "": "none"}.get(counted.get("wait"), counted.get("wait"))
        numbers = [
            launches.get("kernel_launches"),
            launches.get("copies"),
            memory.get("blocks"),
            memory.get("peak_bytes"),
        ]
        cells.append([name, f"{times[name]['median']:.3f}", *map(_value, numbers), wait])
    head = ["", "ms (median)", "kernel launches", "copies", "blocks allocated", "peak bytes", "wait of the host"]
    return table(head, cells)


def markdown(report: dict[str, Any]) -> str:
    """The report as a page."""
    facts = report["conditions"]
    lines = ["# Cost of GCSAM on a GPU", ""]
    if facts["device"] == "cpu":
        lines += ["**A trial on the CPU, not a measurement.**", ""]
    lines += [
        f"{facts['card']}, {facts['memory_gib']} GiB, driver {facts['driver']}, CUDA {facts['cuda']}, cuDNN "
        f"{facts['cudnn']}, torch {facts['torch']}, pytorch_optimizer {facts['pytorch_optimizer']}; "
        f"{facts['machine']}; {facts['date']}. {facts['rounds']} interleaved rounds; ratios of medians, quartiles "
        "round by round.", "",
    ]  # fmt: skip
    for name, found in report["lists"].items():
        lines += [f"## Perturb + restore: {name}, {found['tensors']} tensors, {found['millions']} M", ""]
        lines += [f"Largest tensor: {found['largest_bytes']} bytes.", "", *_ratios(found["ratios"], LIST_TARGETS), ""]
        lines += [*_counts(found["counted"], found["milliseconds"]), ""]
    for name, found in report["steps"].items():
        lines += [f"## Whole steps: {name}", "", *_ratios(found["ratios"], STEP_TARGETS), ""]
        lines += [*_counts(found["counted"], found["milliseconds"]), ""]
    lines += ["## CUDA graphs, against eager calls", ""]
    for name, found in report["graphs"].items():
        lines += [f"- {name}: " + ", ".join(f"{key.replace('_', ' ')}: {value}" for key, value in found.items())]
    lines += ["", "## torch.compile of the model", ""]
    rows = [
        [name, str(n["graphs"]), str(n["recompilations"])] for name, n in report["compiled"]["recompilations"].items()
    ]
    lines += [*table(["lever", "graphs in 3 steps", "more in 10 further steps"], rows, numbers=2), ""]
    lines += [*_ratios(report["compiled"]["ratios"], STEP_TARGETS), "", f"Made by `{facts['command']}`.", ""]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda", help="cpu tries the script, no more")
    parser.add_argument("--lists", nargs="*", default=["resnet18", "resnet50", "unet3d"])
    parser.add_argument("--networks", nargs="*", default=["resnet18", "resnet50"], help="also: tiny")
    parser.add_argument("--bases", nargs="*", choices=list(BASES), default=list(BASES))
    parser.add_argument("--precisions", nargs="*", choices=PRECISIONS, default=list(PRECISIONS))
    parser.add_argument("--size", type=int, help="side of the images in pixels, instead of the network's own")
    parser.add_argument("--batch", type=int, help="images per batch, instead of the network's own")
    parser.add_argument("--rounds", type=int, default=31)
    parser.add_argument("--warmup", type=int, default=5)
    parser.add_argument("--davda54", type=Path, help="sam.py of davda54/sam, to be measured as well")
    parser.add_argument("--output", type=Path, help="a .json file; a .md file is written beside it")
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        print("This benchmark needs a CUDA device and torch sees none; --device cpu tries the script.", file=sys.stderr)
        raise SystemExit(4)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS repeats itself only with this
    probe = Cuda() if options.device == "cuda" else Cpu()
    conditions = {
        "device": options.device, **probe.facts(), "torch": torch.__version__, **versions(options.davda54), **machine(),
        **{name: getattr(options, name) for name in ("size", "batch", "rounds", "warmup")},
        "command": f"python benchmarks/gpu.py --device {options.device} --rounds {options.rounds}",
    }  # fmt: skip
    report: dict[str, Any] = {"conditions": conditions}
    report["lists"] = {name: measure_list(probe, name, options) for name in options.lists}
    report["steps"] = {
        f"{network}, AdamW {base}, {precision}": measure_steps(probe, network, base, precision, options)
        for network in options.networks for base in options.bases for precision in options.precisions
    }  # fmt: skip
    # Of the first network only.
    report["graphs"] = measure_graphs(probe, options.networks[0], options)
    report["compiled"] = measure_compiled(probe, options.networks[0], options)
    write(report, markdown(report), options.output)


if __name__ == "__main__":
    main()
