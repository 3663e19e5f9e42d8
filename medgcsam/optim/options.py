"""Checks of everything a user may hand to SAM and GCSAM: one clear sentence per mistake."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

NORMS = ("centralized", "raw")
PLACES = ("ascent", "descent", "both", "none")
ASCENTS = ("gradient", "momentum")
PRECISIONS = (None, "bf16")

_UNFIT_BASES = {
    "LBFGS": "it calls the closure itself, many times a step",
    "SparseAdam": "it needs sparse gradients, which have no ascent direction over all weights",
}


def check_options(options: Mapping[str, Any]) -> None:
    """Check the options of a whole optimizer, those of ``SAM.__init__`` by name.

    Raises:
        ValueError: an option is outside its range or not one of its names.
    """
    _one_of("norm", options["norm"], NORMS)
    _one_of("ascent", options["ascent"], ASCENTS)
    _one_of("ascent_precision", options["ascent_precision"], PRECISIONS)
    _at_least("eta", options["eta"], 0)
    _whole("start", options["start"], 0)
    _whole("every", options["every"], 1)
    for name in ("adaptive", "skip_nonfinite", "replay_random", "synchronize_ascent"):
        if not isinstance(options[name], bool):
            raise ValueError(f"{name} must be True or False, but is {options[name]!r}.")
    if not _is_number(options["ascent_fraction"]) or not 0 < options["ascent_fraction"] <= 1:
        raise ValueError(f"ascent_fraction must lie in (0, 1], but is {options['ascent_fraction']!r}.")
    max_norm = options["max_norm"]
    if max_norm is not None and not (_is_number(max_norm) and max_norm > 0):
        raise ValueError(f"max_norm must be above 0, or None for no clipping, but is {max_norm!r}.")
    if options["ascent"] == "momentum":
        for name, off in (("ascent_fraction", 1), ("ascent_precision", None)):
            if options[name] != off:
                raise ValueError(f'{name} has no meaning with ascent="momentum", which takes no ascent pass.')


def check_base(base: Callable[..., Optimizer], base_options: Mapping[str, Any]) -> None:
    """Check the base optimizer's class and options.

    Raises:
        TypeError: ``base`` is an optimizer already built, or nothing that can be called.
        ValueError: a base or option that a sharpness-aware step cannot use.
    """
    if isinstance(base, Optimizer) or not callable(base):
        raise TypeError(
            "base must be an optimizer class such as torch.optim.AdamW, with its options given beside it, "
            f"but is {base!r}."
        )
    made, given = base, dict(base_options)
    while isinstance(made, functools.partial):
        made, given = made.func, {**made.keywords, **given}
    for name in (ancestor.__name__ for ancestor in getattr(made, "__mro__", ())):
        if name == "SharpnessAware":
            raise ValueError(f"{made.__name__} cannot be the base of another: take AdamW or SGD, for example.")
        if name in _UNFIT_BASES:
            raise ValueError(
                f"{name} cannot be the base optimizer: {_UNFIT_BASES[name]}; take AdamW or SGD, for example."
            )
    if given.get("differentiable"):
        raise ValueError("differentiable=True cannot be used here: weights are moved and restored outside of autograd.")


def check_group(group: Mapping[str, Any]) -> None:
    """Check one parameter group: rho, centralize, layout, and the types of its weights.

    Raises:
        ValueError: rho is negative or not finite, centralize or transposed is not one of its values, or maximize is
            set.
        TypeError: a weight is in half precision or complex.
    """
    _at_least("rho", group["rho"], 0)
    _one_of("centralize", group["centralize"], PLACES)
    _whole("transposed", group["transposed"], 0)
    if group.get("maximize"):
        raise ValueError(
            "maximize=True would look for the best point nearby instead of the worst; negate the loss instead."
        )
    for parameter in group["params"]:
        check_weight(parameter)


def clashing_option(base: Callable[..., Optimizer], base_options: Mapping[str, Any]) -> dict[str, Any]:
    """``base_rho`` for a base with a ``rho`` of its own (Adadelta's decay): as given, or by the base's default."""
    made = base
    while isinstance(made, functools.partial):
        made = made.func
    for maker in (base, *getattr(made, "__mro__", ())):
        own = inspect.signature(maker).parameters.get("rho") if maker is not object else None
        if own is not None:
            value = base_options.get("base_rho", own.default)
            if not _is_number(value) or not 0 <= value <= 1:
                raise ValueError(f"base_rho, the base's own rho, must lie in [0, 1], but is {value!r}.")
            return {"base_rho": value}
    return {}


@contextmanager
def base_rho_in_place(groups: Iterable[dict[str, Any]]) -> Iterator[None]:
    """Let the base read its own ``rho`` from the shared groups, which keep the radius there."""
    clashing = [(group, group["rho"]) for group in groups if "base_rho" in group]
    for group, _ in clashing:
        group["rho"] = group["base_rho"]
    try:
        yield
    finally:
        for group, radius in clashing:
            group["rho"] = radius


def check_weight(weight: Tensor) -> None:
    """Refuse a trainable weight in which a perturbation would get lost, or whose gradient has no real direction.

    Raises:
        TypeError: half precision, complex, or a DTensor.
    """
    if not weight.requires_grad or (weight.dtype is torch.float32 and type(weight) is torch.nn.Parameter):
        return
    if weight.dtype in (torch.float16, torch.bfloat16):
        raise TypeError(
            f"Weights in {weight.dtype} are too coarse for the perturbation (at rho 0.05 one in seven moves at all): "
            "keep the weights in float32 and use torch.autocast for the passes."
        )
    if weight.is_complex():
        raise TypeError("Complex weights are not supported: hold real and imaginary part as two real tensors.")
    if hasattr(weight, "placements"):
        raise TypeError(
            "Weights spread over processes (DTensor, as fully_shard makes them) are not supported: each process would "
            "see the norm of its own part only; use DistributedDataParallel."
        )


def check_gradient(parameter: Tensor, gradient: Tensor) -> None:
    """Refuse sparse gradients.

    Raises:
        RuntimeError: the gradient of ``parameter`` is sparse.
    """
    if gradient.layout != torch.strided:
        raise RuntimeError(
            f"A weight of shape {tuple(parameter.shape)} has a sparse gradient, which has no mean per unit and no "
            "dense direction: build its embedding with sparse=False."
        )


def _one_of(name: str, value: Any, names: tuple[str | None, ...]) -> None:
    if value not in names:
        raise ValueError(f"{name} must be one of {', '.join(map(str, names))}, but is {value!r}.")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _at_least(name: str, value: Any, lowest: float) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < lowest:
        raise ValueError(f"{name} must be a finite number of {lowest} or more, but is {value!r}.")


def _whole(name: str, value: Any, lowest: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < lowest:
        raise ValueError(f"{name} must be a whole number of {lowest} or more, but is {value!r}.")
