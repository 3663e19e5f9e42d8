"""Cost of GCSAM on a CPU: perturb + restore alone, and whole training steps, beside AdamW and two other libraries.

All competitors take turns in one process on one thread, in an order drawn anew each round, so that a busy machine slows
all of them alike. A figure is a ratio of medians; beside it stand the quartiles of the ratio round by round.

Perturb + restore: every competitor works on the same tensors, parameters of networks and random gradients, which are
filled again from a copy before each turn, outside of the time. Ours is ``ascend()`` and ``restore()``.
pytorch_optimizer's SAM and davda54/sam are ``first_step()`` and ``second_step()`` with SGD as the base, whose ``step``
is replaced by a function that does nothing: what is left is the perturbation and their own way back. davda54/sam has no
centralization, and stands beside our SAM. The primitives are what a perturbation with centralization must do to memory
at the least: mean and subtraction, norm, copy, axpy, copy, each timed by itself.

What allocates memory at every step depends on the allocator: with glibc, memory that was freed is at hand or has to be
mapped anew, and which of the two happens depends on the history of the process. So each list is measured under both,
set with mallopt in a process of its own; and once more inside of real training steps of resnet18 with the allocator as
it comes, the second pass between perturb and restore.

Whole steps: MONAI's resnet18 for 10 classes; the yardstick is torch.optim.AdamW as it comes (on a CPU a loop over
tensors), which is the base of all others too. The other libraries are used as they document: closure, then
``step(closure)``.

    python benchmarks/optimizer.py --output benchmarks/results/optimizer.json
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from optimizer_runs import (
    BF16,
    DAVDA54,
    HEAPS,
    PEER,
    PEER_FOREACH,
    PRIMITIVES,
    Calls,
    competitors,
    in_training,
    primitives,
    set_heap,
    shapes,
    whole_steps,
    with_schedules,
)
from peers import davda54_sam, versions
from timing import Times, interleave, machine, milliseconds, mixture, one_after_the_other, ratio, table, write
from torch import nn

# Written before the first measurement with this script; the page shows them beside what was measured.
EXPECTED = {
    "perturb + restore of pytorch_optimizer": "0.45 to 0.5",
    "perturb + restore of its primitives": "1.05",
    "full": "2.0",
    "ascent=momentum": "1.05",
    "start 0.6, half batch": "1.22",
}
TARGETS = {"pytorch_optimizer": 0.6, "primitives": 1.2, "calls": 15, "full": 2.05, "late": 1.25, "momentum": 1.06}
RECOMMENDED = "start 0.6, half batch"


def measure_list(name: str, heap: str, options: argparse.Namespace) -> dict[str, Any] | None:
    """Times and aten calls of perturb + restore on one parameter list; None where ``heap`` cannot be set."""
    if not set_heap(heap):
        return None
    torch.set_num_threads(options.threads)
    davda54 = davda54_sam(options.davda54)
    generator = torch.Generator().manual_seed(0)
    parameters = [nn.Parameter(0.05 * torch.randn(shape, generator=generator)) for shape in shapes(name)]
    fresh = [0.01 * torch.randn(parameter.shape, generator=generator) for parameter in parameters]
    gradients = [gradient.clone() for gradient in fresh]
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient
    halves, parts = competitors(parameters, davda54), primitives(parameters, gradients)
    runs = {competitor: partial(one_after_the_other, pair) for competitor, pair in halves.items()}

    with torch.no_grad():
        times = interleave(
            {**runs, "primitives in a row": partial(one_after_the_other, parts.values()), **parts},
            rounds=options.rounds,
            warmup=options.warmup,
            before=lambda: torch._foreach_copy_(gradients, fresh),
        )
        calls = {}
        for competitor, run in runs.items():
            with Calls() as counted:
                run()
            others = counted.total - counted.centralization
            calls[competitor] = {"total": counted.total, "without_centralization": others}
    times["sum of primitives"] = mixture([(1.0, times[part]) for part in PRIMITIVES])
    return {
        "tensors": len(parameters),
        "millions": round(sum(p.numel() for p in parameters) / 1e6, 2),
        "times": times,
        "calls": calls,
    }


def measure_lists(names: Iterable[str], options: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """``measure_list`` for each list under each heap, where that is set in a process of its own without a history."""
    lists = {}
    for name in names:
        for heap in options.heaps:
            if heap == "untouched":
                found = measure_list(name, heap, options)
            else:
                with ProcessPoolExecutor(1, get_context("spawn")) as fresh:
                    found = fresh.submit(measure_list, name, heap, options).result()
            if found is not None:
                lists[f"{name}, heap {heap}"] = found
    return lists


def figures(network: str, lists: dict[str, Any], inside: Times, *steps: Times) -> list[dict[str, Any]]:
    """Every ratio and count of the page, with its target and whether that is met."""
    rows: list[dict[str, Any]] = []

    def add(name: str, value: dict[str, float], target: float | None, expected: str = "") -> None:
        met = None if target is None else value["value"] <= target
        rows.append({"figure": name, **value, "target": target, "met": met, "expected": EXPECTED.get(expected)})

    def add_peers(name: str, times: Times) -> None:
        for peer in (PEER, PEER_FOREACH):
            if peer in times:
                words = f"perturb + restore of {peer}"
                add(f"{name}: {words}", ratio(times["GCSAM"], times[peer]), TARGETS["pytorch_optimizer"], words)
        if DAVDA54 in times:
            add(f"{name}: perturb + restore, SAM, of {DAVDA54}", ratio(times["SAM"], times[DAVDA54]), None)

    add_peers(f"{network}, in training", inside)
    for name, found in lists.items():
        times, words = found["times"], "perturb + restore of its primitives"
        add_peers(name, times)
        add(f"{name}: {words}", ratio(times["GCSAM"], times["sum of primitives"]), TARGETS["primitives"], words)
        others = {"value": found["calls"]["GCSAM"]["without_centralization"]}
        add(f"{name}: aten calls besides those of GC", others, TARGETS["calls"])
    targets = {"full": TARGETS["full"], RECOMMENDED: TARGETS["late"], "ascent=momentum": TARGETS["momentum"],
               "ascent=momentum, SAM": TARGETS["momentum"]}  # fmt: skip
    for times in steps:
        for name, values in times.items():
            words = f"step of AdamW: {name}"
            if name != "AdamW" and all(row["figure"] != words for row in rows):
                add(words, ratio(values, times["AdamW"]), targets.get(name), name)
    return rows


def markdown(report: dict[str, Any]) -> str:
    """The report as a page."""
    facts = report["conditions"]
    mark = {True: "met", False: "**missed**", None: ""}

    def row(figure: dict[str, Any]) -> list[str]:
        spread = f"{figure['low']:.3f} to {figure['high']:.3f}" if "low" in figure else ""
        value = f"{figure['value']:.3f}" if spread else str(figure["value"])
        target = "" if figure["target"] is None else f"{figure['target']:g} or less"
        return [figure["figure"], value, spread, target, mark[figure["met"]]]

    lines = [
        "# Cost of GCSAM on a CPU", "",
        f"{facts['threads']} thread, {facts['rounds']} interleaved rounds; whole steps: {facts['network']}, "
        f"{facts['size']} px, batch {facts['batch']}, AdamW in its default CPU implementation. torch {facts['torch']}, "
        f"MONAI {facts['monai']}, pytorch_optimizer {facts['pytorch_optimizer']}; {facts['machine']}; {facts['date']}; "
        f"load average {facts['load_average_at_start']} before, {facts['load_average_at_end']} at the end. "
        f"bfloat16 instructions: {'yes' if facts['bf16_instructions'] else 'no'}.", "",
        "Ratios of medians, and quartiles of the ratio round by round. `start 0.6` is the average step of a training "
        "whose last 40% have the ascent: 0.6 x `ascent not begun` + 0.4 x the step with it. "
        f"`{RECOMMENDED}` is the recommended setting.", "",
        *table(["figure", "ratio", "quartiles", "target", ""], [row(f) for f in report["figures"]], numbers=0), "",
        "## What we expected before", "",
        *table(["figure", "expected", "measured"],
               [[f["figure"], f["expected"], row(f)[1]] for f in report["figures"] if f["expected"]]), "",
    ]  # fmt: skip
    for name, found in report["lists"].items():
        lines += [f"## Perturb + restore: {name}, {found['tensors']} tensors, {found['millions']} M", ""]
        lines += [*_milliseconds(found["milliseconds"], found["calls"]), ""]
    lines += ["## Perturb + restore within training steps", "", *_milliseconds(report["in_training"], {}), ""]
    lines += ["## Whole steps", "", *_milliseconds(report["steps"], {}), ""]
    lines += [f"## Whole steps, ascent in bfloat16: {facts['bf16_rounds']} rounds of their own", ""]
    lines += [*_milliseconds(report["steps_bf16"], {}), "", f"Made by `{facts['command']}`.", ""]
    return "\n".join(lines)


def _milliseconds(rows: dict[str, dict[str, float]], calls: dict[str, dict[str, int]]) -> list[str]:
    cells = []
    for name, values in rows.items():
        counted = calls.get(name)
        own = [str(counted["total"]), str(counted["without_centralization"])] if counted else ["", ""]
        cells.append([name, f"{values['median']:.2f}", f"{values['low']:.2f} to {values['high']:.2f}", *own])
    if calls:
        return table(["", "ms (median)", "quartiles", "aten calls", "besides GC"], cells, numbers=4)
    return table(["", "ms (median)", "quartiles"], [row[:3] for row in cells], numbers=2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lists", nargs="*", default=["resnet18", "densenet121", "unet3d"], help="also: tiny")
    parser.add_argument("--heaps", nargs="*", choices=list(HEAPS), default=["kept", "returned"], help="of the lists")
    parser.add_argument("--network", choices=["resnet18", "tiny"], default="resnet18", help="of the whole steps")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=31)
    parser.add_argument("--bf16-rounds", type=int, default=3, help="an ascent in bf16 is slow where the CPU has none")
    parser.add_argument("--warmup", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--davda54", type=Path, help="sam.py of davda54/sam, to be measured as well")
    parser.add_argument("--output", type=Path, help="a .json file; a .md file is written beside it")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    davda54 = davda54_sam(options.davda54)
    bf16 = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: None)()
    conditions = {
        **{name: getattr(options, name) for name in ("network", "size", "batch", "rounds", "warmup", "threads")},
        "bf16_rounds": options.bf16_rounds,
        "torch": torch.__version__, "monai": version("monai"), **versions(options.davda54), **machine(),
        "bf16_instructions": bf16,
        "command": f"python benchmarks/optimizer.py --size {options.size} --batch {options.batch} --rounds "
        f"{options.rounds} --threads {options.threads}" + (" --davda54 sam.py" if davda54 else ""),
    }  # fmt: skip
    often = {"rounds": options.rounds, "warmup": options.warmup}
    what = (options.network, options.size, options.batch, davda54)
    runs = whole_steps(*what)
    slow = {name: runs[name] for name in ("AdamW", "ascent not begun", BF16)}
    del runs[BF16]
    steps = with_schedules(interleave(runs, **often))
    seldom = {"rounds": min(options.bf16_rounds, options.rounds), "warmup": min(1, options.warmup)}
    slow_steps = with_schedules(interleave(slow, **seldom))
    inside = interleave(in_training(*what), clock=lambda run: run(), **often)
    lists = measure_lists(options.lists, options)
    conditions["load_average_at_end"] = round(os.getloadavg()[0], 2)
    report: dict[str, Any] = {
        "conditions": conditions,
        "figures": figures(options.network, lists, inside, steps, slow_steps),
        "expected": EXPECTED,
    }
    report["lists"] = {
        name: {key: value for key, value in found.items() if key != "times"}
        | {"milliseconds": milliseconds(found["times"])}
        for name, found in lists.items()
    }
    report["in_training"] = milliseconds(inside)
    report["steps"] = milliseconds(steps)
    report["steps_bf16"] = milliseconds(slow_steps)
    write(report, markdown(report), options.output)


if __name__ == "__main__":
    main()
