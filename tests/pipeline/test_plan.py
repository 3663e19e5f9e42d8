"""The plan: nnU-Net's rules on figures worked out by hand, budgets, and what the networks accept."""

from __future__ import annotations

import importlib.util
from math import prod
from pathlib import Path

import numpy as np
import pytest

from medgcsam.config import dump, load
from medgcsam.config.patches import LONGEST
from medgcsam.errors import ConfigError, DataError
from medgcsam.networks import segmentation
from medgcsam.pipeline.budget import COSTS, STEP_SECONDS, largest_patch, network_stages
from medgcsam.pipeline.plan import (
    FEWEST_STEPS,
    MOST_PER_IMAGE,
    Plan,
    check_resolved,
    continued,
    make_plan,
    resolved,
    stages_of,
)
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


def test_each_channel_has_foreground_statistics_of_its_own():
    random = np.random.default_rng(1)
    samples = [random.normal([[40], [7000]], [[10], [900]], (2, 500)).astype(np.float32) for _ in range(3)]
    surveyed = [seen(foreground=part, channels=2) for part in samples]
    plan, pooled = planned(surveyed, image={"channels": 2}), np.concatenate(samples, axis=1)
    assert plan.values["image.mean"] == pytest.approx(pooled.mean(1), rel=1e-4)
    assert plan.values["image.std"] == pytest.approx(pooled.std(1), rel=1e-4)
    clip = np.array(plan.values["image.clip"])
    np.testing.assert_allclose(clip, np.percentile(pooled, [0.5, 99.5], axis=1).T, rtol=1e-4)
    assert plan.reasons["image.mean"].startswith("mean of each channel, of 1500 values")
    one = planned(surveyed, image={"channels": 2, "mean": 3.0})
    assert "image.mean" not in one.values
    assert len(one.values["image.std"]) == 2


def test_one_rule_is_for_gray_made_three_channels_and_for_colours():
    gray = planned([seen()], image={"channels": 3})
    assert gray.values["image.mean"] == 2.0
    colours = [seen((9, 9), None, "display", np.float32([[0, 1], [0, 0], [1, 1]]), picture=(9, 9), channels=3)]
    assert planned(colours, image={"channels": 3, "intensity": "foreground"}).values["image.mean"] == 0.5
    luminance = planned(colours, image={"channels": 1, "intensity": "foreground"}).values["image.mean"]
    assert luminance == pytest.approx(0.114 + 0.299 / 2, rel=1e-4)


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
    assert COSTS[name].fewest == fewest
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


@pytest.mark.parametrize("name", list(COSTS))
def test_whatever_is_planned_can_be_written_read_and_built(name, tmp_path):
    """Single slices, thin volumes, tiny and long pictures: no plan that its own configuration file would refuse."""
    random = np.random.default_rng(1)
    sets = [((40, 44, 5), (1.0, 1.0, 5.0)), ((24, 28, 1), (1.0, 1.0, 5.0)), ((7, 40), (1.0, 1.0)), ((1, 1, 1), None),
            ((9, 9000), None)]  # fmt: skip
    for _ in range(10):
        axes = int(random.integers(2, 4))
        shape = tuple(int(n) for n in np.exp(random.uniform(0, np.log(300), axes)))
        sets.append((shape, None if random.random() < 0.3 else tuple(np.exp(random.uniform(-1, 2, axes)))))
    for shape, spacing in sets:
        flat = {"picture": shape} if len(shape) == 2 else {}
        images = [seen(shape, spacing, picture_spacing=spacing, **flat)] * int(random.integers(1, 60))
        asked = config(network={"name": name}, image={"size": 4096})
        fixed = resolved(asked, make_plan(asked, images, device_memory_gb=random.choice([None, 8.0, 80.0])))
        check_resolved(fixed)
        (tmp_path / "config.yaml").write_text(dump(fixed))
        read = load(tmp_path / "config.yaml")
        assert (read.patches, read.image, read.network) == (fixed.patches, fixed.image, fixed.network)
        assert read.training == fixed.training
        patch, found = read.patches.size, stages_of(read)
        assert max(patch) <= LONGEST
        dimensions = read.image.dimensions
        kernels, strides = [k for k, _ in found], [s for _, s in found]
        design = segmentation._Design(name, dimensions, 1, 2, read.network.width, kernels, strides, 0.0, False)
        segmentation._check_patch(design, patch, segmentation._BUILDERS[name][2])


def test_numbers_for_another_count_of_axes_are_refused_by_key():
    with pytest.raises(ConfigError, match=r"image\.spacing: \[2\.0, 2\.0\] has 2 numbers, .* volumes; give 3"):
        planned([seen()], image={"spacing": (2.0, 2.0)})
    for sections in ({"network": {"levels": 2}}, {"image": {"spacing": None}}, {}):
        with pytest.raises(ConfigError, match=r"patches\.size: \[32, 32\] has 2 numbers, .* volumes; give 3"):
            planned([seen()], patches={"size": (32, 32)}, **sections)
    with pytest.raises(ConfigError, match=r"patches\.size: \[32, 32, 32\] .* are pictures; give 2"):
        planned([seen((64, 48), None, picture=(64, 48))], patches={"size": (32, 32, 32)})


def test_an_odd_length_is_named_with_the_nearest_that_work():
    with pytest.raises(ConfigError, match=r"33 is odd and cannot be halved; take 32 x 32 x 32 or 40 x 40 x 40\.$"):
        planned([seen()], patches={"size": (33, 33, 33)}, image={"spacing": (1.0, 1.0, 1.0)})
    for size in ((32, 32, 32), (40, 40, 40)):
        assert (
            planned([seen()], patches={"size": size}, image={"spacing": (1.0, 1.0, 1.0)}).values["network.levels"] >= 4
        )
    with pytest.raises(ConfigError, match=r"8 x 8 allows 2 of the 4 resolutions of dynunet_small; take .* or more"):
        network_stages("dynunet_small", (8, 8), None)


def test_a_begun_plan_is_kept_whatever_the_device():
    settings = config(network={"name": "unet"})
    begun = make_plan(settings, [seen()] * 5, device_memory_gb=None)
    assert (
        begun.values["patches.size"] != make_plan(settings, [seen()] * 5, device_memory_gb=80.0).values["patches.size"]
    )
    assert continued(settings, begun, [seen()] * 5) is begun
    older = Plan({k: v for k, v in begun.values.items() if k != "network.levels"}, begun.reasons)
    with pytest.raises(ConfigError, match=r"^network\.levels: the plan .* says nothing"):
        continued(settings, older, [seen()] * 5)


def test_planned_numbers_that_contradict_the_configuration_are_refused():
    settings = config(optimizer={"name": "gcsam", "ascent_fraction": 0.25})
    fixed = resolved(settings, make_plan(settings, [seen()] * 5, device_memory_gb=None))
    with pytest.raises(ConfigError, match=r"optimizer\.ascent_fraction: leaves less than one image of a batch of 2"):
        check_resolved(fixed)


def test_a_step_of_a_small_network_takes_about_a_quarter_second_of_a_cpu():
    plan = planned([seen((128, 128, 128), (1.0, 1.0, 1.0))] * 100)
    voxels = prod(plan.values["patches.size"]) * plan.values["training.batch_size"]
    assert 0.4 * STEP_SECONDS < voxels / 1e6 * COSTS["unet_small"].seconds[3] <= STEP_SECONDS
