"""Metrics: pure, versioned functions of the evaluation table.

`compute` gives them all, `explain` says what one of them means and how other libraries define it.
"""





__all__ = ["DEFINITIONS", "compute", "explain"]
