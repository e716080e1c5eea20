"""The page as a file: complete, self-contained, and inert whatever its texts are."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from base64 import b64encode
from collections.abc import Callable
from hashlib import sha256
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clbench.leaderboard import Board, make_boards
from clbench.page.build import page
from clbench.page.content import board_content
from clbench.page.series import MOST, POINTS, ROWS, _kept, mean_matrix, points_per_curve, scale_of
from clbench.page.text import DASH, MINUS, clean, embed, number, seconds, short

VOID = {"meta", "link", "input", "br", "hr", "img"}
Data = Callable[[str], list[dict[str, Any]]]


class Tree(HTMLParser):
    """Checks that tags are nested, and collects elements, ids and what links to what."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len({key for key, _ in attrs}) == len(attrs), f"an attribute of {tag} stands twice"
        self.seen.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open[-1] == tag, f"</{tag}> inside {self.open[-3:]}"
        self.open.pop()

    def attributes(self, name: str) -> list[str]:
        return [str(attributes[name]) for _, attributes in self.seen if name in attributes]


def parsed(html: str) -> Tree:
    tree = Tree()
    tree.feed(html)
    tree.close()
    assert not tree.open
    return tree


@pytest.fixture(scope="module")
def html(many_boards: list[Board]) -> str:
    return page(many_boards, title="Boards <of> all", generated="2026-01-01 00:00 UTC")


def test_a_row_of_which_every_run_diverged_is_there_with_the_command_and_the_error(
    make_record: Any, tmp_path: Path
) -> None:
    lost = [
        (tmp_path / str(n), make_record(**{"status": "diverged", "spec.seed": n, "error": "not finite"}))
        for n in (0, 1)
    ]
    (board,) = make_boards(lost)
    content = board_content(board, 1, "average", 10)
    (row,) = content["rows"]
    assert (row["rank"], row["cells"][0]["text"], row["n"]) == (DASH, "diverged", 0)
    details = content["data"]["rows"][0]["details"]
    assert [run["error"] for run in details["failed"]] == ["not finite"] * 2 and "--seeds 0-1" in details["commands"][0]
    assert "diverged" in page([board])


def test_it_is_one_file_that_loads_nothing(html: str) -> None:
    tree = parsed(html)
    assert tree.attributes("src") == []
    assert all(link.startswith("#") or link == "data:," for link in tree.attributes("href"))
    assert not {"style", "onclick", "onload", "onerror"} & {key for _, found in tree.seen for key in found}
    assert "@import" not in html
    assert "url(" not in html


def test_its_policy_allows_its_own_style_and_script_and_nothing_else(html: str) -> None:
    policy = next(found["content"] for tag, found in parsed(html).seen if found.get("http-equiv"))
    assert policy is not None
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    for kind, pattern in (("style-src", r"<style>(.*?)</style>"), ("script-src", r"<script>(.*?)</script>")):
        inside = re.findall(pattern, html, re.DOTALL)
        assert len(inside) == 1
        assert rules[kind] == f"'sha256-{b64encode(sha256(inside[0].encode()).digest()).decode()}'"


def test_it_is_well_formed_and_every_link_has_its_target(html: str) -> None:
    tree = parsed(html)
    ids = tree.attributes("id")
    assert len(ids) == len(set(ids))
    assert {link[1:] for link in tree.attributes("href") if link.startswith("#")} <= set(ids)
    assert set(tree.attributes("aria-labelledby")) <= set(ids)
    assert {f"def-{term}" for term in tree.attributes("data-term")} <= set(ids)
    assert html.startswith("<!DOCTYPE html>")


def test_text_of_users_is_text(html: str) -> None:
    tree = parsed(html)
    assert "img" not in {tag for tag, _ in tree.seen}
    assert sum(tag == "script" for tag, _ in tree.seen) == html.count('<script type="application/json">') + 1
    assert "&lt;/script&gt;&lt;img src=x onerror=alert(1)&gt;" in html
    assert "\u202e" not in html
    assert r"\u202egnp.exe" in html
    html.encode()


def test_every_number_of_the_tables_is_that_of_the_board(html: str, many_boards: list[Board], data_of: Data) -> None:
    data = data_of(html)
    assert len(data) == len(many_boards)
    for board, found in zip(many_boards, data, strict=True):
        assert found["direction"] == board.direction
        for row, shown in zip(board.rows, found["rows"], strict=True):
            estimate = row.value("average").estimate
            assert estimate is not None
            assert shown["metrics"]["average"][0] == pytest.approx(estimate.mean, rel=1e-5)
            assert shown["metrics"]["average"][3] == len(row.runs)
            assert len(shown["details"]["runs"]) == len(row.runs)
    tree = parsed(html)
    assert sum("data-row" in found for _, found in tree.seen) == sum(len(board.rows) for board in many_boards)


def test_a_row_has_the_commands_that_repeat_it(many_boards: list[Board], html: str, data_of: Data) -> None:
    from clbench.command import repeat_commands

    board, data = next((b, d) for b, d in zip(many_boards, data_of(html), strict=True) if len(b.rows) > 5)
    for row, shown in zip(board.rows, data["rows"], strict=True):
        assert shown["details"]["commands"] == repeat_commands(record for _, record in row.runs)


def test_diverged_verified_and_warned_runs_are_named(html: str, data_of: Data) -> None:
    assert "+1 diverged" in html
    assert "✓ 1 verified" in html
    details = [row["details"] for board in data_of(html) for row in board["rows"]]
    assert [run["error"] for found in details for run in found["failed"]] == ["the loss is NaN at step 3"]
    assert "identical" in {run["standing"] for found in details for run in found["runs"]}
    assert any("onerror" in warning for found in details for warning in found["warnings"])


def test_losses_say_which_way_is_better(many_boards: list[Board]) -> None:
    losses = page([board for board in many_boards if board.direction == "lower"])
    assert f"scores are {MINUS}nats: closer to 0 is better" in losses
    assert f"{MINUS}2.500" in losses


def test_ranks_that_the_runs_leave_open_are_ranges(html: str) -> None:
    ranks = re.findall(r'<td class="rank" data-sort="\d+">([^<]*)</td>', html)
    assert any(re.fullmatch(rf"\d+{DASH}\d+", rank) for rank in ranks)
    assert all(re.fullmatch(rf"\d+({DASH}\d+)?", rank) for rank in ranks)


def test_a_filter_a_title_and_another_metric_are_said(many_boards: list[Board]) -> None:
    html = page(many_boards[:1], title="A <b> title", metric="forgetting", chosen="exemplar-free")
    assert "<title>A &lt;b&gt; title</title>" in html
    assert "exemplar-free" in html
    assert "--metric forgetting" in html


def test_no_boards_give_a_friendly_page() -> None:
    html = page([])
    parsed(html)
    assert "No finished runs yet" in html
    assert "<table" not in html


def test_runs_without_their_tables_have_no_curves_but_all_else(real_runs: Any, tmp_path: Path, data_of: Data) -> None:
    (data,) = data_of(page(make_boards([(tmp_path / "gone", record) for _, record in real_runs[:2]])))
    assert data["rows"][0]["curves"] is None
    assert data["rows"][0]["matrix"]["rows"]


def test_curves_are_those_of_the_table(real_runs: Any, data_of: Data) -> None:
    finetune = [run for run in real_runs if run[1]["strategy"]["name"] == "finetune"]
    (data,) = data_of(page(make_boards(finetune)))
    curves = data["rows"][0]["curves"]
    assert curves["runs"] == 2
    assert curves["ends"] == finetune[0][1]["metrics"]["matrix"]["steps"]
    assert curves["average"][0][-1] == curves["ends"][-1]
    assert all(low <= mean <= high for _, mean, low, high in zip(*curves["average"], strict=True))
    assert sorted(map(int, curves["changes"])) == [1, 2, 3, 4]
    assert all(change[0][0] == 0 and change[1][0] == 0 for change in curves["changes"].values())
    matrices = [run[1]["metrics"]["matrix"]["rows"] for run in finetune]
    mean = (matrices[0][4][4] + matrices[1][4][4]) / 2
    assert data["rows"][0]["matrix"]["rows"][4][4] == round(mean * data["scale"])


def test_building_it_needs_neither_torch_nor_pandas(finished_results: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from clbench.board_records import board_records; "
        "from clbench.leaderboard import make_boards; from clbench.page.build import page; "
        "page(make_boards(board_records(Path(sys.argv[1])))); "
        "print([name for name in ('torch', 'pandas', 'matplotlib') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code, str(finished_results)], capture_output=True, text=True)
    assert result.stdout.strip() == "[]", result.stderr


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(anything)
def test_embedded_json_is_the_same_and_holds_no_markup(value: Any) -> None:
    text = embed(value)
    assert json.loads(text) == value
    assert not set(text) & set("<>&\u2028\u2029")
    assert text.isascii()


@given(st.text(st.characters(exclude_categories=())))
def test_cleaned_text_can_be_written_and_reorders_nothing(text: str) -> None:
    shown = clean(text)
    shown.encode()
    assert not set(shown) & {*map(chr, range(0x202A, 0x202F)), *map(chr, range(0x2066, 0x206A)), "\0", "\u2028", "\x7f"}
    assert clean("plain é 文 🙂") == "plain é 文 🙂"


def test_long_text_is_cut() -> None:
    assert clean("x" * 10_000, 100) == "x" * 100 + "… (9,900 more characters)"
    assert clean({"a": [1, None]}) == '{"a": [1, null]}'


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=400), st.integers(8, 60))
def test_thinned_curves_keep_their_ends_and_extremes(values: list[float], most: int) -> None:
    kept = _kept(range(len(values)), values, most)
    assert len(kept) <= max(most, 4)
    assert list(kept) == sorted(set(kept))
    assert {0, len(values) - 1} <= set(kept)
    assert min(values) == min(values[i] for i in kept)
    assert max(values) == max(values[i] for i in kept)


def test_thinned_averages_keep_every_task() -> None:
    steps, cuts = list(range(1, 2001)), list(range(100, 2001, 100))
    kept = {steps[i] for i in _kept(steps, [math.sin(step) for step in steps], MOST, cuts)}
    assert set(cuts) <= kept
    assert {cut - 99 for cut in cuts} <= kept


def test_a_board_shares_a_budget_of_points() -> None:
    class Curves:
        scores = dict.fromkeys(range(50))
        changes = dict.fromkeys(range(49))
        held_out_changes: dict[int, Any] = {}

    assert points_per_curve([Curves()] * 2) == MOST  # type: ignore[list-item]
    assert points_per_curve([Curves()] * 40) * 99 * 40 <= POINTS * 1.01  # type: ignore[list-item]
    assert ROWS >= 200


def test_the_mean_matrix_leaves_open_what_a_run_lacks() -> None:
    def record(*rows: list[float | None]) -> dict[str, Any]:
        return {"metrics": {"matrix": {"eval_sets": ["a", "b"], "rows": list(rows), "initial": None}}}

    found = mean_matrix([record([0.5, None], [0.25, 1.0]), record([1.0, None], [0.75, None])], 1000)
    assert found == {"initial": None, "rows": [[750, None], [500, None]], "runs": 2, "orders": 1}
    assert mean_matrix([{"metrics": {}}], 1000) is None


@pytest.mark.parametrize(("largest", "scale"), [(1.0, 1000), (9.7, 1000), (12.0, 100), (1500.0, 1), (0.0, 1000)])
def test_rounding_keeps_about_four_digits(largest: float, scale: int) -> None:
    assert scale_of([largest]) == scale


def test_numbers_read_well() -> None:
    texts = [number(x).replace(MINUS, "-") for x in (0.5, -0.0004, -0.00001, 0.0, -12.5, 1234.5, 2e7)]
    assert texts == ["0.500", "0.000", "-1.00e-05", "0.000", "-12.500", "1,234.5", "2.00e+07"]
    assert number(None) == DASH
    assert [short(x, "B") for x in (0, 999, 999.9, 14400, 2.5e9)] == ["0 B", "999 B", "1 kB", "14.4 kB", "2.5 GB"]
    assert [seconds(x) for x in (0.25, 45.2, 150, 9000)] == ["0.2 s", "45 s", "2.5 min", "2.5 h"]
