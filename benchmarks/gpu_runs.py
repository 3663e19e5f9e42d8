"""What the GPU benchmark runs: whole training steps in each precision, captured graphs, compiled models."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from gpu_probe import Cpu, Cuda
from peers import pytorch_optimizer_sam
from plain_networks import NETWORKS
from torch import Tensor, nn

from medgcsam.optim import GCSAM, SAM, frozen_statistics, parameter_groups

Probe = Cuda | Cpu
PRECISIONS = ("fp32", "tf32", "bf16", "fp16")
BASES: dict[str, dict[str, bool]] = {"foreach": {"foreach": True}, "fused": {"fused": True}}


@dataclass
class Training:
    """A network of its own with its optimizer; ``closure`` is zero_grad, forward, backward on the whole batch."""

    model: nn.Module
    optimizer: Any
    closure: Callable[..., Tensor]
    data: tuple[Tensor, Tensor]
    scaler: Any


def batch(probe: Probe, size: int, count: int) -> tuple[Tensor, Tensor]:
    """Images (count, 3, size, size) and labels (count) on the device."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(count, 3, size, size, generator=generator)
    labels = torch.randint(0, 10, (count,), generator=generator)
    return images.to(probe.name), labels.to(probe.name)


def set_precision(precision: str) -> None:
    """TF32 on for ``"tf32"`` and off for all others."""
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    torch.backends.cudnn.allow_tf32 = precision == "tf32"


def training(
    probe: Probe,
    network: str,
    data: tuple[Tensor, Tensor],
    precision: str,
    make: Callable[[nn.Module], Any],
    *,
    compiled: str | None = None,
) -> Training:
    """Network from seed 0 with the optimizer that ``make`` builds; ``compiled`` names a backend of torch.compile."""
    torch.manual_seed(0)
    model = NETWORKS[network]().to(probe.name)
    optimizer = make(model)
    called = torch.compile(model, backend=compiled) if compiled else model
    scaler = torch.amp.GradScaler(probe.name, enabled=precision == "fp16")

    def region() -> AbstractContextManager:
        kind = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)
        return nullcontext() if kind is None else torch.autocast(probe.name, kind)

    def closure(images: Tensor = data[0], labels: Tensor = data[1]) -> Tensor:
        optimizer.zero_grad()
        with region():
            loss = nn.functional.cross_entropy(called(images).float(), labels)
        scaler.scale(loss).backward()
        return loss

    return Training(model, optimizer, closure, data, scaler)


def step_of(its: Training, steps: int = 1) -> Callable[[], None]:
    """One step, or several, of SAM, GCSAM or a plain optimizer of torch."""
    optimizer, part = its.optimizer, None
    if isinstance(optimizer, SAM | GCSAM):
        part = optimizer.ascent_part(its.data)

    def run() -> None:
        for _ in range(steps):
            if part is None:
                its.closure()
                its.scaler.step(optimizer)
            else:
                optimizer.step(
                    its.closure, ascent_closure=lambda: its.closure(*part), model=its.model, scaler=its.scaler
                )
            its.scaler.update()

    return run


def gcsam(kind: type = GCSAM, base: str = "foreach", **options: Any) -> Callable[[nn.Module], Any]:
    """A maker of SAM or GCSAM around AdamW."""
    return lambda model: kind(parameter_groups(model), torch.optim.AdamW, lr=1e-4, **BASES[base], **options)


def whole_steps(
    probe: Probe, network: str, data: tuple[Tensor, Tensor], base: str, precision: str, davda54: type | None
) -> dict[str, Callable[[], Any]]:
    """One training step by name of the competitor; "every 2" runs two, one with and one without an ascent."""

    def ours(steps: int = 1, kind: type = GCSAM, **options: Any) -> Callable[[], None]:
        return step_of(training(probe, network, data, precision, gcsam(kind, base, **options)), steps)

    def theirs(kind: type, **options: Any) -> Callable[[], None]:
        its = training(
            probe, network, data, precision,
            lambda m: kind(m.parameters(), torch.optim.AdamW, rho=0.05, lr=1e-4, **BASES[base], **options),
        )  # fmt: skip
        return lambda: (its.closure(), its.optimizer.step(its.closure))

    plain = lambda model: torch.optim.AdamW(model.parameters(), lr=1e-4, **BASES[base])  # noqa: E731
    runs: dict[str, Callable[[], Any]] = {
        "AdamW": step_of(training(probe, network, data, precision, plain)),
        "ascent not begun": ours(start=1 << 60),
        "full": ours(),
        "half batch": ours(ascent_fraction=0.5),
        "quarter batch": ours(ascent_fraction=0.25),
        "every 2": ours(2, every=2),
        "ascent=momentum": ours(ascent="momentum"),
        "ascent=momentum, SAM": ours(kind=SAM, ascent="momentum"),
    }
    if precision in ("fp32", "tf32"):
        runs["bf16 ascent"] = ours(ascent_precision="bf16")
    if precision != "fp16":  # neither library documents a GradScaler
        if (peer := pytorch_optimizer_sam()) is not None:
            runs["pytorch_optimizer"] = theirs(peer, use_gc=True)
        if davda54 is not None:
            runs["davda54/sam (no GC)"] = theirs(davda54)
    return runs


def captured_ascent(probe: Probe, network: str) -> dict[str, Any]:
    """Ascend and restore as a graph against the same calls made eagerly, with two sets of gradients."""
    seen: list[list[Tensor]] = []
    exact = True
    for graph in (False, True):
        torch.manual_seed(0)
        model = NETWORKS[network]().to(probe.name)
        optimizer = gcsam(rho=0.05)(model)
        weights = [parameter.detach() for parameter in model.parameters()]
        before, at_e = [w.clone() for w in weights], [torch.empty_like(w) for w in weights]
        fresh = [torch.randn_like(w) for w in weights]
        for parameter in model.parameters():
            parameter.grad = torch.empty_like(parameter)
        gradients = [parameter.grad for parameter in model.parameters()]

        def run(gradients=gradients, fresh=fresh, at_e=at_e, weights=weights, optimizer=optimizer) -> None:
            torch._foreach_copy_(gradients, fresh)
            optimizer.ascend()
            torch._foreach_copy_(at_e, weights)
            optimizer.restore()

        again = probe.capture(run) if graph else run
        for factor in (1.0, -3.0):
            torch._foreach_mul_(fresh, factor)
            again()
            seen.append([w.clone() for w in at_e])
        exact = exact and _same(weights, before)
    return {"perturbed_weights_bit_equal": _same(seen[0], seen[2]) and _same(seen[1], seen[3]), "restored": exact}


def captured_step(probe: Probe, network: str, data: tuple[Tensor, Tensor], *, steps: int = 5) -> dict[str, Any]:
    """Ascend, second pass and descend as one graph, base AdamW with ``capturable``, against the eager calls.

    The eager calls are made twice, as a control: where these two differ, the network's own kernels do not repeat.
    """
    warmup, ends = 3, []
    for graph in (False, False, True):
        its = training(probe, network, data, "fp32", gcsam(capturable=probe.name == "cuda"))

        def run(its=its) -> None:
            its.closure()
            its.optimizer.ascend()
            with frozen_statistics(its.model):
                its.closure()
            its.optimizer.descend()

        again = probe.capture(run, warmup=warmup) if graph else run
        for _ in range(steps if graph else steps + warmup):
            again()
        ends.append([t.detach() for t in (*its.model.parameters(), *its.model.buffers())])
    eager, repeated, replayed = ends
    apart = max(float((a.double() - b.double()).abs().max()) for a, b in zip(eager, replayed, strict=True))
    return {
        "eager_repeats": _same(eager, repeated),
        "weights_and_statistics_bit_equal": _same(eager, replayed),
        "largest_difference": apart,
    }


def _same(a: list[Tensor], b: list[Tensor]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def recompilations(probe: Probe, network: str, data: tuple[Tensor, Tensor]) -> dict[str, dict[str, int]]:
    """Graphs that torch.compile made in 3 steps, and how many more in 10 further ones, by lever."""
    levers: dict[str, dict[str, Any]] = {
        "full": {}, "half batch": {"ascent_fraction": 0.5}, "ascent=momentum": {"ascent": "momentum"},
        "start in between": {"start": 6}, "every 2": {"every": 2},
    }  # fmt: skip
    counters, found = torch._dynamo.utils.counters, {}
    for lever, options in levers.items():
        torch._dynamo.reset()
        counters.clear()
        run = step_of(training(probe, network, data, "fp32", gcsam(**options), compiled=probe.backend))
        for _ in range(3):
            run()
        first = counters["stats"]["unique_graphs"]
        for _ in range(10):
            run()
        found[lever] = {"graphs": first, "recompilations": counters["stats"]["unique_graphs"] - first}
    torch._dynamo.reset()
    return found


def compiled_steps(probe: Probe, network: str, data: tuple[Tensor, Tensor]) -> dict[str, Callable[[], Any]]:
    """Whole steps of AdamW and GCSAM on a compiled model."""
    plain = lambda model: torch.optim.AdamW(model.parameters(), lr=1e-4, foreach=True)  # noqa: E731
    makers = {"AdamW": plain, "full": gcsam(), "ascent=momentum": gcsam(ascent="momentum")}
    return {
        name: step_of(training(probe, network, data, "bf16", make, compiled=probe.backend))
        for name, make in makers.items()
    }
