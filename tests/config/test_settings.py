"""Optimizer settings: overlays of a comparison, and options that do nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from medgcsam.config import Config, dump, load
from medgcsam.errors import ConfigError

TEXT = """\
name: x
data: {manifest: m.csv}
optimizer: {name: gcsam, base: adamw, lr: 0.01, rho: 0.2, norm: raw}
compare:
  optimizers:
    adam: {}
    sam: {rho: 0.3}
    slow: {lr: 1e-4}
    sgd-gcsam: {base: sgd, momentum: 0.8}
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "job.yaml"
    file.write_text(TEXT)
    return file


def test_an_overlay_changes_what_it_names_and_keeps_the_rest(path: Path) -> None:
    settings = load(path).compare.optimizers
    assert (settings["adam"].name, settings["adam"].lr) == ("adam", 0.01)
    assert (settings["sam"].name, settings["sam"].rho, settings["sam"].lr) == ("sam", 0.3, 0.01)
    assert (settings["slow"].name, settings["slow"].norm, settings["slow"].lr) == ("gcsam", "raw", 1e-4)
    assert (settings["sgd-gcsam"].base, settings["sgd-gcsam"].momentum) == ("sgd", 0.8)


@pytest.mark.parametrize("key", ["adam", "sam", "slow", "sgd-gcsam"])
def test_a_chosen_setting_becomes_the_optimizer(path: Path, key: str) -> None:
    config = load(path, setting=key)
    assert config.setting == key
    assert config.optimizer == load(path).compare.optimizers[key]
    assert config.compare == load(path).compare


def test_the_settings_of_a_dump_do_not_depend_on_the_one_chosen(path: Path) -> None:
    whole = load(path)
    for key in whole.compare.optimizers:
        path.with_name("dumped.yaml").write_text(dump(load(path, setting=key)))
        assert load(path.with_name("dumped.yaml")).compare == whole.compare


def test_the_setting_is_called_like_its_optimizer_unless_named(path: Path) -> None:
    assert load(path).setting == "gcsam"
    assert load(path, setting="gcsam").setting == "gcsam"
    assert load(path, ["optimizer.setting=late"]).setting == "late"


def test_an_unknown_setting_names_the_nearest(path: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean 'sgd-gcsam'"):
        load(path, setting="sgd-gcsan")


def test_rho_written_for_adam_is_a_fault(path: Path) -> None:
    path.write_text("name: x\ndata: {manifest: m.csv}\noptimizer:\n  name: adam\n  rho: 0.1\n")
    with pytest.raises(ConfigError, match=r":5: optimizer.rho: has no effect with adam"):
        load(path)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("compare.optimizers.adam={rho: 0.1}", "compare.optimizers.adam.rho: has no effect with adam"),
        ("compare.optimizers.sam={norm: raw}", "compare.optimizers.sam.norm: has no effect with sam over adamw"),
        ("optimizer.momentum=0.5", "optimizer.momentum: has no effect with gcsam over adamw"),
        ("compare.optimizers.sam={setting: other}", "compare.optimizers.sam.setting: must be 'sam'"),
    ],
)
def test_options_without_effect_are_faults(path: Path, override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load(path, [override])


def test_changing_the_optimizer_on_the_command_line_drops_what_does_not_apply(path: Path) -> None:
    config = load(path, ["optimizer.name=adam"])
    assert config.setting == "adam"
    assert "rho" not in config.optimizer.model_dump()
    assert config.compare.optimizers["slow"].name == "adam"
    assert config.compare.optimizers["sam"].rho == 0.3
    with pytest.raises(ConfigError, match=r"--set optimizer.rho=0.1: optimizer.rho: has no effect with adam"):
        load(path, ["optimizer.name=adam", "optimizer.rho=0.1"])


def test_a_configuration_made_in_python_needs_no_file() -> None:
    config = Config.model_validate({"name": "x", "data": {"manifest": "m.csv"}, "optimizer": {"name": "sam"}})
    assert (config.setting, config.source, config.base) == ("sam", None, Path.cwd())
