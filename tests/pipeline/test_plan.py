"""The plan: nnU-Net's rules on figures worked out by hand, budgets, and what the networks accept."""

from __future__ import annotations

import importlib.util
from math import prod
from pathlib import Path

import numpy as np
import pytest

from medgcsam.errors import DataError
from medgcsam.networks import segmentation
from medgcsam.pipeline.budget import COSTS, STEP_SECONDS, largest_patch, network_stages
from medgcsam.pipeline.plan import FEWEST_STEPS, MOST_PER_IMAGE, Plan, make_plan, resolved, stages_of
from medgcsam.pipeline.stages import factors, stages
from medgcsam.pipeline.survey import Surveyed

_spec = importlib.util.spec_from_file_location("phantoms", Path(__file__).with_name("segmentation_phantoms.py"))
phantoms = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(phantoms)
config = phantoms.config


def seen(shape=(100, 100, 50), spacing=(1.0, 1.0, 2.0), unit="HU", foreground=(1.0, 2.0, 3.0), **facts):
    return Surveyed(shape, spacing, unit=unit, voxels=(5,), foreground=np.float32(foreground), **facts)


def planned(surveyed, device_memory_gb=None, **sections):
    return make_plan(config(**sections), surveyed, device_memory_gb=device_memory_gb)


def test_spacing_is_the_median_per_axis():
    spacings = [(0.5, 0.5, 1.0), (0.7, 0.6, 2.0), (0.9, 1.5, 1.5)]
    plan = planned([seen(spacing=mm) for mm in spacings])
    assert plan.values["image.spacing"] == (0.7, 0.6, 1.5)
    assert "3 training images" in plan.reasons["image.spacing"]


def test_a_strongly_anisotropic_axis_takes_the_tenth_percentile():
    spacings = [(1.0, 1.0, mm) for mm in (3.0, 4.0, 5.0, 5.0, 5.0, 5.0, 5.0, 5.0, 5.0, 5.0, 5.0)]
    assert planned([seen((200, 200, 30), mm) for mm in spacings]).values["image.spacing"] == (1.0, 1.0, 4.0)
    # With many slices the voxels are long but the volume is not flat: the median stays.
    assert planned([seen((200, 200, 100), mm) for mm in spacings]).values["image.spacing"] == (1.0, 1.0, 5.0)
    # Never finer than the other axes.
    fine = [(1.0, 1.0, 0.2)] * 3 + spacings
    assert planned([seen((200, 200, 30), mm) for mm in fine]).values["image.spacing"] == (1.0, 1.0, 1.0)


def test_foreground_statistics_pool_the_samples():
    random = np.random.default_rng(0)
    samples = [random.normal(40, 10, 500).astype(np.float32) for _ in range(4)]
    plan = planned([seen(foreground=part) for part in samples])
    pooled = np.concatenate(samples)
    assert plan.values["image.intensity"] == "foreground"
    assert plan.values["image.mean"] == pytest.approx(pooled.mean(), rel=1e-4)
    assert plan.values["image.std"] == pytest.approx(pooled.std(), rel=1e-4)
    assert plan.values["image.clip"] == pytest.approx(np.percentile(pooled, [0.5, 99.5]), rel=1e-4)


def test_intensity_goes_by_the_unit():
    assert planned([seen(unit="raw")]).values["image.intensity"] == "zscore"
    flat = {"picture": (64, 48), "spacing": None}
    plan = planned([seen((64, 48), unit="display", **flat)])
    assert (plan.values["image.intensity"], plan.values["image.dimensions"]) == ("display", 2)
    assert plan.values["image.spacing"] is None
    assert plan.values["image.clip"] is None
    with pytest.raises(DataError, match=r"several kinds \(HU, raw\)"):
        planned([seen(), seen(unit="raw")])
    assert planned([seen(), seen(unit="raw")], image={"intensity": "zscore"})


def test_what_does_not_go_together_is_refused():
    with pytest.raises(DataError, match="1 of 2 training images are pictures"):
        planned([seen(), seen((64, 48), None, picture=(64, 48))])
    with pytest.raises(DataError, match=r"image\.dimensions is 2: change it to 3"):
        planned([seen()], image={"dimensions": 2})
    with pytest.raises(DataError, match="no mask of a training patient"):
        planned([seen(foreground=())])


def test_patch_of_a_large_gpu_holds_the_median_image_and_of_a_small_one_less():
    images = [seen((150, 140, 60), (1.0, 1.0, 1.0))] * 50
    large = planned(images, 80.0, network={"name": "dynunet"})
    assert large.values["patches.size"] == (160, 160, 64)
    small = planned(images, 6.0, network={"name": "dynunet"})
    assert prod(small.values["patches.size"]) < prod(large.values["patches.size"])
    assert small.values["training.batch_size"] == 2
    assert small.values["patches.per_image"] > 1
    assert large.values["patches.memory_gb"] == 64.0
    own = planned(images, 80.0, network={"name": "dynunet"}, patches={"memory_gb": 4.8})
    assert own.values["patches.size"] == small.values["patches.size"]
    assert "patches.memory_gb" not in own.values


def test_batch_holds_at_most_a_twentieth_of_the_set_and_two_at_least():
    images = [seen((32, 32), None, unit="display", picture=(32, 32))] * 400
    assert planned(images).values["training.batch_size"] == 20
    assert planned(images[:20]).values["training.batch_size"] == 2
    assert planned(images * 10).values["training.batch_size"] == 32


def test_an_epoch_of_a_small_set_has_fifty_gradients():
    for images in (3, 20, 46, 99, 400, 5000):
        plan = planned([seen((40, 40, 40), (1.0, 1.0, 1.0))] * images)
        assert plan.values["patches.size"] == (40, 40, 40)
        each, batch = plan.values["patches.per_image"], plan.values["training.batch_size"]
        steps = images * each / batch
        assert steps >= FEWEST_STEPS or each == MOST_PER_IMAGE
        assert each == 1 or steps - images / batch < FEWEST_STEPS  # no more patches than it takes
        assert ("gradients" in plan.reasons["patches.per_image"]) == (each > 1)


def test_what_is_configured_is_not_planned():
    chosen = {
        "image": {"spacing": (1.0, 1.0, 1.0), "dimensions": 3, "intensity": "zscore"}
        | {"clip": None, "mean": None, "std": None},
        "patches": {"size": (32, 64, 32), "per_image": 3, "memory_gb": 2.0},
        "network": {"name": "unet", "levels": 3, "width": 8},
        "training": {"batch_size": 5},
    }  # fmt: skip
    assert planned([seen()], **chosen) == Plan()
    settings = config(**chosen)
    assert resolved(settings, Plan()) == settings
    assert factors(stages_of(settings)) == (4, 4, 4)


@pytest.mark.parametrize("name", ["unet_small", "swin_unetr_small"])
def test_a_resolved_configuration_leaves_nothing_to_plan(name):
    settings = config(network={"name": name})
    plan = make_plan(settings, [seen()] * 5, device_memory_gb=None)
    assert plan.values.keys() == plan.reasons.keys()
    fixed = resolved(settings, plan)
    assert make_plan(fixed, [seen((10, 10, 10))], device_memory_gb=40.0) == Plan()
    assert settings.patches.size == "auto"
    assert stages_of(fixed) == stages(fixed.patches.size, fixed.image.spacing, fixed.network.levels)


@pytest.mark.parametrize("name", list(COSTS))
def test_random_sets_give_patches_that_the_networks_take(name):
    random = np.random.default_rng(0)
    fewest = segmentation._BUILDERS[name][2]
    assert COSTS[name].width == segmentation._BUILDERS[name][1]
    for _ in range(60):
        axes = int(random.integers(2, 4))
        median = tuple(int(n) for n in random.integers(40, 500, axes))
        spacing = None if random.random() < 0.3 else tuple(np.exp(random.uniform(-1, 1.5, axes)))
        voxels = float(10 ** random.uniform(4.5, 8))
        patch = largest_patch(median, spacing, name, None, voxels)
        found = network_stages(name, patch, spacing)
        design = segmentation._Design(
            name, axes, 1, 2, COSTS[name].width, [k for k, _ in found], [s for _, s in found], 0.0, False
        )
        segmentation._check_patch(design, patch, fewest)
        if 2 * prod(patch) > voxels:  # over the budget only where nothing could be shortened
            least = [64, 64] if axes == 2 else [32, 32, 64 if name.startswith("swin") else 32]
            assert all(n <= limit for n, limit in zip(sorted(patch), least, strict=True))


def test_a_step_of_a_small_network_takes_about_a_quarter_second_of_a_cpu():
    plan = planned([seen((128, 128, 128), (1.0, 1.0, 1.0))] * 100)
    voxels = prod(plan.values["patches.size"]) * plan.values["training.batch_size"]
    assert 0.4 * STEP_SECONDS < voxels / 1e6 * COSTS["unet_small"].seconds[3] <= STEP_SECONDS
