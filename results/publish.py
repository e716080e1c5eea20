"""Make a published board again: the runs that are missing, the tables, the page and its picture.

python results/publish.py [SUITE] [--jobs N] [--tables]

Runs `clbench sweep SUITE` (default: published) into results/SUITE (what is done is kept, what was interrupted goes on),
writes the boards beside the records, and takes a picture of the page where playwright and a Chromium are found. With
--tables nothing is run.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BOARDS = ("leaderboard.html", "leaderboard.md", "leaderboard.json")
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
SOME_ENDED_EARLY = 1  # runs that diverged are results, too, and stand on the board
SEEN = {"width": 1180, "height": 1500}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("suite", nargs="?", default="published", help="a suite in configs/suites (default: published)")
    parser.add_argument("--jobs", type=int, help="runs at a time; default: as many as fit")
    parser.add_argument("--tables", action="store_true", help="run nothing, write tables, page and picture again")
    arguments = parser.parse_args()
    place = Path("results") / arguments.suite  # as seen from ROOT: what is published names no folder of this machine
    if not arguments.tables:
        sweep = ["sweep", arguments.suite, "--out", str(place), "--no-tracking"]
        if arguments.jobs:
            sweep += ["--jobs", str(arguments.jobs)]
        code = clbench(*sweep)
        if code not in (0, SOME_ENDED_EARLY):
            return code
    return tables(place) or picture(place)


def tables(place: Path) -> int:
    """The boards, from the records that are there."""
    for name in BOARDS:
        code = clbench("leaderboard", "--results", str(place), "--out", str(place / name))
        if code:
            return code
    return 0


def picture(place: Path) -> int:
    """What the page looks like when it is opened."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        sys.stderr.write("no picture of the page: playwright is missing (pip install playwright)\n")
        return 0
    browser = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if browser is None:
        sys.stderr.write("no picture of the page: no Chromium is installed\n")
        return 0
    with sync_playwright() as playwright:
        window = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        page = window.new_page(viewport=SEEN)
        page.goto((ROOT / place / "leaderboard.html").as_uri())
        page.screenshot(path=ROOT / place / "leaderboard.png")
        window.close()
    return 0


def clbench(*arguments: str) -> int:
    return subprocess.run([sys.executable, "-m", "clbench", *arguments], cwd=ROOT).returncode


if __name__ == "__main__":
    sys.exit(main())
