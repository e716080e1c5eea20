"""Write `expected.json` anew: python tests/golden/regenerate.py. Look at the difference before committing it."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path

from test_golden import CASES, EXPECTED, measure


def main() -> None:
    """Run every case, and tell what changed."""
    before = json.loads(EXPECTED.read_text()) if EXPECTED.exists() else {}
    expected = {}
    with tempfile.TemporaryDirectory() as folder:
        os.environ["CLBENCH_CACHE"] = str(Path(folder) / "cache")
        for case in CASES:
            expected[case] = measure(case, Path(folder))
            for name, value in expected[case].items():
                old = before.get(case, {}).get(name)
                if old != value:
                    print(f"{case}, {name}: {old} -> {value}", file=sys.stderr)
    EXPECTED.write_text(json.dumps(expected, indent=2) + "\n")


if __name__ == "__main__":
    main()
