"""The parts of the synthetic radiograph: anatomy, findings, detector and the DICOM object."""

from __future__ import annotations

from dataclasses import replace
from datetime import date

import numpy as np
import pydicom
import pytest
from pydicom.pixels import apply_modality_lut, apply_windowing

from medgcsam.intake.phantom import draw_radiograph
from medgcsam.intake.phantom_anatomy import View, draw_thorax, draw_view, lung_edges, project_chest
from medgcsam.intake.phantom_cohort import plan_cohort
from medgcsam.intake.phantom_detector import MAXIMUM, SITES, expose
from medgcsam.intake.phantom_dicom import COMPRESSIONS, Header, write_radiograph
from medgcsam.intake.phantom_findings import draw_opacities, opacity_map, smooth_noise, splat

STRAIGHT = View(shift=(0.0, 0.0), scale=1.0, angle=0.0, breath=0.0, turn=0.0)


def chest_of(seed: int, view: View = STRAIGHT, *, sex: str = "M", rows: int = 128):
    thorax = draw_thorax(np.random.default_rng(seed), sex=sex, age=50)
    return thorax, project_chest(thorax, view, rows=rows, columns=rows)


def at(chest, x: float, y: float) -> float:
    """Mean attenuation in a small square around a place in body coordinates of a straight view."""
    rows = len(chest.x)
    row, column = round((y + 1) / 2 * rows), round((x + 1) / 2 * rows)
    return float(chest.attenuation[row - 3 : row + 4, column - 3 : column + 4].mean())


@pytest.mark.parametrize("seed", range(6))
def test_lungs_are_dark_and_heart_abdomen_and_spine_are_bright(seed):
    _, chest = chest_of(seed)
    lungs = [at(chest, side * 0.4, 0.0) for side in (-1, 1)]
    assert max(lungs) < 0.6 * at(chest, 0.0, 0.25)  # heart and spine
    assert max(lungs) < 0.6 * at(chest, 0.0, 0.85)  # abdomen
    assert at(chest, -0.95, -0.95) < 0.1 * min(lungs)  # air beside the neck
    # The heart lies mostly in the left chest, which is on the right of the picture.
    row = chest.lung[int(0.62 * 128)]
    assert row[:64].sum() > row[64:].sum()


def test_ribs_repeat_down_the_lung():
    _, chest = chest_of(1, rows=256)
    profile = chest.attenuation[70:170, 75:80].mean(axis=1)
    profile = profile - np.poly1d(np.polyfit(np.arange(100), profile, 4))(np.arange(100))
    peaks = (profile[1:-1] > profile[:-2]) & (profile[1:-1] >= profile[2:]) & (profile[1:-1] > 0.01)
    assert 4 <= peaks.sum() <= 14


def test_patients_differ_more_than_exposures_of_one_patient_do_in_shape():
    lungs = [chest_of(seed)[1].lung > 0.2 for seed in range(5)]
    overlap = [2 * (a & b).sum() / (a.sum() + b.sum()) for i, a in enumerate(lungs) for b in lungs[:i]]
    assert max(overlap) < 0.98
    assert min(overlap) > 0.6


def test_view_moves_what_points_move():
    view = draw_view(np.random.default_rng(4))
    _, chest = chest_of(2, view)
    place = view.to_picture(np.array([[0.3, -0.2]], np.float32))[0]
    row, column = ((place + 1) * 128 / 2 - 0.5).round().astype(int)[::-1]
    # Only the smooth individual deformation (a few hundredths) lies between the two coordinate systems.
    assert abs(chest.x[row, column] - 0.3) < 0.06
    assert abs(chest.y[row, column] + 0.2) < 0.06


def test_opacities_brighten_only_the_lungs_and_range_from_barely_visible_to_plain():
    peaks = []
    for seed in range(60):
        thorax, chest = chest_of(seed)
        shadows = draw_opacities(np.random.default_rng(seed), thorax)
        field = opacity_map(shadows, chest)
        assert field.min() >= 0
        assert field[chest.lung < 0.001].max() < 1e-3
        inner, outer = lung_edges(np.array([s.y for s in shadows]), thorax)
        sides = np.abs([s.x for s in shadows])
        assert np.all((sides > inner) & (sides < outer))
        peaks.append(field.max())
        np.testing.assert_array_equal(field, opacity_map(shadows, chest))  # the same in every exposure
    assert min(peaks) > 0.03
    assert np.quantile(peaks, 0.1) < 0.2
    assert np.quantile(peaks, 0.75) > 0.4


def test_label_changes_nothing_but_the_opacity():
    plan = plan_cohort(patients=8, seed=0)[0]
    image = plan.images[0]
    pictures = []
    for label in ("normal", "opacity"):
        own = replace(image, label=label)
        stored, window = draw_radiograph(replace(plan, images=(own,)), own, seed=0, size=128)
        pictures.append((stored.astype(int), window))
    assert pictures[0][1] == pictures[1][1]
    change = pictures[1][0] - pictures[0][0]
    assert change.max() > 30
    assert np.mean(np.abs(change) <= 8) > 0.4  # outside of it only the scattered veil


def test_smooth_noise_is_centred_of_about_unit_variance_and_smooth():
    fields = np.array([smooth_noise(np.random.default_rng(s), (90, 64), cells=8) for s in range(200)])
    assert fields.shape == (200, 90, 64)
    assert abs(fields.mean()) < 0.05
    assert 0.8 < fields.std() < 1.25
    assert fields.dtype == np.float32
    assert np.diff(fields, axis=1).std() < 0.15  # white noise: 1.4


def test_splat_keeps_the_sum_and_the_centre_of_mass():
    points = np.array([[0.101, -0.203], [0.35, 0.11]])
    field = splat(points, np.array([1.0, 3.0]), STRAIGHT, 100, 80)
    assert field.sum() == pytest.approx(4, rel=1e-5)
    row, column = np.meshgrid(np.arange(100), np.arange(80), indexing="ij")
    centre = points.T @ [0.25, 0.75]
    assert (field * column).sum() / 4 == pytest.approx(centre[0] * 50 + 39.5, abs=1e-3)
    assert (field * row).sum() / 4 == pytest.approx((centre[1] + 1) * 50 - 0.5, abs=1e-3)


@pytest.mark.parametrize("name", sorted(SITES))
def test_exposure_stays_within_twelve_bits_and_the_window_covers_lung_and_soft_tissue(name):
    flat = np.repeat(np.linspace(0, 1.4, 64, dtype=np.float32)[None], 64, 0)
    stored, (center, width) = expose(np.random.default_rng(0), flat, site=SITES[name], darkness=0.02)
    assert stored.dtype == np.uint16
    assert stored.max() <= MAXIMUM
    profile = stored.mean(axis=0)
    assert np.all(np.diff(profile[4:-4]) > 0)
    lung, soft = profile[14], profile[45]  # attenuation 0.3 and 1.0
    assert center - width / 2 < lung < soft < center + width / 2


def header(**changes) -> Header:
    base = Header(
        cohort="test",
        patient_id="P00001",
        study="S00001-1",
        sex="F",
        age=7,
        date=date(2020, 2, 29),
        site=SITES["north"],
        photometric="MONOCHROME2",
        compression="none",
    )
    return replace(base, **changes)


@pytest.fixture
def stored() -> np.ndarray:
    return np.random.default_rng(0).integers(0, MAXIMUM + 1, (40, 36)).astype(np.uint16)


@pytest.mark.parametrize("compression", sorted(COMPRESSIONS))
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_pixels_survive_every_format_and_both_presentations_show_the_same(tmp_path, stored, photometric, compression):
    write_radiograph(tmp_path / "a.dcm", stored, (2000, 1500), header(photometric=photometric, compression=compression))
    data = pydicom.dcmread(tmp_path / "a.dcm")
    assert data.file_meta.TransferSyntaxUID == COMPRESSIONS[compression]
    values = data.pixel_array.astype(int)
    np.testing.assert_array_equal(MAXIMUM - values if photometric == "MONOCHROME1" else values, stored)
    seen = apply_windowing(apply_modality_lut(data.pixel_array, data), data)
    seen = MAXIMUM - seen if photometric == "MONOCHROME1" else seen
    low, high = 2000 - 0.5 - 1499 / 2, 2000 - 0.5 + 1499 / 2  # PS3.3 C.11.2.1.2.1
    expected = np.clip((stored - low) / (high - low), 0, 1) * MAXIMUM
    np.testing.assert_allclose(seen, expected, atol=0.01)


@pytest.mark.parametrize("site", sorted(SITES))
def test_object_is_valid_for_its_class_and_says_synthetic(tmp_path, stored, site):
    write_radiograph(tmp_path / "a.dcm", stored, (2000, 1500), header(site=SITES[site]))
    assert (tmp_path / "a.dcm").read_bytes()[128:132] == b"DICM"
    data = pydicom.dcmread(tmp_path / "a.dcm")
    expected = {"DX": "1.2.840.10008.5.1.4.1.1.1.1", "CR": "1.2.840.10008.5.1.4.1.1.1"}
    assert data.SOPClassUID == data.file_meta.MediaStorageSOPClassUID == expected[data.Modality]
    assert data.SOPInstanceUID == data.file_meta.MediaStorageSOPInstanceUID
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"):
        assert pydicom.uid.UID(data[keyword].value).is_valid
    assert data.ImageComments == data.PatientComments == "SYNTHETIC DATA"
    assert (data.PatientAge, data.PatientSex, data.StudyDate) == ("007Y", "F", "20200229")
    assert data.ImagerPixelSpacing[0] * data.Rows == pytest.approx(430, abs=0.01)
    data.walk(lambda part, element: pydicom.valuerep.validate_value(element.VR, str(element.value), 2)
              if element.VR in {"CS", "UI", "DA", "AS"} and element.VM == 1 else None)  # fmt: skip


def test_uids_belong_to_cohort_and_study(tmp_path, stored):
    seen = []
    for number, changes in enumerate([{}, {}, {"study": "S00001-2"}, {"cohort": "other"}]):
        write_radiograph(tmp_path / f"{number}.dcm", stored, (2000, 1500), header(**changes))
        seen.append(pydicom.dcmread(tmp_path / f"{number}.dcm").SOPInstanceUID)
    assert seen[0] == seen[1]
    assert len(set(seen)) == 3
    assert (tmp_path / "0.dcm").read_bytes() == (tmp_path / "1.dcm").read_bytes()
