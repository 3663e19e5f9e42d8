"""Modality, VOI and presentation against pydicom's own functions and the formulas of the standard."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.pixels import apply_modality_lut, apply_voi_lut, apply_windowing

from medgcsam.errors import DataError
from medgcsam.imaging import read_image
from medgcsam.imaging.dicom.presentation import padding_mask, to_display, windowed

RAMP = np.arange(0, 4096, 16, dtype=np.uint16).reshape(16, 16)


def lut(entries: np.ndarray, first: int, bits: int) -> Dataset:
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [len(entries), first, bits])
    item.add_new("LUTData", "US", entries.tolist())
    return item


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
@pytest.mark.filterwarnings("ignore:overflow")  # in pydicom's sigmoid
@settings(max_examples=40, deadline=None)
@given(
    center=st.floats(-500, 5000),
    width=st.floats(1, 6000),
    slope=st.sampled_from([1.0, 0.5, -2.0]),
    intercept=st.integers(-1024, 99),
)
def test_windows_agree_with_pydicom(function, center, width, slope, intercept):
    ds = Dataset()
    ds.PhotometricInterpretation, ds.BitsStored, ds.PixelRepresentation = "MONOCHROME2", 12, 0
    ds.RescaleSlope, ds.RescaleIntercept = slope, intercept
    ds.WindowCenter, ds.WindowWidth, ds.VOILUTFunction = center, width, function
    reference = apply_windowing(apply_modality_lut(RAMP, ds), ds)
    ends = [value * slope + intercept for value in (0, 4095)]
    ours, facts = to_display(RAMP, ds, "x")
    np.testing.assert_allclose(ours, (reference - ends[0]) / (ends[1] - ends[0]), atol=1e-6)
    assert facts["voi"] == function


def test_the_linear_window_is_the_example_of_the_standard():
    # PS3.3 C.11.2.1.2.1, note: c=2048, w=4096 maps 0 to black and 4095 to white; c=2048, w=1 splits at 2048.
    np.testing.assert_allclose(windowed(np.array([0.0, 4095.0]), 2048, 4096), [0, 1])
    np.testing.assert_array_equal(windowed(np.array([2047.0, 2048.0]), 2048, 1), [0, 1])


def test_modality_table_and_voi_table_agree_with_pydicom(write_dicom):
    rng = np.random.default_rng(2)
    modality, voi = rng.integers(0, 1024, 300).astype(np.uint16), np.sort(rng.integers(0, 65536, 900).astype(np.uint16))
    pixels = rng.integers(0, 400, (9, 7), dtype=np.uint16)
    path = write_dicom(
        pixels,
        BitsStored=12,
        ModalityLUTSequence=[lut(modality, 20, 16)],
        VOILUTSequence=[lut(voi, 50, 16)],
        WindowCenter=5,
        WindowWidth=9,
    )
    ds = pydicom.dcmread(path)
    reference = apply_voi_lut(apply_modality_lut(pixels, ds), ds, prefer_lut=True)
    image = read_image(path)
    np.testing.assert_allclose(image.array[0], reference / 65535, atol=1e-6)
    assert (image.source["modality_lut"], image.source["voi"]) == ("table", "table")


def test_an_8_bit_table_holds_for_values_beyond_255(write_dicom):
    # pydicom 3.0 wraps these indices at 8 bits; the standard says that the last entry is meant (PS3.3 C.11.1.1.1)
    path = write_dicom(RAMP, BitsStored=12, VOILUTSequence=[lut(np.arange(256, dtype=np.uint16), 0, 8)])
    np.testing.assert_allclose(read_image(path).array[0], np.minimum(RAMP, 255) / 255, atol=1e-6)


def test_two_8_bit_entries_may_share_a_word(write_dicom):
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [256, 0, 8])
    item.add_new("LUTData", "OW", bytes(range(255, -1, -1)))
    path = write_dicom((RAMP // 16).astype(np.uint8), VOILUTSequence=[item])
    np.testing.assert_allclose(read_image(path).array[0], (255 - RAMP // 16) / 255, atol=1e-6)


def test_monochrome1_is_the_negative_of_monochrome2(write_dicom):
    pair = [
        read_image(write_dicom(RAMP, BitsStored=12, WindowCenter=2000, WindowWidth=3000, PhotometricInterpretation=p))
        for p in ("MONOCHROME1", "MONOCHROME2")
    ]
    np.testing.assert_allclose(pair[0].array, 1 - pair[1].array, atol=1e-6)
    assert [image.source["inverted"] for image in pair] == [True, False]


def test_without_voi_8_bits_keep_their_range_and_more_bits_show_the_data(write_dicom):
    few = np.full((3, 3), 100, np.uint8)
    few[0, 0] = 50
    assert read_image(write_dicom(few)).array.max() == pytest.approx(100 / 255)
    image = read_image(write_dicom(RAMP))
    assert (image.array.min(), image.array.max(), image.source["voi"]) == (0, 1, "data range")
    signed = read_image(write_dicom(few.astype(np.int8)))
    assert signed.array.max() == pytest.approx((100 + 128) / 255)


@pytest.mark.parametrize("window", [{"WindowCenter": 5}, {"WindowCenter": 5, "WindowWidth": 0}])
def test_an_unusable_window_is_ignored_and_recorded(write_dicom, window):
    image = read_image(write_dicom(RAMP, **window))
    assert image.source["voi"] == "data range"
    assert image.source["voi_ignored"] == "unusable window"


def test_the_first_of_several_windows_is_taken(write_dicom):
    image = read_image(write_dicom(RAMP, WindowCenter=[100, 900], WindowWidth=[50, 60]))
    assert (image.source["window"], image.source["voi_choices"]) == ((100.0, 50.0), 2)


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_padding_is_black_and_takes_no_part_in_the_range(write_dicom, photometric):
    pixels = RAMP + np.uint16(1000)
    pixels[:4] = 63536  # written as the signed number -2000, as some vendors do
    image = read_image(write_dicom(pixels, PixelPaddingValue=63536, PhotometricInterpretation=photometric))
    assert (image.array[0, :4] == 0).all()
    assert image.source["range"] == (float(pixels[4:].min()), float(pixels[4:].max()))
    assert (image.array[0, 4:].min(), image.array[0, 4:].max()) == (0, 1)


def test_padding_of_the_wrong_sign_a_range_and_nothing_but_padding():
    ds = Dataset()
    ds.add_new("PixelPaddingValue", "SS", -2000)
    stored = np.array([[63536, 5]], np.uint16)
    np.testing.assert_array_equal(padding_mask(stored, ds), [[True, False]])
    assert padding_mask(stored[:, :1], ds) is None
    ds.add_new("PixelPaddingValue", "US", 0)
    ds.add_new("PixelPaddingRangeLimit", "US", 5)
    np.testing.assert_array_equal(padding_mask(np.array([[0, 3, 5, 6]], np.uint16), ds), [[True, True, True, False]])


def test_a_constant_image_is_black_whatever_its_photometric(write_dicom):
    flat = np.full((4, 4), 7, np.uint16)
    assert read_image(write_dicom(flat, PhotometricInterpretation="MONOCHROME1")).array.max() == 0


@pytest.mark.parametrize(
    "elements",
    [
        {"RescaleSlope": 0, "RescaleIntercept": 0},
        {"WindowCenter": 5, "WindowWidth": 9, "VOILUTFunction": "CUBIC"},
        {"VOILUTSequence": [lut(np.arange(10, dtype=np.uint16), 0, 16)]},
    ],
)
def test_impossible_transformations_are_refused(write_dicom, elements):
    for item in elements.get("VOILUTSequence", []):
        item.LUTDescriptor = [99, 0, 16]
    with pytest.raises(DataError, match="export it again"):
        read_image(write_dicom(RAMP, **elements))


def test_real_radiographs_agree_with_pydicom(shared_data):
    for path in sorted((shared_data / "chest_xray_dicom").glob("*.dcm")):
        ds = pydicom.dcmread(path)
        if ds.Rows * ds.Columns > 2e6:  # each takes a second
            continue
        shown = apply_voi_lut(apply_modality_lut(ds.pixel_array, ds), ds).astype(float) / (2**ds.BitsStored - 1)
        expected = 1 - shown if ds.PhotometricInterpretation == "MONOCHROME1" else shown
        np.testing.assert_allclose(read_image(path).array[0], expected, atol=1e-5, err_msg=Path(path).name)


def test_the_same_radiograph_in_both_photometrics_is_told_apart_only_by_the_header(shared_data):
    folder = shared_data / "chest_xray_dicom"
    plain = read_image(folder / "1.2.276.0.7230010.3.1.4.8323329.6904.1517875201.850819.dcm")
    fake = read_image(folder / "Fake_MONOHR1.dcm")
    np.testing.assert_allclose(fake.array, 1 - plain.array, atol=1e-6)


def palette(entries: np.ndarray) -> dict[str, object]:
    """Elements of a palette of one gray table for all colours, its entries of 16 bits."""
    found: dict[str, object] = {"PhotometricInterpretation": "PALETTE COLOR"}
    for colour in ("Red", "Green", "Blue"):
        found[f"{colour}PaletteColorLookupTableDescriptor"] = [len(entries), 0, 16]
        found[f"{colour}PaletteColorLookupTableData"] = entries.astype("<u2").tobytes()
    return found


def test_a_palette_of_16_bits_with_8_bit_values_is_refused_and_not_read_as_almost_black(write_dicom):
    pixels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    image = read_image(write_dicom(pixels, name="whole", **palette(np.arange(256) * 257)))
    np.testing.assert_allclose(image.array, np.stack([pixels / 255] * 3), atol=1e-6)
    with pytest.raises(DataError, match="palette of 16 bits that is filled with 8-bit values"):
        read_image(write_dicom(pixels, name="half", **palette(np.arange(256))))


def test_a_table_that_leaves_nothing_to_see_is_recorded(write_dicom):
    black = lut(np.zeros(4096, np.uint16), 0, 12)
    assert read_image(write_dicom(RAMP, name="black", VOILUTSequence=[black])).source["constant_after_voi"]
    assert "constant_after_voi" not in read_image(write_dicom(RAMP, name="plain")).source
    assert "constant_after_voi" not in read_image(write_dicom(RAMP * 0 + 7, name="flat")).source
