"""Compressed pixels are decoded in a process of their own: on damaged bytes some decoders abort theirs.

GDCM ends the whole program on some damaged JPEG and JPEG 2000 streams (a C++ exception that nobody catches), other
decoders may never end or ask for all memory. One child per process is started when it is first needed, answers one
request after the other, and is replaced when it dies. It decodes with pydicom and its plugins as the program itself
would, so the pixels are the same.

A request is a line of JSON (image pixel elements, and the number of bytes that follow) and the encapsulated pixels; an
answer is a line of JSON (``shape``, ``dtype``, or ``error``) and the values in C order. The child writes what its
libraries print into a file, because some decoders only print that a stream is damaged, and invent the rest.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from typing import Any, BinaryIO

import numpy as np
from pydicom.encaps import encapsulate, get_frame

SECONDS, SECONDS_PER_SAMPLE = 60.0, 2e-6
"""Time for one object; decoders take 2e-8 to 1e-7 s per sample."""
MEMORY, MEMORY_PER_SAMPLE = 4 * 2**30, 32
"""Address space of the child in bytes, where the system knows such a limit."""
ELEMENTS = (
    "SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration", "NumberOfFrames", "Rows", "Columns",
    "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation",
    "ExtendedOffsetTable", "ExtendedOffsetTableLengths",
)  # fmt: skip
TABLE = "ExtendedOffsetTable"
INVENTED = ("premature end", "bad huffman code", "bad arithmetic code", "instead of rst", "inconsistent progression")
"""What libjpeg prints when it goes on with made-up values (jerror.h, JWRN_*), in lower case."""


class DecodingFailed(ValueError):
    """The pixels could not be decoded; the text says why."""


class _Child:
    """A running decoder. It has a session of its own, so that a signal to stop the program does not stop it halfway."""

    def __init__(self) -> None:
        # By path, so that the child needs nothing but pydicom; -P keeps the modules beside this one out of its way.
        command = [sys.executable, "-P", __file__]
        environment = os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, start_new_session=True
        )
        self.late = False

    def ask(self, head: dict[str, Any], body: bytes, seconds: float) -> tuple[dict[str, Any], bytearray]:
        """(head, body) of the answer. Raises EOFError where the child died or was stopped for taking too long."""
        timer = threading.Timer(seconds, self._stop)
        timer.daemon = True
        timer.start()
        try:
            self.process.stdin.write(json.dumps(head).encode() + b"\n")
            self.process.stdin.write(body)
            self.process.stdin.flush()
            return _received(self.process.stdout)
        except (OSError, ValueError) as error:
            raise EOFError from error
        finally:
            timer.cancel()

    def _stop(self) -> None:
        self.late = True
        self.process.kill()

    def close(self) -> int:
        """End the child, whatever it does; its exit status, negative for a signal."""
        for stream in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(OSError):
                stream.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self.process.wait(timeout=1)
        self.process.kill()
        return self.process.wait()


_lock = threading.Lock()
_child: _Child | None = None
_inherited: list[_Child | None] = []


def decode(ds: Any, *, index: int | None = None) -> np.ndarray:
    """What ``pydicom.pixels.pixel_array`` gives for the compressed pixels of a pydicom Dataset.

    index: the one frame to decode (0-based), or None for all.
    Raises DecodingFailed, and NotImplementedError where no decoder knows the transfer syntax.
    """
    global _child
    elements = {name: ds.get(name) for name in ELEMENTS if ds.get(name) not in (None, "")}
    pixels, samples = bytes(ds.PixelData), 1
    if index is not None:
        frames = int(elements.get("NumberOfFrames", 1))
        table = (ds.ExtendedOffsetTable, ds.ExtendedOffsetTableLengths) if TABLE in elements else None
        pixels = encapsulate([get_frame(pixels, index, number_of_frames=frames, extended_offsets=table)])
        elements = {n: value for n, value in elements.items() if not n.startswith(TABLE)} | {"NumberOfFrames": 1}
    for name in ("NumberOfFrames", "Rows", "Columns", "SamplesPerPixel"):
        samples *= int(elements.get(name, 1))
    head = {
        "size": len(pixels),
        "syntax": str(ds.file_meta.TransferSyntaxUID),
        "samples": samples,
        "elements": {name: _plain(value) for name, value in elements.items()},
    }
    answer, body = _asked(head, pixels, SECONDS + SECONDS_PER_SAMPLE * samples)
    if answer.get("error") == "NotImplementedError":
        raise NotImplementedError(answer["text"])
    if "error" in answer:
        raise DecodingFailed(answer["text"])
    return np.frombuffer(body, np.dtype(answer["dtype"])).reshape(answer["shape"])


def _plain(value: Any) -> int | str | list[int]:
    """A value for JSON; bytes become a list."""
    return value if isinstance(value, str) else list(value) if isinstance(value, bytes) else int(value)


def _asked(head: dict[str, Any], pixels: bytes, seconds: float) -> tuple[dict[str, Any], bytearray]:
    global _child
    with _lock:
        if _child is not None and _child.process.poll() is not None:
            _close()
        if _child is None:
            _child = _Child()
        try:
            return _child.ask(head, pixels, seconds)
        except EOFError:
            late, status = _child.late, _close()
        except BaseException:
            _close()  # the answer would be taken for that to the next request
            raise
    if late:
        raise DecodingFailed(f"its compressed pixels kept the decoder busy for over {seconds:.0f} s")
    if status in (-signal.SIGKILL, -signal.SIGTERM):  # by the system, which does so when memory runs out
        raise MemoryError
    raise DecodingFailed("its compressed pixels made the decoder crash")


def _close() -> int:
    global _child
    child, _child = _child, None
    return child.close() if child is not None else 0


def _forget() -> None:
    """After a fork: the child is that of the parent, and the lock may be held by a thread that is not here."""
    global _lock, _child
    _inherited.append(_child)  # kept, so that its streams are not closed behind the parent's back
    _child, _lock = None, threading.Lock()


atexit.register(_close)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def _received(stream: BinaryIO) -> tuple[dict[str, Any], bytearray]:
    line = stream.readline()
    if not line.endswith(b"\n"):
        raise EOFError
    head = json.loads(line)
    body = bytearray(head["size"])
    view, done = memoryview(body), 0
    while done < len(body):
        count = stream.readinto(view[done:])
        if not count:
            raise EOFError
        done += count
    return head, body


def _serve() -> None:
    """The child: answer requests until the parent is gone."""
    incoming, outgoing = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    with tempfile.TemporaryFile() as printed:
        os.dup2(printed.fileno(), 1)
        os.dup2(printed.fileno(), 2)
        with contextlib.suppress(EOFError):
            while True:
                head, body = _received(incoming)
                _limit_memory(head["samples"])
                answer, values = _answer(head, bytes(body), printed)
                outgoing.write(json.dumps(answer | {"size": len(values)}).encode() + b"\n")
                outgoing.write(values)
                outgoing.flush()


def _answer(head: dict[str, Any], pixels: bytes, printed: BinaryIO) -> tuple[dict[str, Any], bytes]:
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.pixels import pixel_array

    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = head["syntax"]
    for name, value in head["elements"].items():
        setattr(ds, name, bytes(value) if isinstance(value, list) else value)
    ds.PixelData = pixels
    ds["PixelData"].VR = "OB"
    ds["PixelData"].is_undefined_length = True
    printed.seek(0)
    printed.truncate()
    try:
        array = np.ascontiguousarray(pixel_array(ds))
    except Exception as error:
        text = " ".join(str(error).split())[:300] or type(error).__name__
        return {"error": type(error).__name__, "text": text}, b""
    printed.seek(0)
    text = printed.read(2**16).decode("utf-8", "replace").lower()
    for words in INVENTED:
        if words in text:
            return {"error": "ValueError", "text": f"its JPEG stream is damaged: {words}"}, b""
    return {"shape": array.shape, "dtype": array.dtype.str}, array.tobytes()


def _limit_memory(samples: int) -> None:
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY + MEMORY_PER_SAMPLE * samples, hard))


if __name__ == "__main__":
    import logging
    import warnings

    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    _serve()
