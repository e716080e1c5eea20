"""The wheel and the sdist hold what they should, and work where the repository is not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.slow

IN_WHEEL = [
    "clbench/run.py",
    "clbench/py.typed",
    "clbench/record.schema.json",
    "clbench/strategies/replay.py",
    "clbench/streams/split.py",
    "clbench/configs/replay/split-cifar100.yaml",
    "clbench/models/micro_vit/weights.safetensors",
    "clbench/models/micro_vit/CARD.md",
    "clbench/models/micro_clip/weights.safetensors",
    "clbench/models/micro_clip/vocabulary.txt",
    "clbench/models/micro_clip/CARD.md",
]
IN_SDIST = [
    "README.md",
    "LICENSE",
    "constraints.txt",
    "strategies/replay.py",
    "streams/split.py",
    "configs/replay/split-cifar100.yaml",
    "docs/design.md",
    "docs/generate_methods.py",
    "results/README.md",
    "benchmarks/tasks.py",
    "tests/conftest.py",
    "tests/golden/expected.json",
    "clbench/record.schema.json",
]


def checked(command: list[str], cwd: Path, **environment: str) -> str:
    """The command's standard output; it must end with 0."""
    variables = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | environment
    done = subprocess.run(command, cwd=cwd, env=variables, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}: {done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files under version control, copied: building leaves no trace in the repository."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode != 0:
        pytest.skip("not a git checkout: which files belong to the project is unknown")
    target = tmp_path_factory.mktemp("source")
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            (target / name).write_bytes((ROOT / name).read_bytes())
    return target


@pytest.fixture(scope="module")
def built(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist, and the wheel made from it."""
    folder = tmp_path_factory.mktemp("dist")
    checked([sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder)], cwd=source)
    return folder


@pytest.fixture(scope="module")
def installed(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, installed into a folder of its own."""
    [wheel] = built.glob("*.whl")
    target = tmp_path_factory.mktemp("installed")
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index", "--target", str(target), str(wheel)]
    checked(pip, cwd=target)
    return target


def from_there(installed: Path, folder: Path, *arguments: str) -> str:
    """Output of a Python that finds the installed copy first and the repository nowhere, in this folder."""
    # An editable install puts the repository, or a finder for it, among the imports: both are taken out.
    code = (
        "import sys\n"
        f"root = {str(ROOT)!r}\n"
        "sys.meta_path[:] = [f for f in sys.meta_path if 'editable' not in repr(f)]\n"
        "sys.path[:] = [p for p in sys.path if p != root]\n"
        "sys.argv[0] = 'clbench'\n"
        "import clbench\n"
        f"assert clbench.__file__.startswith({str(installed)!r}), clbench.__file__\n"
        "from clbench.cli import main\n"
        "code = main(sys.argv[1:])\n"
        "files = [getattr(module, '__file__', None) or '' for module in list(sys.modules.values())]\n"
        "found = [f for f in files if f.startswith(root + '/') and 'site-packages' not in f]\n"
        "assert not found, found\n"
        "raise SystemExit(code)\n"
    )
    cache = str(folder / "cache")
    command = [sys.executable, "-c", code, *arguments]
    return checked(command, cwd=folder, PYTHONPATH=str(installed), CLBENCH_CACHE=cache, OMP_NUM_THREADS="1")


def test_the_wheel_holds_packages_and_data(built: Path) -> None:
    [wheel] = built.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert set(IN_WHEEL) <= set(names)
    assert {name.partition("/")[0] for name in names if ".dist-info" not in name} == {"clbench"}
    sources = {p.name for p in (ROOT / "strategies").glob("*.py")}
    assert {name.split("/")[-1] for name in names if name.startswith("clbench/strategies/")} == sources


def test_the_wheel_holds_every_module(built: Path, source: Path) -> None:
    [wheel] = built.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    for top, prefix in (("clbench", ""), ("strategies", "clbench/"), ("streams", "clbench/"), ("configs", "clbench/")):
        for file in (source / top).rglob("*"):
            if file.is_file():
                assert f"{prefix}{file.relative_to(source).as_posix()}" in names


def test_the_sdist_holds_what_a_developer_needs(built: Path) -> None:
    [sdist] = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert set(IN_SDIST) <= names


def test_every_entry_point_loads(installed: Path, tmp_path: Path) -> None:
    code = (
        "import json, clbench\n"
        f"assert clbench.__file__.startswith({str(installed)!r}), clbench.__file__\n"
        "from importlib.metadata import distributions\n"
        f"[mine] = [d for d in distributions(path=[{str(installed)!r}]) if d.metadata['Name'] == 'clbench']\n"
        "print(json.dumps([[p.group, p.name, p.load().__module__] for p in mine.entry_points]))\n"
    )
    found = json.loads(checked([sys.executable, "-c", code], cwd=tmp_path, PYTHONPATH=str(installed)))
    groups = {group for group, _, _ in found}
    assert groups == {"console_scripts", "clbench.strategies", "clbench.streams"}
    assert len(found) > 20


def test_listing_and_showing(installed: Path, tmp_path: Path) -> None:
    assert "replay" in from_there(installed, tmp_path, "list", "strategies")
    assert "memory_size" in from_there(installed, tmp_path, "show", "strategy", "replay")
    assert "tasks" in from_there(installed, tmp_path, "show", "stream", "split-cifar100")


def test_the_main_job(installed: Path, tmp_path: Path) -> None:
    printed = from_there(installed, tmp_path, "run", "nmc", "split-digits", "--no-tracking", "--json")
    record = json.loads(printed)
    assert record["status"] == "completed"
    assert record["metrics"]["average"] > 0.6
    assert len(list((tmp_path / "results" / "runs" / "split-digits" / "nmc").iterdir())) == 1


def test_a_checkout_that_is_not_installed(source: Path, tmp_path: Path) -> None:
    """`python -m clbench` beside the sources: the three folders are found where they lie."""
    environment = {"CLBENCH_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "clbench", "run", "nmc", "split-digits", "--no-tracking", "--json"]
    printed = checked([*command, "--out", str(tmp_path / "results")], cwd=source, **environment)
    assert json.loads(printed)["status"] == "completed"
    where = [sys.executable, "-c", "import clbench.strategies.nmc as nmc; print(nmc.__file__)"]
    assert checked(where, cwd=source).strip() == str(source / "strategies" / "nmc.py")
