"""Methods that torch does not compile, named in advance.

torch marks some methods as not to be compiled, and imports its whole compiler (a second) when one is first called, in
order to say so to it. In a run without `--compile` nothing is compiled, and the import is spared.
"""

from __future__ import annotations

from typing import Any


def keep_compiler_out(owner: type, *methods: str) -> None:
    """Answer for these methods what torch would ask its compiler."""
    for name in methods:
        method: Any = getattr(getattr(owner, name), "__wrapped__", None)
        if method is not None and not hasattr(method, "__dynamo_disable"):
            method.__dynamo_disable = method
