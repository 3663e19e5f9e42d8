"""The one door for reading: a path becomes an Image, whatever kind of file is behind it."""

from __future__ import annotations

import hashlib
from pathlib import Path

from medgcsam.errors import DataError
from medgcsam.imaging.image import Image
from medgcsam.imaging.sniff import HEAD_BYTES, kind_of_bytes

READABLE = "PNG, JPEG, TIFF, DICOM, NIfTI (.nii, .nii.gz) or an entry of a MedMNIST .npz"


def read_image(path: str | Path) -> Image:
    """Read one image file, or one entry of a MedMNIST archive written as ``FILE.npz#train/12``.

    The kind is decided by content. What each kind becomes:

    - PNG, JPEG, TIFF, MedMNIST: (1 or 3, row, column), unit ``display``; see ``raster.py`` and ``arrays.py``.
    - single-frame DICOM: (1 or 3, row, column), unit ``display``, after modality LUT, VOI LUT or window, presentation;
      CT, MR and PET slices are volumes (1, i, j, 1) in ``HU`` or ``raw`` units with an affine; see ``dicom.py``.
    - NIfTI: (1, i, j, k), or (time, i, j, k), or (1, row, column) for 2-D files, unit ``raw``; see ``nifti.py``.

    Raises DataError (one sentence: which file, what is wrong, what to do) for anything else or anything faulty.
    """
    where, selector, data, kind = _load(path)
    # The readers are imported on use: pydicom, nibabel and Pillow cost time that few callers need all of.
    if kind == "npz":
        from medgcsam.imaging.arrays import read_entry

        return read_entry(*_required(selector, where))
    if kind == "dicom":
        from medgcsam.imaging.dicom import read_dicom

        return read_dicom(data, where)
    if kind == "nifti":
        from medgcsam.imaging.nifti import read_nifti

        return read_nifti(data, where)
    from medgcsam.imaging.raster import read_raster

    return read_raster(data, where, kind=kind)


def read_label(path: str | Path, like: Image) -> Image:
    """Read a mask of class numbers on the grid of ``like``: (1, *like.spatial_shape), int16, unit ``label``.

    From PNG or TIFF of any mode, or NIfTI. A picture with no values but 0 and 255 (16 bit: 65535) is a binary mask and
    becomes 0 and 1; other values are class numbers and stay. Raises DataError for a mask on another grid, for values
    that are no class numbers (fractions, negative, smeared edges, several colours) and for anything faulty.
    """
    from medgcsam.imaging.labels import label_from_nifti, label_from_raster

    where, _, data, kind = _load(path)
    if kind == "nifti":
        return label_from_nifti(data, where, like=like)
    if kind in ("png", "tiff"):
        return label_from_raster(data, where, kind=kind, like=like)
    why = "JPEG smears the edges of a mask" if kind == "jpeg" else f"a {kind} file is not read as a mask"
    raise DataError(f"{where} cannot be a mask, because {why}; save the mask as PNG or NIfTI.")


def source_digest(path: str | Path) -> str:
    """sha256 (64 hex digits) of the bytes of a file; of shape, type and pixels for an entry ``FILE.npz#train/12``."""
    where, selector = _resolve(path)
    if selector is not None:
        from medgcsam.imaging.arrays import raw_entry

        entry = raw_entry(*selector)
        return hashlib.sha256(f"{entry.shape} {entry.dtype.str}".encode() + entry.tobytes()).hexdigest()
    try:
        with open(where, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise _unopened(where, error) from error


def _resolve(path: str | Path) -> tuple[str, tuple[str, str, int] | None]:
    """The path as text, and (archive, partition, index) where it selects an entry of an archive."""
    where = str(path)
    file, mark, entry = where.rpartition("#")
    if not mark or Path(where).exists():
        return where, None
    partition, _, index = entry.partition("/")
    if partition not in ("train", "val", "test") or not index.isdecimal():
        return where, None
    return where, (file, partition, int(index))


def _load(path: str | Path) -> tuple[str, tuple[str, str, int] | None, bytes, str]:
    """(path as text, selector or None, bytes of the file (of an archive the first ones), kind); raises DataError."""
    where, selector = _resolve(path)
    file = Path(selector[0] if selector else where)
    try:
        if file.is_dir():
            raise DataError(f"{where} is a folder, and series are not read as one image yet; name the files.")
        with open(file, "rb") as stream:
            head = stream.read(HEAD_BYTES)
            kind = kind_of_bytes(head)
            # An archive is opened by its own reader, once for all entries.
            data = head if kind == "npz" or kind == "unknown" else head + stream.read()
    except OSError as error:
        raise _unopened(where, error) from error
    if not head:
        raise DataError(f"{where} is an empty file; export it again.")
    if kind == "unknown" or (selector and kind != "npz"):
        raise DataError(f"{where} is of no kind that can be read here; give {READABLE}.")
    return where, selector, data, kind


def _unopened(where: str, error: OSError) -> DataError:
    if isinstance(error, FileNotFoundError):
        return DataError(f"{where} does not exist; correct the path or data.root.")
    return DataError(f"{where} cannot be opened ({error.strerror or error}); correct the path or the permissions.")


def _required(selector: tuple[str, str, int] | None, where: str) -> tuple[str, str, int]:
    if selector is None:
        raise DataError(f"{where} is an archive of many images; name one as FILE.npz#train/0 (train, val or test).")
    return selector
