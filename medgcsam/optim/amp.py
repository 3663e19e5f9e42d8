"""Mixed precision with two passes per step: float16 under a GradScaler, and an ascent in bfloat16."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor


class ScalerPort:
    """Stands in for the optimizer when ``step(closure, scaler=...)`` hands over to ``scaler.step``.

    The optimizer's own ``step`` is running already; calling it again from inside would run the user's step hooks twice.
    """

    _step_supports_amp_scaling = True

    def __init__(
        self, param_groups: list[dict[str, Any]], finish: Callable[[Tensor | None, Tensor | None], None]
    ) -> None:
        self.param_groups = param_groups
        self._finish = finish

    def step(self) -> None:
        """Called by ``GradScaler.step`` after it has looked for inf and set ``found_inf`` and ``grad_scale``."""
        self._finish(getattr(self, "found_inf", None), getattr(self, "grad_scale", None))


@contextmanager
def ascent_autocast(precision: str | None, devices: Iterable[torch.device]) -> Iterator[None]:
    """Autocast to bfloat16 on all ``devices`` for ``"bf16"``; nothing for None. Autocast inside the block wins."""
    with ExitStack() as regions:
        if precision == "bf16":
            for kind in sorted({device.type for device in devices}):
                regions.enter_context(torch.autocast(kind, torch.bfloat16))
        yield


@torch.no_grad()
def not_finite(gradients: Sequence[Tensor]) -> Tensor:
    """Whether any gradient holds an inf or NaN: a 0-dimensional bool on the device of the first."""
    first = gradients[0].device
    return torch.stack([torch.isfinite(norm.to(first)) for norm in torch._foreach_norm(gradients)]).all().logical_not()


@torch.no_grad()
def hand_overflow_on(gradients: Sequence[Tensor], norm: Tensor | None) -> None:
    """Make one gradient of the second pass NaN where ``norm``, that of the first pass, is not finite.

    The scaler sees nothing but the gradients of the second pass; this lets it skip the step and lower its scale, and
    costs one small kernel instead of a wait for the device.
    """
    if norm is not None and gradients:
        smallest = min(gradients, key=lambda gradient: gradient.numel() or 1 << 62)
        flag = torch.where(torch.isfinite(norm), 0.0, torch.nan)
        smallest.add_(flag.to(smallest.device, smallest.dtype))


@torch.no_grad()
def unscale_(gradients: Sequence[Tensor], scale: Tensor) -> None:
    """Divide gradients by the loss scale, in place, by the reciprocal in double precision as ``GradScaler`` does."""
    inverse = scale.double().reciprocal().float()
    by_device: dict[torch.device, list[Tensor]] = {}
    for gradient in gradients:
        by_device.setdefault(gradient.device, []).append(gradient)
    for device, own in by_device.items():
        torch._foreach_mul_(own, inverse.to(device))
