from __future__ import annotations

import numpy as np
import pytest

from medgcsam.errors import DataError, MachineError
from medgcsam.imaging import Image
from medgcsam.imaging.labels.resample import nothing
from medgcsam.imaging.labels.structures import Structures, label_of

LIKE = Image(array=np.zeros((1, 512, 512, 60), np.int8), unit="raw", affine=np.eye(4), spacing=(1.0, 1.0, 1.0))


def _label(count, place, **options):
    found = Structures(tuple(f"s{n}" for n in range(count)), tuple(range(1, count + 1)), place)
    return label_of(found, "x.dcm", like=LIKE, names=None, max_outside=None, **options)


def test_a_channel_for_each_of_thirty_thousand_structures_is_refused():
    """They would take 879 GiB."""
    with pytest.raises(DataError, match=r"x\.dcm would have 30,000 channels of 15,728,640 voxels"):
        _label(30_000, lambda position, grid: nothing(empty=True), overlapping=True)


def test_a_structure_that_does_not_fit_into_memory_is_told():
    def place(position, grid):
        raise MemoryError

    with pytest.raises(MachineError, match=r"x\.dcm does not fit into memory"):
        _label(1, place, overlapping=False)
