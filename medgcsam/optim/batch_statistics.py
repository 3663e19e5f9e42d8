"""Keep the running statistics of BatchNorm and its like from counting the second pass of a step."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def frozen_statistics(model: nn.Module | None) -> Iterator[None]:
    """Give the buffers of ``model`` back their values at the end of the block, whatever happens inside.

    A step with an ascent has two forward passes: the first at w, the second at w + e. Only the first may update running
    means, variances and batch counters; put the second, forward and backward, inside this block. Inside, layers
    normalize by the batch as always, so that gradients are those of training. Every buffer of a module in training
    mode is saved and copied back in place, which is exact, works with ``momentum=None``, spectral norm and
    ``torch.compile``, and undoes even a NaN. (Setting ``momentum`` to 0, as other implementations do, lets a NaN
    through and still counts the batch.)

    Arguments:
        model: the network; None does nothing.

    Example:
        >>> norm = nn.BatchNorm1d(2)
        >>> with frozen_statistics(norm):
        ...     output = norm(torch.randn(4, 2))
        >>> norm.running_mean.tolist(), int(norm.num_batches_tracked)
        ([0.0, 0.0], 0)
    """
    places: list[tuple[nn.Module, str, torch.Tensor]] = []
    if model is not None:
        training = (module for module in model.modules() if module.training)
        places = [(m, name, b) for m in training for name, b in m.named_buffers(recurse=False, remove_duplicate=False)]
    buffers = list({id(buffer): buffer for _, _, buffer in places}.values())
    with torch.no_grad():
        saved = [buffer.clone() for buffer in buffers]
    try:
        yield
    finally:
        for module, name, buffer in places:  # a module may have put another tensor in a buffer's place
            if getattr(module, name) is not buffer and not isinstance(module, torch.jit.ScriptModule):
                module._buffers[name] = buffer
        if buffers:
            with torch.no_grad():
                torch._foreach_copy_(buffers, saved)
