"""Make the published board again: the runs that are missing, the tables, the page and its picture.

python results/publish.py [--jobs N]

Runs `clbench sweep published` (what is done is kept, what was interrupted goes on), writes the boards beside the
records, and takes a picture of the page where playwright and a Chromium are found.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PUBLISHED = Path("results/published")  # as seen from ROOT: what is published names no folder of this machine
BOARDS = ("leaderboard.html", "leaderboard.md", "leaderboard.json")
PICTURE = PUBLISHED / "leaderboard.png"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
SOME_ENDED_EARLY = 1  # runs that diverged are results, too, and stand on the board
SEEN = {"width": 1180, "height": 1500}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--jobs", type=int, help="runs at a time; default: as many as fit")
    arguments = parser.parse_args()
    sweep = ["sweep", "published", "--out", str(PUBLISHED), "--no-tracking"]
    if arguments.jobs:
        sweep += ["--jobs", str(arguments.jobs)]
    code = clbench(*sweep)
    if code not in (0, SOME_ENDED_EARLY):
        return code
    return tables() or picture()


def tables() -> int:
    """The boards, from the records that are there."""
    for name in BOARDS:
        code = clbench("leaderboard", "--results", str(PUBLISHED), "--out", str(PUBLISHED / name))
        if code:
            return code
    return 0


def picture() -> int:
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
        page.goto((ROOT / PUBLISHED / "leaderboard.html").as_uri())
        page.screenshot(path=ROOT / PICTURE)
        window.close()
    return 0


def clbench(*arguments: str) -> int:
    return subprocess.run([sys.executable, "-m", "clbench", *arguments], cwd=ROOT).returncode


if __name__ == "__main__":
    sys.exit(main())
