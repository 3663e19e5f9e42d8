"""Pictures, arrays and research formats, one file per kind."""
