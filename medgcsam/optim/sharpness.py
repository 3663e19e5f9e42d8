"""How sharp a minimum is: the rise of a loss a fixed way up its gradient, the same measure for every optimizer."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from .options import check_weight
from .perturbation import Part, Perturbation

Losses = Callable[[], Iterable[Tensor]]


def sharpness(parameters: Iterable[Tensor], losses: Losses, radius: float) -> Tensor:
    """L(w + e) - L(w) with e = radius * g / |g|, g the gradient of L at w and |.| the 2-norm over all ``parameters``.

    This is the quantity that SAM bounds (Foret et al., arXiv 2010.01412), to first order in ``radius``, of whatever
    loss is given: of validation images in evaluation mode it can be compared between optimizers, Adam and SGD too, as
    it takes no part in training. Nothing is left behind: weights come back bit for bit, also when ``losses`` raises,
    ``.grad`` is not touched, and hooks that wait for gradients (DistributedDataParallel, optimizers that run in the
    backward pass) are not called.

    Arguments:
        parameters: the weights to move; those that need no gradient, or get none, stay where they are.
        losses: called twice, at w and at w + e; yields scalars whose sum is L, one per batch so that one graph at a
            time is in memory. Both calls must see the same data, and the same random numbers if there are any: put
            the network into evaluation mode before, or else BatchNorm counts the batches and dropout draws. Weigh a
            mean over a batch by its share of all samples.
        radius: length of e, 0 or more.

    Returns:
        The difference, 0-dimensional and in float64, as its sums are, on the device and not waited for. 0 where the
        gradient is zero; not a number where the gradient or a loss is not finite. With float32 weights each loss is
        good to about seven digits: take a radius at which the rise is well above 1e-7 of the loss.

    Raises:
        ValueError: ``radius`` is negative or not finite, or ``losses`` yields nothing.
        TypeError: a weight is in half precision or complex.
        RuntimeError: no parameter gets a gradient, or one is sparse.

    Example:
        >>> w = torch.tensor([3.0, 4.0], requires_grad=True)
        >>> round(sharpness([w], lambda: [w.square().sum() / 2], radius=0.5).item(), 4)
        2.625
    """
    if isinstance(radius, bool) or not math.isfinite(radius) or radius < 0:
        raise ValueError(f"The radius (rho) must be a finite number of 0 or more, but is {radius!r}.")
    weights = list({id(weight): weight for weight in parameters if weight.requires_grad}.values())
    for weight in weights:
        check_weight(weight)
    with torch.enable_grad():
        here, gradients = _loss_and_gradients(losses, weights)
    perturbation = Perturbation()
    try:
        parts = _parts(weights, gradients, float(radius))
        geometry = perturbation.apply(parts, norm="centralized", adaptive=False, eta=0.0)
        with torch.no_grad():
            there = _total(losses())
    finally:
        perturbation.restore()
    rise = there - here
    return torch.where(torch.isfinite(geometry.norm).to(rise.device), rise, torch.nan)


def _loss_and_gradients(losses: Losses, weights: Sequence[Tensor]) -> tuple[Tensor, list[Tensor | None]]:
    total: Tensor | None = None
    sums: list[Tensor | None] = [None] * len(weights)
    for loss in losses():
        # Not backward(): that would add to .grad and run the hooks of training.
        for number, gradient in enumerate(torch.autograd.grad(loss, weights, allow_unused=True)):
            if gradient is None:
                continue
            if gradient.layout != torch.strided:
                raise RuntimeError(
                    f"A weight of shape {tuple(weights[number].shape)} has a sparse gradient: build its embedding "
                    "with sparse=False."
                )
            known = sums[number]
            # What autograd hands out may be shared (an expanded or saved tensor): only sums of our own change in place.
            sums[number] = gradient.clone() if known is None else known.add_(gradient)
        share = loss.detach().double()
        total = share if total is None else total + share
    if total is None:
        raise ValueError("losses() is empty: it must yield one scalar or more.")
    return total, sums


def _total(losses: Iterable[Tensor]) -> Tensor:
    shares = [loss.detach().double() for loss in losses]
    if not shares:
        raise ValueError("losses() is empty the second time: it must begin anew at each call.")
    return torch.stack(shares).sum()


def _parts(weights: Sequence[Tensor], gradients: Sequence[Tensor | None], radius: float) -> list[Part]:
    """Weights with a gradient and their gradients, one part per device and type, nothing centralized."""
    parts: dict[tuple[torch.device, torch.dtype], Part] = {}
    for weight, gradient in zip(weights, gradients, strict=True):
        if gradient is None:
            continue
        new = Part(rho=radius, sign=1, owned=True, params=[], directions=[], transposed=[])
        part = parts.setdefault((weight.device, weight.dtype), new)
        part.params.append(weight)
        part.directions.append(gradient)
        part.transposed.append(None)
    if not parts:
        raise RuntimeError("No parameter gets a gradient: the losses do not depend on the parameters.")
    return list(parts.values())
