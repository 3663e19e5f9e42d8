"""Gradient centralization: the gradient of each output unit loses its mean (Yong et al., arXiv 2004.01461)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import torch
from torch import Tensor


@lru_cache(maxsize=4096)
def averaged_axes(shape: Sequence[int], transposed: int = 0) -> tuple[int, ...]:
    """Axes over which the gradient of one output unit extends, for a weight of ``shape``.

    ``transposed`` is 0 for the ordinary layout (output, ...), and the number of convolution groups for a transposed
    convolution, whose weight is (input, output / groups, *kernel); the axes then count in the view that
    ``unit_view`` gives. Empty where there is nothing to centralize: biases and norm parameters (one axis), and
    weights with one input per unit (depthwise 1x1, LayerScale), whose gradient would become zero.
    """
    if len(shape) < 2:
        return ()
    if transposed == 0:
        axes: tuple[int, ...] = tuple(range(1, len(shape)))
        fan_in = math.prod(shape[1:])
    else:
        kernel_axes = range(2, len(shape)) if transposed == 1 else range(3, len(shape) + 1)
        axes = (0 if transposed == 1 else 1, *kernel_axes)
        fan_in = shape[0] // transposed * math.prod(shape[2:])
    return axes if fan_in > 1 else ()


def unit_view(gradient: Tensor, transposed: int = 0) -> Tensor:
    """A view in which the input axis of a grouped transposed convolution stands apart from its groups."""
    return gradient.unflatten(0, (transposed, -1)) if transposed > 1 else gradient


@dataclass
class Removed:
    """What P took from gradients: per changed gradient the means of its units, and the root of a unit's size."""

    means: list[Tensor] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)

    @torch.no_grad()
    def lengths(self) -> list[Tensor]:
        """|g - Pg| of each changed gradient, 0-dimensional, on its device.

        P is an orthogonal projection, so that |g|^2 = |Pg|^2 + |g - Pg|^2 gives the norm before centralization
        without a second pass over memory.
        """
        if not self.means:
            return []
        lengths = list(torch._foreach_norm(self.means))
        torch._foreach_mul_(lengths, self.weights)
        return lengths


@torch.no_grad()
def centralize_(
    gradients: Sequence[Tensor], transposed: Sequence[int] | None = None, *, into: Sequence[Tensor] | None = None
) -> Removed:
    """Apply the projection P to each gradient, in place, and return what was taken away.

    Arguments:
        gradients: dense gradients, in the shapes of their weights; those without anything to centralize stay as they
            are.
        transposed: per gradient 0, or the number of groups of its transposed convolution; None means 0 throughout.
        into: per gradient a tensor of its shape that takes Pg; the gradients then stay as they are.

    Example:
        >>> gradient = torch.tensor([[1.0, 3.0], [5.0, 5.0]])
        >>> removed = centralize_([gradient])
        >>> gradient.tolist()
        [[-1.0, 1.0], [0.0, 0.0]]
        >>> removed.means[0].tolist()
        [[2.0], [5.0]]
    """
    views, removed = [], Removed()
    for number, gradient in enumerate(gradients):
        groups = 0 if transposed is None else transposed[number]
        target = gradient if into is None else into[number]
        axes = averaged_axes(gradient.shape, groups)
        if not axes or gradient.numel() == 0:
            if into is not None:
                target.copy_(gradient)
            continue
        view = unit_view(gradient, groups)
        mean = view.mean(dim=axes, keepdim=True)
        if into is not None:
            torch.sub(view, mean, out=unit_view(target, groups))  # while the gradient is still in the cache
        views.append(view)
        removed.means.append(mean)
        removed.weights.append(math.sqrt(view.numel() // mean.numel()))
    if into is None and views:
        torch._foreach_sub_(views, removed.means)
    return removed
