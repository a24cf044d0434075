"""Readers of files that detectors wrote: one module a format, read only."""
