"""A series of Siemens mosaics, each of them a volume, becomes one image with a channel for each."""

from __future__ import annotations

from typing import Any

import numpy as np

from medgcsam.errors import DataError
from medgcsam.imaging.dicom import series as s
from medgcsam.imaging.dicom.alike import check_alike, differing, without_copies
from medgcsam.imaging.dicom.channels import channels_of
from medgcsam.imaging.dicom.objects import read_dicom
from medgcsam.imaging.dicom.series import Series, Slice
from medgcsam.imaging.faults import MAX_VOXELS, check_size
from medgcsam.imaging.geometry import SAME_POSITION
from medgcsam.imaging.image import Image

SAME_AXIS = 1e-5
"""Largest difference of affines in mm per voxel: within a volume of 1,000 voxels a hundredth of a millimetre."""


def are_mosaics(series: Series) -> bool:
    """Whether each file of a series is a mosaic."""
    return all("MOSAIC" in one.header.text(s.IMAGE_TYPE).upper().split("\\") for one in series.slices)


def volumes_of(
    series: Series, where: str, *, irregular: str = "refuse", pet: str = "suv", volume: int | None = None
) -> Image:
    """(channels, i, j, k) of a series of two or more mosaics, or (1, i, j, k) of the one ``volume`` (0-based).

    Channels are told apart as those of slices are, and by AcquisitionNumber too, by which Siemens counts the volumes of
    a series; ``channels.py``. ``reference`` is that of the first. Raises DataError for mosaics of unequal geometry, and
    for what cannot be told apart.
    """
    facts: dict[str, Any] = {}
    mosaics = without_copies(series.slices, where, irregular, facts)
    check_alike(mosaics, where)

    def text(n: int, keyword: str) -> str:
        return s.telling(mosaics[n], keyword)

    if len(mosaics) == 1:
        table, told = np.zeros((1, 1), int), {}
    else:
        table, told = channels_of([range(len(mosaics))], text, where, volume=volume, mosaics=True)
    chosen = [mosaics[n] for n in table[:, 0]]
    images = _read(chosen, where, irregular=irregular, pet=pet)
    first = images[0]
    facts |= dict(first.source) | told
    if differs := differing(chosen, told=told.get("channels_by", "")):
        facts["differing"] = differs
    if series.others:
        facts["other_files"] = series.others
    array = np.concatenate([image.array for image in images])
    return Image(array=array, unit=first.unit, affine=first.affine, spacing=first.spacing, source=facts,
                 reference=first.reference)  # fmt: skip


def _read(mosaics: list[Slice], where: str, *, irregular: str, pet: str) -> list[Image]:
    """Each of them as an image of its own; all have one grid and one unit."""
    images: list[Image] = []
    for one in mosaics:
        image = read_dicom(one.data(), one.item.name, irregular=irregular, pet=pet)
        first = images[0] if images else image
        check_size((len(mosaics), *image.spatial_shape), where, limit=MAX_VOXELS)
        same = image.spatial_shape == first.spatial_shape and image.unit == first.unit
        if same:
            off = np.abs(image.affine - first.affine)
            same = off[:3, :3].max() <= SAME_AXIS and off[:3, 3].max() <= SAME_POSITION
        if not same:
            raise DataError(
                f"{one.item.name} is a mosaic of another size or place than the first of its series; name one of them "
                "by #volume=0, or split the series."
            )
        images.append(image)
    return images
