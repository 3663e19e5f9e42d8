"""Optimizer settings: overlays of a comparison, and options that do nothing."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from medgcsam.config import Config, dump, load
from medgcsam.config.optimizer import OPTIMIZER_NAMES, BaseName
from medgcsam.config.optimizer_rules import BASES, SHARPNESS_AWARE
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
        ("optimizer={name: gcsam, base: rprop, weight_decay: 0.1}", "weight_decay: has no effect with gcsam over rp"),
        ("optimizer={name: adagrad, betas: [0.9, 0.99]}", "optimizer.betas: has no effect with adagrad"),
        ("optimizer={name: adamw, ascent: momentum}", "optimizer.ascent: has no effect with adamw"),
        ("optimizer={ascent: momentum, ascent_fraction: 0.5}", "ascent_fraction: has no effect with `ascent: mom"),
        ("optimizer={ascent: momentum, ascent_precision: bf16}", "ascent_precision: has no effect with `ascent: mom"),
        ("optimizer={ascent: momentum, replay_random: true}", "replay_random: has no effect with `ascent: momentum`"),
        ("optimizer={eta: 0.1}", "optimizer.eta: has no effect without `adaptive: true`"),
        ("optimizer={name: adam, groups: [{match: a, rho: 0.1}]}", "optimizer.groups.0.rho: has no effect with adam"),
        ("optimizer={name: sam, groups: [{match: a, centralize: none}]}", "groups.0.centralize: has no effect with sa"),
        ("optimizer.groups=[{match: a}]", "optimizer.groups.0: changes nothing"),
        ("optimizer.groups=[{match: [], rho: 0.1}]", "optimizer.groups.0.match: must have at least 1 entries"),
        ("optimizer.groups=[{rho: 0.1}]", "optimizer.groups.0.match: this key is required"),
        ("optimizer.groups=[{match: a, roh: 0.1}]", "optimizer.groups.0.roh: unknown key; did you mean 'rho'"),
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


GROUPED = """\
name: x
data: {manifest: m.csv}
optimizer:
  name: gcsam
  base: adamw
  ascent_fraction: 0.25
  replay_random: true
  adaptive: true
  eta: 0.02
  groups:
    - {match: "*.norm.*", rho: 0.5, centralize: none}
    - {match: [head.*, tail.*], rho: 0.1, lr_factor: 0.1}
compare:
  optimizers:
    adam: {name: adamw}
    sam: {}
    msam: {name: sam, ascent: momentum}
    plain: {adaptive: false}
"""


@pytest.fixture
def grouped(tmp_path: Path) -> Path:
    file = tmp_path / "grouped.yaml"
    file.write_text(GROUPED)
    return file


def test_a_setting_keeps_of_the_groups_what_means_something_to_it(grouped: Path) -> None:
    settings = load(grouped).compare.optimizers
    assert [(group.match, group.rho, group.lr_factor) for group in settings["adam"].groups] == [
        (("head.*", "tail.*"), None, 0.1)
    ]
    assert [(group.rho, group.centralize) for group in settings["sam"].groups] == [(0.5, None), (0.1, None)]
    assert settings["plain"].groups == load(grouped).optimizer.groups


def test_an_overlay_drops_what_its_choice_leaves_idle(grouped: Path) -> None:
    settings = load(grouped).compare.optimizers
    assert (settings["msam"].ascent_fraction, settings["msam"].replay_random) == (1.0, False)
    assert (settings["sam"].ascent_fraction, settings["sam"].replay_random) == (0.25, True)
    assert "eta" not in settings["plain"].model_dump()
    assert load(grouped, ["optimizer.ascent=momentum"]).optimizer.ascent_fraction == 1
    assert load(grouped, ["optimizer.base=sgd", "optimizer.momentum=0.5"]).optimizer.momentum == 0.5


def test_neutral_values_of_idle_options_are_no_fault(path: Path) -> None:
    options = "{ascent: momentum, ascent_fraction: 1, ascent_precision: null, replay_random: false, eta: 0.01}"
    assert load(path, [f"optimizer={options}"]).optimizer.ascent == "momentum"


@pytest.mark.parametrize("key", [None, "adam", "sam", "msam", "plain"])
def test_groups_come_back_from_a_dump(grouped: Path, key: str | None) -> None:
    config = load(grouped, setting=key)
    grouped.with_name("again.yaml").write_text(dump(config))
    assert load(grouped.with_name("again.yaml")).optimizer == config.optimizer


@pytest.mark.parametrize("name", BASES)
def test_every_base_can_be_had_alone_and_below(path: Path, name: str) -> None:
    alone = load(path, [f"optimizer={{name: {name}}}"]).optimizer
    below = load(path, [f"optimizer={{name: sam, base: {name}}}"]).optimizer
    assert (alone.base_name, below.base_name) == (name, name)
    shared = set(below.model_dump()) - set(alone.model_dump())
    assert {"rho", "start", "base"} <= shared
    assert set(alone.model_dump()) <= set(below.model_dump())


def test_names_of_bases_are_one_list() -> None:
    assert get_args(BaseName) == BASES
    assert (*BASES, *SHARPNESS_AWARE) == OPTIMIZER_NAMES
