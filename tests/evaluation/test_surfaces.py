"""Surfaces against Google DeepMind's `surface-distance` and MONAI, and against what can be worked out by hand."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from monai.metrics import compute_dice, compute_surface_dice
from monai.metrics.utils import get_edge_surface_distance
from scipy.ndimage import gaussian_filter

from medgcsam.evaluation import surfaces
from medgcsam.evaluation.segmentation import case_metrics
from medgcsam.evaluation.surfaces import bounding_box, element_sizes, neighbour_codes, surface_distances

reference_program = pytest.importorskip("surface_distance")
SEEDS, PER_SEED = range(8), 26
WAYS = (("distances_gt_to_pred", "surfel_areas_gt"), ("distances_pred_to_gt", "surfel_areas_pred"))


@pytest.fixture
def numpy_1(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reference program was written for numpy 1 and says np.Inf and np.NaN of empty masks."""
    monkeypatch.setattr(np, "Inf", np.inf, raising=False)
    monkeypatch.setattr(np, "NaN", np.nan, raising=False)


Pair = tuple[np.ndarray, np.ndarray, tuple[float, ...]]


def random_pairs(seed: int) -> Iterator[Pair]:
    """Pairs of masks with their spacing; of every ten, one lacks the reference, one the prediction, one both."""
    generator = np.random.default_rng(seed)
    for number in range(PER_SEED):
        reference, predicted, spacing = random_pair(generator)
        reference &= number % 10 not in (0, 2)
        predicted &= number % 10 not in (1, 2)
        yield reference, predicted, spacing


def random_pair(generator: np.random.Generator) -> Pair:
    """Two masks in 2-D or 3-D, often alike, sometimes far apart, noise or full, and a spacing."""
    ndim = int(generator.integers(2, 4))
    shape = tuple(generator.integers(3, 22 if ndim == 2 else 14, ndim))
    field = gaussian_filter(generator.normal(size=shape), generator.uniform(0, 2), mode="nearest")
    other = field + generator.choice([0.0, 0.2, 1.0]) * field.std() * generator.normal(size=shape)
    masks = [one > np.quantile(field, generator.choice([0.3, 0.6, 0.9])) for one in (field, other)]
    if generator.random() < 0.3:
        masks[1] = np.roll(masks[1], int(generator.integers(1, 4)), axis=int(generator.integers(ndim)))
    masks[int(generator.integers(2))] |= generator.random() < 0.05
    return masks[0], masks[1], tuple(generator.uniform(0.4, 4.0, ndim))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.usefixtures("numpy_1")
@pytest.mark.parametrize("seed", SEEDS)
def test_equal_to_the_reference_program(seed: int) -> None:
    statuses = []
    for reference, predicted, spacing in random_pairs(seed):
        tolerance = 0.7 * sum(spacing) / len(spacing)
        ours = case_metrics(reference, predicted, spacing=spacing, tolerance=tolerance)
        theirs = reference_program.compute_surface_distances(reference, predicted, spacing)
        dice = reference_program.compute_dice_coefficient(reference, predicted)
        nsd = reference_program.compute_surface_dice_at_tolerance(theirs, tolerance)
        hd95 = reference_program.compute_robust_hausdorff(theirs, 95)
        statuses.append(ours["status"])
        assert ours["dice"] == pytest.approx(dice, nan_ok=True)
        if ours["status"] == "ok":
            assert ours["nsd"] == pytest.approx(nsd, abs=1e-12)
            assert ours["hd95"] == pytest.approx(hd95, abs=1e-12)
            sums, sizes = (sum(values) for values in zip(*(_sums(theirs, *way) for way in WAYS), strict=True))
            assert ours["asd"] == pytest.approx(sums / sizes, abs=1e-12)
        elif ours["status"] == "missed":
            diagonal = pytest.approx(np.linalg.norm(np.multiply(reference.shape, spacing)))
            assert (nsd, hd95) == (0, np.inf)
            assert (ours["nsd"], ours["hd95"], ours["asd"]) == (0, diagonal, diagonal)
        else:
            assert np.isnan([ours["nsd"], ours["hd95"], ours["asd"]]).all()
    assert set(statuses) == {"ok", "missed", "false_positive", "both_empty"}
    assert statuses.count("ok") > PER_SEED / 2


def _sums(theirs: dict[str, np.ndarray], distances: str, areas: str) -> tuple[float, float]:
    return theirs[distances] @ theirs[areas], theirs[areas].sum()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("seed", SEEDS)
def test_equal_to_monai_where_it_measures_between_voxels(seed: int) -> None:
    """MONAI's own HD95 counts border voxels, whatever their area, and is not compared."""
    for reference, predicted, spacing in random_pairs(100 + seed):
        tolerance = 0.7 * sum(spacing) / len(spacing)
        ours = case_metrics(reference, predicted, spacing=spacing, tolerance=tolerance)
        pair = [torch.from_numpy(mask)[None, None].float() for mask in (predicted, reference)]
        if ours["status"] in ("ok", "missed"):
            nsd = compute_surface_dice(*pair, [tolerance], include_background=True, spacing=spacing, use_subvoxels=True)
            assert ours["nsd"] == pytest.approx(nsd.item(), abs=1e-6)
            assert ours["dice"] == pytest.approx(compute_dice(*pair).item(), abs=1e-6)
        if ours["status"] == "ok":
            distances = get_edge_surface_distance(
                *(one[0, 0].bool() for one in pair), spacing=spacing, use_subvoxels=True, symmetric=True
            )[1]
            largest = surface_distances(reference, predicted, spacing).hausdorff(1.0)
            assert largest == pytest.approx(max(one.max().item() for one in distances), rel=1e-5)


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.7, 1.9, 3.1)])
def test_all_256_elements_have_the_area_of_the_reference_program(spacing: tuple[float, ...]) -> None:
    theirs = reference_program.lookup_tables.create_table_neighbour_code_to_surface_area(spacing)
    # There the first voxel is the highest bit.
    turned = [int(f"{code:08b}"[::-1], 2) for code in range(256)]
    np.testing.assert_allclose(element_sizes(np.array(spacing)), theirs[turned], atol=1e-12)


def test_the_area_of_a_box_is_that_of_its_faces_with_its_edges_cut_off() -> None:
    n, spacing = np.array([4, 6, 3]), np.array([1.0, 0.5, 2.0])
    sides = (n - 1) * spacing
    codes = neighbour_codes(np.ones(n, dtype=bool))
    area = 2 * (sides[0] * sides[1] + sides[0] * sides[2] + sides[1] * sides[2])
    for along in range(3):
        a, b = np.delete(spacing, along) / 2
        area += 4 * sides[along] * np.hypot(a, b)
    corner = np.linalg.norm([spacing[1] * spacing[2], spacing[0] * spacing[2], spacing[0] * spacing[1]]) / 8
    assert element_sizes(spacing)[codes].sum() == pytest.approx(area + 8 * corner)


def test_bars_at_a_known_distance() -> None:
    """A bar of two columns moved by three columns of 0.5; distances by counting."""
    reference, predicted = np.zeros((2, 40, 9), dtype=bool)
    reference[:, 1:3], predicted[:, 4:6] = True, True
    found = surface_distances(reference, predicted, (2.0, 0.5))
    # Borders of the reference at corners 1 and 3 (and 2 at its ends), of the prediction at 4, 6 (and 5): 3, 2 and 1.
    np.testing.assert_allclose(np.unique(found.from_reference), [0.5, 1.0, 1.5])
    assert found.hausdorff(1.0) == 1.5
    assert found.within(1.5) == 1


@pytest.mark.parametrize("seed", range(6))
def test_all_ways_of_searching_give_the_same_distances(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(seed)
    shape = (17, 12, 9)[: 2 + seed % 2]
    pair = [gaussian_filter(generator.normal(size=shape), 1.5) > 0.05 for _ in range(2)]
    pair[0][:5] = False
    always, never, found = (0, 0, 0), (10**9,) * 3, []
    for near, (point, query, far) in ((10, never), (10, always), (0.9, always), (0.9, (0, 0, 10**9))):
        monkeypatch.setattr(surfaces, "NEAR", near)
        monkeypatch.setattr(surfaces, "VOXELS_PER_POINT", point)
        monkeypatch.setattr(surfaces, "VOXELS_PER_QUERY", query)
        monkeypatch.setattr(surfaces, "VOXELS_PER_FAR_QUERY", far)
        found.append(surface_distances(*pair, (0.7, 1.3, 3.0)[: len(shape)]))
    assert found[0].from_predicted.max() > 2
    for other in found[1:]:
        np.testing.assert_allclose(other.from_reference, found[0].from_reference, rtol=1e-14)
        np.testing.assert_allclose(other.from_predicted, found[0].from_predicted, rtol=1e-14)


def test_neither_place_nor_order_of_the_axes_matters() -> None:
    generator = np.random.default_rng(5)
    pair = [np.pad(gaussian_filter(generator.normal(size=(9, 12, 7)), 1.2) > 0.1, 1) for _ in range(2)]
    spacing = np.array([0.8, 1.5, 4.0])
    expected = surface_distances(*pair, spacing)
    for axes in itertools.permutations(range(3)):
        turned = surface_distances(*(np.pad(mask.transpose(axes), (0, 3)) for mask in pair), spacing[list(axes)])
        assert turned.average() == pytest.approx(expected.average(), rel=1e-12)
        assert turned.hausdorff() == pytest.approx(expected.hausdorff(), rel=1e-12)
    back = surface_distances(*pair[::-1], spacing)
    assert back.average() == pytest.approx(expected.average(), rel=1e-12)
    larger = surface_distances(*pair, 3 * spacing)
    assert larger.hausdorff() == pytest.approx(3 * expected.hausdorff(), rel=1e-12)
    assert larger.within(6.0) == pytest.approx(expected.within(2.0), rel=1e-12)


def test_bounding_box_holds_both_masks_and_no_more() -> None:
    generator = np.random.default_rng(0)
    for _ in range(50):
        masks = generator.random((2, 6, 5, 4)) < 0.02
        where = np.argwhere(masks.any(axis=0))
        box = bounding_box(*masks)
        if len(where) == 0:
            assert masks[0][box].size == 0
            continue
        assert [part.start for part in box] == where.min(axis=0).tolist()
        assert [part.stop for part in box] == (where.max(axis=0) + 1).tolist()
