"""Metrics: pure, versioned functions of the evaluation table.

`compute` gives them all, `explain` says what one of them means and how other libraries define it.
"""

from clbench.metrics.definitions import DEFINITIONS
from clbench.metrics.explanation import explain
from clbench.metrics.report import compute

__all__ = ["DEFINITIONS", "compute", "explain"]
