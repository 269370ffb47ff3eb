"""Sample producers and partners: short enough to copy as a start."""
