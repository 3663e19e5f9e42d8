"""Section `data`: which images, whose they are, and what their labels mean."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from medgcsam.config.base import Bool, FilePath, Section, Text

Column = Literal[
    "image",
    "patient_id",
    "label",
    "mask",
    "study",
    "site",
    "scanner",
    "date",
    "sex",
    "age",
    "partition",
    "exclude",
]


def _list_or_map(value: Any) -> str:
    return "map" if isinstance(value, Mapping) else "list"


Classes = Annotated[
    Annotated[tuple[Text, ...], Tag("list")] | Annotated[dict[Text, tuple[Text, ...]], Tag("map")],
    Discriminator(_list_or_map),
]


class DataConfig(Section):
    """Which images, whose they are, and what their labels mean."""

    manifest: FilePath = Field(
        description="The CSV with one row per image, or a data description `data_manifests/NAME.yaml` "
        "(yours or shipped)."
    )
    root: FilePath | None = Field(
        None,
        description="Folder that the image paths in the manifest count from; empty: the folder of the manifest, "
        "or of the data set.",
    )
    columns: dict[Column, Text] = Field(
        default_factory=dict,
        description="Names of the manifest's columns where they differ from the standard ones: "
        "`{patient_id: PatientID}`.",
    )
    classes: Classes | None = Field(
        None,
        description="The class names in order, or `{class: [labels in the file that mean it]}`; "
        "empty: from the data description or, failing that, from the manifest.",
    )
    positive: Text | None = Field(
        None,
        description="The class that counts as the finding in a two-class task; empty: the last of the two classes.",
    )
    exclude_labels: tuple[Text, ...] = Field(
        (), description="Labels whose images are left out (and counted), such as `[normal]`."
    )
    negative: Text | None = Field(
        None,
        description='Multi-label: the word for "none of the classes", such as `No Finding`; `none` always works.',
    )
    label_columns: dict[Text, Text] | None = Field(
        None,
        description="Multi-label: `{class: column}` where the file has a column per class with 1, 0, -1 (uncertain) "
        "or nothing.",
    )
    structures: dict[Text, tuple[Text, ...]] | None = Field(
        None,
        description="Masks: `{class: [names in the file that mean it]}`, such as `{tumour: [GTV*]}`, numbered from 1 "
        "in this order; the names of segments (DICOM SEG), contours (RTSTRUCT) and mask files, numbers for label maps; "
        "`*` stands for anything. Empty: from the data description or, failing that, every structure of the file (a "
        "segmentation needs their names).",
    )
    overlapping: Bool = Field(
        False, description="Segmentation: structures may overlap, so that a voxel can belong to several."
    )
    faulty_masks: Literal["error", "exclude"] = Field(
        "error",
        description="Segmentation: images or masks that cannot be used (see `medgcsam check`): stop, or leave them out "
        "(and say so in every output).",
    )
    uncertain: Literal["mask", "positive", "negative"] = Field(
        "mask", description="Multi-label: what an uncertain entry counts as; `mask` leaves it out of loss and metrics."
    )
    patients: Literal["known", "unknown"] | None = Field(
        None,
        description="`unknown` where there is no patient identity: each image counts as a patient and every output "
        "says so; empty: from the data description or, failing that, `known`.",
    )
