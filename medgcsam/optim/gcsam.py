"""SAM and GCSAM around any first-order optimizer of torch.optim."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.optim import Optimizer

from .sharpness_aware import SharpnessAware


class SAM(SharpnessAware):
    r"""Sharpness-aware minimization (Foret et al., arXiv 2010.01412): take the gradient at the worst point nearby.

    With g the gradient at w and |.| the 2-norm over all parameters::

        e = rho * g / |g|          w <- base step at w, with the gradient taken at w + e

    Arguments:
        params: parameters, named parameters or groups, as torch's optimizers take them; a group may bring its own
            ``rho``, ``centralize`` and ``transposed`` (see ``parameter_groups``). Per-group ``rho`` scales e there,
            under the one global norm.
        base: class of the optimizer that takes the step; ``base_options`` go to it. ``state``, ``param_groups`` and
            ``defaults`` are shared with it, so that schedulers, checkpoints and scalers see one optimizer. The decay
            that Adadelta calls rho is given as ``base_rho``.
        rho: length of e, 0 or more.
        adaptive: ASAM (Kwon et al., arXiv 2102.11600), e = rho * T^2 g / |T g| with T = |w| + ``eta``, for all
            parameters.
        start: number of steps at the beginning without an ascent, plain steps of the base. For the last 40 percent of a
            training of n steps give ``int(0.6 * n)``; it is an attribute and may be set later.
        every: take an ascent at each ``every``-th step only, counted from ``start``.
        ascent_fraction: part of the batch that the ascent is taken on; ``step`` then wants an ``ascent_closure``, which
            ``ascent_part(batch)`` helps to write.
        ascent_precision: ``"bf16"`` runs the first pass of ``step(closure)`` under bfloat16 autocast, for a training
            that does not do so itself; e is as long as ever, its direction a little coarser, and so is the loss
            returned. None leaves the pass as the closure makes it.
        ascent: ``"gradient"``, or ``"momentum"``, which is another algorithm (MSAM, Becker et al., arXiv 2401.12033):
            e = -rho * m / |m| with m the base's first moment, one pass per step. The base must keep one (``exp_avg``
            or ``momentum_buffer``). Weights are at w between steps; ``swap()`` shows the point w + e.
        max_norm: clip the gradient that the base gets to this 2-norm; None does not.
        skip_nonfinite: leave weights and state alone at a step where either gradient is not finite. Waits for the
            device once a step.
        replay_random: let the second pass of ``step(closure)`` draw the same random numbers as the first (same
            dropout).
        synchronize_ascent: with a DistributedDataParallel ``model`` given to ``step``: average the ascent gradient over
            replicas. The default leaves it local (``no_sync``, "m-sharpness") and saves its communication.

    Example:
        >>> model = nn.Linear(3, 1)
        >>> optimizer = SAM(model.parameters(), torch.optim.AdamW, rho=0.05, lr=1e-3)
        >>> def closure():
        ...     optimizer.zero_grad()
        ...     loss = model(torch.ones(8, 3)).square().mean()
        ...     loss.backward()
        ...     return loss
        >>> loss = optimizer.step(closure)

    The same in two steps; ``ascend`` says whether a second pass is wanted (see ``start``, ``every``)::

        loss.backward()
        if optimizer.ascend():
            optimizer.zero_grad()
            with frozen_statistics(model):          # BatchNorm counts the first pass only
                criterion(model(x), y).backward()
        optimizer.descend()

    float16 with a GradScaler: each pass under an autocast context of its own, ``scaler.scale(loss).backward()`` in
    both, no unscaling after the first; then ``optimizer.descend(scaler=scaler)`` and ``scaler.update()``. In closure
    form ``optimizer.step(closure, scaler=scaler)``. ``scaler.step(optimizer)`` in place of ``descend`` is safe as
    well: an overflow in either pass leaves weights and state as they were; only an overflow of the first pass alone
    does not lower the scale in that form.

    Attributes, for logs, all part of ``state_dict``: ``steps``, ``ascents``, ``skipped`` (counters),
    ``gradient_evaluations`` (passes over a batch, a part of one counted as its fraction), ``last_radius`` (|e| of the
    last ascent) and ``centralized_share`` (|Pg|/|g|). The last two are 0-dimensional tensors on the device: reading
    them does not wait for it, ``.item()`` does.
    """

    def __init__(
        self,
        params: Iterable[Any],
        base: Callable[..., Optimizer] = torch.optim.AdamW,
        rho: float = 0.05,
        *,
        adaptive: bool = False,
        eta: float = 0.01,
        start: int = 0,
        every: int = 1,
        ascent_fraction: float = 1.0,
        ascent_precision: str | None = None,
        ascent: str = "gradient",
        max_norm: float | None = None,
        skip_nonfinite: bool = False,
        replay_random: bool = False,
        synchronize_ascent: bool = False,
        **base_options: Any,
    ) -> None:
        super().__init__(
            params, base, base_options, rho=rho, centralize="none", norm="centralized", adaptive=adaptive, eta=eta,
            start=start, every=every, ascent_fraction=ascent_fraction, ascent_precision=ascent_precision,
            ascent=ascent, max_norm=max_norm, skip_nonfinite=skip_nonfinite, replay_random=replay_random,
            synchronize_ascent=synchronize_ascent,
        )  # fmt: skip


class GCSAM(SharpnessAware):
    r"""Gradient centralized SAM (Hassan et al., arXiv 2501.11584): SAM along the centralized gradient.

    With P the projection that takes from the gradient of each output unit its mean (``centralize_``)::

        e = rho * Pg / |Pg|        w <- base step at w, with the gradient taken at w + e

    All arguments of ``SAM``, and:

    Arguments:
        norm: ``"centralized"`` divides by |Pg|, as the paper's formula does; ``"raw"`` by |g|, as the authors'
            published script does, which shortens the radius to rho * |Pg| / |g| (see ``last_radius``) and changes
            nothing else. The fair control for either is a SAM of the same ``last_radius``.
        centralize: where P acts: on the ``"ascent"`` gradient (the authors' script), on the ``"descent"`` gradient
            that the base gets, on ``"both"``, or on ``"none"`` (SAM). Gradients with one axis, and units with one
            input, are left alone everywhere. ``parameter_groups(model)`` also treats embeddings and transposed
            convolutions rightly.

    Example:
        >>> model = nn.Conv2d(1, 4, 3)
        >>> optimizer = GCSAM(parameter_groups(model), torch.optim.AdamW, rho=0.05, lr=1e-3, weight_decay=1e-2)
        >>> model(torch.randn(2, 1, 8, 8)).square().mean().backward()
        >>> optimizer.ascend()
        True
        >>> optimizer.zero_grad()
        >>> model(torch.randn(2, 1, 8, 8)).square().mean().backward()
        >>> optimizer.descend()
        >>> round(optimizer.last_radius.item(), 4), optimizer.gradient_evaluations
        (0.05, 2)
    """

    def __init__(
        self,
        params: Iterable[Any],
        base: Callable[..., Optimizer] = torch.optim.AdamW,
        rho: float = 0.05,
        *,
        norm: str = "centralized",
        centralize: str = "ascent",
        adaptive: bool = False,
        eta: float = 0.01,
        start: int = 0,
        every: int = 1,
        ascent_fraction: float = 1.0,
        ascent_precision: str | None = None,
        ascent: str = "gradient",
        max_norm: float | None = None,
        skip_nonfinite: bool = False,
        replay_random: bool = False,
        synchronize_ascent: bool = False,
        **base_options: Any,
    ) -> None:
        super().__init__(
            params, base, base_options, rho=rho, centralize=centralize, norm=norm, adaptive=adaptive, eta=eta,
            start=start, every=every, ascent_fraction=ascent_fraction, ascent_precision=ascent_precision,
            ascent=ascent, max_norm=max_norm, skip_nonfinite=skip_nonfinite, replay_random=replay_random,
            synchronize_ascent=synchronize_ascent,
        )  # fmt: skip
