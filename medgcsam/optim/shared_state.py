"""An optimizer around another one: one state, one list of groups, saved, loaded and copied as one."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from .options import check_base, check_group, check_options, clashing_option

OPTIONS = ("norm", "adaptive", "eta", "start", "every", "ascent_fraction", "ascent_precision", "ascent", "max_norm",
           "skip_nonfinite", "replay_random", "synchronize_ascent")  # fmt: skip
COUNTERS = ("steps", "ascents", "skipped", "gradient_evaluations")
READINGS = ("last_radius", "centralized_share")

_GROUP_OPTIONS = ("rho", "centralize", "transposed")


class SharedState(Optimizer):
    """Base of ``SharpnessAware``: everything about it that is state.

    ``state``, ``param_groups`` and ``defaults`` are those of ``base``, the very objects, so that schedulers,
    checkpoints, scalers and the base itself see one optimizer. Options of the whole optimizer and counters are plain
    attributes; ``state_dict`` keeps them under ``sharpness``.
    """

    base: Optimizer
    last_radius: Tensor
    centralized_share: Tensor

    def __init__(
        self,
        params: Iterable[Any],
        base: Callable[..., Optimizer],
        base_options: dict[str, Any],
        group_options: dict[str, Any],
        options: dict[str, Any],
    ) -> None:
        check_options(options)
        check_base(base, base_options)
        own_defaults = {**group_options, "transposed": 0, **clashing_option(base, base_options)}
        base_options = {name: value for name, value in base_options.items() if name != "base_rho"}
        super().__init__(params, dict(own_defaults))
        for name in OPTIONS:
            setattr(self, name, options[name])
        for name in COUNTERS:
            setattr(self, name, 0)
        self._begin({name: torch.tensor(torch.nan) for name in READINGS})
        self.base = base(self.param_groups, **base_options)
        check_base(type(self.base), base_options)  # what a factory made
        self.base.defaults.update(own_defaults)
        self.defaults, self.state, self.param_groups = self.base.defaults, self.base.state, self.base.param_groups
        for group in self.param_groups:
            check_group(group)

    def _begin(self, readings: dict[str, Tensor]) -> None:
        """Make everything that is not saved anew; ``readings`` hold until the next ascent."""
        raise NotImplementedError

    def _refuse_while_moved(self, what: str) -> None:
        """Raise RuntimeError where the weights are away from w."""
        raise NotImplementedError

    def _refuse_while_swapped(self) -> None:
        """Raise RuntimeError between two calls of ``swap``."""
        raise NotImplementedError

    def _give_up(self, *, keep_written: bool = False) -> None:
        """Bring the weights back to w; with ``keep_written`` but for those that were written in place since."""
        raise NotImplementedError

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group to this optimizer and to its base; missing options take their defaults."""
        if "base" not in self.__dict__:
            super().add_param_group(param_group)
            return
        self._refuse_while_swapped()
        self.base.add_param_group(param_group)
        try:
            check_group(self.param_groups[-1])
        except (TypeError, ValueError):
            self.param_groups.pop()
            raise

    def state_dict(self) -> dict[str, Any]:
        """As torch's, moments of the base included, and under ``sharpness`` the options, counters and last readings."""
        self._refuse_while_moved("saved")
        own = {name: getattr(self, name) for name in (*OPTIONS, *COUNTERS)}
        return {**super().state_dict(), "sharpness": {**own, **self._readings()}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what ``state_dict`` gave, or the state of a plain base optimizer, to go on from there.

        After an interrupted step the weights go back to w first, but for those that a model has loaded since.

        Raises:
            ValueError: an option or a group in it is outside its range; nothing is loaded then.
        """
        loaded = dict(state_dict.get("sharpness", {}))
        known = {name: getattr(self, name) for name in OPTIONS} | {k: v for k, v in loaded.items() if k in OPTIONS}
        check_options(known)
        if loaded:
            for group in state_dict["param_groups"]:
                check_group({**self.defaults, **group, "params": ()})
        self._give_up(keep_written=True)
        before = [{name: group[name] for name in _GROUP_OPTIONS} for group in self.param_groups]
        super().load_state_dict(state_dict)
        for group, kept in zip(self.param_groups, before, strict=True):
            if not loaded and "base_rho" in self.defaults:
                group["base_rho"] = group.pop("rho")
            for name, value in kept.items():
                group.setdefault(name, value)
        if loaded:
            for name, value in (known | {name: loaded[name] for name in COUNTERS}).items():
                setattr(self, name, value)
            self._begin({name: loaded[name].clone() for name in READINGS})

    def _readings(self) -> dict[str, Tensor]:
        return {name: getattr(self, name).clone() for name in READINGS}

    def __getstate__(self) -> dict[str, Any]:
        self._refuse_while_moved("copied")
        own = {name: getattr(self, name) for name in ("base", *OPTIONS, *COUNTERS)}
        return {**super().__getstate__(), **own, "readings": self._readings()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        state = dict(state)
        readings = state.pop("readings", None)
        super().__setstate__(state)
        if readings is not None:
            self._begin(readings)
        # load_state_dict makes new containers and hands them to this optimizer only: the base must go on sharing them.
        self.base.__setstate__({"state": self.state, "param_groups": self.param_groups, "defaults": self.defaults})
