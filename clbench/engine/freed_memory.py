"""Memory that a step frees is kept for the next one.

glibc gives large freed blocks back to the operating system at once, so that every training step takes thousands of page
faults to get the same memory again. Numbers do not depend on it.
"""

from __future__ import annotations

import ctypes
import os
import sys

KEPT_BYTES = 256 << 20
PROMISED_BYTES = 32 << 20  # the most that mallopt(3) promises to take as a threshold
OWN_SETTINGS = ("GLIBC_TUNABLES", "MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TOP_PAD_")
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of <malloc.h>


def keep_freed_memory() -> bool:
    """Have this process keep up to KEPT_BYTES that it has freed; whether it does.

    Not where the allocator is another one than glibc's, nor where the user has settings of glibc's own.
    """
    if sys.platform != "linux" or any(name in os.environ for name in OWN_SETTINGS):
        return False
    try:
        set_option = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    taken = set_option(_MMAP_THRESHOLD, KEPT_BYTES) or set_option(_MMAP_THRESHOLD, PROMISED_BYTES)
    return bool(taken and set_option(_TRIM_THRESHOLD, KEPT_BYTES))
