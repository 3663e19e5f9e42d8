"""Collect what an ascent needs: parameters and directions, sorted into parts that one fused call can handle."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor

from .centralization import averaged_axes
from .options import check_gradient, check_weight
from .perturbation import Part

Directed = tuple[dict[str, Any], Tensor, Tensor]

# Names under which torch's optimizers keep a running mean of gradients.
_MOMENTA = ("exp_avg", "momentum_buffer")


def gradient_parts(groups: Iterable[dict[str, Any]]) -> list[Part]:
    """Parts along the gradients at hand; a parameter without a gradient is left out and stays where it is.

    Raises:
        RuntimeError: a gradient is sparse.
        TypeError: a weight has been turned to half precision since the optimizer was built.
    """
    found: list[Directed] = []
    for group in groups:
        for parameter in group["params"]:
            gradient = parameter.grad
            if gradient is not None:
                check_weight(parameter)
                check_gradient(parameter, gradient)
                found.append((group, parameter, gradient))
    return _parts(found, sign=1, owned=True)


def momentum_parts(groups: Iterable[dict[str, Any]], state: Mapping[Tensor, Mapping[str, Any]]) -> list[Part]:
    """Parts against the base optimizer's first moments (MSAM, arXiv 2401.12033); empty before there are any.

    The moments stay the base's: a perturbation reads them only.
    """
    found: list[Directed] = []
    for group in groups:
        for parameter in group["params"]:
            if not parameter.requires_grad:
                continue
            check_weight(parameter)
            known = state.get(parameter, {})
            moment = next((known[name] for name in _MOMENTA if known.get(name) is not None), None)
            if moment is not None:
                found.append((group, parameter, moment))
    return _parts(found, sign=-1, owned=False)


def _parts(directed: Sequence[Directed], *, sign: int, owned: bool) -> list[Part]:
    parts: dict[tuple[Any, ...], Part] = {}
    for group, parameter, direction in directed:
        rho, transposed = group["rho"], group["transposed"]
        key = (parameter.device, parameter.dtype, direction.dtype, rho)
        part = parts.get(key)
        if part is None:
            part = parts[key] = Part(rho, sign, owned, [], [], [])
        part.params.append(parameter)
        part.directions.append(direction)
        centralized = group["centralize"] in ("ascent", "both") and averaged_axes(parameter.shape, transposed)
        part.transposed.append(transposed if centralized else None)
    return list(parts.values())
