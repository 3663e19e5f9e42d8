"""Multi-frame objects: against reference conversions, and by pixels that tell where in the patient they lie."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

from medgcsam.errors import DataError
from medgcsam.imaging import read_image
from medgcsam.imaging.dicom.objects import read_dicom
from medgcsam.imaging.image import Image

ENHANCED_CT, ENHANCED_MR, MR = "1.2.840.10008.5.1.4.1.1.2.1", "1.2.840.10008.5.1.4.1.1.4.1", "1.2.840.10008.5.1.4.1.1.4"
NUCLEAR, SECONDARY_WORD = "1.2.840.10008.5.1.4.1.1.20", "1.2.840.10008.5.1.4.1.1.7.3"
OBLIQUE = np.array([0.8, 0.6, 0, -0.36, 0.48, -0.8])
ROWS, COLUMNS, SPACING, STEP = 5, 7, (0.5, 0.75), 2.5
CORNER = np.array([-30.0, 12.5, 40.0])
ENHANCED = [
    "hyperfine/anatomical/001/001.dcm", "philips_enhanced/anatomical/001/IM-0001-0170-0001.dcm",
    "philips_enhanced/anatomical/001_implicit/IM1.dcm", "siemens_multiframe/anatomical/001/IM-0001-0001-0001.dcm",
]  # fmt: skip


def item(**elements: object) -> list[Dataset]:
    ds = Dataset()
    for keyword, value in elements.items():
        setattr(ds, keyword, value)
    return [ds]


def place(level: float) -> np.ndarray:
    """Position of the slice ``level`` steps along the normal, by the formula of the standard."""
    return CORNER + level * STEP * np.cross(OBLIQUE[:3], OBLIQUE[3:])


def pixels_at(position: np.ndarray) -> np.ndarray:
    """(row, column) values that say where they lie: 2000 + 20 x + 30 y + 40 z, in mm of LPS."""
    row, column = np.indices((ROWS, COLUMNS))
    points = position + column[..., None] * SPACING[1] * OBLIQUE[:3] + row[..., None] * SPACING[0] * OBLIQUE[3:]
    return np.rint(2000 + points @ [20, 30, 40]).astype(np.uint16)


def assert_in_place(image: Image, *, channel: int = 0, offset: float = 0) -> None:
    """Each voxel says where the affine puts it, to the rounding of its value."""
    index = np.stack(np.meshgrid(*map(range, image.spatial_shape), indexing="ij"), -1)
    ras = index @ image.affine[:3, :3].T + image.affine[:3, 3]
    expected = 2000 + (ras * [-1, -1, 1]) @ [20, 30, 40] + offset
    np.testing.assert_allclose(image.array[channel], expected, atol=0.6)


def write_enhanced(write_dicom: Callable[..., Path], levels: list[float], **more: object) -> Path:
    """An enhanced object with frames at ``levels``; ``groups`` (frame -> functional groups) and elements on top."""
    groups, pixels = more.pop("groups", lambda frame: {}), more.pop("pixels", None)
    frames = []
    for n, level in enumerate(levels):
        found = {"PlanePositionSequence": item(ImagePositionPatient=place(level).tolist())} | groups(n)
        frames += item(**{name: value for name, value in found.items() if value is not None})
    shared = {
        "PlaneOrientationSequence": item(ImageOrientationPatient=OBLIQUE.tolist()),
        "PixelMeasuresSequence": item(PixelSpacing=list(SPACING), SliceThickness=STEP),
    }
    if pixels is None:
        pixels = np.stack([pixels_at(place(level)) for level in levels])
    elements = {
        "SOPClassUID": ENHANCED_MR,
        "Modality": "MR",
        "NumberOfFrames": len(levels),
        "Rows": ROWS,
        "Columns": COLUMNS,
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "SharedFunctionalGroupsSequence": item(**shared),
        "PerFrameFunctionalGroupsSequence": frames,
    }
    return write_dicom(pixels.reshape(-1, COLUMNS), **(elements | more))


@pytest.mark.parametrize("name", ENHANCED)
def test_enhanced_objects_equal_the_reference_conversions(shared_data, name):
    path = shared_data / "dicom_series" / name
    reference = nibabel.load(f"{path.parent}_ground_truth.nii.gz")
    image = read_image(path)
    np.testing.assert_allclose(image.affine, reference.affine, atol=1e-4)
    np.testing.assert_allclose(image.array[0], np.asarray(reference.dataobj).reshape(image.spatial_shape), rtol=1e-6)
    assert image.reference.frame_numbers == tuple(range(1, 9))
    assert image.source["geometry"] == "regular"


@pytest.mark.parametrize("case", ["23x38x3", "24x38x3"])
def test_a_legacy_converted_object_equals_the_slices_it_was_made_of(shared_data, case):
    folder = shared_data / "dicom_variety" / "dcmqi" / "segmentations" / case
    volume = read_image(folder / "multiframe" / "mf.dcm")
    for path in (folder / "image").glob("*.dcm"):
        one = read_image(path)
        k = np.linalg.inv(volume.affine) @ one.affine[:, 3]
        np.testing.assert_allclose(k, [0, 0, np.rint(k[2]), 1], atol=1e-4)
        np.testing.assert_array_equal(volume.array[..., int(np.rint(k[2]))], one.array[..., 0])


def test_frames_in_any_order_lie_where_their_positions_say(write_dicom):
    image = read_image(write_enhanced(write_dicom, [3, 0, 2, 1]))
    assert image.array.shape == (1, COLUMNS, ROWS, 4)
    assert image.spacing == pytest.approx((SPACING[1], SPACING[0], STEP))
    assert image.reference.frame_numbers == (2, 4, 3, 1)
    assert len(image.reference.sop_instance_uids) == 4
    assert_in_place(image)


def test_time_points_are_channels_in_their_order(write_dicom):
    levels, times = [0, 1, 0, 1, 0, 1], [3, 3, 1, 1, 2, 2]
    pixels = np.stack([pixels_at(place(level)) + 1000 * t for level, t in zip(levels, times, strict=True)])
    path = write_enhanced(
        write_dicom,
        levels,
        pixels=pixels,
        groups=lambda n: {"FrameContentSequence": item(TemporalPositionIndex=times[n])},
    )
    image = read_image(path)
    assert image.array.shape == (3, COLUMNS, ROWS, 2)
    for channel in range(3):
        assert_in_place(image, channel=channel, offset=1000 * (channel + 1))
    assert (image.source["channels_by"], image.source["channel_values"]) == ("TemporalPositionIndex", [1, 2, 3])
    for one in (read_image(path, volume=1), read_image(f"{path}#volume=1")):
        np.testing.assert_array_equal(one.array, image.array[1:2])
        assert (one.source["volume"], one.source["volumes"], one.source["channel_values"]) == (1, 3, [2])
        assert one.reference.frame_numbers == (5, 6)  # of the frames with time 2
    with pytest.raises(DataError, match="has no volume 3, only 0 to 2"):
        read_image(path, volume=3)


def test_dimensions_of_the_object_tell_frames_apart_and_its_spatial_ones_do_not(write_dicom):
    index = [(1, 2, 1), (1, 1, 1), (1, 2, 2), (1, 1, 2)]  # stack, in-stack position, diffusion b-value
    pointers = [(0x0020, 0x9056), (0x0020, 0x9057), (0x0018, 0x9087)]
    levels = [1, 0, 1, 0]
    pixels = np.stack([pixels_at(place(levels[n])) + 500 * index[n][2] for n in range(4)])
    path = write_enhanced(
        write_dicom,
        levels,
        pixels=pixels,
        DimensionIndexSequence=[item(DimensionIndexPointer=pointer)[0] for pointer in pointers],
        groups=lambda n: {"FrameContentSequence": item(DimensionIndexValues=list(index[n]))},
    )
    image = read_image(path)
    assert image.source["channels_by"] == "DiffusionBValue"
    for channel in range(2):
        assert_in_place(image, channel=channel, offset=500 * (channel + 1))


def test_each_frame_is_rescaled_by_its_own_slope(write_dicom):
    slopes = [1.0, 2.0, 0.5]
    path = write_enhanced(
        write_dicom,
        [0, 1, 2],
        groups=lambda n: {
            "PixelValueTransformationSequence": item(RescaleSlope=slopes[n], RescaleIntercept=-7, RescaleType="HU")
        },
        SOPClassUID=ENHANCED_CT,
    )
    image = read_image(path)
    assert image.unit == "HU"
    assert image.source["rescale"] == "per frame"
    for k, slope in enumerate(slopes):
        np.testing.assert_allclose(image.array[0, :, :, k].T, pixels_at(place(k)) * slope - 7)


def _two_orientations(n: int) -> dict[str, list[Dataset]]:
    return {"PlaneOrientationSequence": item(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])} if n else {}


@pytest.mark.parametrize(
    ("levels", "more", "message"),
    [
        ([0, 1, 2, 4], {}, "one slice missing, a gap of 5 mm"),
        ([0, 1, 1, 2], {}, "duplicate positions"),
        (
            [0, 1, 0],
            {"groups": lambda n: {"FrameContentSequence": item(TemporalPositionIndex=n)}},
            "duplicate positions",
        ),
        ([0, 1, 2], {"groups": _two_orientations}, "mixed orientation"),
        ([0, 1, 2], {"groups": lambda n: {"PlanePositionSequence": None}}, "does not say where its frames lie"),
        ([0, 1, 2], {"groups": lambda n: {"PlanePositionSequence": None} if n else {}}, "to 1 of its 3 frames"),
        ([0, 1, 2], {"SharedFunctionalGroupsSequence": []}, "how frame 1 lies"),
        ([0, 1, 2], {"PerFrameFunctionalGroupsSequence": item()}, "describes 1 of them"),
        ([0, 1, 2], {"SOPClassUID": MR, "PerFrameFunctionalGroupsSequence": []}, "does not say where its frames lie"),
        ([0, 1, 2], {"DimensionOrganizationType": "TILED_FULL"}, "whole slide"),
    ],
)
def test_frames_that_form_no_volume_are_refused_by_name(write_dicom, levels, more, message):
    with pytest.raises(DataError, match=message):
        read_image(write_enhanced(write_dicom, levels, **more))


def test_a_missing_frame_is_filled_when_asked_for_and_recorded(write_dicom):
    path = write_enhanced(write_dicom, [0, 1, 2, 4])
    image = read_dicom(path.read_bytes(), str(path), irregular="resample")
    assert image.array.shape == (1, COLUMNS, ROWS, 5)
    assert_in_place(image)
    assert image.source["geometry"].startswith("resampled: one slice missing")


def _nuclear(write_dicom: Callable[..., Path], levels: list[int], step: float, **more: object) -> Image:
    elements = {
        "SOPClassUID": NUCLEAR,
        "Modality": "NM",
        "ImageType": ["ORIGINAL", "PRIMARY", "RECON TOMO", "EMISSION"],
        "SliceVector": levels,
        "SpacingBetweenSlices": step,
        "PixelSpacing": list(SPACING),
        "DetectorInformationSequence": item(
            ImagePositionPatient=CORNER.tolist(), ImageOrientationPatient=OBLIQUE.tolist()
        ),
        "PerFrameFunctionalGroupsSequence": None,
        "SharedFunctionalGroupsSequence": None,
    }
    places = [(level - 1) * step / STEP for level in levels]
    return read_image(write_enhanced(write_dicom, places, **(elements | more)))


@pytest.mark.parametrize("step", [STEP, -STEP])
def test_a_tomogram_of_nuclear_medicine_is_a_volume_in_the_direction_of_its_sign(write_dicom, step):
    image = _nuclear(write_dicom, [1, 2, 3, 4], step)
    assert image.reference.frame_numbers == ((1, 2, 3, 4) if step > 0 else (4, 3, 2, 1))
    assert_in_place(image)


def test_gated_slots_are_channels_and_planar_images_are_frames(write_dicom):
    gated = ["ORIGINAL", "PRIMARY", "RECON GATED TOMO", "EMISSION"]
    image = _nuclear(write_dicom, [1, 2, 1, 2], STEP, ImageType=gated, TimeSlotVector=[1, 1, 2, 2])
    assert image.array.shape == (2, COLUMNS, ROWS, 2)
    planar = _nuclear(write_dicom, [1, 2, 3], STEP, ImageType=["ORIGINAL", "PRIMARY", "DYNAMIC", "EMISSION"])
    assert (planar.array.shape, planar.unit, planar.affine) == ((3, ROWS, COLUMNS), "display", None)
    with pytest.raises(DataError, match="no SpacingBetweenSlices"):
        _nuclear(write_dicom, [1, 2], STEP, SpacingBetweenSlices=None)


def test_offsets_of_a_grid_place_the_frames_of_a_classic_object(write_dicom):
    more = {
        "SOPClassUID": SECONDARY_WORD,
        "ImagePositionPatient": CORNER.tolist(),
        "ImageOrientationPatient": OBLIQUE.tolist(),
        "PixelSpacing": list(SPACING),
        "PerFrameFunctionalGroupsSequence": None,
        "SharedFunctionalGroupsSequence": None,
    }
    offsets = [0, 2 * STEP, STEP]
    image = read_image(write_enhanced(write_dicom, [0, 2, 1], GridFrameOffsetVector=offsets, **more))
    assert image.unit == "raw"
    assert_in_place(image)
    with pytest.raises(DataError, match="GridFrameOffsetVector"):
        read_image(write_enhanced(write_dicom, [0, 2, 1], GridFrameOffsetVector=offsets[:2], **more))


def test_frames_of_a_cine_are_channels_seen_through_one_window(write_dicom):
    more = {"SOPClassUID": SECONDARY_WORD, "PerFrameFunctionalGroupsSequence": None, "FrameTime": 40}
    image = read_image(write_enhanced(write_dicom, [0, 1, 2], **more))
    stored = np.stack([pixels_at(place(k)) for k in range(3)]).astype(float)
    np.testing.assert_allclose(image.array, (stored - stored.min()) / np.ptp(stored), atol=1e-6)
    assert (image.source["frames"], image.source["frame_time_ms"], image.spacing) == (3, 40, None)


def test_windows_of_single_frames_are_used_for_these_frames(write_dicom):
    centres = [2000, 2500]
    path = write_enhanced(
        write_dicom,
        [0, 1],
        SOPClassUID="1.2.840.10008.5.1.4.1.1.12.1.1",  # Enhanced XA: projections
        groups=lambda n: {
            "PlanePositionSequence": None,
            "FrameVOILUTSequence": item(WindowCenter=centres[n], WindowWidth=1000, VOILUTFunction="LINEAR_EXACT"),
        },
    )
    image = read_image(path)
    for n, centre in enumerate(centres):
        expected = np.clip((pixels_at(place(n)) - centre) / 1000 + 0.5, 0, 1)
        np.testing.assert_allclose(image.array[n], expected, atol=1e-6)


def test_a_colour_cine_is_red_green_blue_frame_by_frame(shared_data):
    path = shared_data / "dicom_variety" / "pydicom" / "SC_rgb_2frame.dcm"
    stored = pydicom.dcmread(path).pixel_array
    image = read_image(path)
    for frame in range(2):
        for colour in range(3):
            np.testing.assert_allclose(image.array[3 * frame + colour], stored[frame, ..., colour] / 255, atol=1e-6)


@pytest.mark.parametrize("odd", [{}, {"RescaleSlope": 1, "RescaleIntercept": 0, "RescaleType": "US"}])
def test_frames_of_which_some_are_rescaled_and_others_not_are_refused(write_dicom, odd):
    def groups(frame: int) -> dict:
        usual = {"RescaleSlope": 1, "RescaleIntercept": -1024, "RescaleType": "HU"}
        found = odd if frame == 2 else usual
        return {"PixelValueTransformationSequence": item(**found) if found else None}

    path = write_enhanced(write_dicom, [0, 1, 2, 3], SOPClassUID=ENHANCED_CT, Modality="CT", groups=groups)
    with pytest.raises(DataError, match="frame 1 and frame 3 differ") as caught:
        read_image(path)
    assert str(path) in str(caught.value)


def test_frames_in_inverted_gray_without_a_unit_are_refused(write_dicom):
    path = write_enhanced(write_dicom, [0, 1, 2], PhotometricInterpretation="MONOCHROME1")
    with pytest.raises(DataError, match="MONOCHROME1"):
        read_image(path)


@pytest.mark.parametrize(("group", "name", "values"), [
    ("MREchoSequence", "EffectiveEchoTime", [10.0, 20.0]),
    ("MRImageFrameTypeSequence", "ComplexImageComponent", ["MAGNITUDE", "PHASE"]),
])  # fmt: skip
def test_frames_of_two_kinds_in_turn_are_no_volume(write_dicom, group, name, values):
    path = write_enhanced(write_dicom, [0, 1, 2, 3], groups=lambda frame: {group: item(**{name: values[frame % 2]})})
    with pytest.raises(DataError, match=f"2 values of {name}"):
        read_image(path)
    path = write_enhanced(write_dicom, [0, 1, 2, 3], groups=lambda frame: {group: item(**{name: values[0]})})
    assert_in_place(read_image(path))
