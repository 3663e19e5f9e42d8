"""Write one synthetic radiograph as a DICOM object: Digital X-Ray or Computed Radiography, plain or lossless."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    RLELossless,
    generate_uid,
)

from medgcsam.intake.phantom_detector import MAXIMUM, Site
from medgcsam.intake.phantom_folder import NOTICE

DETECTOR_MM = 430.0  # height of the detector
COMPRESSIONS = {"none": ExplicitVRLittleEndian, "rle": RLELossless, "jpeg2000": JPEG2000Lossless}


@dataclass(frozen=True)
class Header:
    """What the object says about the patient and the exposure."""

    cohort: str  # separates the UIDs of one phantom from those of another
    patient_id: str
    study: str
    sex: str
    age: int
    date: date
    site: Site
    photometric: str  # MONOCHROME1 or MONOCHROME2
    compression: str  # a key of COMPRESSIONS


def write_radiograph(path: Path, stored: np.ndarray, window: tuple[int, int], header: Header) -> None:
    """Write ``stored`` (rows, columns; uint16 in 12 bits, dense is high) with its window (center, width).

    For MONOCHROME1 values and window are mirrored, so that the picture shown is the same (PS3.3 C.11.2.1.2.1: the
    linear window is symmetric about ``center - 0.5``). UIDs depend on the header alone.
    """
    data = Dataset()
    _describe_study(data, header)
    _describe_image(data, header, stored.shape)
    center, width = window
    if header.photometric == "MONOCHROME1":
        stored, center = MAXIMUM - stored, MAXIMUM + 1 - center
    data.WindowCenter, data.WindowWidth = center, width
    data.add_new("PixelData", "OW", np.ascontiguousarray(stored, dtype="<u2").tobytes())
    data.file_meta = _file_meta(data)
    if header.compression != "none":
        data.compress(COMPRESSIONS[header.compression], generate_instance_uid=False)
    data.save_as(path, enforce_file_format=True)


def _describe_study(data: Dataset, header: Header) -> None:
    dx = header.site.modality == "DX"
    data.SpecificCharacterSet = "ISO_IR 100"
    data.SOPClassUID = DigitalXRayImageStorageForPresentation if dx else ComputedRadiographyImageStorage
    for keyword, level in (("StudyInstanceUID", "study"), ("SeriesInstanceUID", "series"), ("SOPInstanceUID", "image")):
        setattr(data, keyword, generate_uid(entropy_srcs=["medgcsam phantom", header.cohort, header.study, level]))
    data.StudyDate = data.SeriesDate = data.AcquisitionDate = data.ContentDate = header.date.strftime("%Y%m%d")
    data.StudyTime = data.SeriesTime = data.AcquisitionTime = data.ContentTime = "120000"
    data.StudyID = header.study
    data.AccessionNumber = header.study
    data.PatientID = header.patient_id
    data.PatientName = f"PHANTOM^{header.patient_id}"
    data.PatientBirthDate = ""
    data.PatientSex = header.sex
    data.PatientAge = f"{header.age:03d}Y"
    data.PatientComments = data.ImageComments = NOTICE
    data.ReferringPhysicianName = ""
    data.InstitutionName = f"{header.site.name} ({NOTICE.lower()})"
    data.StudyDescription = f"Chest, {NOTICE.lower()}"
    data.Modality = header.site.modality
    data.Manufacturer = header.site.maker
    data.ManufacturerModelName = header.site.model
    data.SoftwareVersions = "1"
    data.DeviceSerialNumber = "0"
    data.SeriesNumber = data.InstanceNumber = 1


def _describe_image(data: Dataset, header: Header, shape: tuple[int, ...]) -> None:
    first = header.photometric == "MONOCHROME1"
    data.BodyPartExamined = "CHEST"
    data.ViewPosition = "PA"
    data.PatientOrientation = ["L", "F"]
    data.ImageType = ["ORIGINAL", "PRIMARY"]
    data.SamplesPerPixel = 1
    data.PhotometricInterpretation = header.photometric
    data.Rows, data.Columns = shape
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 12, 11, 0
    data.ImagerPixelSpacing = [round(DETECTOR_MM / shape[0], 5)] * 2
    data.BurnedInAnnotation = "NO"
    data.LossyImageCompression = "00"
    if header.site.modality == "CR":
        data.PlateID = data.CassetteSize = ""
        return
    data.PresentationIntentType = "FOR PRESENTATION"
    data.PresentationLUTShape = "INVERSE" if first else "IDENTITY"
    data.PixelIntensityRelationship = "LOG"
    data.PixelIntensityRelationshipSign = 1 if first else -1  # 1: lower values where less radiation arrives
    data.RescaleIntercept, data.RescaleSlope, data.RescaleType = 0, 1, "US"
    data.ImageLaterality = "U"
    data.DetectorType = "DIRECT"
    chest = Dataset()
    chest.CodeValue, chest.CodingSchemeDesignator, chest.CodeMeaning = "43799004", "SCT", "Thoracic structure"
    data.AnatomicRegionSequence = [chest]
    data.AcquisitionContextSequence = []


def _file_meta(data: Dataset) -> FileMetaDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = data.SOPClassUID
    meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = generate_uid(entropy_srcs=["medgcsam phantom writer"])
    meta.ImplementationVersionName = "MEDGCSAM_PHANTOM"
    return meta
