"""Freed memory stays with the process, unless somebody said otherwise."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

from clbench.engine.freed_memory import OWN_SETTINGS

ROUNDS = 20
CODE = f"""
import resource, numpy
from clbench.engine.freed_memory import keep_freed_memory
kept = keep_freed_memory()

def work():
    arrays = [numpy.ones(1 << 20) for _ in range(4)]

work()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range({ROUNDS}):
    work()
print(kept, (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / {ROUNDS})
"""

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's allocator has these settings")


def faults(**settings: str) -> tuple[bool, float]:
    """Whether memory is kept, and the page faults of a round that takes 32 MB and gives them back."""
    environment = {name: value for name, value in os.environ.items() if name not in OWN_SETTINGS} | settings
    command = [sys.executable, "-c", CODE]
    kept, count = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.split()
    return kept == "True", float(count)


def test_a_round_that_frees_what_it_took_has_no_page_faults() -> None:
    kept, count = faults()
    assert kept and count < 10


def test_settings_of_ones_own_are_left_alone() -> None:
    kept, count = faults(MALLOC_TRIM_THRESHOLD_="131072")
    assert not kept and count > 100
