"""`clbench check STRATEGY`: the conformance kit's findings, one line each."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from contextlib import redirect_stdout
from dataclasses import asdict
from typing import TYPE_CHECKING

from clbench.errors import RunFailed
from clbench.registry import load_strategy

if TYPE_CHECKING:
    from clbench.conformance import Finding


def check_command(strategy: str, objective: str | None, as_json: bool) -> None:
    """Probe a strategy (a name, or file.py:Class) and print what was found, as JSON or as lines while it goes on.

    objective: the only one it is tried on; None: all that it works with. Raises UserError where there is no such
    strategy or it does not work with the objective, RunFailed where a probe fails.
    """
    with redirect_stdout(sys.stderr):  # what the strategy's file prints
        load_strategy(strategy)
    from clbench.conformance import check

    findings = list(_shown(check(strategy, objective), not as_json))
    failed = [f"{f.probe} ({f.stream})" for f in findings if f.status == "fail"]
    if as_json:
        probes = [asdict(finding) for finding in findings]
        answer = {"strategy": strategy, "passed": not failed, "probes": probes}
        sys.stdout.write(json.dumps(answer, indent=1) + "\n")
    if failed:
        raise RunFailed(f"{strategy} fails {len(failed)} of {len(findings)} probes: {', '.join(failed)}")
    if not as_json:
        counts = {status: sum(f.status == status for f in findings) for status in ("pass", "warn", "skip")}
        words = ", ".join(f"{n} {status}" for status, n in counts.items() if n)
        sys.stdout.write(f"{strategy}: {words}\n")


def _shown(findings: Iterable[Finding], aloud: bool) -> Iterable[Finding]:
    """The findings; each is printed as soon as it is there, under its stream."""
    stream = ""
    for finding in findings:
        if aloud:
            if finding.stream != stream:
                stream = finding.stream
                sys.stdout.write(f"{stream}\n")
            sys.stdout.write(f"  {finding.status}  {finding.probe:<20}  {finding.evidence}\n")
            sys.stdout.flush()
        yield finding
