"""Hashed names for patients and cases: a keyed hash whose salt never enters a run folder."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from pathlib import Path

from medgcsam.errors import DataError, MachineError

SALT_NAME = ".salt"
_SALT_BYTES = 32


def load_salt(output: Path) -> bytes:
    """The salt of an output folder, made on first use as ``OUTPUT/.salt`` (32 random bytes as hex, mode 0600).

    All runs below ``output`` share it, so that a patient has the same hash in each of them. It lies beside the runs
    and never inside one: who is given a run folder cannot find a patient by trying every number.

    Raises:
        MachineError: the folder cannot be written.
        DataError: the file is there but is not a salt.
    """
    path = Path(output) / SALT_NAME
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            _write_once(path, secrets.token_hex(_SALT_BYTES))
        text = path.read_text("ascii").strip()
    except OSError as error:
        raise MachineError(
            f"{path}: the salt of this output folder cannot be read or written ({error.strerror}); "
            "choose a writable output.folder."
        ) from error
    if len(text) != 2 * _SALT_BYTES or not set(text) <= set("0123456789abcdef"):
        raise DataError(f"{path}: this is not a salt written by medgcsam; restore the file from a backup.")
    return bytes.fromhex(text)


def _write_once(path: Path, text: str) -> None:
    """Write `path` unless another process has done so meanwhile; the first one wins."""
    # A name of its own for every writer: process numbers repeat on the machines that share a folder.
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(8)}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as stream:
        stream.write(text + "\n")
    try:
        os.link(temporary, path)
    except FileExistsError:
        pass
    except OSError:  # a file system without hard links
        if not path.exists():
            os.replace(temporary, path)
            return
    os.unlink(temporary)


def hash_id(salt: bytes, kind: str, value: str) -> str:
    """HMAC-SHA256 of ``kind`` and ``value`` under the salt, 16 hex characters (64 bits).

    ``kind`` is "patient" or "case", so that a case named like a patient has another hash.
    """
    return hmac.new(salt, f"{kind}\0{value}".encode(), hashlib.sha256).hexdigest()[:16]
