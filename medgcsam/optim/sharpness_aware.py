"""The machinery shared by SAM and GCSAM: an ascent, a second pass, an exact way back, a step of the base optimizer."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from .amp import ScalerPort, ascent_autocast, hand_overflow_on, not_finite, unscale_
from .batch_statistics import frozen_statistics
from .centralization import centralize_
from .directions import gradient_parts, momentum_parts
from .levers import ascent_is_due, part_of_batch, random_state, replayed, samples_of
from .options import base_rho_in_place, check_gradient, check_group, check_weight
from .perturbation import Geometry, Part, Perturbation
from .replicas import no_sync, share_overflow
from .shared_state import SharedState

Closure = Callable[[], Any]


class SharpnessAware(SharedState):
    """Base of SAM and GCSAM; not for direct use. Options and attributes are described there."""

    # GradScaler then calls step() in every case, with found_inf, instead of skipping it with the weights still moved.
    _step_supports_amp_scaling = True

    def __init__(
        self,
        params: Iterable[Any],
        base: Callable[..., Optimizer],
        base_options: dict[str, Any],
        *,
        rho: float,
        centralize: str,
        **options: Any,
    ) -> None:
        super().__init__(params, base, base_options, {"rho": rho, "centralize": centralize}, options)

    def step(
        self,
        closure: Closure | None = None,
        *,
        ascent_closure: Closure | None = None,
        model: nn.Module | None = None,
        scaler: torch.amp.GradScaler | None = None,
    ) -> Any:
        """One whole step.

        Arguments:
            closure: zero_grad, forward, backward; returns the loss. Called at w and at w + e, or once where no ascent
                is due.
            ascent_closure: the same on a part of the batch, called in place of the first ``closure``; needed and used
                only with ``ascent_fraction`` below 1.
            model: its BatchNorm statistics then count the pass at w only (``frozen_statistics`` around the second); of
                a DistributedDataParallel model, the first pass runs under ``no_sync``.
            scaler: a GradScaler, whose ``scale`` the closures apply to the loss; call ``scaler.update()`` afterwards.

        Returns:
            The loss of the first call; with ``ascent="momentum"`` of the only one, at w + e.

        Raises:
            RuntimeError: no closure and no ``ascend()`` before; no gradients; sparse gradients; weights swapped.
                Weights are back at w by then, as they are when a closure raises.
            ValueError: ``ascent_fraction`` is below 1 and there is no ``ascent_closure``.
        """
        self._refuse_while_swapped()
        if closure is None:
            if not self._announced:
                raise RuntimeError(
                    "step() needs a closure that runs zero_grad, forward and backward; "
                    "without one, call ascend() before it."
                )
            self._finish(getattr(self, "found_inf", None), getattr(self, "grad_scale", None))
            return None
        if self._announced:
            raise RuntimeError(
                "step(closure) was called between ascend() and descend(): call descend() or restore() first."
            )
        scaled = scaler is not None and scaler.is_enabled()
        first = self._first_closure(closure, ascent_closure)
        try:
            with torch.enable_grad():
                loss = self._both_passes(first, closure, model, watched=scaled or self.skip_nonfinite)
        except BaseException:
            self.restore()
            raise
        if scaled:
            self._pass_overflow_on()
            self.restore()
            self._port.param_groups = self.param_groups
            scaler.step(self._port)
        else:
            self._finish()
        return loss

    def ascend(self, *, model: nn.Module | None = None) -> bool:
        """Save the weights and move them to w + e, e from the gradients at hand (which are used up in place).

        A DistributedDataParallel ``model`` whose first pass ran under ``no_sync``, if given, lets the replicas agree
        on an overflow of that pass; without it and with a GradScaler or ``skip_nonfinite`` they may part there.

        Returns:
            Whether a second pass is wanted before ``descend``. False where no ascent is due by ``start`` and
            ``every``, and with ``ascent="momentum"``, where ``ascend`` goes before the only forward pass.

        Raises:
            RuntimeError: there are no gradients, one is sparse, the last ascent has not been ended, or weights are
                swapped.
        """
        self._refuse_while_swapped()
        if self._announced:
            raise RuntimeError("ascend() was called twice in a row: call descend() or restore() between.")
        if self.ascent == "momentum" and any(
            p.grad is not None for group in self.param_groups for p in group["params"]
        ):
            raise RuntimeError('With ascent="momentum", call zero_grad() and ascend() before the forward pass.')
        moved = self._ascend()
        if moved and model is not None:
            self._first_norm = share_overflow(self._first_norm, model)
        return moved

    def descend(self, *, scaler: torch.amp.GradScaler | None = None) -> None:
        """Copy the saved weights back and take the base optimizer's step with the gradients at hand.

        With a ``scaler`` the step goes through ``scaler.step``; then call ``scaler.update()``.

        Raises:
            RuntimeError: ``ascend`` was not called, or there are no gradients.
        """
        if scaler is None or not scaler.is_enabled():
            self.step()
            return
        if self._announced:
            self._pass_overflow_on()
            self._way_back()
        scaler.step(self)

    def restore(self) -> None:
        """Copy the saved weights back without a step, to give up between ``ascend`` and ``descend``."""
        self._give_up()

    def _give_up(self, *, keep_written: bool = False) -> None:
        self._way_back(keep_written=keep_written)
        self._announced = self._swapped = False
        self._samples = (0, 0)

    def swap(self) -> None:
        """Exchange w and the point at which ``ascent="momentum"`` takes its gradients; the next call changes back.

        Between steps the weights are at w: evaluation and checkpoints need nothing. This lets you evaluate, for
        comparison, at w - rho m/|m|, the point whose loss a step returns. Before the first step they are the same.

        Raises:
            RuntimeError: ``ascent`` is not "momentum", or it is called between ``ascend`` and ``descend``.
        """
        if self.ascent != "momentum":
            raise RuntimeError('swap() is for ascent="momentum"; otherwise the weights are at w between steps anyway.')
        if self._announced:
            raise RuntimeError("swap() was called between ascend() and descend(): call descend() or restore() first.")
        if self._swapped:
            self.restore()
            return
        self._move(self._momentum_parts())
        self._swapped = True

    def ascent_part(self, batch: Any) -> Any:
        """The part of ``batch`` that ``ascent_fraction`` gives the ascent, see ``part_of_batch``.

        A part is rounded up to whole samples; ``gradient_evaluations`` counts the samples taken this way. Of parts
        that were cut elsewhere it counts ``ascent_fraction``.
        """
        part = part_of_batch(batch, self.ascent_fraction)
        self._samples = (self._samples[0] + samples_of(part), self._samples[1] + samples_of(batch))
        return part

    @property
    def last_radius(self) -> Tensor:
        """Euclidean length of e at the last ascent, on the device; not a number before the first."""
        return self._loaded["last_radius"] if self._geometry is None else self._geometry.radius()

    @property
    def centralized_share(self) -> Tensor:
        """|Pg| / |g| at the last ascent, on the device; 1 where P is not applied, not a number before the first."""
        return self._loaded["centralized_share"] if self._geometry is None else self._geometry.share()

    def _begin(self, readings: dict[str, Tensor]) -> None:
        self._perturbation = Perturbation()
        self._announced = self._swapped = False
        # One for all steps: a scaler knows its optimizers by id().
        self._port = ScalerPort([], self._finish)
        self._geometry: Geometry | None = None
        self._first_norm: Tensor | None = None
        self._samples = (0, 0)  # of the ascent's part and of the whole batch, since the last step
        self._loaded = readings

    def _refuse_while_moved(self, what: str) -> None:
        self._refuse_while_swapped()
        if self._perturbation.active:
            raise RuntimeError(
                f"The optimizer cannot be {what} between ascend() and descend(): the weights are away from w."
            )

    def _refuse_while_swapped(self) -> None:
        if self._swapped:
            raise RuntimeError("The weights are away from w since swap(): call swap() again first.")

    def _first_closure(self, closure: Closure, ascent_closure: Closure | None) -> Closure:
        if self.ascent_fraction == 1 or not ascent_is_due(self.steps, self.start, self.every):
            return closure
        if ascent_closure is None:
            raise ValueError(
                f"ascent_fraction is {self.ascent_fraction}: give step() an ascent_closure for ascent_part(batch)."
            )
        return ascent_closure

    def _both_passes(self, first: Closure, closure: Closure, model: nn.Module | None, *, watched: bool) -> Any:
        if self.ascent == "momentum":
            self._ascend()
            return closure()
        due = ascent_is_due(self.steps, self.start, self.every)
        local = due and not self.synchronize_ascent
        devices = {parameter.device for group in self.param_groups for parameter in group["params"]}
        draws = random_state(devices) if due and self.replay_random else None
        with no_sync(model if local else None), ascent_autocast(self.ascent_precision if due else None, devices):
            loss = first()
        if self._ascend():
            if local and watched:
                self._first_norm = share_overflow(self._first_norm, model)
            # A second closure that forgets zero_grad, or backward, must not step with the gradient at w.
            self.zero_grad()
            with frozen_statistics(model), replayed(draws):
                closure()
        return loss

    def _ascend(self) -> bool:
        self._first_norm = None
        if not ascent_is_due(self.steps, self.start, self.every):
            self._announced = True
            return False
        for group in self.param_groups:
            check_group({**group, "params": ()})  # a user or a scheduler may have changed it
        by_gradient = self.ascent == "gradient"
        parts = gradient_parts(self.param_groups) if by_gradient else self._momentum_parts()
        if by_gradient and not parts:
            raise RuntimeError(
                "No parameter has a gradient to ascend along: did the closure call backward() on the loss?"
            )
        if parts:
            self._geometry = self._move(parts)
            self.ascents += 1
        if by_gradient:
            self._first_norm = self._geometry.norm
            taken, offered = self._samples
            part = taken / offered if offered else self.ascent_fraction
            self.gradient_evaluations += 1 if self.ascent_fraction == 1 else part
        self._announced = True
        return by_gradient

    def _move(self, parts: list[Part]) -> Geometry | None:
        if not parts:
            return None
        try:
            return self._perturbation.apply(parts, norm=self.norm, adaptive=self.adaptive, eta=self.eta)
        except BaseException:
            self.restore()
            raise
        finally:
            torch.clear_autocast_cache()  # an autocast region around both passes must not serve casts of w at w + e

    def _way_back(self, *, keep_written: bool = False) -> None:
        if self._perturbation.active:
            self._perturbation.restore(keep_written=keep_written)
            torch.clear_autocast_cache()

    def _finish(self, found_inf: Tensor | None = None, grad_scale: Tensor | None = None) -> None:
        """Way back, checks, centralization and clipping of the descent gradient, step of the base."""
        self.restore()
        gradients = self._gradients()
        if not gradients:
            raise RuntimeError(
                "No parameter has a gradient to descend along: did the closure call backward() on the loss?"
            )
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    check_weight(parameter)
                    check_gradient(parameter, parameter.grad)
        self._samples = (0, 0)
        self.steps += 1
        self.gradient_evaluations += 1
        if found_inf is not None and self._overflowed(found_inf):
            self.skipped += 1
            return
        if grad_scale is not None:
            unscale_(gradients, grad_scale)
        with torch.no_grad():
            self._centralize_descent()
            if self.skip_nonfinite and self._overflowed(not_finite(gradients)):
                self.skipped += 1
                return
            if self.max_norm is not None:
                torch.nn.utils.clip_grad_norm_([p for g in self.param_groups for p in g["params"]], self.max_norm)
        with base_rho_in_place(self.param_groups):
            self.base.step()

    def _gradients(self) -> list[Tensor]:
        return [p.grad for group in self.param_groups for p in group["params"] if p.grad is not None]

    def _overflowed(self, now: Tensor) -> bool:
        if self._first_norm is not None:
            now = now + torch.isfinite(self._first_norm).logical_not().to(now.device)
        return bool(now.item())

    def _pass_overflow_on(self) -> None:
        hand_overflow_on(self._gradients(), self._first_norm)

    def _centralize_descent(self) -> None:
        for group in self.param_groups:
            if group["centralize"] in ("descent", "both"):
                weights = [p for p in group["params"] if p.grad is not None]
                centralize_([w.grad for w in weights], [group["transposed"]] * len(weights))

    def _momentum_parts(self) -> list[Part]:
        parts = momentum_parts(self.param_groups, self.state)
        if not parts and self.steps > self.skipped:
            raise RuntimeError(
                f'ascent="momentum" needs a base that keeps a first moment, which {type(self.base).__name__} with '
                "these options does not: take AdamW, or SGD with momentum."
            )
        return parts
