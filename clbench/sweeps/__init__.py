"""Sweeps: many runs from one suite file, planned first, then run by an engine."""
