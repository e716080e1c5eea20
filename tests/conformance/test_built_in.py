"""No built-in strategy fails a probe. On images with captions `test_on_pairs` tries some of them."""

from __future__ import annotations

import pytest

from clbench.conformance import check
from clbench.registry import STRATEGIES, load_strategy, targets

BUILT_IN = sorted(name for name, target in targets(STRATEGIES).items() if target.startswith("clbench."))
OBJECTIVES = ("classification", "language_modeling")


@pytest.mark.slow
@pytest.mark.parametrize("name", BUILT_IN)
def test_a_built_in_strategy_passes(name: str) -> None:
    works_with = load_strategy(name).needs.objectives or OBJECTIVES
    findings = [finding for kind in OBJECTIVES if kind in works_with for finding in check(name, kind)]
    assert len(findings) >= 5
    assert not [finding for finding in findings if finding.status == "fail"]
