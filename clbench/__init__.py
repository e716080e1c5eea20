"""clbench: streams of tasks, pluggable strategies, and one table every number comes from.

Importing this package is cheap: torch, timm, transformers and mlflow are imported where they are used.
"""

from pathlib import Path as _Path

__version__ = "0.1.0"

# A checkout on sys.path has strategies/, streams/ and configs/ beside this folder, not inside it.
if not (_Path(__file__).parent / "strategies").is_dir():
    __path__.append(str(_Path(__file__).parent.parent))
