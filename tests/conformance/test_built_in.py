"""No built-in strategy fails a probe."""

from __future__ import annotations

import pytest

from clbench.conformance import check
from clbench.registry import STRATEGIES, targets

BUILT_IN = sorted(name for name, target in targets(STRATEGIES).items() if target.startswith("clbench."))


@pytest.mark.slow
@pytest.mark.parametrize("name", BUILT_IN)
def test_a_built_in_strategy_passes(name: str) -> None:
    findings = list(check(name))
    assert len(findings) >= 12
    assert not [finding for finding in findings if finding.status == "fail"]
