"""What the slices of one series must have in common to be one volume, and what is recorded where they differ.

A SeriesInstanceUID is no proof: exports give one to images of several patients, echoes or kinds. All of it is looked up
in the headers as ``header.py`` finds them, so that it costs little per slice.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from functools import lru_cache
from typing import Any

from medgcsam.errors import DataError
from medgcsam.imaging.dicom import series as s
from medgcsam.imaging.dicom.cross_section import CT, MR, NUCLEAR, PET
from medgcsam.imaging.dicom.file import MONOCHROME, open_dataset
from medgcsam.imaging.dicom.multiframe import SAME_ECHO
from medgcsam.imaging.dicom.series import Slice

ALIKE = {
    s.PATIENT: "patients (PatientID)", s.STUDY: "studies (StudyInstanceUID)", s.SOP_CLASS: "kinds of object",
    s.MODALITY: "modalities", s.PHOTOMETRIC: "photometric interpretations", s.FRAME_OF_REFERENCE: "frames of reference",
    s.RESCALE_TYPE: "units (RescaleType)",
}  # fmt: skip
IDENTIFYING = (s.PATIENT, s.STUDY, s.FRAME_OF_REFERENCE)
"""Values that no message repeats."""
KINDS = {"none": "no rescale", "rescale": "a rescale", "table": "a look-up table instead of a rescale"}


def without_localisers(slices: Sequence[Slice], where: str, irregular: str, facts: dict[str, Any]) -> list[Slice]:
    """The slices but for localisers, which are refused or, where resampling is asked for, left out and counted."""
    kept = [one for one in slices if "LOCALIZER" not in one.header.text(s.IMAGE_TYPE).upper().split("\\")]
    dropped = len(slices) - len(kept)
    if dropped and (irregular == "refuse" or not kept):
        raise DataError(f"{where} holds {dropped} localiser images of {len(slices)}; leave them out.")
    if dropped:
        facts["localisers_left_out"] = dropped
    return kept


def without_copies(slices: Sequence[Slice], where: str, irregular: str, facts: dict[str, Any]) -> list[Slice]:
    """One file per SOPInstanceUID; two of one UID must be byte for byte the same."""
    kept: dict[str, Slice] = {}
    for n, one in enumerate(slices):
        uid = one.header.text(s.SOP_INSTANCE) or f"file {n}"
        if uid in kept and (irregular == "refuse" or kept[uid].data() != one.data()):
            raise DataError(
                f"{where} has duplicate positions: {one.item.name} and {kept[uid].item.name} are the same instance; "
                "leave one out."
            )
        kept.setdefault(uid, one)
    if len(kept) < len(slices):
        facts["copies_left_out"] = len(slices) - len(kept)
    return list(kept.values())


def check_alike(slices: Sequence[Slice], where: str) -> None:
    """One patient, study, kind of object, frame of reference and unit, and cross-sections or colours."""
    nameless = sum(not one.header.text(s.SERIES) for one in slices)
    if nameless:
        raise DataError(
            f"{where} holds {nameless} images without a SeriesInstanceUID, which need not be one series; "
            "export them again, or name one of the files."
        )
    for tag, what in ALIKE.items():
        values = _values(slices, tag)
        if len(values) > 1:
            raise _mixed(where, what, values, secret=tag in IDENTIFYING)
    header = slices[0].header
    if header.text(s.PHOTOMETRIC) in MONOCHROME and s.class_of(header) not in CT | MR | PET | NUCLEAR:
        raise DataError(
            f"{where} holds {len(slices)} pictures that are no cross-sections (CT, MR, PET, NM), whose gray levels "
            "need not compare; name one of the files."
        )


def check_one_kind(slices: Sequence[Slice], where: str) -> None:
    """One echo time, one diffusion weight, and one ImageType as far as the standard defines its values (PS3.3
    C.7.6.1.1.2: the first three).

    Asked after the geometry, whose reasons say more where images of two kinds lie at the same positions.
    """
    echoes = _values(slices, s.ECHO_TIME)
    if echoes_differ(echoes):
        raise _mixed(where, "echo times", echoes)
    weights = sorted({one.header.doubles(s.DIFFUSION_B) for one in slices})
    if len(weights) > 1:
        raise _mixed(where, "diffusion weights (DiffusionBValue)", weights)
    types = sorted({"\\".join(part.strip() for part in text.split("\\")[:3]) for text in _values(slices, s.IMAGE_TYPE)})
    if len(types) > 1:
        raise _mixed(where, "image types", types)


def echoes_differ(texts: Collection[str]) -> bool:
    """Whether values of EchoTime are those of several echoes, and not one written in several ways."""
    times = [first_number(text, None) for text in set(texts)]
    return len(times) > 1 and (None in times or max(times) - min(times) > SAME_ECHO * max(map(abs, times)))


def differing(slices: Sequence[Slice], *, told: str = "") -> tuple[str, ...]:
    """Keywords of what may differ between slices and does, but for those that tell channels apart."""
    return tuple(
        keyword
        for tag, keyword in s.RECORDED.items()
        if len(_values(slices, tag)) > 1 and keyword not in told.split(" and ")
    )


def modality_lut(slices: Sequence[Slice], where: str) -> tuple[str, str]:
    """(``none``, ``rescale`` or ``table``, the unit that it says) of the modality LUTs that all slices have.

    Raises DataError, by the name of the slice, where some are rescaled and others are not.
    """
    found = [_modality_lut(one) for one in slices]
    counts = Counter(kind for kind, _ in found)
    if len(counts) > 1:
        usual, rare = counts.most_common()[0][0], counts.most_common()[-1][0]
        odd = next(one for one, (kind, _) in zip(slices, found, strict=True) if kind == rare)
        raise DataError(
            f"{odd.item.name} has {KINDS[rare]}, where others of its series have {KINDS[usual]}; export it again."
        )
    units = sorted({unit for _, unit in found})
    if len(units) > 1:
        raise _mixed(where, "units of its look-up tables", units)
    return found[0]


def rescale_of(one: Slice) -> tuple[float, float] | None:
    """(slope, intercept), None where a slice has neither. Raises DataError for a slope of 0 and what is no number."""
    texts = [one.header.text(tag) for tag in (s.SLOPE, s.INTERCEPT)]
    slope, intercept = (_number(text) for text in texts)
    if any(text and (value is None or "\\" in text) for text, value in zip(texts, (slope, intercept), strict=True)):
        raise DataError(f"{one.item.name} has a rescale that is not two finite numbers; export it again.")
    if slope is None and intercept is None:
        return None
    if slope == 0:
        raise DataError(f"{one.item.name} has a RescaleSlope of 0, which wipes out the image; export it again.")
    return 1.0 if slope is None else slope, intercept or 0.0


def first_number(text: str, default: Any) -> Any:
    """The first value of a DS or IS as a finite float."""
    try:
        value = float(text.split("\\")[0])
    except ValueError:
        return default
    return value if abs(value) < float("inf") and "_" not in text else default


@lru_cache(maxsize=4096)
def _number(text: str) -> float | None:
    """The same for texts that are asked for several times."""
    return first_number(text, None)


def _modality_lut(one: Slice) -> tuple[str, str]:
    if one.header.elements.get(s.MODALITY_LUT) is not None:
        ds = one.dataset or open_dataset(one.data(), one.item.name)
        if ds.get("ModalityLUTSequence"):
            return "table", str(ds.ModalityLUTSequence[0].get("ModalityLUTType") or "").strip().upper()
    unit = one.header.text(s.RESCALE_TYPE).upper()
    return ("none" if rescale_of(one) is None else "rescale"), unit


def _values(slices: Sequence[Slice], tag: int) -> list[str]:
    """The different values of an element, sorted; their padding makes no difference."""
    raw = {one.header.raw(tag) for one in slices}
    if len(raw) == 1:
        return [slices[0].header.text(tag)]
    return sorted({value.decode("ascii", "replace").strip(" \0") for value in raw})


def _mixed(where: str, what: str, values: Sequence[str], *, secret: bool = False) -> DataError:
    named = "" if secret else f" ({', '.join(s.said(value) or 'none' for value in values[:4])})"
    return DataError(f"{where} mixes {len(values)} {what}{named}; split it into one series for each.")
