"""A network by its name, and weights for it from a local file; nothing is ever downloaded."""

from __future__ import annotations

from medgcsam.networks.build import GRADCAM_LAYER, STEM, build_network, count_parameters, freeze_stem
from medgcsam.networks.small import SmallNet
from medgcsam.networks.weights import WeightsReport, load_weights

__all__ = [
    "GRADCAM_LAYER",
    "STEM",
    "SmallNet",
    "WeightsReport",
    "build_network",
    "count_parameters",
    "freeze_stem",
    "load_weights",
]
