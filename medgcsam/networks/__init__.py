"""A network by its name, and weights for it from a local file; nothing is ever downloaded."""

from __future__ import annotations

from medgcsam.networks.build import GRADCAM_LAYER, STEM, build_network, count_parameters, freeze_stem
from medgcsam.networks.segmentation import SEGMENTATION_NETWORKS, build_segmentation_network
from medgcsam.networks.small import SmallNet
from medgcsam.networks.weights import WeightsReport, load_weights

__all__ = [
    "GRADCAM_LAYER",
    "SEGMENTATION_NETWORKS",
    "STEM",
    "SmallNet",
    "WeightsReport",
    "build_network",
    "build_segmentation_network",
    "count_parameters",
    "freeze_stem",
    "load_weights",
]
