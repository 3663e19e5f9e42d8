"""What the optimizer benchmarks time: perturb + restore by competitor, its primitives, and whole training steps."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import torch
from peers import pytorch_optimizer_sam
from plain_networks import tiny
from timing import Times, mixture, stopwatch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from medgcsam.optim import GCSAM, SAM, parameter_groups

PEER, PEER_FOREACH, DAVDA54 = "pytorch_optimizer", "pytorch_optimizer, foreach=True", "davda54/sam (no GC)"
BF16 = "bf16 ascent"
LATE = 0.6
PRIMITIVES = ("mean and subtract", "norm", "copy there", "axpy", "copy back")


def shapes(name: str) -> list[torch.Size]:
    """Shapes of the parameters of one of MONAI's networks, from a module without memory."""
    from monai.networks.nets import DenseNet121, DynUNet

    unet_kernels, unet_strides = [3] * 6, [1, *[2] * 5]
    networks: dict[str, Callable[[], nn.Module]] = {
        "tiny": tiny,
        "resnet18": network,
        "densenet121": lambda: DenseNet121(spatial_dims=2, in_channels=1, out_channels=2),
        "unet3d": lambda: DynUNet(
            spatial_dims=3, in_channels=1, out_channels=3, kernel_size=unet_kernels, strides=unet_strides,
            upsample_kernel_size=unet_strides[1:], filters=[32, 64, 128, 256, 320, 320],
        ),
    }  # fmt: skip
    with torch.device("meta"):
        return [parameter.shape for parameter in networks[name]().parameters()]


def network(name: str = "resnet18") -> nn.Module:
    """MONAI's resnet18: three channels, a stem of stride 2, ten classes; or "tiny", to try the scripts."""
    if name == "tiny":
        return tiny()
    from monai.networks.nets import resnet18

    return resnet18(spatial_dims=2, n_input_channels=3, num_classes=10, conv1_t_stride=2)


class Calls(TorchDispatchMode):
    """Counts aten calls; ``centralization`` are the means of gradients and their subtractions."""

    def __init__(self) -> None:
        super().__init__()
        self.total = self.centralization = 0
        self._means: list[Tensor] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        result = func(*args, **(kwargs or {}))
        name = func.name().removeprefix("aten::")
        self.total += 1
        if name.startswith("mean"):
            self._means.append(result)
            self.centralization += 1
        elif name.startswith(("sub", "_foreach_sub")) and self._takes_a_mean(args):
            self.centralization += 1
        return result

    def _takes_a_mean(self, args: tuple) -> bool:
        tensors = [t for argument in args for t in (argument if isinstance(argument, list | tuple) else [argument])]
        return any(t is mean for t in tensors for mean in self._means)


# Parameters of glibc's mallopt (malloc.h): -4 is the number of blocks that may be mapped one by one, -3 the size from
# which they are, -1 the free space at the end of the heap beyond which it is returned.
HEAPS: dict[str, tuple[tuple[int, int], ...]] = {
    "untouched": (),
    "kept": ((-4, 0), (-1, 1 << 30)),
    "returned": ((-4, 65536), (-3, 1 << 17), (-1, 1 << 17)),
}


def set_heap(name: str) -> bool:
    """Tell glibc's malloc to keep freed memory ("kept") or to return large blocks to the system ("returned").

    Belongs at the start of a process: blocks that are free already are used first. "untouched" does nothing. Returns
    False where there is no glibc.
    """
    if not HEAPS[name]:
        return True
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return False
    return all(mallopt(option, value) == 1 for option, value in HEAPS[name])


def competitors(parameters: list[Tensor], davda54: type | None) -> dict[str, tuple[Callable, Callable]]:
    """Perturb and restore by name of the competitor, all on the same ``parameters``."""
    gcsam, sam = (kind(parameters, torch.optim.SGD, lr=0.0) for kind in (GCSAM, SAM))
    halves: dict[str, tuple[Callable, Callable]] = {
        "GCSAM": (gcsam.ascend, gcsam.restore),
        "SAM": (sam.ascend, sam.restore),
    }

    def add(name: str, kind: type, **options: Any) -> None:
        peer = kind(parameters, torch.optim.SGD, rho=0.05, lr=0.0, **options)
        peer.base_optimizer.step = lambda: None
        halves[name] = (peer.first_step, peer.second_step)

    if (theirs := pytorch_optimizer_sam()) is not None:
        add(PEER, theirs, use_gc=True)
        add(PEER_FOREACH, theirs, use_gc=True, foreach=True)
    if davda54 is not None:
        add(DAVDA54, davda54)
    return halves


def in_training(name: str, size: int, batch: int, davda54: type | None) -> dict[str, Callable[[], float]]:
    """A training step by name of the competitor that returns the milliseconds of its perturb + restore alone.

    Two passes as always, the second between perturb and restore, then AdamW; each competitor has its own network.
    """
    images, labels = _batch(size, batch)

    def of(competitor: str) -> Callable[[], float]:
        torch.manual_seed(0)
        model = network(name)
        perturb, restore = competitors(list(model.parameters()), davda54)[competitor]
        base = torch.optim.AdamW(model.parameters(), lr=1e-4)

        def passes() -> None:
            base.zero_grad()
            nn.functional.cross_entropy(model(images), labels).backward()

        def run() -> float:
            passes()
            milliseconds = stopwatch(perturb)
            passes()
            milliseconds += stopwatch(restore)
            base.step()
            return milliseconds

        return run

    everyone = competitors([nn.Parameter(torch.zeros(1))], davda54)
    return {competitor: of(competitor) for competitor in everyone}


def _batch(size: int, batch: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(batch, 3, size, size, generator=generator)
    return images, torch.randint(0, 10, (batch,), generator=generator)


def primitives(parameters: list[Tensor], gradients: list[Tensor]) -> dict[str, Callable[[], None]]:
    """The memory-bound work that perturb + restore with centralization is made of, one function each."""
    weights = [parameter.detach() for parameter in parameters]
    saved = [torch.empty_like(weight) for weight in weights]
    several = [(gradient, tuple(range(1, gradient.dim()))) for gradient in gradients if gradient.dim() > 1]

    def mean_and_subtract() -> None:
        means = [gradient.mean(dim=axes, keepdim=True) for gradient, axes in several]
        torch._foreach_sub_([gradient for gradient, _ in several], means)

    return {
        "mean and subtract": mean_and_subtract,
        "norm": lambda: torch._foreach_norm(gradients),
        "copy there": lambda: torch._foreach_copy_(saved, weights),
        "axpy": lambda: torch._foreach_add_(weights, gradients, alpha=1e-3),
        "copy back": lambda: torch._foreach_copy_(weights, saved),
    }


def whole_steps(name: str, size: int, batch: int, davda54: type | None) -> dict[str, Callable[[], Any]]:
    """One training step by name of the competitor, each with a network of its own and the same batch.

    Images are (batch, 3, size, size). "every 2" runs two steps, one with and one without an ascent.
    """
    images, labels = _batch(size, batch)
    runs: dict[str, Callable[[], Any]] = {}

    def start(make: Callable[[nn.Module], torch.optim.Optimizer]) -> tuple[nn.Module, Any, Callable[..., Tensor]]:
        torch.manual_seed(0)
        model = network(name)
        optimizer = make(model)

        def closure(x: Tensor = images, y: Tensor = labels) -> Tensor:
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(x), y)
            loss.backward()
            return loss

        return model, optimizer, closure

    def ours(kind: type, steps: int = 1, **options: Any) -> Callable[[], None]:
        model, optimizer, closure = start(lambda m: kind(parameter_groups(m), torch.optim.AdamW, lr=1e-4, **options))
        part = optimizer.ascent_part((images, labels))

        def run() -> None:
            for _ in range(steps):
                optimizer.step(closure, ascent_closure=lambda: closure(*part), model=model)

        return run

    def theirs(kind: type, **options: Any) -> Callable[[], None]:
        _, optimizer, closure = start(lambda m: kind(m.parameters(), torch.optim.AdamW, rho=0.05, lr=1e-4, **options))
        return lambda: (closure(), optimizer.step(closure))

    _, adamw, plain = start(lambda m: torch.optim.AdamW(m.parameters(), lr=1e-4))
    runs["AdamW"] = lambda: (plain(), adamw.step())
    runs["ascent not begun"] = ours(GCSAM, start=1 << 60)
    runs["full"] = ours(GCSAM)
    runs["half batch"] = ours(GCSAM, ascent_fraction=0.5)
    runs["quarter batch"] = ours(GCSAM, ascent_fraction=0.25)
    runs["every 2"] = ours(GCSAM, steps=2, every=2)
    runs[BF16] = ours(GCSAM, ascent_precision="bf16")
    runs["ascent=momentum, SAM"] = ours(SAM, ascent="momentum")
    runs["ascent=momentum"] = ours(GCSAM, ascent="momentum")
    runs["full, SAM"] = ours(SAM)
    if (peer := pytorch_optimizer_sam()) is not None:
        runs[PEER] = theirs(peer, use_gc=True)
    if davda54 is not None:
        runs[DAVDA54] = theirs(davda54)
    return runs


def with_schedules(times: Times) -> Times:
    """``times`` of whole steps, and those of the average step of a training that begins the ascent at ``LATE`` of it.

    "every 2" becomes the mean of its two steps.
    """
    found = dict(times)
    if "every 2" in found:
        found["every 2"] = [value / 2 for value in found["every 2"]]
    for lever in ("full", "half batch", "quarter batch", "every 2", BF16, "ascent=momentum"):
        if lever in found:
            name = f"start {LATE}" if lever == "full" else f"start {LATE}, {lever}"
            found[name] = mixture([(LATE, found["ascent not begun"]), (1 - LATE, found[lever])])
    return found
