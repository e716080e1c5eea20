"""Objectives: what is learned and how it is scored. Strategies call them and never ask which one it is."""

from clbench.objectives.base import OBJECTIVES, Objective, build_objective

__all__ = ["OBJECTIVES", "Objective", "build_objective"]
