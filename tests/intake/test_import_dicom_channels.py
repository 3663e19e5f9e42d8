"""Series of several volumes at one place: import takes and leaves out what reading takes and refuses, by its reason."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pydicom
import pytest

from medgcsam.errors import DataError
from medgcsam.imaging import read_image
from medgcsam.intake.description import Description, Selection
from medgcsam.intake.importers import COLLECTORS

# Test folders are no packages, so the helpers beside this file are loaded by their path.
_spec = importlib.util.spec_from_file_location("dicom_phantoms", Path(__file__).with_name("dicom_phantoms.py"))
make = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(make)

SEVERAL = "several acquisitions at the same positions"
MOSAIC = ["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"]


def write(folder: Path, *, volumes: int = 2, **elements) -> None:
    """``volumes`` times three slices in one series; elements are values or functions of (volume, slice)."""
    for t in range(volumes):
        for path in make.write_series(folder / f"{t}", "1.1", sop_class=make.MR):
            ds, k = pydicom.dcmread(path), int(path.stem)
            ds.SOPInstanceUID = f"1.1.{10 * t + k}"
            for name, value in elements.items():
                setattr(ds, name, value(t, k) if callable(value) else value)
            ds.save_as(path)


CASES = {
    "times": ({"TemporalPositionIdentifier": lambda t, k: t}, ""),
    "echoes": ({"EchoTime": lambda t, k: [10, 30][t]}, ""),
    "weights": ({"DiffusionBValue": lambda t, k: [0.0, 800.0][t]}, ""),
    "directions": (
        {
            "DiffusionBValue": lambda t, k: 800.0,
            "DiffusionGradientOrientation": lambda t, k: [[1.0, 0.0, 0.0], [0.0, 0.6, 0.8]][t],
        },
        "",
    ),
    "acquisitions": ({"AcquisitionNumber": lambda t, k: t}, SEVERAL),
    "protocols": (
        {"TemporalPositionIdentifier": lambda t, k: t, "RepetitionTime": lambda t, k: [500, 4000][t]}, SEVERAL,
    ),
    "copies": ({}, "duplicate positions"),
    "mixed echoes": ({"volumes": 1, "EchoTime": lambda t, k: [10, 30, 10][k]}, "several echo times in one series"),
    "one echo": ({"volumes": 1, "EchoTime": lambda t, k: ["10", "10.0", "1E1"][k]}, ""),
    "mixed weights": (
        {"volumes": 1, "DiffusionBValue": lambda t, k: [0.0, 800.0, 0.0][k]},
        "several diffusion weights in one series",
    ),
    "mixed kinds": (
        {"volumes": 1, "ImageType": lambda t, k: ["DERIVED" if k else "ORIGINAL", "PRIMARY"]},
        "several kinds of image (ImageType) in one series",
    ),
    "mixed echoes and a gap": (
        {
            "volumes": 1, "EchoTime": lambda t, k: [10, 30, 10][k],
            "ImagePositionPatient": lambda t, k: [0, 0, [0, 2, 8][k]],
        },
        "several echo times in one series",
    ),
    "mosaics": (
        {"ImageType": MOSAIC, "ImagePositionPatient": [0, 0, 0], "AcquisitionNumber": lambda t, k: 3 * t + k}, "",
    ),
    "uncounted mosaics": ({"ImageType": MOSAIC, "ImagePositionPatient": [0, 0, 0]}, "duplicate positions"),
    "mosaics elsewhere": (
        {"ImageType": MOSAIC, "AcquisitionNumber": lambda t, k: 3 * t + k}, "mosaics of several sizes or places",
    ),
}  # fmt: skip


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_import_and_reading_agree(tmp_path, case, keep):
    elements, reason = CASES[case]
    write(tmp_path / "e", **elements)
    select = Selection(keep_irregular=keep)
    description = Description(
        title="t", licence="", citation="", source="", importer="dicom", folder="e", columns={}, select=select
    )
    imported = COLLECTORS["dicom"](description, tmp_path / "e", None)
    assert [entry.reason for entry in imported.left_out] == ([reason] if reason else [])
    assert [row["image"].replace("/0", "") for row in imported.rows] == ([] if reason else ["e#series=1.1"])
    several = "mosaics" in case or elements.get("volumes") != 1
    assert any("several volumes" in note for note in imported.notes) == (several and not reason)
    if "mosaics" in case:
        return  # their slices are told by the CSA header alone, which these have not
    irregular = "resample" if keep else "refuse"
    if reason:
        with pytest.raises(DataError):
            read_image(tmp_path / "e", irregular=irregular)
    else:
        image = read_image(tmp_path / "e", irregular=irregular)
        assert image.array.shape == (elements.get("volumes", 2), 2, 3, 3)
        assert imported.rows[0]["slices"] == "3"
