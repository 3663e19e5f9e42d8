"""DICOM objects and series: read exactly, or refused by name."""
