"""Every error a user can cause, and the exit code that goes with it.

The message of an error is one plain sentence: what is wrong, where, and what to do. The command line prints it to
stderr and exits with ``exit_code``; anything that is not a ``MedgcsamError`` is a bug and exits with 1.
"""

from __future__ import annotations


class MedgcsamError(Exception):
    """Base of all expected errors; never raised itself."""

    exit_code = 1


class ConfigError(MedgcsamError):
    """The command or the configuration is wrong: misspelt key, unset variable, unknown column, missing extra."""

    exit_code = 2


class DataError(MedgcsamError):
    """The data are wrong: absent data set, unreadable or faulty image, leakage, refused geometry."""

    exit_code = 3


class MachineError(MedgcsamError):
    """The machine cannot do it: no GPU where one is required, folder not writable, out of memory, disk full."""

    exit_code = 4


class PartialFailure(MedgcsamError):
    """Some runs of a study failed and the others are done. (Some images of a prediction: 3, as faulty data.)"""

    exit_code = 5


class Interrupted(MedgcsamError):
    """A signal stopped the work after a checkpoint was written; the same command continues it."""

    exit_code = 75
