"""`${VAR}` and `${VAR:-default}` in values, as a shell means them."""

from __future__ import annotations

import os
import re
from typing import Any

_PATTERN = re.compile(r"\$?\$\{([^{}]*)\}")
_NAME = re.compile(r"^([A-Za-z_][A-Za-z0-9_]*)(?::-(.*))?$", re.DOTALL)


class VariableError(Exception):
    """A variable is not set, or is not written as one; the message says which."""


def has_variable(text: str) -> bool:
    """Whether `substitute` would change `text`."""
    return _PATTERN.search(text) is not None


def substitute(text: str) -> str:
    """Replace `${VAR}`, and `${VAR:-default}` for an unset or empty one, from the environment; `$${` is plain `${`."""
    return _PATTERN.sub(_value, text)


def escape(value: Any) -> Any:
    """`value` with every text in it written so that `substitute` gives it back."""
    if isinstance(value, str):
        return _PATTERN.sub(lambda match: "$" + match.group(0), value)
    if isinstance(value, dict):
        return {escape(key) if isinstance(key, str) else key: escape(part) for key, part in value.items()}
    return [escape(part) for part in value] if isinstance(value, list) else value


def _value(match: re.Match[str]) -> str:
    if match.group(0).startswith("$$"):
        return match.group(0)[1:]
    name = _NAME.match(match.group(1))
    if name is None:
        raise VariableError(f"{match.group(0)!r} is no variable; write ${{NAME}} or ${{NAME:-default}}")
    variable, default = name.groups()
    value = os.environ.get(variable)
    if default is not None:
        return value or default
    if value is None:
        raise VariableError(
            f"the environment variable {variable} is not set; set it, or write ${{{variable}:-default}}"
        )
    return value
