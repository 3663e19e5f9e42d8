"""The one door for reading: a reference becomes an Image, whatever kind of file or folder is behind it."""

from __future__ import annotations

import hashlib
import importlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from medgcsam.errors import DataError
from medgcsam.imaging.image import Image
from medgcsam.imaging.references import WITH_VOLUMES, Found, find

Source = str | Path | Sequence[str | Path]
"""A path, with or without a selector, or a list of the files of one series; see ``references.py``."""


def read_image(
    path: Source,
    *,
    irregular: str = "refuse",
    pet: str = "suv",
    volume: int | None = None,
    orientation: str = "refuse",
) -> Image:
    """Read one image: a file, or the one DICOM series of a folder, zip archive, DICOMDIR or list of files.

    The kind is decided by content. What each kind becomes:

    - PNG, JPEG, TIFF, MedMNIST: (1 or 3, row, column), unit ``display``; see ``formats/``.
    - DICOM series: (1 or 3, i, j, k) in ``HU``, ``SUV``, ``Bq/ml`` or ``raw`` with an affine; see ``dicom/slices.py``.
    - one DICOM object: pictures and projections (channels, row, column), unit ``display``; slices and multi-frame
      objects with a place in the patient are volumes as a series is; see ``dicom/``.
    - NIfTI, NRRD, MetaImage: (channels, i, j, k), or (channels, row, column) for 2-D files, unit ``raw``; see
      ``nifti.py``, ``nrrd.py`` and ``metaimage.py``.

    irregular: ``refuse`` or ``resample`` slices that form no regular volume (gantry tilt, gaps, sheared axes).
    pet: ``suv`` (by body weight, where the header allows it) or ``stored``.
    volume: the one volume (0-based) of a 4-D NIfTI, NRRD or MetaImage file, of a multi-frame DICOM object or of a DICOM
        series, as ``FILE#volume=3`` and ``FOLDER#series=UID#volume=3`` name it; else all, but for several acquisitions
        in one series, which are read one at a time only (``dicom/channels.py``).
    orientation: what to believe where sform and qform of NIfTI differ: ``refuse``, ``sform`` or ``qform``.
    Raises DataError (one sentence: which file, what is wrong, what to do) for anything else or anything faulty.
    """
    return image_of(find(path), irregular=irregular, pet=pet, volume=volume, orientation=orientation)


def image_of(found: Found, *, irregular: str, pet: str, volume: int | None, orientation: str) -> Image:
    """What ``read_image`` returns for a reference that is resolved already."""
    if volume is not None and found.volume not in (None, volume):
        raise DataError(f"{found.where} names another volume than {volume}; correct one of them.")
    volume = found.volume if volume is None else volume
    if volume is not None and found.kind not in (*WITH_VOLUMES, "dicom", "series"):
        raise DataError(f"{found.where} has no volumes to choose from; leave the choice out.")
    # The readers are imported on use: pydicom, nibabel and Pillow cost time that few callers need all of.
    if found.kind == "npz":
        from medgcsam.imaging.formats.arrays import read_entry

        return read_entry(*found.entry)
    if found.kind == "series":
        return _read_series(found, irregular=irregular, pet=pet, volume=volume)
    if found.kind == "dicom":
        from medgcsam.imaging.dicom.objects import read_dicom

        return read_dicom(found.data, found.where, irregular=irregular, pet=pet, volume=volume)
    if found.kind in WITH_VOLUMES:
        return _read_voxels(found, volume=volume, irregular=irregular, orientation=orientation)
    from medgcsam.imaging.formats.raster import read_raster

    return read_raster(found.data, found.where, kind=found.kind)


def read_label(
    path: Source,
    like: Image,
    *,
    names: Mapping[str, int] | None = None,
    overlapping: bool = False,
    max_outside: float = 0.05,
    irregular: str = "refuse",
    volume: int | None = None,
    orientation: str = "refuse",
) -> Image:
    """Read a mask onto the grid of ``like``: int16 class numbers (1, *like.spatial_shape), unit ``label``.

    - PNG or TIFF of any mode: the size of the image. With no values but 0 and 255 (16 bit: 65535) it is a binary mask
      and becomes 0 and 1, its 1 called ``"1"`` and ``"255"``; other values are class numbers and stay.
    - NIfTI, NRRD, MetaImage: class numbers, resampled by the affines where the grids differ (``resample.py``).
    - DICOM SEG and RTSTRUCT, or a folder or archive that holds one of them: see ``seg.py`` and ``rtstruct.py``.
    - DICOM images whose pixels are class numbers: a file, or a series of CT or MR objects.
    - a list of these: one structure per file where ``names`` names the files, else united; see ``labels/door.py``.

    names: ``{structure: class number}``, keys as ``"GTV|GTV_1"`` or ``"tumour*"``; of a label map ``{"2": 1}``. Without
        it every structure is a class, numbered in the file's order, and the numbers of label maps stay.
    overlapping: one channel of 0 and 1 per class, (classes, *like.spatial_shape), instead of one integer channel.
    max_outside: share of a structure that may lie outside of the image; all of it never may.
    irregular, volume, orientation: as in ``read_image``; ``orientation="index"`` lays a label without an orientation
        onto an oriented image voxel by voxel, which is else refused.

    ``source`` says: ``empty``; structures (name -> number), structures_left_out, classes_absent; label_grid (``same``,
    ``other`` where voxels were resampled or cut, ``not checked``); frame_of_reference, label_series and patient of
    DICOM labels (``same`` or ``not checked``); frame_step_mm of a SEG whose frames are further apart than the slices;
    outside (the largest share of a structure that lies outside), structures_lost (smaller than half a voxel).
    Raises DataError for a label of another frame of reference, one that lies outside, structures that overlap in one
    integer channel, values that are no class numbers (fractions, negative, smeared edges, several colours), and
    anything faulty.
    """
    from medgcsam.imaging.labels.door import label_at, labels_at

    options = {"names": names, "overlapping": overlapping, "max_outside": max_outside}
    options |= {"irregular": irregular, "volume": volume, "orientation": orientation}
    if isinstance(path, (str, os.PathLike)):
        return label_at(path, like, **options)
    return labels_at(list(path), like, **options)


def source_digest(path: Source) -> str:
    """sha256 (64 hex digits) of what a reference names.

    Of a file or a member of an archive, its bytes, and those of the file beside it that holds its voxels; of one volume
    of a file, these and the number; of a series, the sorted sha256 of its files; of an entry ``FILE.npz#train/12``,
    shape, type and pixels. Raises DataError.
    """
    found = find(path)
    if found.kind == "npz":
        from medgcsam.imaging.formats.arrays import raw_entry

        entry = raw_entry(*found.entry)
        return hashlib.sha256(f"{entry.shape} {entry.dtype.str}".encode() + entry.tobytes()).hexdigest()
    if found.kind == "series":
        from medgcsam.imaging.dicom.series import choose_series, series_digest

        whole = series_digest(choose_series(found.items, found.where, series_uid=found.series_uid))
        return whole if found.volume is None else hashlib.sha256(f"{whole} volume {found.volume}".encode()).hexdigest()
    digest = hashlib.sha256(found.data)
    if found.kind in WITH_VOLUMES and (name := _neighbour(found)) is not None:
        digest.update(found.sibling(name))
    if found.volume is not None:
        digest.update(f"volume {found.volume}".encode())
    return digest.hexdigest()


def _read_series(found: Found, *, irregular: str, pet: str, volume: int | None) -> Image:
    from medgcsam.imaging.dicom.mosaic_series import are_mosaics, volumes_of
    from medgcsam.imaging.dicom.objects import read_dicom
    from medgcsam.imaging.dicom.series import choose_series
    from medgcsam.imaging.dicom.slices import volume_of

    series = choose_series(found.items, found.where, series_uid=found.series_uid)
    if len(series.slices) == 1:
        (one,) = series.slices
        return read_dicom(one.data(), one.item.name, irregular=irregular, pet=pet, volume=volume)
    read = volumes_of if are_mosaics(series) else volume_of
    return read(series, found.where, irregular=irregular, pet=pet, volume=volume)


def _neighbour(found: Found) -> str | None:
    """Name of the file that holds the voxels of a header of its own."""
    module = importlib.import_module(f"medgcsam.imaging.formats.{found.kind}")
    return module.neighbour(found.data, found.where)


def _read_voxels(found: Found, *, volume: int | None, irregular: str, orientation: str) -> Image:
    """NIfTI, NRRD or MetaImage."""
    options = {"volume": volume, "irregular": irregular, "sibling": found.sibling}
    if found.kind == "nifti":
        from medgcsam.imaging.formats.nifti import read_nifti

        return read_nifti(found.data, found.where, orientation=orientation, **options)
    if found.kind == "nrrd":
        from medgcsam.imaging.formats.nrrd import read_nrrd

        return read_nrrd(found.data, found.where, **options)
    from medgcsam.imaging.formats.metaimage import read_metaimage

    return read_metaimage(found.data, found.where, **options)
