"""`clbench doctor`: one line for each thing a run needs, with a remedy where something is not as it should be."""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from clbench import machine
from clbench.cli.text import columns, print_json, print_lines

OLDEST_PYTHON = (3, 10)
SETS_NAMED = 6


@dataclass(frozen=True)
class Finding:
    """What was looked at, whether it is as it should be, what was found, and what to do about it."""

    what: str
    ok: bool
    found: str
    remedy: str = ""


def doctor_command(data_root: str | None, results: Path, as_json: bool) -> None:
    """Print every finding."""
    findings = [*_python(), *_packages(), *_torch(), *_data(data_root), *_folders(results), *_tracking(results)]
    if as_json:
        print_json([asdict(finding) for finding in findings])
        return
    rows = [
        ["ok" if f.ok else "warn", f.what, f.found + (f" -> {f.remedy}" if f.remedy and not f.ok else "")]
        for f in findings
    ]
    print_lines(columns(rows, right=False, indent=""))


def _python() -> Iterator[Finding]:
    found = ".".join(map(str, sys.version_info[:3]))
    wanted = ".".join(map(str, OLDEST_PYTHON))
    yield Finding("python", sys.version_info >= OLDEST_PYTHON, found, f"install Python {wanted} or later")


def _packages() -> Iterator[Finding]:
    """Required packages against the oldest versions allowed, and the tested ones where the checkout has a list."""
    try:
        required = requires("clbench") or []
    except PackageNotFoundError:
        yield Finding("clbench", False, "not installed", "pip install clbench, or pip install -e . in the checkout")
        return
    tested = _tested()
    for line in required:
        if "extra ==" in line:
            continue
        match = re.match(r"([A-Za-z0-9_.-]+)\s*(?:>=\s*([0-9.]+))?", line)
        if match is None:
            continue
        name, oldest = match[1], match[2]
        try:
            found = version(name)
        except PackageNotFoundError:
            yield Finding(name, False, "missing", f"pip install '{line}'")
            continue
        if oldest and _numbers(found) < _numbers(oldest):
            yield Finding(name, False, f"{found}, older than {oldest}", f"pip install -U '{line}'")
        elif name.lower() in tested and _numbers(tested[name.lower()]) != _numbers(found):
            wanted = tested[name.lower()]
            yield Finding(name, False, f"{found}; tested with {wanted}", f"pip install {name}=={wanted}")
        else:
            yield Finding(name, True, found)


def _tested() -> dict[str, str]:
    import clbench

    path = Path(clbench.__file__).parent.parent / "constraints.txt"
    if not (path.is_file() and (path.parent / "pyproject.toml").is_file()):
        return {}
    pairs = (line.split("==") for line in path.read_text().splitlines() if "==" in line and not line.startswith("#"))
    return {name.strip().lower(): wanted.strip() for name, wanted in pairs}


def _numbers(text: str) -> tuple[int, ...]:
    numbers = [int(part) for part in re.findall(r"\d+", text.split("+")[0])][:3]
    return tuple(numbers + [0] * (3 - len(numbers)))


def _torch() -> Iterator[Finding]:
    try:
        import torch
    except Exception as error:
        yield Finding("torch", False, f"cannot be imported: {error}", "install it again: https://pytorch.org")
        return
    cores = machine.cores()
    threads = machine.threads()
    limited = os.environ.get("OMP_NUM_THREADS")
    found = f"{threads} of {cores} cores" + (f" (OMP_NUM_THREADS={limited})" if limited else "")
    yield Finding("threads", threads <= cores, found, "set --threads to the number of cores")
    if torch.cuda.is_available():
        yield Finding("gpu", True, f"{torch.cuda.device_count()} x {torch.cuda.get_device_name()}")
    else:
        yield Finding("gpu", True, "none visible to torch: runs use the CPU")


def _data(explicit: str | None) -> Iterator[Finding]:
    from clbench.data.root import data_root, set_paths

    root = data_root(explicit)
    if not root.is_dir():
        get = "clbench data get NAME makes it; CLBENCH_DATA names another"
        yield Finding("data root", False, f"{root} does not exist (embedded data work without)", get)
        return
    for kind in ("images", "text"):
        names = list(dict.fromkeys(name for name, _ in set_paths(root, kind)))
        more = f" and {len(names) - SETS_NAMED} more" if len(names) > SETS_NAMED else ""
        found = f"{len(names)} in {root}: {', '.join(names[:SETS_NAMED])}{more}" if names else f"none in {root}"
        yield Finding(f"{kind} sets", bool(names), found, "clbench data get NAME")


def _folders(results: Path) -> Iterator[Finding]:
    from clbench.data.root import cache_dir

    cache = cache_dir()
    found = str(cache) if cache else "cannot be written: nothing is cached"
    yield Finding("cache", cache is not None, found, "CLBENCH_CACHE names a folder that can be written")
    problem = _unwritable(results)
    found = f"{results} cannot be written: {problem}" if problem else f"{results.resolve()} can be written"
    yield Finding("results", problem is None, found, "choose another folder with --out")


def _unwritable(folder: Path) -> str | None:
    """Why nothing can be written into a folder, or, where it is missing, beside it."""
    place = folder
    while not place.exists() and place != place.parent:
        place = place.parent
    try:
        with tempfile.TemporaryFile(dir=place) as file:
            file.write(b"clbench")
            file.flush()
    except OSError as error:
        return error.strerror or str(error)
    return None


def _tracking(results: Path) -> Iterator[Finding]:
    if os.environ.get("CLBENCH_TRACKING", "").lower() in ("off", "0", "no", "false"):
        yield Finding("tracking", True, "off (CLBENCH_TRACKING)")
        return
    from clbench.tracking import tracking_uri

    uri = tracking_uri(results)
    if not uri.startswith("sqlite:///"):
        yield Finding("tracking", True, f"MLflow at {uri}; runs do not wait for it")
        return
    store = Path(uri.removeprefix("sqlite:///"))
    yield Finding("tracking", True, f"MLflow, {store}" + ("" if store.is_file() else " (made by the first run)"))
