"""What strategies tell of themselves after each task: kept in the record, in JSON, and shown."""

from __future__ import annotations

import math
from typing import Any

import pytest

from clbench.engine.diagnostics import entry
from clbench.errors import RunFailed
from clbench.record import read_record
from clbench.record_schema import schema_faults


def test_an_entry_is_plain_json() -> None:
    values = {"effective_rank": {"a": 3, "b": 2.5}, "list": (1, "x", True, None), "undefined": math.nan}
    plain = {"effective_rank": {"a": 3, "b": 2.5}, "list": [1, "x", True, None], "undefined": None}
    assert entry(values, 4) == [{"task": 4, "values": plain}]
    assert entry(None, 0) == []


@pytest.mark.parametrize("values", [3, {"a": {1: 2}}, {"a": [object()]}])
def test_what_is_no_json_is_refused_in_one_line(values: Any) -> None:
    with pytest.raises(RunFailed, match="the strategy's diagnostics") as error:
        entry(values, 0)
    assert "\n" not in str(error.value)


def test_they_are_in_the_record_and_in_its_summary(runs: Any, everything: str) -> None:
    from clbench.cli.summary import summary

    settings = {"batch_size": 16, "steps": 5}
    folder = runs.finish("whole", runs.spec(everything, strategy_settings=settings), every=None)
    record = read_record(folder)
    assert schema_faults(record) == []
    assert [told["task"] for told in record["diagnostics"]] == [0, 1, 2]
    assert record["diagnostics"][2]["values"]["effective_rank"] == {"first": 6, "second": 0.5}
    assert record["diagnostics"][0]["values"]["none"] is None
    lines = [line.split() for line in summary(folder, record).splitlines()]
    assert ["effective_rank", "1.250", "2.250", "3.250"] in lines


def test_strategies_that_tell_nothing_have_no_such_field(runs: Any) -> None:
    folder = runs.finish("whole", runs.spec("finetune", strategy_settings={"batch_size": 64, "steps": 2}), every=None)
    assert "diagnostics" not in read_record(folder)
