"""Figures of comparisons, fit for a paper: curves, the gap after each switch, accuracy matrices, differences."""
