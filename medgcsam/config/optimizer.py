"""Section `optimizer`: Adam, AdamW, SGD, and SAM or GCSAM over one of them."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from medgcsam.config.base import Bool, Count, Name, NonNegative, Positive, Section

OptimizerName = Literal["adam", "adamw", "sgd", "sam", "gcsam"]
BaseName = Literal["adam", "adamw", "sgd"]
Beta = Annotated[float, Field(strict=True, ge=0, lt=1)]
Begin = Annotated[float, Field(strict=True, ge=0, lt=1)]
Fraction = Annotated[float, Field(strict=True, gt=0, le=1)]

OPTIMIZER_NAMES: tuple[str, ...] = get_args(OptimizerName)
_SHARPNESS = frozenset({"base", "rho", "adaptive", "eta", "start", "every", "ascent_fraction"})
_CENTRALIZATION = frozenset({"norm", "centralize"})


class OptimizerConfig(Section):
    """Adam, AdamW, SGD, and SAM or GCSAM over one of them.

    As a value of `compare.optimizers` it is partial when written; loading fills it up from the optimizer section.
    """

    name: OptimizerName = Field("gcsam", description="`sam` and `gcsam` take two passes per step, over `base`.")
    base: BaseName = Field("adamw", description="`sam`, `gcsam`: the optimizer that makes the step.")
    lr: Positive = Field(1e-3, description="Highest learning rate, after the warm-up.")
    weight_decay: NonNegative = Field(
        1e-2, description="Pull of the weights towards 0; biases and norms are left alone."
    )
    momentum: Beta = Field(0.9, description="`sgd` only.")
    betas: tuple[Beta, Beta] = Field((0.9, 0.999), description="`adam` and `adamw` only: the two running means.")
    rho: NonNegative = Field(0.05, description="`sam`, `gcsam`: radius of the ascent; 0 is the base optimizer.")
    adaptive: Bool = Field(False, description="`sam`, `gcsam`: scale the ascent by the size of each weight (ASAM).")
    eta: NonNegative = Field(0.01, description="`adaptive` only: added to the size of each weight.")
    norm: Literal["centralized", "raw"] = Field(
        "centralized",
        description="`gcsam`: the radius is exactly rho (the paper's formula), or a little less (the authors' script).",
    )
    centralize: Literal["ascent", "descent", "both", "none"] = Field(
        "ascent",
        description="`gcsam`: whose gradients are centralized, of which pass; with `none` it is SAM.",
    )
    start: Begin = Field(
        0.0, description="`sam`, `gcsam`: fraction of the steps after which the ascent begins; 0.6 is late GCSAM."
    )
    every: Count = Field(1, description="`sam`, `gcsam`: 3 ascends in every third step only.")
    ascent_fraction: Fraction = Field(1.0, description="`sam`, `gcsam`: part of the batch that the ascent looks at.")
    max_norm: Positive | None = Field(None, description="Clip the gradient to this norm; empty: no clipping.")
    setting: Name | None = Field(
        None, description="Name of the run folder, and of the optimizer in comparisons; empty: `name`."
    )

    @model_serializer(mode="wrap")
    def _what_applies(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # Written options that do nothing are errors, so a dump must not write any.
        keys = applicable(self.name, self.base)
        return {key: value for key, value in handler(self).items() if key in keys}


def applicable(name: str, base: str) -> frozenset[str]:
    """Keys of the optimizer section that mean something for `name` (over `base`, if it is SAM or GCSAM)."""
    keys = frozenset(OptimizerConfig.model_fields)
    if name not in ("sam", "gcsam"):
        keys -= _SHARPNESS
        base = name
    if name != "gcsam":
        keys -= _CENTRALIZATION
    return keys - ({"betas"} if base == "sgd" else {"momentum"})
