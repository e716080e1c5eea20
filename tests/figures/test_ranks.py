"""The figure of effective ranks: means of the records, for one run already; runs that tell none are left out."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from clbench.compare import Comparison, compare
from clbench.errors import UserError
from clbench.figures import ranks
from clbench.figures.material import Material
from clbench.figures.write import figure_files, overview, render, write_figures
from clbench.launch import start_run
from clbench.leaderboard import Row
from clbench.spec import make_spec


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small run of a method that tells its ranks."""
    settings = {"steps": 6, "kappa_max": 0.3, "rank": 6}
    spec = {"strategy": "codyra", "stream": "split-digits", "backbone": "mlp:16x2", "threads": 1, "eval_grid": "none"}
    stream = {"train_per_class": 8, "sizes": [3, 5, 2]}
    return start_run(
        make_spec({**spec, "strategy_settings": settings, "stream_settings": stream}), tmp_path_factory.mktemp("ranks")
    )[0]


def told(*values: Any) -> dict[str, Any]:
    return {"diagnostics": [{"task": t, "values": v} for t, v in enumerate(values)]}


def row(*records: dict[str, Any]) -> Row:
    return Row("x", "", {}, {}, "nothing", [(Path(str(i)), record) for i, record in enumerate(records)])


def test_means_over_runs_and_modules() -> None:
    one = told({"effective_rank": {"a": 2, "b": 4}}, {"effective_rank": {"a": 0, "b": 1}})
    two = told({"effective_rank": {"a": 3, "b": 4}}, {"effective_rank": {"a": 1, "b": 1}})
    found = ranks.mean_ranks(row(one, two))
    assert found is not None and found.values == [[2.5, 0.5], [4, 1]] and found.runs == 2
    assert found.means() == [3.25, 0.75] and found.tasks == [0, 1]


def test_what_cannot_be_averaged_is_left_out() -> None:
    whole = told({"effective_rank": {"a": 2}})
    others = [{"norm": 1.0}, *({"effective_rank": value} for value in ({"b": 2}, {"a": None}, 3, [2], {}))]
    for other in ({}, *(told(values) for values in others)):
        found = ranks.mean_ranks(row(whole, other))
        assert found is not None and found.runs == 1 and found.values == [[2]]
    assert ranks.mean_ranks(row({}, told({"norm": 1.0}), told({"effective_rank": {}}))) is None


def test_numbers_in_cells_are_short() -> None:
    values = (0, 1 / 3, 2, 8.67, 9.94, 9.96, 10.7, 128)
    assert [ranks.cell(v) for v in values] == ["0", "0.3", "2", "8.7", "9.9", "10", "11", "128"]


def test_the_legend_names_what_is_drawn(run: Path, tmp_path: Path) -> None:
    comparison = compare([run], 1)
    comparison.groups.insert(0, row({}))
    comparison.labels.insert(0, "tells nothing")
    (written,) = write_figures(comparison, figure_files(tmp_path / "ranks.svg", "ranks", None), "page", pytest.fail)
    text = written.read_text(encoding="utf-8")
    assert "codyra" in text and "tells nothing" not in text


def test_names_lose_the_path_that_all_share() -> None:
    assert ranks.short_names(["net.blocks.0.q", "net.blocks.1.k"]) == ["0.q", "1.k"]
    assert ranks.short_names(["layers.0"]) == ["0"]
    assert ranks.short_names(["a.b", "a.b.c"]) == ["b", "b.c"]


def test_one_run_is_enough_and_its_numbers_are_drawn(run: Path, tmp_path: Path) -> None:
    files = figure_files(tmp_path / "ranks.svg", "ranks", None)
    assert files.least == 1 and figure_files(tmp_path, "ranks,matrix", None).least == 2
    comparison = compare([run], files.least)
    (written,) = write_figures(comparison, files, "page", pytest.fail)
    texts = ["".join(e.itertext()) for e in ElementTree.parse(written).iter("{http://www.w3.org/2000/svg}text")]
    found = ranks.mean_ranks(comparison.groups[0])
    assert found is not None and set(found.modules) == {"layers.0", "layers.2"}
    cells = [ranks.cell(value) for line in found.values for value in line]
    assert all(texts.count(cell) >= cells.count(cell) for cell in cells) and min(map(float, cells)) < 6
    assert "effective rank" in texts and "codyra" in texts


def test_it_is_part_of_the_overview_and_always_the_same(run: Path) -> None:
    material = Material(compare([run], 1))
    assert overview(material)[-1] == "ranks"
    assert render(material, ["ranks"], "png") == render(material, ["ranks"], "png")


def test_runs_without_ranks_have_no_such_figure(finished_runs: dict[tuple[str, int], Path], tmp_path: Path) -> None:
    comparison: Comparison = compare([finished_runs["finetune", 0], finished_runs["replay", 0]])
    assert "ranks" not in overview(Material(comparison))
    with pytest.raises(UserError, match="no run tells the ranks"):
        write_figures(comparison, figure_files(tmp_path / "r.png", "ranks", None), "page", lambda text: None)


def test_a_single_run_is_no_comparison(run: Path) -> None:
    from clbench.cli.compare import Pictures, compare_command

    with pytest.raises(UserError, match="two runs or more"):
        compare_command([run], Pictures())
