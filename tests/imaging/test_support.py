"""The table of what is read and what is refused: up to date, and free of paths."""

from __future__ import annotations

import numpy as np
import pytest

from medgcsam.imaging import readable_transfer_syntaxes
from medgcsam.imaging.__main__ import main
from medgcsam.imaging.support import outcome, support_document


def test_the_document_says_what_the_code_does(shared_data, repository):
    written = (repository / "docs" / "dicom-support.md").read_text("utf-8")
    if not all(f"| {name} | no |" in written for name, read in readable_transfer_syntaxes().items() if not read):
        pytest.skip("other decoders are installed than those the document was made with")
    expected = support_document(shared_data)
    assert written == expected, "run: python -m medgcsam.imaging support > docs/dicom-support.md"
    assert str(shared_data) not in written


def test_a_row_is_what_a_file_is_read_as_or_why_not_without_its_path(tmp_path, write_dicom):
    path = write_dicom(np.arange(12, dtype=np.uint8).reshape(3, 4))
    assert outcome(path) == "picture 3 x 4, display (Secondary Capture Image Storage, MONOCHROME2)"
    (tmp_path / "notes").write_bytes(b"")
    assert outcome(tmp_path / "notes") == "refused: is an empty file; export it again."


def test_without_the_collections_the_command_says_what_is_missing(tmp_path, capsys):
    for arguments in (["support"], ["support", "--data", str(tmp_path)]):
        assert main(arguments) == 2
        assert "There is no dicom_variety" in capsys.readouterr().err
