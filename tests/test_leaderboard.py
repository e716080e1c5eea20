"""What may stand on one board, what is averaged, what is counted once, and what is left out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from clbench.board_filter import ONLY, Filter
from clbench.board_records import board_records
from clbench.errors import UserError
from clbench.leaderboard import lower_is_better, make_boards
from clbench.ranking import rank
from clbench.record import read_record, write_record

Make = Callable[..., dict[str, Any]]


@pytest.fixture
def run(make_record: Make, tmp_path: Path) -> Callable[..., tuple[Path, dict[str, Any]]]:
    """A (folder, record) with changed leaves; each later than the one before, of its own order and seed if said."""
    made: list[Path] = []

    def make(**leaves: Any) -> tuple[Path, dict[str, Any]]:
        stamp = f"20260101-{len(made):06d}"
        made.append(tmp_path / "runs" / "stream" / "strategy" / stamp)
        started = f"2026-01-01T00:{len(made) // 60:02d}:{len(made) % 60:02d}Z"
        return made[-1], make_record(**{"run": stamp, "started": started, **leaves})

    return make


def seeds(run: Any, averages: list[float], **leaves: Any) -> list[tuple[Path, dict[str, Any]]]:
    return [run(**{"spec.seed": seed, "metrics.average": value, **leaves}) for seed, value in enumerate(averages)]


def rows(runs: list[Any], **arguments: Any) -> list[Any]:
    boards = make_boards(runs, **arguments)
    assert len(boards) == 1
    return boards[0].rows


def test_a_row_is_the_mean_over_seeds_with_its_interval(run: Any) -> None:
    (row,) = rows(seeds(run, [0.1, 0.2, 0.3]))
    value = row.value("average")
    assert value.left_out == 0
    assert value.estimate.n == 3
    assert value.estimate.mean == pytest.approx(0.2)
    assert value.estimate.half_width == pytest.approx(0.2484138, abs=1e-6)


@pytest.mark.parametrize(
    ("place", "other"),
    [
        ("stream.content", "another"),
        ("stream.name", "another"),
        ("stream.scenario", "task"),
        ("model.spec", "slim-resnet18"),
        ("spec.head", "cosine"),
        ("spec.tune", "head"),
        ("spec.budget", {"steps": 10}),
        ("spec.chosen_on", "test"),
    ],
)
def test_what_differs_stands_on_another_board(run: Any, place: str, other: Any) -> None:
    assert len(make_boards([run(), run(**{"spec.seed": 1})])) == 1
    boards = make_boards([run(), run(**{"spec.seed": 1, place: other})])
    assert [len(board.rows[0].runs) for board in boards] == [1, 1]


def test_streams_of_one_name_are_told_apart_by_the_settings_in_which_they_differ(run: Any) -> None:
    plain = {"spec.stream_settings": {"tokens": 100}}
    control = {"spec.stream_settings": {"tokens": 100, "no_shift": True}, "stream.content": "another"}
    assert make_boards([run(**plain)])[0].stream_label == run()[1]["stream"]["name"]
    name = run()[1]["stream"]["name"]
    boards = make_boards([run(**plain), run(**control)])
    assert sorted(board.stream_label for board in boards) == [name, f"{name} no_shift=true"]
    assert {board.as_dict()["stream"] for board in boards} == {name}


def test_boards_of_losses_show_what_is_asked_of_language_models(run: Any) -> None:
    accuracies, losses = (make_boards([run(**{"stream.direction": d})])[0].columns for d in ("higher", "lower"))
    assert "average_incremental" in accuracies and "adaptation" not in accuracies
    assert losses[0] == accuracies[0] and {"bits_per_byte:average", "adaptation", "forgetting"} <= set(losses)


def test_pretrained_weights_part_boards_and_the_seeds_own_weights_do_not(run: Any) -> None:
    a, b = {"model.weights_sha256": "a" * 64}, {"model.weights_sha256": "b" * 64, "spec.seed": 1}
    assert len(make_boards([run(**a), run(**b)])) == 1
    named = {"model.checkpoint": "someone/weights"}
    assert len(make_boards([run(**a, **named), run(**b, **named)])) == 2


def test_settings_part_rows_and_only_differences_are_shown(run: Any) -> None:
    found = rows([*seeds(run, [0.5, 0.6]), *seeds(run, [0.7], **{"spec.strategy_settings.lr": 0.5})])
    assert [(row.settings, len(row.runs)) for row in found] == [
        ({"lr": 0.5}, 1),
        ({"lr": found[1].all_settings["lr"]}, 2),
    ]
    assert found[0].label == "finetune lr=0.5"


@pytest.mark.parametrize(
    "place", ["spec.eval_grid", "environment.precision", "environment.devices", "strategy.version", "spec.strategy"]
)
def test_what_changes_the_numbers_parts_rows(run: Any, place: str) -> None:
    other = {"strategy.version": 2}.get(place, "bf16")
    assert len(rows([run(), run(**{"spec.seed": 1, place: other})])) == 2


@pytest.mark.parametrize(
    "leaves", [{"spec.threads": 2}, {"environment.processor": "another"}, {"spec.data_root": "elsewhere"}]
)
def test_the_machine_does_not_part_rows(run: Any, leaves: dict[str, Any]) -> None:
    (row,) = rows([run(), run(**{"spec.seed": 1, **leaves})])
    assert len(row.runs) == 2


def test_a_repeated_run_counts_once_and_the_latest(run: Any) -> None:
    (row,) = rows([run(**{"metrics.average": 0.9}), run(**{"metrics.average": 0.4})])
    assert row.value("average").estimate.n == 1
    assert row.value("average").estimate.mean == 0.4


def test_another_order_of_the_tasks_is_another_run(run: Any) -> None:
    (row,) = rows([run(), run(**{"stream.order": "another", "spec.order_seed": 1})])
    assert len(row.runs) == 2


def test_a_newer_source_that_only_diverged_does_not_hide_completed_runs(run: Any) -> None:
    diverged = run(**{"status": "diverged", "strategy.source_hash": "f" * 64})
    (row,) = rows([*seeds(run, [0.1, 0.2]), diverged])
    assert (len(row.runs), row.other_source) == (2, 1)


def test_runs_of_an_older_source_are_left_out_and_counted(run: Any) -> None:
    (row,) = rows([*seeds(run, [0.1, 0.2]), *seeds(run, [0.7], **{"strategy.source_hash": "f" * 64})])
    assert (row.other_source, row.value("average").estimate.mean) == (2, 0.7)


@pytest.mark.parametrize("status", ["running", "interrupted", "failed", "diverged"])
def test_only_completed_runs_count(run: Any, status: str) -> None:
    (row,) = rows([run(), run(**{"spec.seed": 1, "status": status})])
    assert len(row.runs) == 1
    assert row.diverged == (status == "diverged")


@pytest.mark.parametrize("status", ["running", "interrupted", "failed"])
def test_unfinished_runs_alone_make_no_board(run: Any, status: str) -> None:
    assert make_boards([run(status=status)]) == []


def test_a_row_of_which_every_run_diverged_stands_last_and_changes_no_other(run: Any) -> None:
    lost = [run(**{"spec.strategy_settings.lr": 1e30, "spec.seed": seed, "status": "diverged"}) for seed in (0, 1)]
    nothing = run(**{"strategy.name": "z", "spec.strategy": "z", "metrics.average": None})
    first, unscored, last = rows([*lost, *seeds(run, [0.1, 0.2]), nothing])
    assert (first.settings, unscored.strategy, last.settings) == ({}, "z", {"lr": 1e30})
    assert (len(last.runs), last.diverged, last.value("average").estimate) == (0, 2, None)
    assert rank([first, unscored, last], "average").placings[2] is None


def test_a_board_may_have_diverged_runs_only(run: Any) -> None:
    (row,) = rows([run(status="diverged")])
    assert (row.runs, row.diverged) == ([], 1)


def test_undefined_values_are_left_out_and_counted(run: Any) -> None:
    (row,) = rows([*seeds(run, [0.5, 0.7]), run(**{"spec.seed": 2, "metrics.average": None})])
    value = row.value("average")
    assert (value.estimate.n, value.estimate.mean, value.left_out) == (2, pytest.approx(0.6), 1)


@pytest.mark.parametrize("value", ["0.5", True, float("nan"), float("inf"), 10**400, 1e200, [1]])
def test_what_is_no_number_to_calculate_with_is_no_value(run: Any, value: Any) -> None:
    (row,) = rows([run(**{"metrics.average": value}), run(**{"spec.seed": 1, "metrics.average": 0.5})])
    assert (row.value("average").estimate.mean, row.value("average").left_out) == (0.5, 1)


def test_values_of_another_version_of_the_formula_are_left_out(run: Any) -> None:
    (row,) = rows([run(), run(**{"spec.seed": 1, "metrics.versions.average": 99})])
    assert row.value("average").left_out == 1


def test_rows_stand_best_first_in_the_direction_of_the_metric(run: Any) -> None:
    low, high = {"metrics.average": 0.1, "metrics.forgetting": 0.1}, {"metrics.average": 0.9, "metrics.forgetting": 0.9}
    other = {"spec.strategy": "other", "strategy.name": "other"}
    missing = {"spec.strategy": "third", "strategy.name": "third", "metrics.average": None, "metrics.forgetting": None}
    runs = [run(**low), run(**other, **high), run(**missing)]
    assert [row.strategy for row in rows(runs)] == ["other", "finetune", "third"]
    assert [row.strategy for row in rows(runs, metric="forgetting")] == ["finetune", "other", "third"]


@pytest.mark.parametrize(
    ("key", "lower"),
    [
        ("average", False),
        ("average[train]", False),
        ("recall:average", False),
        ("backward_transfer", False),
        ("gap_recovered_share", False),
        ("forgetting", True),
        ("gap_depth", True),
        ("wf_10", True),
        ("seconds_train", True),
        ("samples_per_second", False),
    ],
)
def test_directions(key: str, lower: bool) -> None:
    assert lower_is_better(key) == lower


def test_unknown_names_get_one_line_with_near_ones(run: Any) -> None:
    with pytest.raises(UserError, match="unknown metric 'forgeting'; did you mean forgetting"):
        make_boards([run()], metric="forgeting")
    with pytest.raises(UserError, match="'split-digit'; did you mean split-digits"):
        make_boards([run()], stream="split-digit")


def test_incomplete_records_are_named_and_passed_over(run: Any) -> None:
    damaged = run(**{"spec.seed": 1})
    del damaged[1]["environment"]["precision"]
    said: list[str] = []
    assert len(make_boards([run(), damaged], warn=said.append)) == 1
    assert len(said) == 1 and str(damaged[0]) in said[0]


@pytest.mark.parametrize(
    ("place", "rubbish"),
    [
        ("stream.name", ["x"]),
        ("stream.content", None),
        ("strategy.needs", "x"),
        ("strategy.name", 3),
        ("spec.budget", "many"),
        ("spec.budget", {"steps": "many"}),
        ("spec.chosen_on", "luck"),
        ("spec.chosen_on", {}),
        ("spec.seed", "0"),
        ("spec.strategy_settings", []),
        ("metrics.versions", 3),
        ("environment", 3),
        ("model", "mlp"),
        ("started", None),
    ],
)
def test_records_with_rubbish_in_them_are_named_and_passed_over(run: Any, place: str, rubbish: Any) -> None:
    said: list[str] = []
    (board,) = make_boards([run(), run(**{"spec.seed": 1, place: rubbish})], warn=said.append)
    assert len(board.rows[0].runs) == 1 and len(said) == 1


def test_stamps_that_are_no_stamps_verify_nothing(run: Any) -> None:
    stamps = ["yes", [], [3], [{}], {"verdict": "identical"}]
    (row,) = rows([run(**{"spec.seed": seed, "verification": stamp}) for seed, stamp in enumerate(stamps)])
    assert (row.verified, row.refuted) == (0, 0)


STAMP = {"when": "2026-01-01T00:00:00Z", "clbench": "0", "rows": 1, "largest_difference": 0.0, "changed": []}


def stamped(*verdicts: str) -> list[dict[str, Any]]:
    return [{**STAMP, "verdict": verdict, "faults": 0, "first_fault": None} for verdict in verdicts]


def test_verified_runs_are_those_whose_latest_repetition_gave_the_same(run: Any) -> None:
    stamps = [stamped("identical"), stamped("differs", "within tolerance"), stamped("identical", "differs"), []]
    (row,) = rows([run(**{"spec.seed": seed, "verification": stamp}) for seed, stamp in enumerate(stamps)])
    assert (len(row.runs), row.verified, row.refuted, row.imported) == (4, 2, 1, 0)


def test_imported_runs_are_counted_and_not_verified_by_their_senders_stamps(run: Any) -> None:
    (row,) = rows([run(origin={"archive": "a" * 64, "verification": stamped("identical")}), run(**{"spec.seed": 1})])
    assert (row.imported, row.verified) == (1, 0)


def test_edited_records_and_tables_are_left_out_with_one_line_each(run_copy: Callable[[str, int], Path]) -> None:
    whole, edited, table = run_copy("finetune", 0), run_copy("finetune", 1), run_copy("replay", 0)
    results = whole.parents[3]
    text = (edited / "record.json").read_text()
    average = read_record(edited)["metrics"]["average"]
    (edited / "record.json").write_text(text.replace(str(average), str(average + 0.1)))
    with (table / "evaluations.parquet").open("ab") as file:
        file.write(b" ")
    said: list[str] = []
    kept = [folder for folder, _ in board_records(results, said.append)]
    assert kept == [whole]
    assert len(said) == 2 and all("edited after the run" in line for line in said)
    said.clear()
    assert list(board_records(results, said.append, stream="another"))  # of other streams no seal is checked
    assert said == []


def test_records_on_boards_are_whole_but_for_the_single_gaps(run_copy: Callable[[str, int], Path]) -> None:
    folder = run_copy("replay", 1)
    ((_, found),) = board_records(folder.parents[3])
    expected = read_record(folder)
    assert expected["metrics"].pop("gap")
    assert found == expected


def test_unfinished_runs_are_passed_over_without_a_word(run_copy: Callable[[str, int], Path]) -> None:
    folder = run_copy("replay", 1)
    write_record(folder, {**read_record(folder), "status": "interrupted"})
    said: list[str] = []
    assert list(board_records(folder.parents[3], said.append)) == [] == said


@pytest.mark.parametrize("name", sorted(ONLY))
def test_needs_are_filtered_as_declared(run: Any, name: str) -> None:
    need, wanted, _ = ONLY[name]
    other = {"spec.strategy": "other", "strategy.name": "other", f"strategy.needs.{need}": not wanted}
    runs = [run(**{f"strategy.needs.{need}": wanted}), run(**other)]
    found = make_boards(runs, choose=Filter(only=[name]))
    assert [row.strategy for row in found[0].rows] == ["finetune"]
    assert found[0].hidden == 1
    silent = run(**{"spec.strategy": "silent", "strategy.name": "silent"})
    del silent[1]["strategy"]["needs"][need]
    assert make_boards([silent], choose=Filter(only=[name])) == []  # what is not declared is not known


def test_a_budget_class_is_what_every_run_kept(run: Any) -> None:
    small = seeds(run, [0.1, 0.2], **{"cost.stored_bytes": 100})
    large = {"spec.strategy": "other", "strategy.name": "other", "spec.seed": 1}
    mixed = [run(**large, **{"cost.stored_bytes": 100}), run(**{**large, "spec.seed": 2}, **{"cost.stored_bytes": 101})]
    assert [row.strategy for row in rows([*small, *mixed], choose=Filter(limits={"memory": 100}))] == ["finetune"]
    assert len(rows([*small, *mixed], choose=Filter(limits={"memory": 101}))) == 2
    assert make_boards(small, choose=Filter(limits={"memory": 100, "steps": 0})) == []


def test_boards_without_a_budget_can_be_asked_for(run: Any) -> None:
    runs = [run(), run(**{"spec.budget": {"steps": 10}})]
    assert [board.budget for board in make_boards(runs, choose=Filter(unlimited=True))] == [{}]


def test_budgets_are_boards_of_their_own(run: Any) -> None:
    budgets: list[dict[str, float]] = [{}, {"maf": 1.0}, {"maf": 2.0}, {"flops": 1.0}, {"maf": 1e12}]
    runs = [run(**{"spec.budget": budget, "cost.maf_train": 1e11}) for budget in budgets]
    assert len(make_boards(runs)) == len(budgets)
    full = Filter(limits={"maf": 1.0})
    assert [board.budget for board in make_boards(runs, choose=full)] == [{"maf": 1.0}]
    assert full.describe() == "maf 1 x full fine-tuning"
    assert len(make_boards(runs, choose=Filter(limits={"maf": 1e11}))) == len(budgets)
    assert make_boards(runs, choose=Filter(limits={"maf": 9e10})) == []


def test_models_and_choices_are_filtered(run: Any) -> None:
    runs = [run(), run(**{"spec.chosen_on": "validation", "spec.seed": 1}), run(**{"model.spec": "slim-resnet18"})]
    (row,) = rows(runs, choose=Filter(chosen_on="validation"))
    assert row.chosen_on == "validation"
    assert {b.model for b in make_boards(runs, choose=Filter(model="slim-resnet18"))} == {"slim-resnet18"}
    with pytest.raises(UserError, match="with model 'slim-resnet'; did you mean slim-resnet18"):
        make_boards(runs, choose=Filter(model="slim-resnet"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"only": ["exemplarfree"]}, "unknown need 'exemplarfree'; did you mean exemplar-free"),
        ({"chosen_on": "tests"}, "unknown choice 'tests'; did you mean test"),
        ({"limits": {"flop": 1.0}}, "unknown limit 'flop'; did you mean flops"),
    ],
)
def test_unknown_filters_are_one_line(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Filter(**arguments)


def test_a_filter_says_what_it_keeps() -> None:
    assert Filter().describe() == ""
    chosen = Filter(["exemplar-free"], {"memory": 1e6}, True, "nothing", "mlp").describe()
    assert chosen == "exemplar-free; at most memory 1e+06; no budget set; settings chosen on nothing; model mlp"
