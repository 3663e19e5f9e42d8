"""Hand-made files for the imaging tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"


@pytest.fixture
def write_dicom(tmp_path: Path) -> Callable[..., Path]:
    """``write_dicom(pixels, name=..., preamble=..., **elements)`` writes an uncompressed object, returns its path."""

    def write(pixels: np.ndarray, *, name: str = "image", preamble: bool = True, **elements: object) -> Path:
        ds = Dataset()
        ds.SOPClassUID, ds.SOPInstanceUID = SECONDARY_CAPTURE, generate_uid()
        ds.PatientName, ds.PatientID, ds.Modality = "Doe^Jane", "SECRET-1", "DX"
        ds.Rows, ds.Columns = pixels.shape[:2]
        ds.SamplesPerPixel = 1 if pixels.ndim == 2 else pixels.shape[2]
        ds.PhotometricInterpretation = "MONOCHROME2" if pixels.ndim == 2 else "RGB"
        if pixels.ndim == 3:
            ds.PlanarConfiguration = 0
        ds.BitsAllocated = 8 * pixels.dtype.itemsize
        ds.BitsStored = elements.pop("BitsStored", ds.BitsAllocated)
        ds.HighBit = ds.BitsStored - 1
        ds.PixelRepresentation = int(pixels.dtype.kind == "i")
        for keyword, value in elements.items():
            setattr(ds, keyword, value)
        data = pixels.astype(pixels.dtype.newbyteorder("<")).tobytes()
        ds.PixelData = data + b"\0" * (len(data) % 2)
        ds["PixelData"].VR = "OB" if pixels.dtype.itemsize == 1 else "OW"
        path = tmp_path / name
        if preamble:
            ds.file_meta = FileMetaDataset()
            ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
            ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
            ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
            ds.save_as(path, enforce_file_format=True)
        else:
            ds.save_as(path, implicit_vr=True, little_endian=True)
        return path

    return write


CT_STORAGE = "1.2.840.10008.5.1.4.1.1.2"


@pytest.fixture
def write_series(tmp_path: Path, write_dicom: Callable[..., Path]) -> Callable[..., list[Path]]:
    """``write_series(volume, folder=..., **elements)`` writes (slice, row, column) as axial files, 3 mm apart.

    An element that is given as a list has one value per slice; the files are named in an order that is not theirs.
    """

    def write(volume: np.ndarray, *, folder: str = "series", **elements: object) -> list[Path]:
        (tmp_path / folder).mkdir(exist_ok=True, parents=True)
        usual: dict[str, object] = {
            "SOPClassUID": CT_STORAGE, "Modality": "CT", "StudyInstanceUID": "1.2.3", "SeriesInstanceUID": "1.2.3.4",
            "FrameOfReferenceUID": "1.2.3.5", "ImageOrientationPatient": [1, 0, 0, 0, 1, 0], "PixelSpacing": [2.0, 0.5],
            "SliceThickness": 3.0, "RescaleSlope": 1, "RescaleIntercept": -1024,
            "SOPInstanceUID": [f"1.2.3.4.{k + 1}" for k in range(len(volume))],
            "ImagePositionPatient": [[10, 20, 3.0 * k] for k in range(len(volume))],
        }  # fmt: skip
        one_each = ("ImagePositionPatient", "SOPInstanceUID")
        paths = []
        for k, pixels in enumerate(volume):
            own = {}
            for name, value in (usual | elements).items():
                each = isinstance(value, list) and len(value) == len(volume) and name in (*elements, *one_each)
                own[name] = value[k] if each else value
            own = {name: value for name, value in own.items() if value is not None}
            paths.append(write_dicom(pixels, name=f"{folder}/{(7 * k) % 11:02d}-{k:02d}.dcm", **own))
        return paths

    return write
