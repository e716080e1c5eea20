"""The page in a browser: it opens without an error or a request, and what can be done on it works."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from clbench.leaderboard import Board, make_boards
from clbench.page.build import page as build_page

playwright = pytest.importorskip(
    "playwright.sync_api", reason="playwright is not installed (pip install clbench[test])"
)

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
PHONE = {"width": 390, "height": 844}


@dataclass
class Opened:
    """A page in the browser, with everything it complained about and asked for."""

    page: Any
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def board(self, stream: str = "split-digits") -> Any:
        return self.page.locator(f'section.board:has(h2 bdi:text-is("{stream}"))').first

    def names(self) -> list[str]:
        """Strategies of the digits' board, as they stand, those that are shown."""
        rows = self.board().locator("tbody tr[data-row]:visible .name > bdi")
        return list(rows.all_inner_texts())

    def numbers(self, column: int) -> list[float]:
        cells = self.board().locator(f"tbody tr[data-row]:visible > :nth-child({column})")
        return [float(cell.get_attribute("data-sort")) for cell in cells.all()]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    executable = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if executable is None:
        pytest.skip(f"no browser is installed (looked for {', '.join(BROWSERS)})")
    with playwright.sync_playwright() as runner:
        started = runner.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(scope="module")
def file(many_boards: list[Board], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "board.html"
    path.write_text(build_page(many_boards), encoding="utf-8")
    return path


@pytest.fixture
def open_page(browser: Any, file: Path) -> Iterator[Callable[..., Opened]]:
    """Opens the page (or another file) in a window of its own; no test may leave a complaint or a request."""
    made: list[Opened] = []

    def start(path: Path = file, **context: Any) -> Opened:
        window = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **context}).new_page()
        window.set_default_timeout(30_000)
        opened = Opened(window)
        made.append(opened)
        window.on("console", lambda message: opened.complaints.append(message.text))
        window.on("pageerror", lambda error: opened.complaints.append(str(error)))
        window.on("dialog", lambda dialog: (opened.complaints.append(dialog.message), dialog.dismiss()))
        window.on("request", lambda request: opened.requests.append(request.url))
        window.goto(path.as_uri())
        return opened

    yield start
    for opened in made:
        opened.page.context.close()
        assert opened.complaints == []
        assert [url for url in opened.requests if not url.startswith("data:")] == [opened.requests[0]]


def draw_all(opened: Opened) -> None:
    opened.page.evaluate("dispatchEvent(new Event('beforeprint'))")


def test_it_draws_every_figure_with_hostile_texts_among_them(open_page: Any, many_boards: list[Board]) -> None:
    opened = open_page()
    draw_all(opened)
    board = opened.board()
    titles = ["Score over the steps", "The gap after each switch", "Scores after every task", "Score against cost"]
    assert board.locator("figure h3").all_inner_texts() == titles
    assert board.locator("figure").first.locator("path.line").count() >= 5
    assert board.locator("figure").nth(1).locator("svg.plot").count() == 5
    assert board.locator("table.matrix td[data-say]").count() == 15
    assert board.locator("path.front").count() == 1
    for button in opened.page.locator("button.open").all():
        button.click()
    assert opened.page.locator("img").count() == 0
    assert opened.page.locator("tr.detail").count() == sum(len(board.rows) for board in many_boards)
    assert opened.page.evaluate("document.documentElement.outerHTML.includes('\\u202e')") is False


def test_columns_sort_by_click_and_by_key(open_page: Any) -> None:
    opened = open_page()
    draw_all(opened)  # a figure that is drawn while the mouse is on its way moves what lies below
    heads = opened.board().locator("table.ranks > thead th")

    def is_sorted(column: int, order: str) -> None:
        playwright.expect(heads.nth(column)).to_have_attribute("aria-sort", order)

    is_sorted(0, "ascending")
    heads.nth(2).locator("button").click()
    is_sorted(2, "descending")
    assert heads.first.get_attribute("aria-sort") is None
    averages = opened.numbers(3)
    assert averages == sorted(averages, reverse=True)
    assert len(averages) > 5
    heads.nth(2).locator("button").press("Enter")
    is_sorted(2, "ascending")
    assert opened.numbers(3) == sorted(averages)
    heads.nth(4).locator("button").focus()
    opened.page.keyboard.press("Space")
    is_sorted(4, "ascending")  # forgetting: the lowest is the best
    heads.nth(1).locator("button").click()
    is_sorted(1, "ascending")
    assert opened.names() == sorted(opened.names())


def test_rows_without_a_value_stay_last(open_page: Any, real_runs: Any, alter: Any, tmp_path: Path) -> None:
    runs = [*real_runs, alter(real_runs[0], **{"metrics.average": None, "strategy.name": "b", "spec.strategy": "b"})]
    path = tmp_path / "board.html"
    path.write_text(build_page(make_boards(runs)), encoding="utf-8")
    opened = open_page(path)
    head = opened.board().locator("table.ranks > thead th").nth(2).locator("button")
    for _ in range(2):
        head.click()
        assert opened.names()[-1] == "b"


def test_filters_narrow_the_rows_and_clear_brings_them_back(open_page: Any) -> None:
    opened = open_page()
    form, page = opened.page.locator("#filters"), opened.page
    all_rows = page.locator("tr[data-row]:visible").count()
    form.locator("[name=text]").fill("ewc lr=0.3")
    assert opened.names() == ["ewc"]
    assert f"1 of {all_rows} rows" in page.locator("#count").inner_text()
    form.locator("[name=text]").fill("no such method")
    assert page.locator("#nothing").is_visible()
    form.locator("button[type=reset]").click()
    playwright.expect(page.locator("tr[data-row]:visible")).to_have_count(
        all_rows
    )  # polls without eval, which the policy forbids
    form.get_by_label("exemplar-free").check()
    assert "replay" not in opened.names()
    assert "finetune" in opened.names()
    form.get_by_label("exemplar-free").uncheck()
    form.get_by_label("no task boundaries").check()
    assert set(opened.names()) == {"replay"}
    form.get_by_label("no task boundaries").uncheck()
    form.locator("[name=limit]").fill("4")
    assert len([name for name in opened.names() if name == "ewc"]) == 3  # 1, 2 and 4 seconds
    form.locator("[name=limit]").fill("four")
    assert form.locator("[name=limit]").get_attribute("aria-invalid") == "true"
    form.locator("[name=limit]").fill("")
    form.locator("[name=chosen]").select_option("test")
    assert page.locator("section.board:visible").count() == 1
    form.locator("[name=chosen]").select_option("")
    form.locator("[name=board]").select_option(index=1)
    assert page.locator("section.board:visible").count() == 1
    form.locator("[name=board]").select_option("")
    form.locator("[name=budget]").select_option("steps 60")
    assert page.locator("section.board:visible h2").all_inner_texts() == ["prose"]


def test_definitions_open_by_mouse_by_keyboard_and_by_touch(open_page: Any) -> None:
    opened = open_page()
    draw_all(opened)  # nothing moves any more
    page, tip = opened.page, opened.page.locator("#tip")
    about = opened.board().locator("a.about[data-term=forgetting]")
    about.hover()
    tip.wait_for(state="visible")
    assert "Chaudhry" in tip.inner_text()
    page.mouse.move(5, 5)
    tip.wait_for(state="hidden")
    opened.board().locator("table.ranks > thead th").nth(4).locator("button").focus()
    page.keyboard.press("Tab")
    assert tip.is_visible()
    assert page.evaluate("document.activeElement.getAttribute('aria-describedby')") == "tip"
    page.keyboard.press("Escape")
    assert tip.is_hidden()
    touched = open_page(has_touch=True, is_mobile=True, viewport=PHONE)
    touched.board().locator("a.about[data-term=average]").first.tap()
    assert "after the last task" in touched.page.locator("#tip").inner_text()
    box = touched.page.locator("#tip").bounding_box()
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= PHONE["width"]


def test_the_theme_follows_the_system_until_it_is_chosen(open_page: Any) -> None:
    opened = open_page(color_scheme="dark")
    ground = "getComputedStyle(document.body).backgroundColor"
    dark = opened.page.evaluate(ground)
    button = opened.page.locator("#theme")
    button.click()
    assert "light" in button.inner_text()
    light = opened.page.evaluate(ground)
    assert light != dark
    button.click()
    assert opened.page.evaluate(ground) == dark
    assert open_page(color_scheme="light").page.evaluate(ground) == light


def test_details_open_and_the_command_can_be_copied(open_page: Any, many_boards: list[Board]) -> None:
    from clbench.command import repeat_commands

    opened = open_page(permissions=["clipboard-read", "clipboard-write"])
    board = opened.board()
    button = board.locator("button.open").first
    button.press("Enter")
    assert button.get_attribute("aria-expanded") == "true"
    details = board.locator(".details")
    row = next(b for b in many_boards if len(b.rows) > 5).rows[0]
    command = repeat_commands(record for _, record in row.runs)[0]
    assert details.locator("pre").first.inner_text() == command
    details.locator("button.copy").first.click()
    playwright.expect(opened.page.locator("button.copy").first).not_to_have_text("Copy")
    text = details.inner_text().lower()
    for part in ("fingerprints", "environment", "settings of the strategy", "all metrics", "runs"):
        assert part in text
    assert row.runs[0][1]["strategy"]["source_hash"] in text
    board.locator("table.ranks > thead th").nth(2).locator("button").click()
    assert board.locator("tr.detail").evaluate("row => row.previousElementSibling.classList.contains('opened')")
    button.click()
    assert details.is_hidden()


def test_the_legend_chooses_rows_and_the_filter_hides_them(open_page: Any) -> None:
    opened = open_page()
    draw_all(opened)
    board = opened.board()
    lines = board.locator("figure").first.locator("svg.plot > g[class^=s]")
    before = lines.count()
    board.locator(".legend button[aria-pressed=true]").first.click()
    assert lines.count() == before - 1
    board.locator(".legend button[aria-pressed=false]").last.click()
    assert lines.count() == before
    points = board.locator("g.point").count()
    opened.page.locator("[name=text]").fill("ewc")
    assert board.locator("g.point").count() < points
    assert board.locator(".legend button:visible").count() == 7


def test_figures_answer_to_arrow_keys_and_choices(open_page: Any) -> None:
    opened = open_page()
    draw_all(opened)
    board = opened.board()
    scores, matrix, pareto = (board.locator("figure").nth(i) for i in (0, 2, 3))
    scores.locator("svg.plot").focus()
    opened.page.keyboard.press("End")
    assert "A" in scores.locator(".readout").inner_text()
    scores.locator("select").nth(1).select_option(index=1)
    assert scores.locator("path.line").count() >= 5
    scores.locator("select").first.select_option("tasks")
    assert any("tasks" in text for text in scores.locator("text.label").all_text_contents())
    label = matrix.locator("select option").nth(1).inner_text()
    matrix.locator("select").select_option(index=1)
    assert label in matrix.locator("caption").inner_text()
    pareto.locator("select").nth(1).select_option("flops_train")
    pareto.locator("svg.plot").focus()
    opened.page.keyboard.press("ArrowRight")
    assert "FLOPs" in pareto.locator(".readout").inner_text()


def test_at_phone_width_nothing_is_wider_than_the_screen(open_page: Any, tmp_path: Path) -> None:
    opened = open_page(viewport=PHONE, is_mobile=True, has_touch=True)
    draw_all(opened)
    opened.board().locator("button.open").first.tap()
    wide = opened.page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert wide[0] <= wide[1] == PHONE["width"]
    shot = opened.page.screenshot(path=tmp_path / "phone.png")
    assert len(shot) > 20_000


def test_colours_of_text_have_contrast_in_both_themes(open_page: Any) -> None:
    for theme in ("light", "dark"):
        opened = open_page(color_scheme=theme)
        draw_all(opened)
        poor = opened.page.evaluate(CONTRAST)
        assert poor == []
        assert len(opened.page.screenshot()) > 20_000


def test_without_scripts_the_tables_are_there(open_page: Any, many_boards: list[Board]) -> None:
    opened = open_page(java_script_enabled=False)
    assert opened.page.locator("table.ranks tr[data-row]").count() == sum(len(b.rows) for b in many_boards)
    assert opened.page.locator("#filters").is_hidden()
    assert opened.page.locator("dl").is_visible()


@pytest.mark.slow
def test_two_hundred_rows_open_sort_and_draw(open_page: Any, real_runs: Any, alter: Any, tmp_path: Path) -> None:
    leaves = [{"spec.strategy_settings": {"lr": i}, "metrics.average": i / 200, "spec.seed": 0} for i in range(200)]
    path = tmp_path / "board.html"
    path.write_text(build_page(make_boards([alter(real_runs[0], **leaf) for leaf in leaves])), encoding="utf-8")
    assert path.stat().st_size < 2_000_000
    opened = open_page(path)
    assert opened.page.locator("#count").inner_text() == "200 rows"
    opened.board().locator("table.ranks > thead th").nth(2).locator("button").dblclick()
    assert opened.numbers(3) == sorted(i / 200 for i in range(200))
    draw_all(opened)
    assert opened.board().locator("g.point").count() == 200
    assert opened.board().locator("text.point-name").count() < 24
    opened.board().locator("button.open").last.click()
    assert opened.board().locator(".details pre").count() == 1


def test_an_empty_page_opens(open_page: Any, tmp_path: Path) -> None:
    path = tmp_path / "empty.html"
    path.write_text(build_page([]), encoding="utf-8")
    assert "No finished runs yet" in open_page(path).page.inner_text("main")


CONTRAST = """() => {
  const channel = (v) => { v /= 255; return v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; };
  const rgb = (text) => (text.match(/[\\d.]+/g) || []).map(Number);
  const light = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
  const ground = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const colour = rgb(getComputedStyle(e).backgroundColor);
      if (colour.length === 3 || colour[3] > 0.99) return colour;
    }
    return [255, 255, 255];
  };
  const poor = new Set();
  for (const element of document.querySelectorAll('body *')) {
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
    if (!own || element.closest('script, style, noscript, option') || !element.getClientRects().length) continue;
    const style = getComputedStyle(element);
    const inSvg = element instanceof SVGElement;
    const [a, b] = [light(rgb(inSvg ? style.fill : style.color)), light(ground(element))].sort((x, y) => y - x);
    if ((a + 0.05) / (b + 0.05) < 4.5) poor.add(`${element.tagName} ${element.className} ${element.textContent}`);
  }
  return [...poor];
}"""


def test_columns_beyond_the_edge_are_announced_until_they_are_scrolled_to(open_page: Any) -> None:
    page = open_page(viewport=PHONE).page
    box, hint = page.locator(".board > .wide").first, page.locator(".more").first
    hint.wait_for(state="visible")
    at = hint.bounding_box()
    assert at["x"] >= 0 and at["x"] + at["width"] <= PHONE["width"]
    box.evaluate("box => { box.scrollLeft = box.scrollWidth; }")
    hint.wait_for(state="hidden")
