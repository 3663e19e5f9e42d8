"""Move weights to the worst point nearby and back again: preallocated, fused, exact, without waiting for the device."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .centralization import Removed, centralize_

LARGE, PIECE = 2**22, 2**16
"""torch's norm on a CPU adds up squares in float32, one after the other, which is up to 2% off for 100 million
elements; tensors of more than LARGE elements are taken PIECE by PIECE."""


@dataclass
class Part:
    """Tensors that share device, type and radius.

    ``directions`` that are ``owned`` (gradients) belong to the perturbation from here on and are changed in place;
    others (moments of the base) are only read. ``transposed`` has per tensor the layout that ``centralize_`` takes,
    None where the tensor is not centralized. ``sign`` is -1 to move against the direction.
    """

    rho: float
    sign: int
    owned: bool
    params: list[Tensor]
    directions: list[Tensor]
    transposed: list[int | None]


@dataclass
class Geometry:
    """What is known about the last perturbation, as 0-dimensional tensors on the device, so that nobody waits for it.

    Per part ``lengths`` holds rho and the length of e before division by ``norm``, ``centralized`` |Pg|, and
    ``removed`` what P took away. What only readers want is computed when they ask.
    """

    lengths: list[tuple[float, Tensor]]
    norm: Tensor
    centralized: list[Tensor]
    removed: list[Removed]

    def radius(self) -> Tensor:
        """Euclidean length of e; 0 where the norm was zero or not finite, so that nothing was moved."""
        moved = (self.norm > 0) & torch.isfinite(self.norm)
        return torch.where(
            moved, _total([length * rho for rho, length in self.lengths]) / self.norm, torch.zeros_like(self.norm)
        )

    def share(self) -> Tensor:
        """|Pg| / |g|, in [0, 1]; not a number where the gradient is zero or not finite."""
        return _total(self.centralized) / _raw_norm(self.centralized, self.removed)


class Perturbation:
    """Saved weights and scratch space, allocated once per parameter and used again at every step."""

    def __init__(self) -> None:
        self._saved: dict[Tensor, Tensor] = {}
        self._scratch: dict[Tensor, Tensor] = {}
        self._own: dict[Tensor, Tensor] = {}
        self._moved: list[tuple[list[Tensor], list[Tensor], list[int]]] = []

    @property
    def active(self) -> bool:
        """Whether weights are away from their place."""
        return bool(self._moved)

    @torch.no_grad()
    def apply(self, parts: Sequence[Part], *, norm: str, adaptive: bool, eta: float) -> Geometry:
        """Save all weights of ``parts`` and add e to them.

        e = rho * d / |d| with d = Pg, P acting where ``Part.transposed`` says so (SAM, arXiv 2010.01412; GCSAM, arXiv
        2501.11584). With ``norm="raw"`` the divisor is |g|, taken before P. ``adaptive`` (ASAM, arXiv 2102.11600):
        with T = |w| + eta, element by element, e = rho * T^2 d / |T d|. The norm runs over all parts; if it is zero
        or not finite no weight moves.
        """
        lengths: list[tuple[float, Tensor]] = []
        divisors, centralized, removed = [], [], []
        for part in parts:
            if adaptive and not part.owned:
                part.directions = self._copies(part)
            if adaptive and norm == "raw":
                weighted = self._stretch(part, eta)
                torch._foreach_mul_(weighted, part.directions)
                divisors.append(_length(weighted))
            removed.append(self._centralize(part, in_place=part.owned or adaptive))
            length = _length(part.directions)
            centralized.append(length)
            if adaptive:
                stretch = self._stretch(part, eta)
                torch._foreach_mul_(part.directions, stretch)
                if norm == "centralized":
                    divisors.append(_length(part.directions))
                torch._foreach_mul_(part.directions, stretch)
                length = _length(part.directions)
            lengths.append((part.rho, length))
        if adaptive:
            divisor = _total(divisors)
        else:
            divisor = _raw_norm(centralized, removed) if norm == "raw" else _total(centralized)
        self._move(parts, divisor)
        return Geometry(lengths, divisor, centralized, removed)

    @torch.no_grad()
    def restore(self, *, keep_written: bool = False) -> None:
        """Copy the saved weights back, bit for bit, in place; nothing happens where nothing was moved.

        With ``keep_written`` weights stay that were written in place since, as a model's ``load_state_dict`` does.
        """
        for params, saved, versions in self._moved:
            if keep_written:
                old = [n for n, (weight, version) in enumerate(zip(params, versions, strict=True))
                       if weight._version == version]  # fmt: skip
                params, saved = [params[n] for n in old], [saved[n] for n in old]
            if params:
                torch._foreach_copy_(params, saved)
        self._moved = []

    def _copies(self, part: Part) -> list[Tensor]:
        copies = _buffers(self._own, part.params)
        torch._foreach_copy_(copies, part.directions)
        return copies

    def _centralize(self, part: Part, *, in_place: bool) -> Removed:
        """Directions become Pg, in buffers of their own unless ``in_place``; returns what ``centralize_`` returns."""
        chosen = [n for n, layout in enumerate(part.transposed) if layout is not None]
        if not chosen:
            return Removed()
        directions, layouts = [part.directions[n] for n in chosen], [part.transposed[n] for n in chosen]
        if in_place:
            return centralize_(directions, layouts)
        buffers = _buffers(self._own, [part.params[n] for n in chosen])
        part.directions = list(part.directions)
        for n, buffer in zip(chosen, buffers, strict=True):
            part.directions[n] = buffer
        return centralize_(directions, layouts, into=buffers)

    def _stretch(self, part: Part, eta: float) -> list[Tensor]:
        stretch = _buffers(self._scratch, part.params)
        torch._foreach_copy_(stretch, part.params)
        torch._foreach_abs_(stretch)
        torch._foreach_add_(stretch, eta)
        return stretch

    def _move(self, parts: Sequence[Part], divisor: Tensor) -> None:
        inverse = divisor.reciprocal()
        # Zero gives inf, inf gives zero, NaN stays: one interval tells all three from a usable norm.
        unusable = ((inverse > 0) & (inverse < math.inf)).logical_not()
        for part in parts:
            saved = _buffers(self._saved, part.params)
            torch._foreach_copy_(saved, part.params)
            versions: list[int] = []
            self._moved.append((part.params, saved, versions))
            self._add_scaled(part, inverse * part.rho, unusable)
            versions += [weight._version for weight in part.params]

    def _add_scaled(self, part: Part, scale: Tensor, unusable: Tensor) -> None:
        """params += sign * scale * directions, or nothing where ``unusable``; both are read on the device only."""
        device, dtype = part.params[0].device, part.params[0].dtype
        scale, unusable = scale.to(device), unusable.to(device)
        # torch's fused SGD kernel is exactly this: a fused multiply-add whose factor and whose "skip me" flag live on
        # the device. It walks memory linearly, hence the check of strides, and takes its factor as float32 on CUDA.
        fits = device.type == "cpu" or (device.type == "cuda" and dtype == torch.float32)
        fused_params, fused_directions = [], []
        for parameter, direction in zip(part.params, part.directions, strict=True):
            if fits and _same_memory(parameter, direction):
                fused_params.append(_linear(parameter))
                fused_directions.append(_linear(direction))
            else:
                (step,) = _buffers(self._scratch, [parameter])
                torch.mul(direction, scale, out=step)
                parameter.add_(step.masked_fill_(unusable, 0.0), alpha=part.sign)
        if fused_params:
            torch._fused_sgd_(
                fused_params, fused_directions, [], weight_decay=0.0, momentum=0.0, lr=scale, dampening=0.0,
                nesterov=False, maximize=part.sign > 0, is_first_step=False, found_inf=unusable.float(),
            )  # fmt: skip
            torch.autograd.graph.increment_version(part.params)


def _linear(tensor: Tensor) -> Tensor:
    """A contiguous view of dense memory in any order of axes; the CPU kernel would copy what is channels_last."""
    if tensor.is_contiguous():
        return tensor
    order = sorted(range(tensor.dim()), key=lambda axis: (tensor.size(axis) > 1, -tensor.stride(axis)))
    return tensor.detach().permute(order)


def _same_memory(parameter: Tensor, direction: Tensor) -> bool:
    if parameter.is_contiguous() and direction.is_contiguous():
        return parameter.dtype is direction.dtype
    if parameter.dtype is not direction.dtype:
        return False
    if _strides(parameter) != _strides(direction):
        return False
    # channels_last is dense too; a slice of a larger tensor is not.
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    return parameter.dim() in formats and parameter.is_contiguous(memory_format=formats[parameter.dim()])


def _strides(tensor: Tensor) -> list[int]:
    """Strides of the axes that have more than one element; those of the others say nothing."""
    return [stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True) if size > 1]


def _length(tensors: Sequence[Tensor]) -> Tensor:
    """2-norm over all elements of ``tensors`` (one device, one type), in float32 or wider, on their device."""
    dtype = torch.float32 if tensors[0].dtype in (torch.float16, torch.bfloat16) else None
    if tensors[0].device.type == "cpu" and tensors[0].dtype == torch.float32:
        tensors = [piece for tensor in tensors for piece in _pieces(tensor)]
    return _total(torch._foreach_norm(tensors, 2, dtype))


def _pieces(tensor: Tensor) -> Sequence[Tensor]:
    if tensor.numel() <= LARGE or not _linear(tensor).is_contiguous():
        return (tensor,)
    return _linear(tensor).view(-1).split(PIECE)


def _raw_norm(centralized: Sequence[Tensor], removed: Sequence[Removed]) -> Tensor:
    """|g| from |Pg| and |g - Pg|, which are orthogonal."""
    return _total([*centralized, *(length for part in removed for length in part.lengths())])


def _total(norms: Sequence[Tensor]) -> Tensor:
    """2-norm of 0-dimensional tensors, in the widest of their types, on the device of the first."""
    if len(norms) == 1:
        return norms[0]
    kinds = {(norm.device, norm.dtype) for norm in norms}
    if len(kinds) > 1:
        widest = max((dtype for _, dtype in kinds), key=lambda dtype: dtype.itemsize)
        norms = [norm.to(norms[0].device, widest) for norm in norms]
    return torch.linalg.vector_norm(torch.stack(norms))


def _buffers(cache: dict[Tensor, Tensor], params: Sequence[Tensor]) -> list[Tensor]:
    """One buffer per parameter from ``cache``, made anew only where a parameter is new or has changed its kind."""
    found = []
    for parameter in params:
        buffer = cache.get(parameter)
        if (
            buffer is None
            or buffer.shape != parameter.shape
            or buffer.dtype != parameter.dtype
            or buffer.device != parameter.device
        ):
            buffer = cache[parameter] = torch.empty_like(parameter, requires_grad=False)
        found.append(buffer)
    return found
