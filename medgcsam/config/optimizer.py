"""Section `optimizer`: a first-order optimizer of torch, or SAM or GCSAM over one of them."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import BeforeValidator, Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from medgcsam.config.base import Bool, Count, Name, NonNegative, Positive, Section, Text
from medgcsam.config.optimizer_rules import SHARPNESS_AWARE, idle_options

BaseName = Literal[
    "adam", "adamw", "sgd", "rmsprop", "adagrad", "nadam", "radam", "adamax", "adadelta", "asgd", "rprop"
]
OptimizerName = Literal[
    "adam", "adamw", "sgd", "rmsprop", "adagrad", "nadam", "radam", "adamax", "adadelta", "asgd", "rprop",
    "sam", "gcsam",
]  # fmt: skip
Centralize = Literal["ascent", "descent", "both", "none"]
Beta = Annotated[float, Field(strict=True, ge=0, lt=1)]
Begin = Annotated[float, Field(strict=True, ge=0, lt=1)]
Fraction = Annotated[float, Field(strict=True, gt=0, le=1)]


def _one_as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


Patterns = Annotated[
    tuple[Text, ...],
    Field(min_length=1),
    BeforeValidator(_one_as_list, json_schema_input_type=str | list[str]),
]

OPTIMIZER_NAMES: tuple[str, ...] = get_args(OptimizerName)


class GroupConfig(Section):
    """Weights with options of their own, such as the norm layers or the head."""

    match: Patterns = Field(
        description="Pattern of names of weights, or a list of them: `head.*`; `*` stands for any text, `?` for one "
        "character, `[13]` for one of these. A pattern that begins with `*` needs quotes."
    )
    rho: NonNegative | None = Field(
        None,
        description="`sam`, `gcsam`: radius of the ascent here, under the norm over all weights; empty: `rho`.",
    )
    centralize: Centralize | None = Field(None, description="`gcsam`: as `centralize`, here; empty: `centralize`.")
    lr_factor: Positive = Field(1.0, description="Factor on the learning rate here.")

    @model_validator(mode="after")
    def _says_something(self) -> GroupConfig:
        if self.rho is None and self.centralize is None and self.lr_factor == 1:
            raise ValueError("changes nothing; give it `rho`, `centralize` or `lr_factor`")
        return self


class OptimizerConfig(Section):
    """A first-order optimizer of torch, or SAM or GCSAM over one of them.

    As a value of `compare.optimizers` it is partial when written; loading fills it up from the optimizer section.
    """

    name: OptimizerName = Field("gcsam", description="`sam` and `gcsam` take two passes per step, over `base`.")
    base: BaseName = Field("adamw", description="`sam`, `gcsam`: the optimizer that makes the step.")
    lr: Positive = Field(
        1e-3, description="Highest learning rate, after the warm-up. Each optimizer wants its own: `adadelta` about 1."
    )
    weight_decay: NonNegative = Field(
        1e-2,
        description="Pull of the weights towards 0; biases and norms are left alone. Decoupled from the gradient in "
        "`adamw`, added to it in the others; not `rprop`.",
    )
    decoupled_weight_decay: Bool = Field(
        False, description="`nadam`, `radam`: decouple the weight decay as `adamw` does."
    )
    momentum: Beta | None = Field(
        None, description="`sgd`, `rmsprop`: share of the last step that is kept; empty: 0.9 for `sgd`, else 0."
    )
    nesterov: Bool = Field(False, description="`sgd`: look ahead along the momentum.")
    betas: tuple[Beta, Beta] = Field(
        (0.9, 0.999), description="`adam`, `adamw`, `nadam`, `radam`, `adamax`: the two running means."
    )
    base_rho: Beta = Field(0.9, description="`adadelta`: decay of its running means, which torch calls rho.")
    eps: Positive | None = Field(
        None, description="All but `sgd`, `asgd`, `rprop`: added to the divisor of the step; empty: as torch has it."
    )
    rho: NonNegative = Field(0.05, description="`sam`, `gcsam`: radius of the ascent; 0 is the base optimizer.")
    adaptive: Bool = Field(False, description="`sam`, `gcsam`: scale the ascent by the size of each weight (ASAM).")
    eta: NonNegative = Field(0.01, description="`adaptive` only: added to the size of each weight.")
    norm: Literal["centralized", "raw"] = Field(
        "centralized",
        description="`gcsam`: the radius is exactly rho (the paper's formula), or a little less (the authors' script).",
    )
    centralize: Centralize = Field(
        "ascent",
        description="`gcsam`: whose gradients are centralized, of which pass; with `none` it is SAM.",
    )
    start: Begin = Field(
        0.0, description="`sam`, `gcsam`: fraction of the steps after which the ascent begins; 0.6 is late GCSAM."
    )
    every: Count = Field(1, description="`sam`, `gcsam`: 3 ascends in every third step only.")
    ascent: Literal["gradient", "momentum"] = Field(
        "gradient",
        description="`sam`, `gcsam`: along the gradient, which is a pass of its own, or along the momentum of the "
        "base, which costs none and is another algorithm (MSAM).",
    )
    ascent_fraction: Fraction = Field(1.0, description="`sam`, `gcsam`: part of the batch that the ascent looks at.")
    ascent_precision: Literal["bf16"] | None = Field(
        None, description="`sam`, `gcsam`: run the ascent's pass in bf16; empty: as `training.precision`."
    )
    replay_random: Bool = Field(False, description="`sam`, `gcsam`: drop the same units in both passes of a step.")
    synchronize_ascent: Bool = Field(
        False,
        description="`sam`, `gcsam`: in training by several processes, average the ascent's gradient over them, too.",
    )
    max_norm: Positive | None = Field(None, description="Clip the gradient to this norm; empty: no clipping.")
    skip_nonfinite: Bool = Field(
        False,
        description="Make no step where a gradient is not finite, instead of losing the weights; costs a little.",
    )
    groups: tuple[GroupConfig, ...] = Field(
        (), description="Weights with options of their own; a weight belongs to the first group that matches it."
    )
    setting: Name | None = Field(
        None, description="Name of the run folder, and of the optimizer in comparisons; empty: `name`."
    )

    @property
    def base_name(self) -> str:
        """The optimizer that makes the step: `base` of SAM and GCSAM, otherwise `name`."""
        return self.base if self.name in SHARPNESS_AWARE else self.name

    @property
    def momentum_in_effect(self) -> float:
        """`momentum`, or where it is empty the default of the optimizer that makes the step."""
        if self.momentum is not None:
            return self.momentum
        return 0.9 if self.base_name == "sgd" else 0.0

    @model_serializer(mode="wrap")
    def _what_applies(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # Written options that do nothing are errors, so a dump must not write any.
        idle = idle_options(self)
        values = {key: value for key, value in handler(self).items() if key not in idle}
        groups = [{key: value for key, value in group.items() if key not in idle} for group in values["groups"]]
        values["groups"] = [group for group in groups if _changes_something(group)]
        return values


def _changes_something(group: dict[str, Any]) -> bool:
    return group["lr_factor"] != 1 or any(group.get(key) is not None for key in ("rho", "centralize"))


def effective(section: OptimizerConfig) -> OptimizerConfig:
    """The section with its unused options at their defaults, as a dump gives it back."""
    return OptimizerConfig.model_validate(section.model_dump())
