"""medgcsam: patient-level training and honest comparison of GCSAM, SAM and Adam on medical images."""

__version__ = "0.1.0"
