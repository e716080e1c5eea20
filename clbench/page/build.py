"""The leaderboard as one HTML file: template, style and script inlined, data as JSON, nothing loaded from anywhere."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from datetime import datetime, timezone
from hashlib import sha256
from pathlib import Path
from typing import Any

from clbench import __version__
from clbench.leaderboard import Board
from clbench.page.content import ONLY, board_content, drawn_rows
from clbench.page.series import runs_per_row
from clbench.page.text import clean, embed
from clbench.page.wording import CHOSEN, MARKS, NEEDS, OTHERS, Term, term_of

HERE = Path(__file__).parent
SCRIPTS = (
    "dom.js",
    "table.js",
    "tips.js",
    "plot.js",
    "curves.js",
    "matrix.js",
    "pareto.js",
    "plane.js",
    "details.js",
    "start.js",
)


def page(
    boards: Sequence[Board],
    title: str = "Leaderboard",
    generated: str | None = None,
    metric: str | None = None,
    chosen: str = "",
) -> str:
    """One self-contained page. metric: what the boards' rows are sorted and ranked by; None: the first of
    each board's columns. chosen: what a filter left.

    generated: when, as text; default: now, UTC. The page makes no request: a content security policy allows its own
    style and script alone, by their hashes. Runs without an evaluation table have no curves.
    """
    import jinja2

    loader = jinja2.FileSystemLoader(HERE)
    environment = jinja2.Environment(
        loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    runs = runs_per_row(drawn_rows(boards))
    contents = [board_content(board, place, metric or board.columns[0], runs) for place, board in enumerate(boards, 1)]
    style = _read("page.css")
    script = "'use strict';\n(() => {\n" + "\n".join(_read(name) for name in SCRIPTS) + "\n})();\n"
    return environment.get_template("page.html").render(
        title=clean(title, 200),
        generated=clean(generated or datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"), 60),
        version=__version__,
        boards=contents,
        rows=sum(len(board["rows"]) for board in contents),
        runs=sum(board["runs"] for board in contents),
        metric=metric,
        only=ONLY,
        chosen=clean(chosen, 400),
        models=sorted({board["model"] for board in contents}),
        budgets=sorted({board["budget"] for board in contents}),
        choices={row["chosen"]["key"]: CHOSEN[row["chosen"]["key"]].name for b in contents for row in b["rows"]},
        terms=_terms(contents),
        style=style,
        script=script,
        style_hash=_hash(style),
        script_hash=_hash(script),
        embed=embed,
    )


def _terms(contents: Sequence[dict[str, Any]]) -> dict[str, Term]:
    """Everything the tables and figures name, in the order of the page."""
    keys: dict[str, Term] = {key: OTHERS[key] for key in ("rank", "strategy")}
    for board in contents:
        for item in (*board["columns"], *board["costs"]):
            keys.setdefault(item["term"], term_of(item["term"]))
    for board in contents:
        for item in (*board["data"]["metrics"], *board["data"]["costs"]):
            keys.setdefault(item["term"], term_of(item["term"]))
    keys.update({key: OTHERS[key] for key in ("needs", "n", "chosen")})
    keys.update({f"mark-{key}": term for key, term in MARKS.items()})
    keys.update({f"needs-{key}": term for key, term in NEEDS.items()})
    keys.update({f"chosen-{key}": term for key, term in CHOSEN.items()})
    return keys


def _read(name: str) -> str:
    return (HERE / name).read_text(encoding="utf-8").strip() + "\n"


def _hash(text: str) -> str:
    """As a content security policy names it. The template puts nothing around `text`."""
    return "sha256-" + b64encode(sha256(text.encode()).digest()).decode()
