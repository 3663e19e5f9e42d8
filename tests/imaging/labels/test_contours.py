from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.path import Path as Polygon

from medgcsam.errors import DataError
from medgcsam.imaging.labels.contours import count_pixels, fill_contours, fill_polygons
from medgcsam.imaging.labels.resample import Grid

SQUARE = np.array([[1.0, 1], [7, 1], [7, 7], [1, 7]])
HOLE = np.array([[3.0, 3], [5, 3], [5, 5], [3, 5]])


def _ring(radius, *, centre=(20.0, 20.0), count=90, turn=0.0):
    angle = np.linspace(0, 2 * np.pi, count, endpoint=False) + turn
    return np.stack([centre[0] + radius * np.cos(angle), centre[1] + radius * np.sin(angle)], 1)


def _at(polygon, k):
    return np.column_stack([polygon, np.full(len(polygon), float(k))])


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**20), st.integers(3, 12))
def test_pixels_within_a_simple_polygon_are_those_of_matplotlib(seed, corners):
    rng = np.random.default_rng(seed)
    angle = np.sort(rng.random(corners)) * 2 * np.pi
    polygon = np.stack([np.cos(angle), np.sin(angle)], 1) * rng.uniform(2, 12, (corners, 1)) + rng.uniform(3, 9, 2)
    centres = np.stack(np.meshgrid(np.arange(16), np.arange(13), indexing="ij"), -1).reshape(-1, 2)
    inside = Polygon(np.vstack([polygon, polygon[:1]]), closed=True).contains_points(centres)
    np.testing.assert_array_equal(fill_polygons([polygon], (16, 13)).ravel(), inside)


def test_polygons_that_share_edges_through_pixel_centres_tile_the_plane():
    corners = np.array([[0.0, 0], [6, 0], [6, 6], [0, 6]])
    middle = np.array([2.0, 3.0])
    parts = [np.array([corners[n], corners[(n + 1) % 4], middle]) for n in range(4)]
    count = sum(fill_polygons([part], (8, 8)).astype(int) for part in parts)
    np.testing.assert_array_equal(count, fill_polygons([corners], (8, 8)))
    assert count.sum() == 36  # as many pixels as the area, although the edges pass through centres


def test_the_direction_and_the_first_point_do_not_matter():
    polygon = _ring(11.3, turn=0.123)
    expected = fill_polygons([polygon], (40, 40))
    assert expected.sum() == pytest.approx(np.pi * 11.3**2, rel=0.01)
    np.testing.assert_array_equal(fill_polygons([polygon[::-1]], (40, 40)), expected)
    np.testing.assert_array_equal(fill_polygons([np.roll(polygon, 7, axis=0)], (40, 40)), expected)


def test_a_keyhole_is_a_hole():
    """One contour that runs to the inner ring and back over the same two points (PS3.3 C.8.8.6.3)."""
    keyhole = np.vstack([SQUARE, SQUARE[:1], HOLE[:1], HOLE[::-1]])
    np.testing.assert_array_equal(fill_polygons([keyhole], (9, 9)), fill_polygons([SQUARE, HOLE], (9, 9)))
    assert fill_polygons([SQUARE, HOLE], (9, 9)).sum() == 36 - 4


def _filled(contours, shape=(40, 40, 6), thickness=1.0, **options):
    placed = fill_contours(contours, Grid(shape, np.eye(4)), thickness=thickness, name="x", **options)
    whole = np.zeros(shape, bool)
    whole[placed.box] = placed.share
    return whole, placed


def test_rings_within_rings_alternate_and_copies_count_once():
    rings = [_at(_ring(r), 2) for r in (15.2, 10.2, 5.2)]
    whole, _ = _filled([*rings, rings[1][::-1]])
    across = whole[20, :, 2]
    assert [bool(across[20 + n]) for n in (0, 7, 12, 17)] == [True, False, True, False]
    assert whole.sum() == whole[..., 2].sum()


def test_contours_that_cross_are_refused_unless_they_are_said_to_cut():
    pair = [_at(_ring(8.2), 1), _at(_ring(8.2, centre=(26.0, 20.0)), 1)]
    with pytest.raises(DataError, match="two contours that cross"):
        _filled(pair)
    both, _ = _filled(pair, crossing_allowed=True)
    single = [_filled([one])[0] for one in pair]
    np.testing.assert_array_equal(both, single[0] ^ single[1])
    apart, _ = _filled([pair[0], _at(_ring(4.2, centre=(33.0, 20.0)), 1)])
    assert apart.sum() > single[0].sum()


def test_a_slice_takes_the_nearest_plane_within_half_a_step():
    rings = [_at(_ring(r, turn=0.1), k) for r, k in ((5.2, 0.3), (6.2, 1.3), (7.2, 2.3))]
    whole, placed = _filled(rings)
    areas = [_filled([_at(_ring(r, turn=0.1), 0)])[0].sum() for r in (5.2, 6.2, 7.2)]
    assert whole.sum((0, 1)).tolist() == [*areas, 0, 0, 0]
    sparse, _ = _filled([_at(_ring(5.2, turn=0.1), 0), _at(_ring(6.2, turn=0.1), 3)], thickness=3.0)
    assert sparse.sum((0, 1)).tolist() == [areas[0]] * 2 + [areas[1]] * 3 + [0]
    assert placed.outside == 0


def test_what_lies_outside_is_measured():
    _, beside = _filled([_at(np.array([[-4.5, 3.5], [3.5, 3.5], [3.5, 9.5], [-4.5, 9.5]]), 1)])
    assert beside.outside == pytest.approx(0.5)
    _, above = _filled([_at(_ring(5.2), k) for k in (-2, -1, 0, 1)])
    assert above.outside == pytest.approx(0.5)
    whole, one_slice = _filled([_at(_ring(5.2), k) for k in (-2, -1, 0, 1)], shape=(40, 40, 1))
    assert one_slice.outside == 0
    assert whole.any()
    _, gone = _filled([_at(_ring(5.2), 30)])
    assert gone.outside == 1


@pytest.mark.parametrize("shift", [(0.0, 0.0), (0.2, 0.1)])
def test_an_outline_drawn_twice_is_refused_and_a_wall_is_not(shift):
    twice = [_at(_ring(8.2), 1), _at(_ring(8.2 if any(shift) else 8.0, centre=np.add(20.0, shift)), 1)]
    with pytest.raises(DataError, match="nearly the same outline twice"):
        _filled(twice)
    _filled(twice, crossing_allowed=True)
    wall, _ = _filled([_at(_ring(18.2), 1), _at(_ring(17.2), 1)])  # as thin as a pixel, 0.89 of the area
    assert wall.sum() == pytest.approx(np.pi * (18.2**2 - 17.2**2), rel=0.1)
    dots, _ = _filled([_at(_ring(1.2), 1), _at(_ring(0.6), 1)])
    assert dots.any()


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**20))
def test_pixels_are_counted_as_they_are_filled(seed):
    rng = np.random.default_rng(seed)
    polygons = [rng.uniform(-6, 20, (rng.integers(3, 9), 2)) for _ in range(3)]  # edges that cross, partly outside
    assert count_pixels(polygons, (16, 13)) == fill_polygons(polygons, (16, 13)).sum()
    assert count_pixels(polygons) == fill_polygons([polygon + 10 for polygon in polygons], (40, 40)).sum()


def _square(half, k=1):
    return _at(np.array([[-half, -half], [half, -half], [half, half], [-half, half]]) + 20.0, k)


ZIGZAG = np.column_stack([np.linspace(0, 39, 200_000), np.tile([0.0, 60.0], 100_000)])


@pytest.mark.parametrize(
    ("contours", "words"),
    [
        ([_at(ZIGZAG, 1)], "more length than can be filled"),
        ([_square(1 + n / 200) for n in range(6_000)], "6,000 contours on one slice"),
        ([_square(15 + n / 1e5) for n in range(3_000)], "nearly the same outline twice"),
        ([_square(9, k=n / 5 - 3_000) for n in range(15_000)] + [_square(1500, k=1)], "far beyond the image"),
    ],
    ids=["zigzag", "many on a plane", "nested", "far"],
)
def test_what_would_take_hours_is_refused(contours, words):
    with pytest.raises(DataError, match=words):
        _filled(contours)


def test_comparing_contours_has_an_end(monkeypatch):
    monkeypatch.setattr("medgcsam.imaging.labels.contours.MAX_COMPARED", 100_000)
    beside = [_at(_ring(1.2, centre=(4 + 8 * n, 20)), 1) for n in range(4)]
    _filled(beside)
    with pytest.raises(DataError, match="too many contours over each other"):
        _filled([_at(_ring(18.2), 1), *(_at(_ring(1.2, centre=(10 + n * 3.5, 20)), 1) for n in range(6))])


@pytest.mark.parametrize(
    "contours",
    [
        [_square(10 + n, 1) for n in range(1_000)],
        [_at(np.repeat(_ring(590 - n, centre=(600, 600)), 400, axis=0), 1) for n in range(190)],
        [_square(10 + n % 250, n // 250) for n in range(5_000)],
    ],
    ids=["squares", "long", "many planes"],
)
def test_what_would_take_long_to_compare_is_refused_before_it_is_compared(contours):
    grid = Grid((1200, 1200, 25), np.eye(4))
    start = time.monotonic()
    with pytest.raises(DataError, match="too many contours over each other"):
        fill_contours(contours, grid, thickness=1.0, name="x")
    assert time.monotonic() - start < 5


@pytest.mark.parametrize("kept", [0, 900, 2**27])
@pytest.mark.parametrize("seed", range(20))
def test_contours_are_compared_alike_whatever_is_kept_in_memory(monkeypatch, seed, kept):
    """Against masks of the whole plane: two circles are refused where they cross by more than their edges."""
    rng = np.random.default_rng(seed)
    circles = [(rng.uniform(3, 14), rng.uniform(16, 24, 2)) for _ in range(2)]
    masks = [fill_polygons([_ring(radius, centre=centre)], (40, 40)) for radius, centre in circles]
    both, sizes = int((masks[0] & masks[1]).sum()), sorted(int(mask.sum()) for mask in masks)
    crosses = min(both, sizes[0] - both) > max(4.0, 0.1 * sizes[0])
    monkeypatch.setattr("medgcsam.imaging.labels.contours.KEPT_PIXELS", kept)
    contours = [_at(_ring(radius, centre=centre), 1) for radius, centre in circles]
    if crosses:
        with pytest.raises(DataError, match=r"cross on one slice|nearly the same"):
            _filled(contours)
    else:
        assert _filled(contours)[0].any()


def test_planes_beside_the_image_are_counted_and_not_filled():
    whole, placed = _filled([_square(9.5, k) for k in (1, *range(-3_000, -1_000))])
    assert whole.sum() == 19 * 19
    assert placed.outside == pytest.approx(2000 / 2001)
