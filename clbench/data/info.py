"""Reading `info.json`, the description that lies beside the rows of a set."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from clbench.errors import UserError


def read_info(folder: Path) -> dict[str, Any]:
    """The contents of FOLDER/info.json, or {} where there is none. Raises `UserError` if it is unreadable."""
    path = folder / "info.json"
    try:
        info = json.loads(path.read_bytes().decode("utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); check its permissions") from None
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON ({error}); repair it or remove it") from None
    if not isinstance(info, dict):
        raise UserError(f"{path} holds a {type(info).__name__}, not a JSON object; repair it or remove it")
    _check_class_names(info.get("class_names"), path)
    return info


def _check_class_names(names: Any, path: Path) -> None:
    if names is None:
        return
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise UserError(f"{path}: class_names must be a list of strings, one for each label from 0")
    repeated = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
    if repeated:
        raise UserError(f"{path}: class_names holds {repeated[0]!r} twice; give each class a name of its own")


def declared_size(info: dict[str, Any]) -> int | None:
    """The short side in pixels that `image_size` states: 64, [48, 64], "64x64 JPEG", "short side 64 px"."""
    stated = info.get("image_size")
    if isinstance(stated, list) and stated and all(isinstance(side, int) for side in stated):
        stated = "x".join(str(side) for side in stated[-2:])
    if isinstance(stated, int) and not isinstance(stated, bool):
        stated = str(stated)
    if not isinstance(stated, str):
        return None
    found = re.search(r"(\d+)\s*x\s*(\d+)|short side (?:of )?(\d+)|^(\d+)$", stated)
    if not found:
        return None
    return min(int(side) for side in found.groups() if side) or None
