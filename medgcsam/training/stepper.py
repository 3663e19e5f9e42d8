"""One call per step, whichever optimizer, precision and schedule; and what an epoch's record says of the optimizer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from medgcsam.config import OptimizerConfig, ScheduleConfig
from medgcsam.optim import GCSAM
from medgcsam.optim.amp import not_finite
from medgcsam.optim.sharpness_aware import SharpnessAware
from medgcsam.training.device import autocast
from medgcsam.training.optimizers import build_optimizer, learning_rate_factor
from medgcsam.training.tasks import Loss


class Stepper:
    """Optimizer, learning-rate schedule and gradient scaler of one training; ``step`` does all that a step needs."""

    def __init__(
        self,
        config: OptimizerConfig,
        schedule: ScheduleConfig,
        network: nn.Module,
        *,
        epochs: int,
        steps_per_epoch: int,
        device: torch.device,
        precision: str,
    ) -> None:
        steps, warmup = epochs * steps_per_epoch, round(schedule.warmup_epochs * steps_per_epoch)
        self.config, self.device, self.precision = config, device, precision
        self.optimizer = build_optimizer(config, network, steps=steps)
        self._factor = partial(learning_rate_factor, schedule, steps=steps, warmup=warmup)
        self.scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")
        self.steps = 0
        self._skipped = 0
        self.begin_epoch()

    def step(self, network: nn.Module, loss: Loss, group: Sequence[tuple[Tensor, Tensor, Any]]) -> Tensor:
        """One optimizer step on the batches of ``group``, whose gradients are added up to that of the joined batch.

        Returns the loss at the weights before the step (of SAM and GCSAM on the part of the batch that the ascent
        looks at; with the momentum ascent, at w + e), 0-dimensional, on the device and not waited for.
        """
        batches = [(images, targets) for images, targets, _ in group]
        for parameters in self.optimizer.param_groups:
            parameters["lr"] = self.learning_rate * parameters.get("lr_factor", 1.0)
        if isinstance(self.optimizer, SharpnessAware):
            value = self._sharpness_step(network, loss, batches)
        else:
            value = self._plain_step(network, loss, batches)
        self.steps += 1
        return value

    def _sharpness_step(self, network: nn.Module, loss: Loss, batches: list[tuple[Tensor, Tensor]]) -> Tensor:
        optimizer = self.optimizer
        part = [optimizer.ascent_part(batch) for batch in batches] if self.config.ascent_fraction < 1 else None
        before = optimizer.ascents
        value = optimizer.step(
            self._closure(network, loss, batches),
            ascent_closure=None if part is None else self._closure(network, loss, part),
            model=network,
            scaler=self.scaler if self.scaler.is_enabled() else None,
        )
        if self.scaler.is_enabled():
            self.scaler.update()
        if optimizer.ascents > before:
            self._radius.add(optimizer.last_radius)
            self._share.add(optimizer.centralized_share)
        return value

    def _plain_step(self, network: nn.Module, loss: Loss, batches: list[tuple[Tensor, Tensor]]) -> Tensor:
        value = self._closure(network, loss, batches)()
        weights = [weight for group in self.optimizer.param_groups for weight in group["params"]]
        watched = self.config.skip_nonfinite and not self.scaler.is_enabled()
        if watched and bool(not_finite([weight.grad for weight in weights if weight.grad is not None])):
            self._skipped += 1
            return value
        if self.config.max_norm is not None:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(weights, self.config.max_norm)
        scale = self.scaler.get_scale()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self._skipped += self.scaler.get_scale() < scale
        return value

    def _closure(self, network: nn.Module, loss: Loss, batches: list[tuple[Tensor, Tensor]]) -> Callable[[], Tensor]:
        images_in_all = sum(len(images) for images, _ in batches)

        def closure() -> Tensor:
            self.optimizer.zero_grad(set_to_none=True)
            mean = torch.zeros((), device=self.device)
            for images, targets in batches:
                with autocast(self.device, self.precision):
                    logits = network(images)
                share = loss(logits, targets) * (len(images) / images_in_all)
                self.scaler.scale(share).backward()
                mean += share.detach()
            return mean

        return closure

    @property
    def gradient_evaluations(self) -> float:
        """Forward-backward passes over a batch so far, a pass over a part counted as that part."""
        return float(self.optimizer.gradient_evaluations if isinstance(self.optimizer, SharpnessAware) else self.steps)

    @property
    def skipped(self) -> int:
        """Steps so far that left the weights alone, because a gradient was not finite."""
        return self.optimizer.skipped if isinstance(self.optimizer, SharpnessAware) else self._skipped

    @property
    def ascents(self) -> int:
        """Steps so far that took the gradient away from the weights."""
        return self.optimizer.ascents if isinstance(self.optimizer, SharpnessAware) else 0

    @property
    def learning_rate(self) -> float:
        """The learning rate of the next step."""
        return self.config.lr * self._factor(step=self.steps)

    def begin_epoch(self) -> None:
        """Count passes, ascents and skipped steps, and average radius and share, from here."""
        self._epoch_start = (self.steps, self.gradient_evaluations, self.ascents, self.skipped)
        self._radius, self._share = _Mean(self.device), _Mean(self.device)

    def observations(self) -> dict[str, Any]:
        """What history.jsonl records of the optimizer at an epoch's end.

        ``radius`` is the mean length of e over the epoch's ascents and ``centralized_share`` the mean of |Pg|/|g|; None
        without an ascent, and the share without centralization.
        """
        steps, passes, ascents, skipped = self._epoch_start
        centralized = isinstance(self.optimizer, GCSAM)
        return {
            "gradient_evaluations": self.gradient_evaluations,
            "passes_per_step": round((self.gradient_evaluations - passes) / (self.steps - steps), 4),
            "ascents": self.ascents - ascents,
            "skipped": self.skipped - skipped,
            "radius": self._radius.value(),
            "centralized_share": self._share.value() if centralized else None,
        }

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next step depends on."""
        return {
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "steps": self.steps,
            "skipped": self._skipped,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state."""
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        self.steps, self._skipped = state["steps"], state["skipped"]


class _Mean:
    """Mean of the finite ones of 0-dimensional tensors, summed on the device, which is waited for at the end only."""

    def __init__(self, device: torch.device) -> None:
        self._sum = torch.zeros(2, dtype=torch.float32, device=device)

    def add(self, value: Tensor) -> None:
        finite = torch.isfinite(value)
        self._sum += torch.stack([torch.where(finite, value, torch.zeros_like(value)), finite.to(value.dtype)]).float()

    def value(self) -> float | None:
        total, count = self._sum.tolist()
        return total / count if count else None
