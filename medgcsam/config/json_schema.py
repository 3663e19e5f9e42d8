"""The configuration as a JSON schema, for editors that complete and check YAML while it is typed."""

from __future__ import annotations

from typing import Any

from medgcsam.config.tree import Config

# A number may also come from the environment, which no schema of numbers would let pass.
_VARIABLE = {"type": "string", "pattern": r"\$\{[A-Za-z_][A-Za-z0-9_]*(:-[^{}]*)?\}"}


def json_schema() -> dict[str, Any]:
    """JSON schema (draft 2020-12) of a configuration file; `docs/config.schema.json` holds it."""
    schema = Config.model_json_schema()
    definitions = {name: _with_variables(part) for name, part in schema.pop("$defs").items()}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **{
            **schema,
            "title": "medgcsam configuration",
            "description": "One job: data, split, training, evaluation, report.",
        },
        "$defs": {**definitions, "Variable": _VARIABLE},
    }


def _with_variables(section: dict[str, Any]) -> dict[str, Any]:
    properties = {key: _or_variable(part) for key, part in section.get("properties", {}).items()}
    return {**section, "properties": properties}


def _or_variable(part: dict[str, Any]) -> dict[str, Any]:
    notes = {key: part[key] for key in ("default", "description", "title") if key in part}
    rule = {key: value for key, value in part.items() if key not in notes}
    variable = {"$ref": "#/$defs/Variable"}
    if rule.get("type") in ("integer", "number", "boolean") or "enum" in rule:
        return {"anyOf": [rule, variable], **notes}
    if "anyOf" in rule:
        return {"anyOf": [*rule["anyOf"], variable], **notes}
    return part
