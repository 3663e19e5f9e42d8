"""Section `augment`: random changes of the training images."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from medgcsam.config.base import Bool, Section

Degrees = Annotated[float, Field(strict=True, ge=0, le=180)]
Part = Annotated[float, Field(strict=True, ge=0, le=0.5)]
Amount = Annotated[float, Field(strict=True, ge=0, lt=1)]


class AugmentConfig(Section):
    """Random changes of the training images; each number is the largest change in either direction."""

    enabled: Bool = Field(True, description="Change the training images at random; off gives the images as they are.")
    flip_horizontal: Bool = Field(
        False, description="Mirror left and right; wrong where the side matters, as in chest radiographs."
    )
    flip_vertical: Bool = Field(False, description="Mirror top and bottom.")
    flip_depth: Bool = Field(False, description="Volumes: mirror head and feet.")
    rotate_degrees: Degrees = Field(7.0, description="Largest rotation in degrees.")
    shift: Part = Field(0.05, description="Largest shift as a fraction of the side.")
    scale: Part = Field(0.1, description="Largest change of size: 0.1 is from 1/1.1 to 1.1 times.")
    brightness: Amount = Field(0.1, description="Largest change of brightness, of a gray scale from 0 to 1.")
    contrast: Amount = Field(0.1, description="Largest change of contrast: 0.1 is from 1/1.1 to 1.1 times.")
    gamma: Amount = Field(0.1, description="Largest change of the gamma exponent: 0.1 is from 1/1.1 to 1.1.")
    noise: Amount = Field(0.01, description="Largest standard deviation of added noise, of a gray scale from 0 to 1.")
