"""Whether a trained network can take a new image, said to whoever has the image and no hand in the training."""

from __future__ import annotations

from typing import Any

from medgcsam.config import Config
from medgcsam.errors import DataError
from medgcsam.pipeline.grids import grid_for
from medgcsam.pipeline.volumes import wrong_channels


def unsuited(image: Any, config: Config) -> str | None:
    """Why an ``Image`` is none for the network of ``config``, and what to do; None where it can be taken.

    The words go on after the name of the image.
    """
    section = config.image
    if section.intensity == "display" and image.unit != "display":
        return f"holds measured values ({image.unit}), and the network takes pictures as they are displayed; save one"
    if config.task == "segmentation":
        return _unsuited_shape(image, section)
    if len(image.spatial_shape) == 3 and image.spatial_shape[2] != 1:
        return f"is a volume of {image.spatial_shape[2]} slices, and the network takes pictures; give it single ones"
    if len(image.array) not in (1, 3):
        return _too_many(image, 1)
    return None


def _unsuited_shape(image: Any, section: Any) -> str | None:
    """The same of a segmentation: axes, channels, spacing and size; ``section`` is the resolved ``image`` section."""
    shape = image.spatial_shape
    if section.dimensions == 2 and len(shape) == 3 and shape[2] != 1:
        return f"is a volume of {shape[2]} slices, and the network takes pictures; give it single ones"
    if section.dimensions == 3 and len(shape) == 2:
        return "is a picture, and the network takes volumes; give it the whole volume"
    if wrong_channels(len(image.array), image.unit, section.channels):
        return _too_many(image, section.channels)
    if section.spacing is not None and image.spacing is None:
        return "has no voxel spacing, and the network needs it; convert the image again with its spacing"
    try:
        grid_for(image, dimensions=section.dimensions, spacing=section.spacing)
    except DataError:
        return "is too large at the spacing of the network; cut out the part that is wanted, or correct its spacing"
    return None


def _too_many(image: Any, channels: int) -> str:
    found = len(image.array)
    one = "; name one of them by #volume=0 behind the file" if found > channels == 1 else "; give it the same ones"
    return f"has {found} channel{'s or frames' * (found > 1)}, and the network takes {channels}{one}"
