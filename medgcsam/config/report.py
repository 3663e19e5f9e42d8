"""Section `report`: what only the people behind the study can say."""

from __future__ import annotations

from pydantic import Field

from medgcsam.config.base import Section, Text


class ReportConfig(Section):
    """What only the people behind the study can say; printed as written, and shown as missing where empty."""

    title: Text | None = Field(None, description="Heading of the report; empty: the name of the configuration.")
    intended_use: Text | None = Field(None, description="Who would use the result, for whom, to decide what.")
    not_for: Text | None = Field(None, description="Uses that are ruled out.")
    reference_standard: Text | None = Field(
        None, description="How the labels were made, and what they were checked against."
    )
    annotators: Text | None = Field(
        None, description="Who labelled, with what experience, how disagreement was settled."
    )
    ethics_approval: Text | None = Field(None, description="Board and number of the approval, or why none is needed.")
    funding: Text | None = Field(None, description="Who paid, and their part in the study.")
    contact: Text | None = Field(None, description="Whom to ask.")
