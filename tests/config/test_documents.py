"""What is made from the schema: the documentation page and the JSON schema; and the shipped files that use them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
import yaml

from medgcsam.config import Config, dump, json_schema, load, reference, shipped_folder, shipped_names
from medgcsam.config.document import Loader
from medgcsam.config.messages import section_of

SHIPPED = shipped_names("configs")


def all_keys(section=Config, prefix: str = ""):
    for key, field in section.model_fields.items():
        below = section_of(field.annotation) if not str(field.annotation).startswith("dict") else None
        yield from all_keys(below, f"{prefix}{key}.") if below else [(f"{prefix}{key}", field)]


def test_the_page_is_up_to_date(repository: Path) -> None:
    text = (repository / "docs" / "configuration.md").read_text("utf-8")
    assert text == reference(), "run: python -m medgcsam.config docs"


def test_the_schema_file_is_up_to_date(repository: Path) -> None:
    written = json.loads((repository / "docs" / "config.schema.json").read_text("utf-8"))
    assert written == json_schema(), "run: python -m medgcsam.config docs"


def test_every_key_has_a_meaning_and_a_row() -> None:
    text = reference()
    for key, field in all_keys():
        assert field.description, key
        section, _, rest = key.partition(".")
        assert f"| `{rest or section}` |" in text


def test_the_schema_is_valid_itself() -> None:
    jsonschema.Draft202012Validator.check_schema(json_schema())


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_files_and_their_dumps_fit_the_schema(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    validator = jsonschema.Draft202012Validator(json_schema())
    text = (shipped_folder("configs") / name).read_text("utf-8")
    assert not list(validator.iter_errors(yaml.load(text, Loader=Loader)))
    monkeypatch.setenv("MEDGCSAM_DATA", "somewhere")
    assert not list(validator.iter_errors(yaml.load(dump(load(name)), Loader=Loader)))


@pytest.mark.parametrize("values", [{"optimizer": {"roh": 1}}, {"training": {"epochs": 0}}, {"image": {"size": "big"}}])
def test_the_schema_refuses_what_loading_refuses(values: dict) -> None:
    validator = jsonschema.Draft202012Validator(json_schema())
    sound = {"name": "x", "data": {"manifest": "m.csv"}}
    assert validator.is_valid(sound)
    assert not validator.is_valid({**sound, **values})


def test_the_schema_lets_variables_and_squares_pass() -> None:
    values = {
        "name": "x",
        "data": {"manifest": "m.csv"},
        "training": {"epochs": "${EPOCHS:-3}", "patience": "${P}"},
        "image": {"size": 64, "channels": "${C}"},
    }
    jsonschema.validate(values, json_schema())


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_files_name_the_schema_and_themselves(name: str) -> None:
    path = shipped_folder("configs") / name
    first = path.read_text("utf-8").splitlines()[0]
    assert first.startswith("# yaml-language-server: $schema=")
    assert (path.parent / first.partition("$schema=")[2]).resolve().name == "config.schema.json"
    assert yaml.safe_load(path.read_text("utf-8"))["name"] == path.stem


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_files_compare_gcsam_with_its_base_and_sam(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDGCSAM_DATA", "somewhere")
    settings = load(name).compare.optimizers
    assert {"adam", "sam", "gcsam"} <= set(settings)
    assert settings["adam"].name == settings["sam"].base == settings["gcsam"].base


def test_importing_the_configuration_is_cheap() -> None:
    code = "import sys, medgcsam.config; print(' '.join({name.split('.')[0] for name in sys.modules}))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "pydantic" in loaded
    assert not {"torch", "monai", "numpy", "pandas", "scipy", "matplotlib", "typer"} & set(loaded)
