"""One process at a time writes to a folder."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from medgcsam.errors import MachineError
from medgcsam.run_folder import writing_failed

_NO_LOCKS = {errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}
"""What a file system without locks answers; there the folder is written to without one."""


@contextmanager
def only_writer(folder: Path, what: str) -> Iterator[None]:
    """Hold the right to write to ``folder``, by a lock on FOLDER/.lock that the system drops if the process dies.

    what: the command that holds it, in the sentence for another one that comes meanwhile.

    Raises:
        MachineError: another process has it, or the folder cannot be written to.
    """
    path = Path(folder) / ".lock"
    try:
        lock = open(path, "a")  # noqa: SIM115 (closed below, which gives the lock back)
    except OSError as error:
        raise writing_failed(path, error) from error
    with lock:
        try:
            free = _taken(lock)
        except OSError as error:
            raise writing_failed(path, error) from error
        if not free:
            raise MachineError(
                f"{folder}: another `{what}` is writing to this folder; wait for it, or name another folder."
            )
        yield


def _taken(lock) -> bool:
    try:
        import fcntl
    except ImportError:  # not a POSIX system
        return True
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
    return True
