"""Which DICOM transfer syntaxes the installed decoders read."""

from __future__ import annotations

_NO_DECODER_NEEDED = (
    "ImplicitVRLittleEndian", "ExplicitVRLittleEndian", "ExplicitVRBigEndian", "DeflatedExplicitVRLittleEndian",
)  # fmt: skip


def readable_transfer_syntaxes() -> dict[str, bool]:
    """Name of each image transfer syntax (PS3.5 section 10 and PS3.6 table A-1) -> whether it can be decoded here.

    JPEG Extended counts as readable for its 8-bit form; the 12-bit form is refused by name when a file has it.
    """
    from pydicom import uid
    from pydicom.pixels import get_decoder

    result = {getattr(uid, name).name: True for name in _NO_DECODER_NEEDED}
    for syntax in uid.AllTransferSyntaxes:
        if syntax.is_encapsulated or syntax.is_compressed:
            if syntax.is_deflated:
                continue
            try:
                result[syntax.name] = bool(get_decoder(syntax).is_available)
            except NotImplementedError:
                result[syntax.name] = False
    return result
