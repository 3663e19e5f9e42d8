"""Checkpoints: what is needed to go on from an epoch as if nothing had happened, and the best weights."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch

from medgcsam.errors import DataError, MachineError
from medgcsam.run_folder import replacing


def save(path: Path, content: dict[str, Any]) -> None:
    """Write a checkpoint atomically: whatever happens, ``path`` holds the old one or the new one in full."""
    with replacing(path) as temporary:
        try:
            with open(temporary, "wb") as stream:  # given a name, torch would write it into the file
                torch.save(content, stream)
        except RuntimeError as error:  # torch reports a full disk so
            if "PytorchStreamWriter" in str(error) or "inline_container" in str(error):
                raise MachineError(
                    f"{path}: the checkpoint could not be written, most likely because the disk is full; free some "
                    "space and run the same command again."
                ) from error
            raise


def load(path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Read a checkpoint of tensors and plain values; code in it is refused, never run.

    Raises:
        DataError: the file is absent, damaged, or holds more than tensors and plain values.
    """
    try:
        return torch.load(path, map_location=device, weights_only=True)
    except FileNotFoundError as error:
        raise DataError(f"{path}: there is no checkpoint; run `medgcsam train` again to make it.") from error
    except (RuntimeError, pickle.UnpicklingError, EOFError, ValueError) as error:
        raise DataError(
            f"{path}: this checkpoint is damaged or not one of medgcsam ({str(error).splitlines()[0]}); "
            "start anew with --restart."
        ) from error
