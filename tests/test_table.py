from __future__ import annotations

import dataclasses
import math
import struct
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clbench.errors import UserError
from clbench.table import EvaluationTable, Row

WHOLE = st.integers(0, 2**63 - 1)
NAMES = st.text(min_size=1).filter(lambda text: bool(text.strip()))
FINITE = st.floats(allow_nan=False, allow_infinity=False)
ROWS = st.builds(
    Row,
    step=WHOLE,
    tasks_seen=WHOLE,
    eval_set=NAMES,
    value=st.none() | st.floats(),
    n=st.none() | WHOLE,
    belongs_to=st.none() | WHOLE,
    kind=st.sampled_from(["boundary", "trace"]),
    metric=NAMES,
    weights=st.sampled_from(["deploy", "train", "anneal"]),
    se=st.none() | FINITE.map(abs),
    base=st.none() | FINITE,
)


def bits(row: Row) -> tuple[object, ...]:
    """A row's fields, floats as their bytes, so that NaN equals NaN and 0.0 differs from -0.0."""

    def fixed(value: object) -> object:
        if isinstance(value, float):
            return "nan" if math.isnan(value) else struct.pack("d", value)
        return value

    return tuple(fixed(getattr(row, field.name)) for field in dataclasses.fields(row))


def write_csv(folder: Path, text: str, name: str = "log.csv") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


@settings(deadline=None)
@given(ROWS)
def test_json_line_round_trip(row: Row) -> None:
    line = row.to_json()
    assert "\n" not in line
    assert bits(Row.from_json(line)) == bits(row)


@pytest.mark.parametrize(
    "line",
    ["", "{", '{"step": 1}', "[]", '{"step": 1, "tasks_seen": 0, "eval_set": "a", "value": "x"}', '{"a": 1}'],
)
def test_damaged_json_line(line: str) -> None:
    with pytest.raises(UserError, match="damaged line"):
        Row.from_json(line)


def test_parquet_round_trip(tmp_path: Path) -> None:
    table = EvaluationTable(
        [
            Row(0, 0, "a", None, belongs_to=0),
            Row(1, 0, "a", float("nan"), belongs_to=0, kind="trace"),
            Row(2, 0, "a", float("-inf"), belongs_to=0, kind="trace", se=float("nan")),
            Row(2, 1, "ä, b", 0.1 + 0.2, n=7, kind="trace", metric="top5", weights="anneal", se=0.1, base=0.5),
        ]
    )
    path = tmp_path / "evaluations.parquet"
    table.write(path)
    assert [bits(row) for row in EvaluationTable.read(path)] == [bits(row) for row in table]
    first = path.read_bytes()
    table.write(path)
    assert path.read_bytes() == first
    assert list(tmp_path.iterdir()) == [path]
    EvaluationTable().write(path)
    assert pq.read_schema(path).names == [field.name for field in dataclasses.fields(Row) if field.name != "role"]


def test_failed_write_keeps_the_old_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be written"):
        EvaluationTable([Row(0, 0, "a", 0.5)]).write(tmp_path / "missing" / "t.parquet")
    folder = tmp_path / "t.parquet"
    folder.mkdir()
    with pytest.raises(UserError, match="cannot be written"):
        EvaluationTable([Row(0, 0, "a", 0.5)]).write(folder)
    assert list(tmp_path.iterdir()) == [folder]


def test_append_and_truncate() -> None:
    rows = [Row(step, 0, "a", 0.5) for step in range(4)]
    table = EvaluationTable(rows)
    assert len(table) == 4
    assert table.rows == list(table) == rows
    with pytest.raises(UserError, match="row 5: the same evaluation as row 2"):
        table.append(Row(1, 0, "a", 0.7))
    with pytest.raises(UserError, match="has belongs_to 3 here and empty"):
        table.append(Row(9, 0, "a", 0.7, belongs_to=3))
    table.truncate(1)
    table.append(Row(1, 0, "a", 0.7))
    assert table.rows == [rows[0], Row(1, 0, "a", 0.7)]
    table.truncate(0)
    table.append(Row(1, 0, "a", 0.7, belongs_to=3))
    with pytest.raises(ValueError, match="cannot keep"):
        table.truncate(2)


@pytest.mark.parametrize(
    "change",
    [
        {"step": -1},
        {"step": 1.0},
        {"step": True},
        {"step": 2**63},
        {"tasks_seen": -1},
        {"tasks_seen": None},
        {"eval_set": " "},
        {"value": "0.5"},
        {"value": True},
        {"n": -1},
        {"n": 1.5},
        {"belongs_to": -1},
        {"kind": "end"},
        {"weights": "ema"},
        {"metric": ""},
        {"se": -0.1},
        {"se": float("nan")},
        {"base": float("inf")},
    ],
)
def test_malformed_rows(change: dict[str, object]) -> None:
    row = dataclasses.replace(Row(1, 0, "a", 0.5), **change)  # type: ignore[arg-type]
    with pytest.raises(UserError, match=next(iter(change))):
        EvaluationTable([row])


def test_csv_with_the_required_columns_only(tmp_path: Path) -> None:
    path = write_csv(tmp_path, "step,tasks_seen,eval_set,value\n10,1,b,0.5\n10,1,a,\n20,2,b,nan\n20,2,a,inf\n")
    rows = EvaluationTable.read(path).rows
    assert rows[0] == Row(10, 1, "b", 0.5, belongs_to=0)
    assert rows[1] == Row(10, 1, "a", None, belongs_to=1)
    assert math.isnan(rows[2].value or 0)
    assert rows[3].value == math.inf


def test_csv_with_every_column(tmp_path: Path) -> None:
    text = (
        "\ufeffcomment, value ,eval_set,tasks_seen,step,n,belongs_to,kind,metric,weights,se,base\r\n"
        'x,0.5,"a, b",1,10.0,100,0.0,trace,top1,train,0.01,0.1\r\n'
        "\r\n"
        "y,null,web,1,1e1,,,,,,,\r\n"
    )
    assert EvaluationTable.read(write_csv(tmp_path, text, "LOG.CSV")).rows == [
        Row(10, 1, "a, b", 0.5, 100, 0, "trace", "top1", "train", 0.01, 0.1),
        Row(10, 1, "web", None),
    ]


HEAD = "step,tasks_seen,eval_set,value"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is empty"),
        ("\n\n", "is empty"),
        (HEAD + "\n", "no rows"),
        ("step,eval_set,value\n1,a,0.5\n", "column 'tasks_seen' is missing .*found: step, eval_set, value"),
        ("step;tasks_seen;eval_set;value\n1;1;a;0.5\n", "column 'step' is missing"),
        (HEAD + ",value\n1,1,a,0.5,0.5\n", "column 'value' appears twice"),
        (HEAD + ",belong_to\n1,1,a,0.5,0\n", "did you mean 'belongs_to'"),
        (HEAD + "\n1,1,a,0.5\n1,1,a\n", "line 3: 3 cells under a header of 4"),
        (HEAD + "\n1,1,a,0.5\n1,1,a,0.5\n", "line 3: the same evaluation as row 1"),
        (HEAD + "\n1,1,a,good\n", "line 2, column 'value': 'good' is not a number"),
        (HEAD + "\n1,1,a,81%\n", "column 'value'"),
        (HEAD + "\n1,1,a,1_0\n", "column 'value'"),
        (HEAD + "\n1.5,1,a,0.5\n", "column 'step': 1.5 is not a whole number"),
        (HEAD + "\nnan,1,a,0.5\n", "column 'step': nan is not a whole number"),
        (HEAD + "\n,1,a,0.5\n", "column 'step': is empty"),
        (HEAD + "\n-1,1,a,0.5\n", "line 2: step is -1"),
        (HEAD + "\n" + "9" * 5000 + ",1,a,0.5\n", "column 'step'"),
        (HEAD + "\n1,one,a,0.5\n", "column 'tasks_seen': 'one'"),
        (HEAD + "\n1,1,,0.5\n", "column 'eval_set': is empty"),
        (HEAD + ",kind\n1,1,a,0.5,final\n", "line 2: kind is 'final'"),
        (HEAD + ",weights\n1,1,a,0.5,ema\n", "weights is 'ema'"),
        (HEAD + ",n\n1,1,a,0.5,-3\n", "n is -3"),
        (HEAD + ",n\n1,1,a,0.5,nan\n", "column 'n': nan is not a whole number"),
        (HEAD + ",se\n1,1,a,0.5,nan\n", "se is nan"),
        (HEAD + ",base\n1,1,a,0.5,x\n", "column 'base'"),
        (HEAD + ",belongs_to\n1,1,a,0.5,0\n2,1,a,0.5,1\n", "line 3: eval_set 'a' has belongs_to 1 here and 0"),
        (HEAD + ",belongs_to\n1,1,a,0.5,0\n2,1,a,0.5,\n", "belongs_to empty .held out. here and 0"),
        (HEAD + '\n1,1,"a,0.5\n', "not readable as CSV"),
    ],
)
def test_bad_csv(tmp_path: Path, text: str, words: str) -> None:
    path = write_csv(tmp_path, text)
    with pytest.raises(UserError, match=words) as caught:
        EvaluationTable.read(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_unreadable_files(tmp_path: Path) -> None:
    latin = tmp_path / "latin.csv"
    latin.write_bytes((HEAD + "\n1,1,caf\xe9,0.5\n").encode("latin-1"))
    torn = tmp_path / "torn.parquet"
    EvaluationTable([Row(0, 0, "a", 0.5)]).write(torn)
    torn.write_bytes(torn.read_bytes()[:-20])
    noise = tmp_path / "noise.parquet"
    noise.write_bytes(b"no parquet at all")
    for path, words in (
        (tmp_path / "none.csv", "no such file"),
        (tmp_path / "none.parquet", "no such file"),
        (tmp_path, "is a folder"),
        (write_csv(tmp_path, HEAD, "log.txt"), "is a .csv or a .parquet file"),
        (latin, "not UTF-8"),
        (torn, "not a readable Parquet file"),
        (noise, "not a readable Parquet file"),
    ):
        with pytest.raises(UserError, match=words) as caught:
            EvaluationTable.read(path)
        assert "\n" not in str(caught.value)


def test_altered_parquet_page(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    EvaluationTable([Row(i, 0, "a", i / 7) for i in range(500)]).write(path)
    content = bytearray(path.read_bytes())
    content[60:400] = bytes(340)
    path.write_bytes(bytes(content))
    with pytest.raises(UserError, match="not a readable Parquet file"):
        EvaluationTable.read(path)


def parquet(folder: Path, **columns: object) -> Path:
    plain = {"step": [1, 2], "tasks_seen": [0, 0], "eval_set": ["a", "a"], "value": [0.5, None]}
    path = folder / "foreign.parquet"
    pq.write_table(pa.table(plain | columns), path)
    return path


def test_foreign_parquet(tmp_path: Path) -> None:
    sets = pa.array(["x", "x"]).dictionary_encode()
    path = parquet(tmp_path, step=[1.0, 2.0], eval_set=sets, belongs_to=[None, None], extra=[1, 2])
    assert EvaluationTable.read(path).rows == [Row(1, 0, "x", 0.5), Row(2, 0, "x", None)]
    assert EvaluationTable.read(parquet(tmp_path, eval_set=[3, 3])).rows[0].eval_set == "3"
    assert EvaluationTable.read(parquet(tmp_path, value=pa.array([1, 0], pa.int32()))).rows[0].value == 1.0


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"value": ["good", "bad"]}, "row 1, column 'value': 'good'"),
        ({"value": [True, False]}, "column 'value': 'True'"),
        ({"step": [1, None]}, "row 2, column 'step': is empty"),
        ({"step": [1.0, 1.5]}, "row 2, column 'step': 1.5 is not a whole number"),
        ({"step": [1, 1]}, "row 2: the same evaluation as row 1"),
        ({"eval_set": ["a", None]}, "row 2, column 'eval_set': is empty"),
        ({"step": [[1], [2]]}, "column 'step'"),
    ],
)
def test_bad_parquet(tmp_path: Path, columns: dict[str, object], words: str) -> None:
    with pytest.raises(UserError, match=words):
        EvaluationTable.read(parquet(tmp_path, **columns))
