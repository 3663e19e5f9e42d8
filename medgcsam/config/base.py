"""What every section of the configuration shares: the frozen, strict base class and the value types.

Values arrive from YAML already typed, so nothing is converted silently: a boolean is `true` or `false`, a whole number
is no text. The one kindness is the other way round: a class or site called `1` may be written without quotes.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_origin

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Strict, Tag


class Section(BaseModel):
    """A part of the configuration: unknown keys are errors, values never change after loading."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)


def _whole_number_as_text(value: Any) -> Any:
    # `document.py` reads only the canonical spelling as a whole number (01 stays text), so str() gives back what was
    # written.
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


Bool = Annotated[bool, Strict()]
Count = Annotated[int, Strict(), Field(ge=1)]
Natural = Annotated[int, Strict(), Field(ge=0)]
Positive = Annotated[float, Strict(), Field(gt=0)]
NonNegative = Annotated[float, Strict(), Field(ge=0)]
Share = Annotated[float, Strict(), Field(ge=0, le=1)]
OpenShare = Annotated[float, Strict(), Field(gt=0, lt=1)]
Text = Annotated[
    str, Strict(), Field(min_length=1), BeforeValidator(_whole_number_as_text, json_schema_input_type=str | int)
]
# A name becomes a folder name, so it must be one on every file system.
NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._+-]*$"
Name = Annotated[
    str, Strict(), Field(pattern=NAME_PATTERN), BeforeValidator(_whole_number_as_text, json_schema_input_type=str | int)
]
FilePath = Annotated[str, Strict(), Field(min_length=1)]
Auto = Literal["auto"]


def _auto_or_other(value: Any) -> str:
    return "auto" if isinstance(value, str) else "other"


def auto_or(kind: Any) -> Any:
    """The type of a key that is either the word `auto` or a ``kind``, which is no text; a fault names that alone."""
    return Annotated[Annotated[Auto, Tag("auto")] | Annotated[kind, Tag("other")], Discriminator(_auto_or_other)]


def one_or_each(kind: Any) -> Any:
    """The type of a key that is one ``kind`` for all channels or a list of them; a fault names what was written."""
    depth = 1 if get_origin(kind) is tuple else 0

    def which(value: Any) -> str:
        for _ in range(depth):
            value = value[0] if isinstance(value, list | tuple) and value else None
        return "each" if isinstance(value, list | tuple) else "one"

    each = Annotated[tuple[kind, ...], Field(min_length=1)]
    return Annotated[Annotated[kind, Tag("one")] | Annotated[each, Tag("each")], Discriminator(which)]
