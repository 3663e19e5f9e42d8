"""The machinery shared by SAM and GCSAM: an ascent, a second pass, an exact way back, a step of the base optimizer."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from .amp import ScalerPort, hand_overflow_on, unscale_
from .batch_statistics import frozen_statistics
from .centralization import centralize_
from .directions import gradient_parts, momentum_parts
from .levers import ascent_is_due, part_of_batch, random_state, replayed
from .options import base_rho_in_place, check_base, check_gradient, check_group, check_options, clashing_option
from .perturbation import Geometry, Part, Perturbation

OPTIONS = ("norm", "adaptive", "eta", "start", "every", "ascent_fraction", "ascent", "max_norm", "skip_nonfinite",
           "replay_random", "synchronize_ascent")  # fmt: skip
COUNTERS = ("steps", "ascents", "skipped", "gradient_evaluations")

_GROUP_OPTIONS = ("rho", "centralize", "transposed")

Closure = Callable[[], Any]


class SharpnessAware(Optimizer):
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
        check_options(options)
        check_base(base, base_options)
        own_defaults = {"rho": rho, "centralize": centralize, "transposed": 0, **clashing_option(base, base_options)}
        base_options = {name: value for name, value in base_options.items() if name != "base_rho"}
        super().__init__(params, dict(own_defaults))
        for name in OPTIONS:
            setattr(self, name, options[name])
        for name in COUNTERS:
            setattr(self, name, 0)
        self._begin()
        self.base = base(self.param_groups, **base_options)
        self.base.defaults.update(own_defaults)
        self.defaults, self.state, self.param_groups = self.base.defaults, self.base.state, self.base.param_groups
        for group in self.param_groups:
            check_group(group)

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
            RuntimeError: no closure and no ``ascend()`` before; no gradients; sparse gradients. Weights are back at w
                by then, as they are when a closure raises.
            ValueError: ``ascent_fraction`` is below 1 and there is no ``ascent_closure``.
        """
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
        first = self._first_closure(closure, ascent_closure)
        try:
            with torch.enable_grad():
                loss = self._both_passes(first, closure, model)
        except BaseException:
            self.restore()
            raise
        if scaler is not None and scaler.is_enabled():
            self._pass_overflow_on()
            self._perturbation.restore()
            self._port.param_groups = self.param_groups
            scaler.step(self._port)
        else:
            self._finish()
        return loss

    def ascend(self) -> bool:
        """Save the weights and move them to w + e, e from the gradients at hand (which are used up in place).

        Returns:
            Whether a second pass is wanted before ``descend``. False where no ascent is due by ``start`` and
            ``every``, and with ``ascent="momentum"``, where ``ascend`` goes before the only forward pass.

        Raises:
            RuntimeError: there are no gradients, one is sparse, or the last ascent has not been ended.
        """
        if self._announced:
            raise RuntimeError("ascend() was called twice in a row: call descend() or restore() between.")
        if self.ascent == "momentum" and any(
            p.grad is not None for group in self.param_groups for p in group["params"]
        ):
            raise RuntimeError('With ascent="momentum", call zero_grad() and ascend() before the forward pass.')
        return self._ascend()

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
            self._perturbation.restore()
        scaler.step(self)

    @torch.no_grad()
    def restore(self) -> None:
        """Copy the saved weights back without a step, to give up between ``ascend`` and ``descend``."""
        self._perturbation.restore()
        self._announced = False

    def ascent_part(self, batch: Any) -> Any:
        """The part of ``batch`` (tensors, or nestings of them) that ``ascent_fraction`` gives the ascent."""
        return part_of_batch(batch, self.ascent_fraction)

    @property
    def last_radius(self) -> Tensor:
        """Euclidean length of e at the last ascent, on the device; not a number before the first."""
        return self._loaded["last_radius"] if self._geometry is None else self._geometry.radius()

    @property
    def centralized_share(self) -> Tensor:
        """|Pg| / |g| at the last ascent, on the device; 1 where P is not applied, not a number before the first."""
        return self._loaded["centralized_share"] if self._geometry is None else self._geometry.share()

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group to this optimizer and to its base; missing options take their defaults."""
        if "base" not in self.__dict__:
            super().add_param_group(param_group)
            return
        self.base.add_param_group(param_group)
        try:
            check_group(self.param_groups[-1])
        except (TypeError, ValueError):
            self.param_groups.pop()
            raise

    def state_dict(self) -> dict[str, Any]:
        """As torch's, moments of the base included, and under ``sharpness`` the options, counters and last readings."""
        self._refuse_while_moved("saved")
        readings = {"last_radius": self.last_radius.clone(), "centralized_share": self.centralized_share.clone()}
        own = {name: getattr(self, name) for name in (*OPTIONS, *COUNTERS)}
        return {**super().state_dict(), "sharpness": {**own, **readings}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what ``state_dict`` gave, or the state of a plain base optimizer, to go on from there."""
        self.restore()
        before = [{name: group[name] for name in _GROUP_OPTIONS} for group in self.param_groups]
        super().load_state_dict(state_dict)
        loaded = dict(state_dict.get("sharpness", {}))
        for group, kept in zip(self.param_groups, before, strict=True):
            if not loaded and "base_rho" in self.defaults:
                group["base_rho"] = group.pop("rho")
            for name, value in kept.items():
                group.setdefault(name, value)
        if loaded:
            check_options({name: loaded[name] for name in OPTIONS})
            for name in (*OPTIONS, *COUNTERS):
                setattr(self, name, loaded[name])
            self._geometry = None
            self._loaded = {name: loaded[name].clone() for name in ("last_radius", "centralized_share")}

    def __getstate__(self) -> dict[str, Any]:
        self._refuse_while_moved("copied")
        own = {name: getattr(self, name) for name in ("base", *OPTIONS, *COUNTERS)}
        readings = {"last_radius": self.last_radius.clone(), "centralized_share": self.centralized_share.clone()}
        return {**super().__getstate__(), **own, "_loaded": readings}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if "_perturbation" not in self.__dict__:
            loaded = self._loaded
            self._begin()
            self._loaded = loaded
        # load_state_dict makes new containers and hands them to this optimizer only: the base must go on sharing them.
        self.base.__setstate__({"state": self.state, "param_groups": self.param_groups, "defaults": self.defaults})

    def _begin(self) -> None:
        self._perturbation = Perturbation()
        self._announced = False
        # One for all steps: a scaler knows its optimizers by id().
        self._port = ScalerPort([], self._finish)
        self._geometry: Geometry | None = None
        self._first_norm: Tensor | None = None
        self._loaded = {"last_radius": torch.tensor(torch.nan), "centralized_share": torch.tensor(torch.nan)}

    def _refuse_while_moved(self, what: str) -> None:
        if self._perturbation.active:
            raise RuntimeError(
                f"The optimizer cannot be {what} between ascend() and descend(): the weights are away from w."
            )

    def _first_closure(self, closure: Closure, ascent_closure: Closure | None) -> Closure:
        if self.ascent_fraction == 1 or not ascent_is_due(self.steps, self.start, self.every):
            return closure
        if ascent_closure is None:
            raise ValueError(
                f"ascent_fraction is {self.ascent_fraction}: give step() an ascent_closure for ascent_part(batch)."
            )
        return ascent_closure

    def _both_passes(self, first: Closure, closure: Closure, model: nn.Module | None) -> Any:
        if self.ascent == "momentum":
            self._ascend()
            return closure()
        due = ascent_is_due(self.steps, self.start, self.every)
        draws = random_state(self._devices()) if due and self.replay_random else None
        local = due and not self.synchronize_ascent and hasattr(model, "no_sync")
        with model.no_sync() if local else nullcontext():
            loss = first()
        if self._ascend():
            # A second closure that forgets zero_grad, or backward, must not step with the gradient at w.
            self.zero_grad()
            with frozen_statistics(model), replayed(draws):
                closure()
        return loss

    @torch.no_grad()
    def _ascend(self) -> bool:
        self._first_norm = None
        if not ascent_is_due(self.steps, self.start, self.every):
            self._announced = True
            return False
        by_gradient = self.ascent == "gradient"
        parts = gradient_parts(self.param_groups) if by_gradient else self._momentum_parts()
        if by_gradient and not parts:
            raise RuntimeError(
                "No parameter has a gradient to ascend along: did the closure call backward() on the loss?"
            )
        if parts:
            try:
                self._geometry = self._perturbation.apply(parts, norm=self.norm, adaptive=self.adaptive, eta=self.eta)
            except BaseException:
                self.restore()
                raise
            self.ascents += 1
        if by_gradient:
            self._first_norm = self._geometry.norm
            self.gradient_evaluations += 1 if self.ascent_fraction == 1 else self.ascent_fraction
        self._announced = True
        return by_gradient

    def _finish(self, found_inf: Tensor | None = None, grad_scale: Tensor | None = None) -> None:
        """Way back, checks, centralization and clipping of the descent gradient, step of the base."""
        self.restore()
        gradients = [p.grad for group in self.param_groups for p in group["params"] if p.grad is not None]
        if not gradients:
            raise RuntimeError(
                "No parameter has a gradient to descend along: did the closure call backward() on the loss?"
            )
        self.steps += 1
        self.gradient_evaluations += 1
        if found_inf is not None and self._overflowed(found_inf):
            self.skipped += 1
            return
        if grad_scale is not None:
            unscale_(gradients, grad_scale)
        with torch.no_grad():
            self._centralize_descent()
            if self.skip_nonfinite and self._overflowed(_not_finite(gradients)):
                self.skipped += 1
                return
            if self.max_norm is not None:
                torch.nn.utils.clip_grad_norm_([p for g in self.param_groups for p in g["params"]], self.max_norm)
        with base_rho_in_place(self.param_groups):
            self.base.step()

    def _overflowed(self, now: Tensor) -> bool:
        if self._first_norm is not None:
            now = now + torch.isfinite(self._first_norm).logical_not().to(now.device)
        return bool(now.item())

    def _pass_overflow_on(self) -> None:
        gradients = [p.grad for group in self.param_groups for p in group["params"] if p.grad is not None]
        hand_overflow_on(gradients, self._first_norm)

    def _centralize_descent(self) -> None:
        for group in self.param_groups:
            if group["centralize"] in ("descent", "both"):
                weights = [p for p in group["params"] if p.grad is not None]
                for weight in weights:
                    check_gradient(weight)
                centralize_([w.grad for w in weights], [group["transposed"]] * len(weights))

    def _momentum_parts(self) -> list[Part]:
        parts = momentum_parts(self.param_groups, self.state, self._perturbation)
        if not parts and self.steps > self.skipped:
            raise RuntimeError(
                f'ascent="momentum" needs a base that keeps a first moment, which {type(self.base).__name__} with '
                "these options does not: take AdamW, or SGD with momentum."
            )
        return parts

    def _devices(self) -> set[torch.device]:
        return {parameter.device for group in self.param_groups for parameter in group["params"]}


def _not_finite(gradients: list[Tensor]) -> Tensor:
    first = gradients[0].device
    sums = [torch.isfinite(norm.to(first)).logical_not() for norm in torch._foreach_norm(gradients)]
    return torch.stack(sums).any()
