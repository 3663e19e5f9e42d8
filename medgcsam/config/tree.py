"""The whole configuration: one frozen tree, a section per part of the job."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, PrivateAttr, model_validator

from medgcsam.config.augment import AugmentConfig
from medgcsam.config.base import Name, Section
from medgcsam.config.by_task import BY_TASK
from medgcsam.config.compare import CompareConfig
from medgcsam.config.data import DataConfig
from medgcsam.config.evaluation import EvaluationConfig
from medgcsam.config.image import ImageConfig
from medgcsam.config.inference import InferenceConfig
from medgcsam.config.network import NetworkConfig
from medgcsam.config.optimizer import OptimizerConfig
from medgcsam.config.output import OutputConfig
from medgcsam.config.patches import PatchesConfig
from medgcsam.config.pipeline import PipelineConfig
from medgcsam.config.report import ReportConfig
from medgcsam.config.schedule import ScheduleConfig
from medgcsam.config.split import SplitConfig
from medgcsam.config.training import TrainingConfig


class Config(Section):
    """The whole configuration of a job. `load` makes it; paths in it are then absolute.

    Two are equal when they would do the same, wherever they were read from.
    """

    name: Name = Field(description="Name of the job and of its folder below `output.folder`.")
    task: Literal["classification", "multilabel", "segmentation"] = Field(
        "classification",
        description="One class per image (two classes: binary), any number of findings per image, or the outlines of "
        "structures in pictures or volumes.",
    )
    data: DataConfig = Field(description="Which images, whose they are, and what their labels mean.")
    split: SplitConfig = Field(default_factory=SplitConfig, description="Who is trained, chosen and tested on.")
    image: ImageConfig = Field(default_factory=ImageConfig, description="Preparation of every image.")
    augment: AugmentConfig = Field(default_factory=AugmentConfig, description="Random changes of training images.")
    patches: PatchesConfig = Field(
        default_factory=PatchesConfig, description="Segmentation: what one training step sees."
    )
    pipeline: PipelineConfig = Field(default_factory=PipelineConfig, description="Speed of preparation and reading.")
    network: NetworkConfig = Field(default_factory=NetworkConfig, description="What is trained.")
    optimizer: OptimizerConfig = Field(default_factory=OptimizerConfig, description="How it is trained.")
    schedule: ScheduleConfig = Field(default_factory=ScheduleConfig, description="The learning rate over the epochs.")
    training: TrainingConfig = Field(default_factory=TrainingConfig, description="How long, and on what.")
    inference: InferenceConfig = Field(
        default_factory=InferenceConfig, description="Segmentation: how whole images are segmented."
    )
    evaluation: EvaluationConfig = Field(default_factory=EvaluationConfig, description="Numbers and intervals.")
    compare: CompareConfig = Field(default_factory=CompareConfig, description="Settings of a comparison.")
    report: ReportConfig = Field(default_factory=ReportConfig, description="What only you can say.")
    output: OutputConfig = Field(default_factory=OutputConfig, description="Where the runs are written.")

    _source: Path | None = PrivateAttr(None)

    @model_validator(mode="after")
    def _by_task(self) -> Config:
        """Fill in what `auto` means for the task; see ``by_task``."""
        for (section, key), value in BY_TASK[self.task].items():
            part = getattr(self, section)
            if getattr(part, key) == "auto":
                self.__dict__[section] = part.model_copy(update={key: value})
        return self

    @property
    def source(self) -> Path | None:
        """The YAML file that this was loaded from; None if it was made in Python. Not part of dumps."""
        return self._source

    @property
    def base(self) -> Path:
        """Folder that relative paths count from: that of the YAML file, or the current one."""
        return self._source.parent if self._source else Path.cwd()

    @property
    def setting(self) -> str:
        """Name of this optimizer setting in run folders and comparisons."""
        return self.optimizer.setting or self.optimizer.name

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Config) and self.model_dump() == other.model_dump()

    __hash__ = None  # type: ignore[assignment]
