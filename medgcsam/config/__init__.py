"""The configuration of a job: one strict, frozen tree, read from one YAML file.

>>> from medgcsam.config import load
>>> load("chest_xray.yaml", ["training.epochs=3"]).training.epochs  # doctest: +SKIP
3
"""

from __future__ import annotations

from medgcsam.config.augment import AugmentConfig
from medgcsam.config.compare import CompareConfig
from medgcsam.config.data import DataConfig
from medgcsam.config.evaluation import EvaluationConfig, OperatingPointConfig
from medgcsam.config.image import ImageConfig
from medgcsam.config.inference import InferenceConfig
from medgcsam.config.json_schema import json_schema
from medgcsam.config.load import dump, load
from medgcsam.config.network import NetworkConfig
from medgcsam.config.optimizer import GroupConfig, OptimizerConfig
from medgcsam.config.output import OutputConfig
from medgcsam.config.patches import PatchesConfig
from medgcsam.config.pipeline import PipelineConfig
from medgcsam.config.reference import reference
from medgcsam.config.report import ReportConfig
from medgcsam.config.schedule import ScheduleConfig
from medgcsam.config.shipped import find_config, find_data_description, shipped_folder, shipped_names
from medgcsam.config.split import SplitConfig
from medgcsam.config.training import TrainingConfig
from medgcsam.config.tree import Config

__all__ = [
    "AugmentConfig",
    "CompareConfig",
    "Config",
    "DataConfig",
    "EvaluationConfig",
    "GroupConfig",
    "ImageConfig",
    "InferenceConfig",
    "NetworkConfig",
    "OperatingPointConfig",
    "OptimizerConfig",
    "OutputConfig",
    "PatchesConfig",
    "PipelineConfig",
    "ReportConfig",
    "ScheduleConfig",
    "SplitConfig",
    "TrainingConfig",
    "dump",
    "find_config",
    "find_data_description",
    "json_schema",
    "load",
    "reference",
    "shipped_folder",
    "shipped_names",
]
