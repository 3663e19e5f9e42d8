"""Every file of dicom_variety: the pixels that pydicom's own pipeline gives, or refused with a reason that is right."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.pixels import apply_color_lut, apply_modality_lut, apply_voi_lut, pixel_array
from pydicom.uid import UID

from medgcsam.errors import DataError
from medgcsam.imaging import read_image

SECTIONS = ("CT Image", "MR Image", "Enhanced CT", "Enhanced MR", "Legacy Converted")
NOT_PICTURES = {
    "SEG": "label and no image",
    "RTSTRUCT": "label and no image",
    "RTDOSE": "no image to learn from",
    "RTPLAN": "without pixels",
    "SR": "without pixels",
    "RWV": "no image to learn from",
}
KEPT_OUT = ("README.txt", "LICENSE.txt", "inventory.csv")


def _files(folder: Path) -> list[Path]:
    """All but 19 of the 20 slices of one series."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.name not in KEPT_OUT)
    return [path for path in paths if "ADCb500" not in str(path) or path.name == "000007.dcm"]


def _reason(ds: Dataset) -> str | None:
    """Why a file cannot be an image, from its header alone; None where it can."""
    if ds.get("Modality") in NOT_PICTURES:
        return NOT_PICTURES[ds.Modality]
    syntax = ds.file_meta.get("TransferSyntaxUID") if hasattr(ds, "file_meta") else None
    if syntax == "1.2.840.10008.1.2.4.51" and ds.get("BitsStored", 8) > 8:
        return "12-bit JPEG Extended"
    if "PixelData" not in ds:
        return "without pixels|no pixels|no kind that can be read"
    if "Rows" not in ds:
        return "does not say its Rows"
    if "Enhanced MR" in UID(ds.SOPClassUID).name and "PerFrameFunctionalGroupsSequence" not in ds:
        return "does not say where its frames lie"
    expected = int(ds.get("NumberOfFrames", 1)) * ds.Rows * ds.Columns * ds.BitsAllocated // 8
    if not (syntax and syntax.is_compressed) and len(ds.PixelData) < expected:
        return "truncated"
    return None


def _as_pydicom_has_it(ds: Dataset) -> np.ndarray:
    """(frames, rows, columns[, 3]): modality values of cross-sections, display values 0..1 of everything else."""
    array = pixel_array(ds)
    if str(ds.PhotometricInterpretation) == "PALETTE COLOR":
        rows = array.reshape(-1, array.shape[-1])
        looked_up = apply_color_lut(rows, ds)[..., :3]
        return looked_up.reshape(-1, ds.Rows, ds.Columns, 3) / np.iinfo(looked_up.dtype).max
    if ds.SamplesPerPixel == 3:
        return array.reshape(-1, ds.Rows, ds.Columns, 3) / (2.0**ds.BitsStored - 1)
    array = array.reshape(-1, ds.Rows, ds.Columns)
    if UID(ds.SOPClassUID).name.startswith(SECTIONS):
        return apply_modality_lut(array, ds)
    values = apply_modality_lut(array, ds)
    low, high = values.min().astype(float), values.max()
    if "VOILUTSequence" in ds:
        values, low, high = apply_voi_lut(values, ds), 0, 2.0 ** ds.VOILUTSequence[0].LUTDescriptor[2] - 1
    elif "WindowCenter" in ds:
        low = -(2.0 ** (ds.BitsStored - 1)) if ds.PixelRepresentation else 0.0
        values, high = apply_voi_lut(values, ds), low + 2**ds.BitsStored - 1
    elif ds.BitsStored <= 8:
        low, high = 0, 2.0**ds.BitsStored - 1
    shown = (values - low) / (high - low)
    return 1 - shown if ds.PhotometricInterpretation == "MONOCHROME1" else shown


def test_every_file_is_read_as_pydicom_reads_it_or_refused_for_the_right_reason(shared_data):
    read = refused = 0
    for path in _files(shared_data / "dicom_variety"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # some are broken on purpose
            ds = pydicom.dcmread(path, force=True)
            reason = _reason(ds)
            if reason:
                with pytest.raises(DataError, match=reason) as caught:
                    read_image(path)
                assert str(path) in str(caught.value)
                refused += 1
                continue
            if "TransferSyntaxUID" not in ds.file_meta:  # pydicom then needs to be told
                ds.file_meta.TransferSyntaxUID = pydicom.uid.ImplicitVRLittleEndian
            expected = _as_pydicom_has_it(ds)
        image = read_image(path)
        if image.unit == "display":
            ours = image.array.reshape(len(expected), -1, *image.array.shape[1:])
            ours = np.moveaxis(ours, 1, -1) if expected.ndim == 4 else ours[:, 0]
        else:
            ours = image.array[0].transpose(2, 1, 0)  # (column, row, slice)
            if image.reference.frame_numbers:
                expected = expected[np.array(image.reference.frame_numbers) - 1]
        padding = np.zeros(expected.shape, bool)
        if "PixelPaddingValue" in ds and image.unit != "display":  # of these, no value is above the smallest true one
            padding = pixel_array(ds).reshape(expected.shape) == ds.PixelPaddingValue
            assert not padding.any() or ours[padding].max() <= ours[~padding].min(), path.name
        np.testing.assert_allclose(ours[~padding], expected[~padding], rtol=1e-6, atol=1e-6, err_msg=path.name)
        read += 1
    assert (read, refused) > (130, 30)
