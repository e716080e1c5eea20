"""A leaderboard as LaTeX tables (booktabs): the best mean of a column in bold, what is tied with it marked."""

from __future__ import annotations

from collections.abc import Sequence

from clbench.board_terms import CHOSEN, NEEDS, uses
from clbench.cli.board_text import Shown, about, clean, mean_and_half, name, numberless, runs, title, verified
from clbench.leaderboard import COSTS, Row
from clbench.quantities import with_prefix
from clbench.ranking import Ranking, rank

HEAD = (
    "% needs \\usepackage{booktabs}; wide tables fit with \\usepackage{graphicx} and \\resizebox{\\textwidth}{!}{...}\n"
)
DAGGER = "^{\\dagger}"
_SPECIAL = {
    "\\": "\\textbackslash{}",
    "~": "\\textasciitilde{}",
    "^": "\\textasciicircum{}",
    "<": "\\textless{}",
    ">": "\\textgreater{}",
    "|": "\\textbar{}",
    '"': '{"}',
    "±": "$\\pm$",
    **{c: f"\\{c}" for c in "&%$#_{}"},
}


def latex_text(boards: Sequence[Shown], chosen: str) -> str:
    """One table environment a board."""
    return HEAD + "\n".join(_table(shown, chosen) for shown in boards)


def escape(text: str) -> str:
    """Text as LaTeX prints it; characters that need another engine than pdfLaTeX become `?`."""
    return "".join(_SPECIAL.get(c, c if c.isascii() else "?") for c in clean(text))


def _table(shown: Shown, chosen: str) -> str:
    board = shown.board
    rankings = {key: shown.ranking if key == shown.metric else rank(board.rows, key) for key in shown.filled}
    head = ["\\#", "strategy", *map(escape, shown.filled), "needs", "train s", "stored", "FLOPs", "$n$", "verified"]
    lines = [
        "\\begin{table}",
        "  \\centering",
        f"  \\caption{{{_caption(shown, chosen)}}}",
        f"  \\begin{{tabular}}{{rl{'r' * (len(head) - 2)}}}",
        "    \\toprule",
        f"    {' & '.join(head)} \\\\",
        "    \\midrule",
        *(f"    {' & '.join(_cells(shown, rankings, i))} \\\\" for i in range(len(board.rows))),
        "    \\bottomrule",
        "  \\end{tabular}",
        "\\end{table}",
    ]
    return "\n".join(lines) + "\n"


def _cells(shown: Shown, rankings: dict[str, Ranking], i: int) -> list[str]:
    row = shown.board.rows[i]
    marks = "".join(need.mark for key, need in NEEDS.items() if uses(row.needs, key)) or "--"
    seconds, stored, flops = (row.value(key).estimate for key in COSTS)
    return [
        shown.place(i).replace("-", "--"),
        escape(name(row)),
        *([_number(row, key, rankings[key], i) for key in shown.filled] if row.runs else _dashes(numberless(shown))),
        marks,
        "--" if seconds is None else f"{seconds.mean:.1f}",
        "--" if stored is None else escape(with_prefix(stored.mean, "B")),
        "--" if flops is None else escape(with_prefix(flops.mean)),
        escape(runs(row)),
        "--" if not row.runs else escape(verified(row)),
    ]


def _dashes(texts: list[str]) -> list[str]:
    return [text.replace("-", "--") for text in texts]


def _number(row: Row, key: str, ranking: Ranking, i: int) -> str:
    """Mean and half of its interval; bold where it is the best, with a dagger where it is tied with the best."""
    estimate = row.value(key).estimate
    if estimate is None:
        return "--"
    mean, *half = (_power_of_ten(number) for number in mean_and_half(estimate, key))
    spread = f" \\pm {half[0]}" if half else ""
    if i == ranking.best:
        return f"$\\mathbf{{{mean}}}{spread}$"
    tied = ranking.best is not None and ranking.tied(i, ranking.best)
    return f"${mean}{spread}{DAGGER if tied else ''}$"


def _power_of_ten(number: str) -> str:
    digits, e, exponent = number.partition("e")
    return f"{digits} \\cdot 10^{{{int(exponent)}}}" if e else digits


def _caption(shown: Shown, chosen: str) -> str:
    board = shown.board
    used = [need for key, need in NEEDS.items() if any(uses(row.needs, key) for row in board.rows)]
    text = f"{title(board)}; {about(board)}. Mean ± half of the 95 % interval over n runs. Settings chosen on: "
    text += ", ".join(sorted({CHOSEN[row.chosen_on] for row in board.rows})) + ". "
    if used:
        text += "Needs: " + ", ".join(f"{need.mark} {need.meaning}" for need in used) + ". "
    if chosen:
        text += f"Shown: {chosen}. "
    if len(board.rows) == 1:
        return escape(text.strip())
    text += "Two rows differ where the 95 % interval of their paired difference (Student's t) leaves 0 out; "
    text += f"ranks by {shown.metric} are those that are not ruled out."
    return escape(text) + " Bold: best mean; $\\dagger$: not shown to differ from it."
