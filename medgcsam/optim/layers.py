"""Parameter groups that tell the optimizer what a tensor alone cannot: which weights belong to which kind of layer."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

_ROWS_ARE_UNITS = (nn.Linear, nn.Bilinear, nn.RNNBase, nn.RNNCellBase, nn.MultiheadAttention)
_EMBEDDINGS = (nn.Embedding, nn.EmbeddingBag)


def parameter_groups(model: nn.Module, **options: Any) -> list[dict[str, Any]]:
    """Split the trainable parameters of ``model`` by the way that gradient centralization must treat them.

    A bare list of parameters is centralized by shape: every tensor with more than one axis, unit axis first, as the
    published script does. That is wrong for transposed convolutions (their output channel is on axis 1) and for
    embeddings, position tables and norm weights of several axes (not weights of units at all).

    Returns:
        Up to three kinds of group, empty ones left out, each with the given ``options`` (such as ``lr``):
        weights of linear, recurrent, attention and convolution layers; weights of transposed convolutions, one group
        per number of convolution groups, with ``transposed`` set to that number; all the rest with
        ``centralize="none"``. Pass them to ``GCSAM`` in place of ``model.parameters()``. A weight shared with an
        embedding is not centralized.

    Example:
        >>> groups = parameter_groups(nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ConvTranspose2d(4, 2, 2)))
        >>> [(len(group["params"]), group.get("transposed", 0), group.get("centralize")) for group in groups]
        [(1, 0, None), (1, 1, None), (4, 0, 'none')]
    """
    kind: dict[nn.Parameter, int | None] = {}
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            if parameter.requires_grad:
                own = _kind(module, parameter)
                # A tensor owned by two layers that disagree is left alone.
                kind[parameter] = own if kind.get(parameter, own) == own else None
    groups: list[dict[str, Any]] = []
    units = [parameter for parameter, own in kind.items() if own == 0]
    if units:
        groups.append({"params": units, **options})
    for count in sorted({own for own in kind.values() if own}):
        weights = [parameter for parameter, own in kind.items() if own == count]
        groups.append({"params": weights, "transposed": count, **options})
    rest = [parameter for parameter, own in kind.items() if own is None]
    if rest:
        groups.append({"params": rest, **options, "centralize": "none"})
    return groups


def _kind(module: nn.Module, parameter: nn.Parameter) -> int | None:
    """0: rows are units; n > 0: transposed convolution with n groups; None: not to be centralized."""
    if parameter.dim() < 2 or isinstance(module, _EMBEDDINGS):
        return None
    if isinstance(module, _ConvTransposeNd):
        return module.groups
    if isinstance(module, nn.MultiheadAttention) and parameter is not module.in_proj_weight:
        # bias_k and bias_v have three axes and are biases all the same.
        return 0 if any(parameter is getattr(module, f"{name}_proj_weight") for name in "qkv") else None
    return 0 if isinstance(module, (_ConvNd, *_ROWS_ARE_UNITS)) else None
