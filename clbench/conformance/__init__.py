"""The conformance kit: does a strategy keep what the benchmark promises of every strategy?"""

from clbench.conformance.findings import Finding
from clbench.conformance.kit import check

__all__ = ["Finding", "check"]
