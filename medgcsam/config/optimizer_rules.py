"""Which options of the optimizer section mean something together, and which contradict each other."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from medgcsam.config.optimizer import OptimizerConfig

BASES = ("adam", "adamw", "sgd", "rmsprop", "adagrad", "nadam", "radam", "adamax", "adadelta", "asgd", "rprop")
SHARPNESS_AWARE = ("sam", "gcsam")

_WITH_EXP_AVG = frozenset({"adam", "adamw", "nadam", "radam", "adamax"})
_WITH_MOMENTUM = frozenset({"sgd", "rmsprop"})
# Options of the optimizer that makes the step, and those that take them (signatures of torch.optim).
_TAKEN_BY = {
    "weight_decay": frozenset(BASES) - {"rprop"},
    "decoupled_weight_decay": frozenset({"nadam", "radam"}),
    "momentum": _WITH_MOMENTUM,
    "nesterov": frozenset({"sgd"}),
    "betas": _WITH_EXP_AVG,
    "base_rho": frozenset({"adadelta"}),
    "eps": _WITH_EXP_AVG | {"rmsprop", "adagrad", "adadelta"},
}
_OF_THE_ASCENT = (
    "base", "rho", "adaptive", "eta", "start", "every", "ascent", "ascent_fraction", "ascent_precision",
    "replay_random", "synchronize_ascent",
)  # fmt: skip
_OF_CENTRALIZATION = ("norm", "centralize")
_OF_THE_FIRST_PASS = ("ascent_fraction", "ascent_precision", "replay_random", "synchronize_ascent")


@dataclass(frozen=True)
class Idle:
    """Why an option does nothing: the keys that decide so, and the words for a message."""

    because_of: tuple[str, ...]
    words: str

    @property
    def by_kind(self) -> bool:
        """Whether the optimizer does not know the option at all, so that writing even its default is a mistake."""
        return "name" in self.because_of


def idle_options(section: OptimizerConfig) -> dict[str, Idle]:
    """The options that do nothing in `section`, whatever their values are."""
    sharp = section.name in SHARPNESS_AWARE
    kind = Idle(("name", "base"), f"with {section.name} over {section.base}" if sharp else f"with {section.name}")
    idle = {option: kind for option, bases in _TAKEN_BY.items() if section.base_name not in bases}
    if section.name != "gcsam":
        idle |= dict.fromkeys(_OF_CENTRALIZATION, kind)
    if not sharp:
        return idle | dict.fromkeys(_OF_THE_ASCENT, kind)
    if section.ascent == "momentum":
        idle |= dict.fromkeys(_OF_THE_FIRST_PASS, Idle(("ascent",), "with `ascent: momentum`, which has one pass"))
    if not section.adaptive:
        idle["eta"] = Idle(("adaptive",), "without `adaptive: true`")
    return idle


def contradictions(section: OptimizerConfig, *, batch_size: int | str) -> Iterator[tuple[tuple[str, ...], str]]:
    """What cannot be trained: the keys that it is about, the one to change first, and what is wrong."""
    idle = idle_options(section)
    if "ascent" not in idle and section.ascent == "momentum" and not keeps_first_moment(section):
        without = " without momentum" if section.base in _WITH_MOMENTUM else ""
        yield (
            ("ascent", "base", "momentum"),
            f"'momentum' needs a base that keeps a first moment, which {section.base}{without} does not; "
            "choose adamw, or sgd with momentum",
        )
    if "nesterov" not in idle and section.nesterov and not section.momentum_in_effect:
        yield ("nesterov", "momentum"), "needs a momentum above 0"
    if "ascent_fraction" not in idle and batch_size != "auto" and section.ascent_fraction * batch_size < 1:
        yield ("ascent_fraction",), f"leaves less than one image of a batch of {batch_size}"


def keeps_first_moment(section: OptimizerConfig) -> bool:
    """Whether the optimizer that makes the step has a running mean of gradients to ascend along."""
    return section.base_name in _WITH_EXP_AVG or (
        section.base_name in _WITH_MOMENTUM and section.momentum_in_effect > 0
    )
