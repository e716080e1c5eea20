"""No built-in strategy fails a probe. On images with captions `test_on_pairs` tries some of them."""

from __future__ import annotations

import pytest

from clbench.conformance import check
from clbench.registry import STRATEGIES, load_strategy, targets

BUILT_IN = sorted(name for name, target in targets(STRATEGIES).items() if target.startswith("clbench."))
OBJECTIVES = ("classification", "language_modeling")
ON_TEXT = 4  # one in so many of those that work with both


@pytest.mark.slow
@pytest.mark.parametrize(("number", "name"), list(enumerate(BUILT_IN)))
def test_a_built_in_strategy_passes(number: int, name: str) -> None:
    """On one of the objectives that it works with: images more often than text, since that is quicker."""
    works_with = [kind for kind in OBJECTIVES if kind in (load_strategy(name).needs.objectives or OBJECTIVES)]
    findings = list(check(name, works_with[-1 if number % ON_TEXT == 0 else 0]))
    assert len(findings) >= 5
    assert not [finding for finding in findings if finding.status == "fail"]
