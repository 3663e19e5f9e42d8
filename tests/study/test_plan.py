"""The grid of runs."""

from __future__ import annotations

import pytest

from medgcsam.config import dump, load
from medgcsam.errors import ConfigError
from medgcsam.study import plan_runs

THREE = {"adam": {"name": "adamw"}, "sam": {}, "gcsam": {}}


def test_every_setting_seed_and_fold_once(config) -> None:
    runs = plan_runs(config(compare={"optimizers": THREE, "seeds": [3, 5], "folds": [0, 2, 4]}))
    assert len(runs) == 18
    assert {(run.setting, run.seed, run.fold) for run in runs} == {
        (setting, seed, fold) for setting in THREE for seed in (3, 5) for fold in (0, 2, 4)
    }
    assert {run.setting for run in runs[:3]} == set(THREE)
    assert len({run.folder.path for run in runs}) == 18
    assert {run.config.optimizer.name for run in runs if run.setting == "adam"} == {"adamw"}


def test_runs_differ_in_nothing_but_setting_seed_and_fold(config) -> None:
    study = config(compare={"optimizers": THREE, "seeds": [0, 1]})
    for run in plan_runs(study):
        assert run.config.source == study.source
        back = {"optimizer": study.optimizer, "training": study.training, "split": study.split}
        assert run.config.model_copy(update=back) == study


def test_a_planned_run_is_what_train_makes_of_its_setting(config, tmp_path) -> None:
    """`medgcsam train --setting sam` on the same file and the study must agree, or neither can continue the other."""
    study = config(compare={"optimizers": THREE, "seeds": [0]})
    for run in plan_runs(study):
        assert dump(run.config) == dump(load(study.source, setting=run.setting))


def test_the_fold_of_the_split_where_no_folds_are_named(config) -> None:
    runs = plan_runs(config(compare={"optimizers": THREE}, split={"fold": 2}))
    assert {run.fold for run in runs} == {2}
    assert len(runs) == 9


def test_smoke_is_every_setting_once(config) -> None:
    runs = plan_runs(config(compare={"optimizers": THREE, "folds": [1, 2]}), smoke=True)
    assert [(run.setting, run.seed, run.fold) for run in runs] == [(name, 0, 1) for name in sorted(THREE)]


@pytest.mark.parametrize(
    ("optimizer", "plain", "name"),
    [
        ({"name": "gcsam", "base": "adamw", "start": 0.6, "rho": 0.1}, "adam", "adamw"),
        ({"name": "sam", "base": "adam"}, "adam", "adam"),
        ({"name": "gcsam", "base": "sgd", "momentum": 0.8}, "sgd", "sgd"),
        ({"name": "adamw", "lr": 2e-4}, "adam", "adamw"),
        ({"name": "gcsam", "base": "rmsprop", "momentum": 0.5, "ascent": "momentum"}, "rmsprop", "rmsprop"),
        ({"name": "nadam", "decoupled_weight_decay": True}, "nadam", "nadam"),
    ],
)
def test_without_settings_the_base_sam_and_gcsam_are_compared(config, optimizer, plain, name) -> None:
    study = config(optimizer=optimizer)
    runs = {run.setting: run.config.optimizer for run in plan_runs(study)}
    assert list(runs) == [plain, "sam", "gcsam"]
    assert runs[plain].name == name
    for setting in ("sam", "gcsam"):
        assert (runs[setting].name, runs[setting].base) == (setting, name)
    for key, value in optimizer.items():
        if key not in ("name", "base"):
            assert getattr(runs["gcsam"], key) == value
    assert all(
        run.lr == study.optimizer.lr and run.weight_decay == study.optimizer.weight_decay for run in runs.values()
    )


def test_one_setting_is_no_comparison(config) -> None:
    with pytest.raises(ConfigError, match="two settings or more"):
        plan_runs(config(compare={"optimizers": {"gcsam": {}}}))


def test_the_baselines_name_is_taken(config) -> None:
    with pytest.raises(ConfigError, match="taken by the sanity baseline"):
        plan_runs(config(compare={"optimizers": {"gcsam": {}, "baseline": {"name": "adam"}}}))
