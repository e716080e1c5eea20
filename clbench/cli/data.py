"""`clbench data list | get | check`: what is printed, apart from how the arguments are parsed."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from clbench.errors import UserError


def list_command(root: str | None, as_json: bool) -> None:
    """Print the sets below the root, and what `get` can fetch besides."""
    from rich.console import Console
    from rich.table import Table

    from clbench.data.check import list_sets
    from clbench.data.get import OFFICIAL
    from clbench.data.official import PUBLISHED
    from clbench.data.root import data_root

    place, entries = data_root(root), list_sets(root)
    if as_json:
        print(json.dumps([{**asdict(entry), "summary": entry.title} for entry in entries]))
        return
    console = Console()
    table = Table("set", "kind", "classes", "rows", "what it is", title=f"Data sets in {place}", title_justify="left")
    for entry in entries:
        rows = ", ".join(f"{split} {'?' if n is None else f'{n:,}'}" for split, n in entry.splits.items())
        table.add_row(entry.name, entry.kind, str(entry.classes or ""), rows, entry.title)
    if entries:
        console.print(table)
    else:
        console.print(f"No data sets in {place} (CLBENCH_DATA or --data-root name another folder).", soft_wrap=True)
    present = {entry.name for entry in entries if entry.kind == "images"}
    absent = [name for name in OFFICIAL if name not in present]
    console.print("Always there: digits (8x8, comes with scikit-learn).", soft_wrap=True)
    fetchable = ", ".join([*absent, "hf:OWNER/NAME (Hugging Face hub)"])
    console.print(f"To fetch: clbench data get NAME, with NAME one of {fetchable}.", soft_wrap=True)
    console.print(f"Read as published, once you have put them there: {', '.join(PUBLISHED)}.", soft_wrap=True)


def get_command(name: str, root: str | None) -> Path:
    """Fetch a set, say where it is, and return its folder."""
    from clbench.data.get import get

    folder = get(name, root)
    print(f"{name} is in {folder}")
    return folder


def check_command(name: str, root: str | None, as_json: bool) -> None:
    """Print what a full reading of the set found. Raises `UserError` where the set has problems."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from clbench.data.check import check

    report = check(name, root)
    if as_json:
        print(json.dumps({**asdict(report), "ok": report.ok}))
    else:
        console = Console()
        classes = "" if report.classes is None else f", {report.classes} classes"
        table = Table("split", "rows", "a class has", "sizes", "MB", title=f"{report.path} ({report.kind}{classes})")
        for split, found in report.splits.items():
            per_class = "" if found.smallest_class is None else f"{found.smallest_class} to {found.largest_class}"
            common = ", ".join(list(found.sizes)[:3]) + (
                f" and {len(found.sizes) - 3} more" if len(found.sizes) > 3 else ""
            )
            table.add_row(split, f"{found.rows:,}", per_class, common, f"{found.bytes / 1e6:.1f}")
        console.print(table)
        for line in report.problems:
            console.print(f"[red]problem[/red]  {escape(line)}", soft_wrap=True)
        for line in report.remarks:
            console.print(f"[yellow]remark[/yellow]   {escape(line)}", soft_wrap=True)
        if report.ok:
            console.print("Every row can be read.")
    if not report.ok:
        count = len(report.problems)
        raise UserError(f"{report.path} has {count} problem{'s' if count > 1 else ''}; the first: {report.problems[0]}")
