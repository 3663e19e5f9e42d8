"""What DistributedDataParallel asks of an optimizer with two passes per step."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel


def no_sync(model: nn.Module | None) -> AbstractContextManager:
    """The ``no_sync`` of a DistributedDataParallel ``model``; nothing for any other module, or None.

    Forward and backward of the first pass both belong inside: DistributedDataParallel decides at the forward pass.

    Raises:
        RuntimeError: the model was built with ``static_graph=True``, which needs every pass synchronised.
    """
    model = _not_compiled(model)
    if getattr(model, "static_graph", False):
        raise RuntimeError(
            "DistributedDataParallel(static_graph=True) allows no pass of a replica's own: give the optimizer "
            "synchronize_ascent=True, or build the model without static_graph."
        )
    return model.no_sync() if hasattr(model, "no_sync") else nullcontext()


@torch.no_grad()
def share_overflow(norm: Tensor, model: nn.Module | None) -> Tensor:
    """A norm that is finite on every replica, or on none: where one replica skips a step, all must.

    Arguments:
        norm: 0-dimensional, of this replica's own first pass.
        model: a DistributedDataParallel model; the sum of the norms over its replicas is returned, in which an inf or
            NaN of any stays. Of any other module, or None, ``norm`` itself.
    """
    model = _not_compiled(model)
    if not isinstance(model, DistributedDataParallel):
        return norm
    total = norm.clone()
    torch.distributed.all_reduce(total, group=model.process_group)
    return total


def _not_compiled(model: nn.Module | None) -> nn.Module | None:
    """The module inside of what ``torch.compile`` makes of it."""
    return getattr(model, "_orig_mod", model)
