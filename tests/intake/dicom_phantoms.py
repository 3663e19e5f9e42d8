"""Small DICOM objects for the tests of the importer: headers as a PACS sends them, few pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

CT, MR, DX = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.4", "1.2.840.10008.5.1.4.1.1.1.1"
SEG, RTSTRUCT = "1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.481.3"
SR = "1.2.840.10008.5.1.4.1.1.88.11"


def write_object(path: Path, sop_class: str, series: str, instance: str, **elements) -> Path:
    """One DICOM file without pixels unless ``elements`` say otherwise."""
    ds = Dataset()
    ds.SOPClassUID, ds.SOPInstanceUID = sop_class, instance
    ds.SeriesInstanceUID, ds.StudyInstanceUID = series, elements.pop("StudyInstanceUID", "1.2.9")
    ds.PatientID = elements.pop("PatientID", "P1")
    for keyword, value in elements.items():
        setattr(ds, keyword, value)
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta.MediaStorageSOPClassUID, ds.file_meta.MediaStorageSOPInstanceUID = sop_class, instance
    path.parent.mkdir(parents=True, exist_ok=True)
    ds.save_as(path, enforce_file_format=True)
    return path


def write_image(path: Path, sop_class: str, series: str, instance: str, **elements) -> Path:
    """One single-frame image of 3 x 2 pixels."""
    pixels = np.arange(6, dtype=np.uint16)
    picture = {
        "Rows": 3, "Columns": 2, "BitsAllocated": 16, "BitsStored": 12, "HighBit": 11, "PixelRepresentation": 0,
        "SamplesPerPixel": 1, "PhotometricInterpretation": "MONOCHROME2", "PixelData": pixels.tobytes(),
        "Modality": {CT: "CT", MR: "MR", DX: "DX"}[sop_class],
    }  # fmt: skip
    return write_object(path, sop_class, series, instance, **{**picture, **elements})


def write_series(folder: Path, series: str, *, sop_class: str = CT, count: int = 3, step: float = 2.0, **elements):
    """``count`` slices, ``step`` mm apart; returns their paths."""
    geometry = {"ImageOrientationPatient": [1, 0, 0, 0, 1, 0], "PixelSpacing": [0.5, 0.5], "SliceThickness": step}
    return [
        write_image(
            folder / f"{number:03d}.dcm", sop_class, series, f"{series}.{number + 1}",
            **{**geometry, "ImagePositionPatient": [0, 0, number * step], **elements},
        )
        for number in range(count)
    ]  # fmt: skip


def write_seg(path: Path, instance: str, *series: str, **elements) -> Path:
    """A SEG that refers to series (PS3.3 C.12.2.3); without frames, because the importer reads headers alone."""
    referred = []
    for uid in series:
        item = Dataset()
        item.SeriesInstanceUID = uid
        referred.append(item)
    return write_object(
        path, SEG, f"{instance}.0", instance, Modality="SEG", ReferencedSeriesSequence=referred, **elements
    )


def write_rtstruct(path: Path, instance: str, series: str, **elements) -> Path:
    """An RTSTRUCT that refers to a series (PS3.3 C.8.8.5)."""
    reference, study, frame = Dataset(), Dataset(), Dataset()
    reference.SeriesInstanceUID = series
    study.RTReferencedSeriesSequence = [reference]
    frame.RTReferencedStudySequence = [study]
    frames = [frame]
    return write_object(
        path, RTSTRUCT, f"{instance}.0", instance, Modality="RTSTRUCT", ReferencedFrameOfReferenceSequence=frames,
        **elements,
    )  # fmt: skip
