"""Faulty files become one plain DataError; absurd sizes are refused before any memory is asked for."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from medgcsam.errors import DataError, MachineError, MedgcsamError

MAX_PIXELS = 150_000_000
"""Largest picture (rows x columns): three times the largest mammogram, far below a bomb."""
MAX_VOXELS = 2**30
"""Largest volume, all channels and time points together: 4 GiB as float32."""

VALUES = re.compile(r"""(['"])(?:.*\1|.*)""", re.DOTALL)
"""From the first quotation mark to the last of its kind: what a message of another library quotes from a file, which
may be anything, the name of a patient included."""


def said(text: str, *, at_most: int = 40) -> str:
    """A value of a header in a message: short and on one line, whatever is in it."""
    plain = "".join(mark if mark.isprintable() else " " for mark in text[: 4 * at_most])
    return " ".join(plain.split())[:at_most]


@contextmanager
def faults_of(where: str, kind: str) -> Iterator[None]:
    """Turn whatever a third-party decoder raises on a faulty file into a DataError that names the file.

    Decoders raise anything from OSError to IndexError on damaged bytes, so the net is wide on purpose; the block
    should hold nothing but the call of the decoder. Their warnings are silenced: a damaged file is an error here, and
    what the standard merely frowns upon would otherwise be printed once per image.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except MedgcsamError:
        raise
    except MemoryError as error:
        raise MachineError(f"{where} does not fit into memory; use a machine with more of it.") from error
    except Exception as error:
        reason = said(VALUES.sub("...", str(error)), at_most=160) or type(error).__name__
        raise DataError(f"{where} is a truncated or damaged {kind} file ({reason}); export it again.") from error


def check_size(shape: Sequence[int], where: str, *, limit: int = MAX_PIXELS) -> None:
    """Refuse an empty or absurdly large array of this shape, before it is decoded."""
    size = "x".join(str(n) for n in shape)
    if any(n < 1 for n in shape):
        raise DataError(f"{where} says that its image is {size}, which is empty; export it again.")
    if math.prod(int(n) for n in shape) > limit:
        raise DataError(f"{where} says that its image is {size}, over the limit of {limit:,}; crop or resample it.")


def check_finite(array: np.ndarray, where: str) -> None:
    """Refuse NaN and infinity: one of them turns every weight of a network into NaN."""
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        count = int(array.size - np.isfinite(array).sum())
        raise DataError(f"{where} has {count} pixels that are NaN or infinite; replace them by the background's value.")
