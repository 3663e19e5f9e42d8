"""Labels are written: NIfTI on the label's own grid, DICOM SEG on the slices of the image that they were made for."""

from __future__ import annotations

import gzip
import hashlib
import uuid
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from medgcsam import __version__
from medgcsam.errors import ConfigError, DataError
from medgcsam.imaging.faults import VALUES, said
from medgcsam.imaging.formats.voxels import AXES_SWAPPED
from medgcsam.imaging.image import Image, pixel_digest
from medgcsam.imaging.labels.label_maps import to_grid
from medgcsam.imaging.labels.resample import corners
from medgcsam.run_folder import replacing

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

Code = tuple[str, str, str]
TISSUE: Code = ("SCT", "85756007", "Tissue")
ALGORITHMS = ("AUTOMATIC", "SEMIAUTOMATIC", "MANUAL")
MAX_LABEL_LENGTH = 64
SAME_FORM = 0.05
"""A quaternion that misses a corner of the label by more than this, in edges of a voxel, is not written."""
SAME_PLACE = 0.5
"""Largest distance, in voxels, between a pixel of an image and where its file says that it lies."""


@dataclass(frozen=True)
class Segment:
    """What a viewer shows for one class: its name and what it is (coding scheme, code, meaning; PS3.3 C.8.20.4)."""

    name: str
    category: Code = TISSUE
    kind: Code = TISSUE


def write_nifti_label(label: Image, path: str | Path) -> None:
    """One integer channel as NIfTI (.nii, or .nii.gz), uint8 where the numbers allow it, else int16.

    Affine and spacing are those of the label; without an affine the file carries the spacing and no orientation. A
    picture becomes a 2-D file (i, j) = (column, row). The same label gives the same bytes. ``to_grid`` brings a label
    onto the grid of the image first. Raises DataError for several channels, ConfigError for another ending of the
    name, MachineError for a folder that cannot be written to.
    """
    import nibabel

    path = Path(path)
    if not path.name.endswith((".nii", ".nii.gz")):
        raise ConfigError(f"{path} is to be a NIfTI file; give it a name that ends with .nii or .nii.gz.")
    values, affine, spacing = _one_channel(label, str(path)), label.affine, label.spacing
    values = values.astype(np.uint8 if values.max() <= 255 else np.int16)
    if values.ndim == 2:
        values, spacing = values.T, spacing[::-1] if spacing is not None else None
        affine = affine @ AXES_SWAPPED if affine is not None else None
    image = nibabel.Nifti1Image(np.asfortranarray(values), affine)
    image.header.set_xyzt_units("mm")
    if affine is not None:
        image.set_sform(affine, 1)
        image.set_qform(affine, 1)
        ends = corners((*values.shape, 1)[:3])
        missed = np.linalg.norm(ends @ (image.get_qform() - affine).T, axis=1).max()
        if missed > SAME_FORM * np.linalg.norm(affine[:3, : values.ndim], axis=0).min():
            image.set_qform(None, 0)  # a quaternion has no shear, and two forms that differ are not believed
    elif spacing is not None:
        image.header.set_zooms(spacing)
    data = image.to_bytes()
    with replacing(path) as temporary:
        temporary.write_bytes(gzip.compress(data, 6, mtime=0) if path.name.endswith(".gz") else data)


def write_seg(
    label: Image,
    like: Image,
    path: str | Path,
    segments: Sequence[Segment | str],
    *,
    description: str = "Segmentation by medgcsam",
    algorithm: str = "AUTOMATIC",
    series_number: int = 300,
) -> float:
    """A binary DICOM SEG that refers to the slices of ``like``, so that it opens over them in a viewer.

    label: class numbers 1 to len(segments) in one channel, or a channel of 0 and 1 per segment, on any grid; it is
        brought onto the grid of ``like``.
    like: an image that ``read_image`` made of DICOM files; they are opened again and must not have changed.
    algorithm: ``AUTOMATIC``, ``SEMIAUTOMATIC`` or ``MANUAL``.

    Returns the largest share of a class that lies outside of ``like`` and was cut off, 0 to 1.
    The object carries the patient and the study of the source images, as it must. Its UIDs follow from what it holds.
    Raises ConfigError without highdicom (extra ``dicom-seg``) or for classes without a segment; DataError for a label
    that has voxels and none on the image, for an image that is not DICOM, has several channels, was resampled or turned
    since it was read, or whose files have changed or lack what a SEG must say.
    """
    segments = [Segment(segment) if isinstance(segment, str) else segment for segment in segments]
    given, label = label, to_grid(label, like)
    if given.array.any() and not label.array.any():
        raise DataError(
            f"{path} would be empty, because the label lies outside of its image, or between its voxels; "
            "give the image that belongs to it."
        )
    top = int(label.array.max()) if len(label.array) == 1 else len(label.array)
    if not segments or top > len(segments) or (len(label.array) > 1 and top != len(segments)):
        raise ConfigError(f"{path} has {len(segments)} segments for {top} classes; name one segment for each.")
    try:
        import highdicom
    except ImportError as error:
        raise ConfigError(
            f"{path} needs the package highdicom to be written; install medgcsam with the extra dicom-seg."
        ) from error
    sources, order = _sources(like, str(path))
    _check_place(like, sources, order, str(path))
    pixels = _frames(label, order, frames=int(sources[0].get("NumberOfFrames") or 1) if order is not None else None)
    identity = f"{like.reference.series_uid} {pixel_digest(label)} {segments} {description}"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of names and numbers in the source images, which are theirs
            seg = highdicom.seg.Segmentation(
                source_images=sources,
                pixel_array=pixels,
                segmentation_type="BINARY",
                segment_descriptions=_descriptions(segments, algorithm),
                series_instance_uid=_uid(f"series {identity}"),
                series_number=series_number,
                sop_instance_uid=_uid(f"instance {identity}"),
                instance_number=1,
                manufacturer="medgcsam",
                manufacturer_model_name="medgcsam",
                software_versions=__version__,
                device_serial_number="none",
                series_description=description[:MAX_LABEL_LENGTH],
            )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        absent = isinstance(error, (AttributeError, KeyError))  # names an element; others may quote what is in it
        reason = said(str(error) if absent else VALUES.sub("...", str(error)), at_most=160)
        raise DataError(f"{path} cannot be written, because the source images do not allow it ({reason}).") from error
    with replacing(Path(path)) as temporary, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        seg.save_as(temporary)
    return float(label.source.get("outside", 0.0))


def _one_channel(label: Image, where: str) -> np.ndarray:
    if len(label.array) != 1:
        raise DataError(
            f"{where} would need {len(label.array)} channels; write one file per structure, or a DICOM SEG."
        )
    return label.array[0]


def _sources(like: Image, where: str) -> tuple[list[Dataset], list[int] | None]:
    """(the objects, frame index of each slice or None for single-frame objects), as they were when they were read."""
    from medgcsam.imaging.dicom.file import open_dataset
    from medgcsam.imaging.references import find

    known = like.reference
    slices = like.spatial_shape[2] if len(like.spatial_shape) == 3 else 1
    if known is None or not known.files:
        raise DataError(f"{where} needs DICOM files to refer to, and its image is of another kind; write NIfTI.")
    if len(like.array) > 1 and like.unit != "display" and known.frame_numbers is not None:
        raise DataError(
            f"{where} would refer to an image of {len(like.array)} channels (echoes, time points), and only one frame "
            "per slice is written; write NIfTI."
        )
    resampled = str(like.source.get("geometry")).startswith("resampled")
    if resampled or not len(known.files) == len(known.sop_instance_uids) == slices:
        raise DataError(f"{where} cannot refer to slices, because its image is not as it was stored; write NIfTI.")
    opened: dict[str, Dataset] = {}
    for file, uid in zip(known.files, known.sop_instance_uids, strict=True):
        if file not in opened:
            opened[file] = open_dataset(find(file).data, file, stop_before_pixels=True)
        if str(opened[file].get("SOPInstanceUID")) != uid:
            raise DataError(f"{file} is no longer the file that was read; read the image again.")
    if known.frame_numbers is None:
        return [opened[file] for file in known.files], None
    if len(opened) > 1:
        raise DataError(f"{where} would refer to frames of {len(opened)} objects, which is not written; write NIfTI.")
    return list(opened.values()), [number - 1 for number in known.frame_numbers]


def _check_place(like: Image, sources: list[Dataset], order: list[int] | None, where: str) -> None:
    """The pixels of ``like`` must lie where the files say, because the SEG lies where they do."""
    from medgcsam.imaging.dicom.facts import plane_of
    from medgcsam.imaging.dicom.functional_groups import has_groups
    from medgcsam.imaging.dicom.multiframe import frame_planes
    from medgcsam.imaging.geometry import plane_affine

    if like.affine is None or len(like.spatial_shape) != 3:
        return
    if order is None:
        planes = [plane_of(ds, shape=(int(ds.Rows), int(ds.Columns)))[0] for ds in sources]
    else:
        planes = (frame_planes(sources[0], where) if has_groups(sources[0]) else None) or []
        planes = [planes[n] for n in order] if planes else [None]
    columns, rows, _ = like.spatial_shape
    for k, plane in enumerate(planes):
        if plane is None:
            return  # without a place of their own, as in nuclear medicine, the label goes by slices alone
        to_index = np.linalg.inv(like.affine) @ plane_affine(plane, 1.0)
        ends = np.array([[0, 0, 0, 1], [columns - 1, 0, 0, 1], [0, rows - 1, 0, 1.0]])
        moved = (ends @ to_index.T - ends - (0, 0, k, 0))[:, :3]
        if plane.shape != (rows, columns) or np.abs(moved).max() > SAME_PLACE:
            raise DataError(f"{where} needs an image that no longer lies as its files say; read the image again.")


def _frames(label: Image, order: list[int] | None, *, frames: int | None) -> np.ndarray:
    """(frames, rows, columns) of numbers, or with a last axis of segments of 0 and 1, in the order of the source."""
    array = label.array if label.array.ndim == 4 else label.array.swapaxes(1, 2)[..., None]
    array = array.transpose(3, 2, 1, 0)
    array = array.astype(np.uint8 if array.max() <= 255 else np.uint16)
    if order is not None:
        stored = np.zeros((frames, *array.shape[1:]), array.dtype)
        stored[order] = array
        array = stored
    return array[..., 0] if array.shape[3] == 1 else array


def _descriptions(segments: Sequence[Segment], algorithm: str) -> list:
    import highdicom
    from pydicom.sr.codedict import codes
    from pydicom.sr.coding import Code as Coded

    if algorithm not in ALGORITHMS:
        raise ConfigError(f"algorithm is {algorithm!r}; say one of {', '.join(ALGORITHMS)}.")
    made_by = None
    if algorithm != "MANUAL":
        family = codes.DCM.ArtificialIntelligence
        made_by = highdicom.AlgorithmIdentificationSequence(name="medgcsam", version=__version__, family=family)
    return [
        highdicom.seg.SegmentDescription(
            segment_number=number,
            segment_label=segment.name[:MAX_LABEL_LENGTH],
            segmented_property_category=Coded(*_reordered(segment.category)),
            segmented_property_type=Coded(*_reordered(segment.kind)),
            algorithm_type=algorithm,
            algorithm_identification=made_by,
        )
        for number, segment in enumerate(segments, start=1)
    ]


def _reordered(code: Code) -> tuple[str, str, str]:
    """(value, scheme, meaning), as pydicom has it."""
    scheme, value, meaning = code
    return value, scheme, meaning


def _uid(text: str) -> str:
    """A UID below 2.25 (PS3.5 B.2) that follows from the text."""
    return f"2.25.{uuid.UUID(bytes=hashlib.sha256(text.encode()).digest()[:16], version=4).int}"
