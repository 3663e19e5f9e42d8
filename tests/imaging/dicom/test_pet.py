"""SUV by its definition: a body in which the dose is spread evenly has an SUV of 1, whenever it is scanned."""

from __future__ import annotations

import math
from datetime import datetime, timedelta

import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset

from medgcsam.errors import ConfigError, DataError
from medgcsam.imaging.dicom.pet import pet_scale

DOSE, HALF_LIFE, WEIGHT = 370e6, 6586.2, 80.0
INJECTED = datetime(2024, 2, 28, 9, 0, 0)


def pet(*, minutes: float = 60, injected: datetime = INJECTED, half_life: float = HALF_LIFE, **elements) -> Dataset:
    """A PET slice in Bq/ml, scanned ``minutes`` after the injection, decay-corrected to the start of the scan."""
    ds, tracer = Dataset(), Dataset()
    scan = injected + timedelta(minutes=minutes)
    tracer.RadionuclideTotalDose, tracer.RadionuclideHalfLife = DOSE, half_life
    tracer.RadiopharmaceuticalStartDateTime = injected.strftime("%Y%m%d%H%M%S.%f")
    tracer.RadiopharmaceuticalStartTime = injected.strftime("%H%M%S")
    ds.RadiopharmaceuticalInformationSequence = [tracer]
    ds.Units, ds.DecayCorrection, ds.CorrectedImage = "BQML", "START", ["DECY", "ATTN", "SCAT"]
    ds.PatientWeight, ds.PatientID = WEIGHT, "SECRET-1"
    ds.SeriesDate, ds.SeriesTime = scan.strftime("%Y%m%d"), scan.strftime("%H%M%S")
    ds.AcquisitionDate, ds.AcquisitionTime = ds.SeriesDate, ds.SeriesTime
    for keyword, value in elements.items():
        if value is None:
            del ds[keyword]
        else:
            setattr(ds, keyword, value)
    return ds


def even(minutes: float, half_life: float = HALF_LIFE) -> float:
    """Bq/ml of a body of WEIGHT kg and 1 g/ml, DOSE spread evenly in it, after so many minutes."""
    return DOSE * 2 ** (-minutes * 60 / half_life) / (1000 * WEIGHT)


@given(st.integers(0, 600), st.sampled_from([6586.2, 4062.6, 1221.8]))
def test_an_even_spread_has_an_suv_of_one_at_any_time(minutes, half_life):
    if minutes * 60 > 10 * half_life:
        return
    unit, factor, facts = pet_scale([pet(minutes=minutes, half_life=half_life)], "x")
    assert (unit, facts["suv"], facts["pet_units"]) == ("SUV", "computed", "BQML")
    assert factor * even(minutes, half_life) == pytest.approx(1)
    assert facts["uptake_minutes"] == minutes


def test_pixels_corrected_to_the_administration_need_no_decay_of_the_dose():
    _, factor, facts = pet_scale([pet(DecayCorrection="ADMIN", SeriesTime=None)], "x")
    assert factor * even(0) == pytest.approx(1)
    assert facts["decay_correction"] == "ADMIN"


def test_a_series_written_anew_is_worked_back_from_the_frames_of_all_beds():
    # Reconstructed next day: the true start follows from each bed's acquisition and its FrameReferenceTime.
    start, decay = INJECTED + timedelta(minutes=55), math.log(2) / HALF_LIFE
    slices = []
    for bed in range(3):
        begin, duration = 200.0 * bed, 180.0
        # the moment at which the rate equals its mean over the frame, by bisection
        mean = (1 - math.exp(-decay * duration)) / (decay * duration)
        low, high = 0.0, duration
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if math.exp(-decay * middle) > mean else (low, middle)
        acquired = start + timedelta(seconds=begin)
        ds = pet(SeriesDate="20240229", SeriesTime="120000")
        ds.AcquisitionDate, ds.AcquisitionTime = acquired.strftime("%Y%m%d"), acquired.strftime("%H%M%S.%f")
        ds.FrameReferenceTime, ds.ActualFrameDuration = 1000 * (begin + low), 1000 * duration
        slices.append(ds)
    _, factor, facts = pet_scale(slices, "x")
    assert factor * even(55) == pytest.approx(1, rel=1e-5)
    assert facts["scan_time_source"] == "AcquisitionTime and FrameReferenceTime"
    slices[1].FrameReferenceTime = 900000
    assert "disagree about the start" in pet_scale(slices, "x")[2]["suv"]


@pytest.mark.parametrize(("minutes", "unit"), [(3, "SUV"), (30, "Bq/ml")])
def test_a_time_of_the_series_that_the_frames_contradict_is_not_used(minutes, unit):
    ds = pet(SeriesTime="100000", AcquisitionTime=f"10{minutes:02d}00")
    ds.FrameReferenceTime, ds.ActualFrameDuration = 1000, 2000  # a frame of 2 s, at the start of the scan
    found, _, facts = pet_scale([ds], "x")
    assert found == unit
    assert facts["suv"] == "computed" or facts["suv"].endswith(f"FrameReferenceTime lie {minutes} minutes apart")


def test_the_private_scan_time_of_ge_stands_in_for_a_series_written_anew():
    ds = pet(SeriesDate="20240229", SeriesTime="120000")
    ds.private_block(0x0009, "GEMS_PETD_01", create=True).add_new(0x0D, "DT", "20240228100000.00")
    _, factor, facts = pet_scale([ds], "x")
    assert factor * even(60) == pytest.approx(1)
    assert facts["scan_time_source"] == "GE scan time"


def test_an_injection_before_midnight_and_a_shifted_date():
    ds = pet(injected=datetime(2024, 2, 28, 23, 30))
    for date in ("20240228", "20240301"):  # the second as an anonymiser may leave it: after the scan
        ds.RadiopharmaceuticalInformationSequence[0].RadiopharmaceuticalStartDateTime = date + "233000"
        _, factor, facts = pet_scale([ds], "x")
        assert factor * even(60) == pytest.approx(1)
        assert facts["uptake_minutes"] == 60


def test_an_offset_from_utc_of_the_injection_is_set_against_that_of_the_scan():
    # by hand: 07:00 at +0000 is 09:00 at +0200, which is also the local StartTime; the scan is at 10:00
    ds = pet(TimezoneOffsetFromUTC="+0200")
    tracer = ds.RadiopharmaceuticalInformationSequence[0]
    for text in ("20240228070000.000000+0000", "20240228070000+0000", "20240228013000-0530", "20240228090000+0200"):
        tracer.RadiopharmaceuticalStartDateTime = text
        for time in ("090000", "", None):
            tracer.RadiopharmaceuticalStartTime = time
            _, factor, facts = pet_scale([ds], "x")
            assert factor * even(60) == pytest.approx(1), (text, time)
            assert facts["uptake_minutes"] == 60


@pytest.mark.parametrize(
    ("text", "time", "zone", "reason"),
    [
        ("20240228090000+0200", None, None, "offset from UTC and that of the scan is unknown"),
        ("20240228070000+0000", "070000", "+0200", "StartDateTime and RadiopharmaceuticalStartTime disagree"),
        ("20240228070000+0000", "090000", None, "StartDateTime and RadiopharmaceuticalStartTime disagree"),
        ("20240228090000", "083000", None, "StartDateTime and RadiopharmaceuticalStartTime disagree"),
        ("20240228090000+0200", None, "CEST", "offset from UTC and that of the scan is unknown"),
    ],
)
def test_times_of_injection_that_contradict_each_other_give_no_suv(text, time, zone, reason):
    ds = pet(**({"TimezoneOffsetFromUTC": zone} if zone else {}))
    tracer = ds.RadiopharmaceuticalInformationSequence[0]
    tracer.RadiopharmaceuticalStartDateTime, tracer.RadiopharmaceuticalStartTime = text, time
    unit, factor, facts = pet_scale([ds], "x")
    assert (unit, factor) == ("Bq/ml", 1.0)
    assert facts["suv"].startswith("not computed: ")
    assert reason in facts["suv"]


@pytest.mark.parametrize("offset", ["+0100", "-0500", ""])
def test_a_start_time_that_agrees_says_that_the_offset_is_that_of_the_scan(offset):
    ds = pet()
    ds.RadiopharmaceuticalInformationSequence[0].RadiopharmaceuticalStartDateTime = "20240228090000.000000" + offset
    assert pet_scale([ds], "x")[1] * even(60) == pytest.approx(1)


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("RadionuclideTotalDose", 4e8), ("RadionuclideHalfLife", 4062.6), ("RadiopharmaceuticalStartTime", "080000"),
        ("RadiopharmaceuticalStartDateTime", "20240228080000"),
    ],
)  # fmt: skip
def test_slices_of_different_tracers_give_no_suv(keyword, value):
    other = pet()
    setattr(other.RadiopharmaceuticalInformationSequence[0], keyword, value)
    assert pet_scale([pet(), other], "x")[2]["suv"] == f"not computed: the slices differ in {keyword}"
    del other.RadiopharmaceuticalInformationSequence
    assert "differ in RadiopharmaceuticalInformationSequence" in pet_scale([pet(), other], "x")[2]["suv"]
    stored = [pet(Units="GML"), pet(Units="GML", RadiopharmaceuticalInformationSequence=None)]
    assert pet_scale(stored, "x")[0] == "SUV"  # as stored, whatever the dose was


def test_suv_stored_by_the_scanner_is_never_scaled_again():
    for kind in ("BW", None):
        ds = pet(Units="GML", **({"SUVType": kind} if kind else {}))
        assert pet_scale([ds], "x") == ("SUV", 1.0, {"pet_units": "GML", "suv": "stored"})
    unit, factor, facts = pet_scale([pet(Units="GML", SUVType="LBM")], "x")
    assert (unit, factor, facts["suv"]) == ("raw", 1.0, "not computed: stored as SUV of type LBM")


def test_counts_need_the_factors_of_philips():
    assert pet_scale([pet(Units="CNTS")], "x")[0] == "raw"
    ds = pet(Units="CNTS")
    ds.private_block(0x7053, "Philips PET Private Group", create=True).add_new(0x00, "UN", b"0.000551 ")
    assert pet_scale([ds], "x")[:2] == ("SUV", 0.000551)
    ds = pet(Units="CNTS")
    ds.private_block(0x7053, "Philips PET Private Group", create=True).add_new(0x09, "DS", "2.5")
    assert pet_scale([ds], "x")[1] * even(60) / 2.5 == pytest.approx(1)


@pytest.mark.parametrize(
    ("elements", "reason"),
    [
        ({"PatientWeight": None}, "PatientWeight"),
        ({"PatientWeight": 0}, "PatientWeight"),
        ({"PatientWeight": 80000}, "PatientWeight"),
        ({"RadiopharmaceuticalInformationSequence": None}, "RadiopharmaceuticalInformationSequence"),
        ({"CorrectedImage": ["DECY", "SCAT"]}, "attenuation"),
        ({"CorrectedImage": "ATTN"}, "decay"),
        ({"DecayCorrection": "NONE"}, "decay"),
        ({"SeriesTime": None, "AcquisitionTime": None}, "time of acquisition"),
        ({"SeriesTime": "235900"}, "FrameReferenceTime"),
        ({"Units": "CPS"}, "units are CPS"),
    ],
)
def test_without_a_tag_the_values_stay_and_the_reason_is_recorded(elements, reason):
    unit, factor, facts = pet_scale([pet(**elements)], "x")
    assert unit == ("raw" if "Units" in elements else "Bq/ml")
    assert factor == 1
    assert facts["suv"].startswith("not computed: ")
    assert reason in facts["suv"]


@pytest.mark.parametrize(
    ("keyword", "value", "reason"),
    [
        ("RadionuclideTotalDose", 370, "RadionuclideTotalDose"),
        ("RadionuclideTotalDose", None, "RadionuclideTotalDose"),
        ("RadionuclideHalfLife", None, "HalfLife"),
        ("RadionuclideHalfLife", 60, "not before the scan"),
    ],
)
def test_an_implausible_tracer_gives_no_suv(keyword, value, reason):
    ds = pet()
    setattr(ds.RadiopharmaceuticalInformationSequence[0], keyword, value)
    assert reason in pet_scale([ds], "x")[2]["suv"]


def test_a_long_lived_tracer_needs_the_date_of_injection():
    half_life = 78.4 * 3600
    days = pet(minutes=4 * 1440, half_life=half_life)
    assert pet_scale([days], "x")[1] * even(4 * 1440, half_life) == pytest.approx(1)
    del days.RadiopharmaceuticalInformationSequence[0].RadiopharmaceuticalStartDateTime
    assert "date of injection" in pet_scale([days], "x")[2]["suv"]


def test_slices_of_two_units_are_no_series():
    with pytest.raises(DataError, match="differ in Units"):
        pet_scale([pet(), pet(Units="GML")], "x")


def test_stored_values_on_request_and_no_dates_in_the_facts():
    assert pet_scale([pet()], "x", pet="stored")[:2] == ("Bq/ml", 1.0)
    assert "2024" not in str(pet_scale([pet()], "x"))
    with pytest.raises(ConfigError, match="suv or stored"):
        pet_scale([pet()], "x", pet="lbm")


def test_the_units_of_the_real_series_are_suv_already(shared_data):
    for folder in sorted((shared_data / "sarcoma_dicom").glob("*/PET/image")):
        slices = [pydicom.dcmread(f, stop_before_pixels=True) for f in sorted(folder.glob("*.dcm"))[::20]]
        assert pet_scale(slices, "x") == ("SUV", 1.0, {"pet_units": "GML", "suv": "stored"})
