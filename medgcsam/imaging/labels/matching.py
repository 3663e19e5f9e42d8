"""Whether a DICOM label belongs to an image: the frame of reference decides, the series is recorded."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from medgcsam.errors import DataError
from medgcsam.imaging.image import Image


def check_frame(like: Image, frame_uid: str, where: str) -> dict[str, Any]:
    """Positions of two files can be compared only within one frame of reference (PS3.3 C.7.4.1).

    Returns the fact ``frame_of_reference``: ``same``, or ``not checked`` where label or image names none.
    Raises DataError where both name one and they differ.
    """
    known = like.reference.frame_of_reference_uid if like.reference is not None else ""
    if not known or not frame_uid:
        return {"frame_of_reference": "not checked"}
    if known != frame_uid:
        raise DataError(
            f"{where} has another frame of reference than its image, so its positions mean something else; "
            "give the label that belongs to the image, or register it first."
        )
    return {"frame_of_reference": "same"}


def check_patient(like: Image, patient_id: str, where: str) -> dict[str, Any]:
    """The fact ``patient``: ``same``, or ``not checked`` where label or image has no PatientID.

    Raises DataError, which names neither, where both have one and they differ.
    """
    known = like.reference.patient_id.strip() if like.reference is not None else ""
    if not known or not patient_id.strip():
        return {"patient": "not checked"}
    if known != patient_id.strip():
        raise DataError(
            f"{where} is of another patient than its image (PatientID); give the label that belongs to the image."
        )
    return {"patient": "same"}


def series_fact(like: Image, series_uids: Collection[str]) -> dict[str, Any]:
    """``label_series``: whether the label was drawn on the ``same`` series, on ``another``, or is ``not checked``."""
    known = like.reference.series_uid if like.reference is not None else ""
    named = {uid for uid in series_uids if uid}
    if not known or not named:
        return {"label_series": "not checked"}
    return {"label_series": "same" if known in named else "another"}
