"""Evaluation tables on disk: reading anybody's CSV or Parquet log, writing our Parquet."""

from __future__ import annotations

import csv
import difflib
import io
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from clbench.errors import UserError
from clbench.files import write_atomically
from clbench.table import COLUMNS, Row, columns_of

REQUIRED = {
    "step": "optimiser steps done so far",
    "tasks_seen": "tasks completed so far: 0 inside the first task, 1 after its end",
    "eval_set": "name of the evaluation set",
    "value": "the score; empty where the set could not be scored",
}
_NULLS = ("", "null", "none")
_DEFAULTS = {"kind": "boundary", "metric": "value", "weights": "deploy", "role": ""}

Cells = Sequence[Any]
Record = tuple[str, Cells]  # (where it stands, its cells)


def read_rows(path: Path) -> Iterator[tuple[str, Row]]:
    """Rows with the place each came from ("log.csv, line 7"). Raises UserError for a bad file."""
    header, records = _open(path)
    index = _columns(path, header)
    order: dict[str, int] = {}
    empty = True
    for place, cells in records:
        empty = False
        yield place, _row(place, cells, index, order)
    if empty:
        raise UserError(f"{path}: has a header but no rows; nothing was measured")


def write_parquet(rows: Sequence[Row], path: Path) -> None:
    """Write atomically: a temporary file beside it, flushed to disk, then renamed."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    types = {"value": pa.float64(), "se": pa.float64(), "base": pa.float64()}
    types |= {name: pa.int64() for name in ("step", "tasks_seen", "n", "belongs_to")}
    required = {"step", "tasks_seen", "eval_set", "kind", "metric", "weights"}
    schema = pa.schema(
        [pa.field(name, types.get(name, pa.string()), nullable=name not in required) for name in columns_of(rows)]
    )
    table = _arrow_table(rows, schema)
    content = io.BytesIO()
    pq.write_table(table, content, compression="zstd", write_page_checksum=True)
    try:
        write_atomically(path, content.getvalue())
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(f"{path}: cannot be written ({reason}); free space or choose another folder") from None


def _arrow_table(rows: Sequence[Row], schema: Any) -> Any:
    """By way of CSV: pyarrow's other ways from Python lists import pandas (0.4 s, 80 MB). Floats stay bit for bit."""
    import pyarrow as pa
    from pyarrow import csv as arrow_csv

    if not rows:
        return schema.empty_table()
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(schema.names)
    for row in rows:
        cells = [getattr(row, name) for name in schema.names]
        writer.writerow(["" if cell is None else repr(cell) if isinstance(cell, float) else cell for cell in cells])
    read = arrow_csv.read_csv(
        io.BytesIO(text.getvalue().encode()),
        parse_options=arrow_csv.ParseOptions(newlines_in_values=True),
        convert_options=arrow_csv.ConvertOptions(column_types=schema, null_values=[""], strings_can_be_null=False),
    )
    return pa.Table.from_arrays(read.columns, schema=schema)


def _open(path: Path) -> tuple[list[str], Iterator[Record]]:
    readers: dict[str, Callable[[Path], tuple[list[str], Iterator[Record]]]]
    readers = {".csv": _open_csv, ".parquet": _open_parquet}
    if path.is_dir():
        raise UserError(f"{path}: is a folder; give the .csv or .parquet file inside it")
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise UserError(f"{path}: an evaluation log is a .csv or a .parquet file; convert or rename it")
    try:
        if path.stat().st_size == 0:
            raise UserError(f"{path}: is empty; write a header and one row for each evaluation")
        return reader(path)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; check the path") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: is not UTF-8 text; save it as UTF-8, or give a .parquet file") from None
    except csv.Error as error:
        raise UserError(f"{path}: is not readable as CSV ({error}); export it again") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error}); check the file") from None


def _open_csv(path: Path) -> tuple[list[str], Iterator[Record]]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file, strict=True)
        lines = [(reader.line_num, cells) for cells in reader if any(cell.strip() for cell in cells)]
    if not lines:
        raise UserError(f"{path}: is empty; write a header and one row for each evaluation")
    header = [name.strip() for name in lines[0][1]]

    def records() -> Iterator[Record]:
        for number, cells in lines[1:]:
            place = f"{path}, line {number}"
            if len(cells) != len(header):
                raise UserError(
                    f"{place}: {len(cells)} cells under a header of {len(header)}; "
                    "separate cells by commas and quote names that hold one"
                )
            yield place, cells

    return header, records()


def _open_parquet(path: Path) -> tuple[list[str], Iterator[Record]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.ParquetFile(path, page_checksum_verification=True).read()
        columns = [column.to_pylist() for column in table.columns]
    except (pa.ArrowException, OSError, ValueError) as error:
        if isinstance(error, (FileNotFoundError, PermissionError)):
            raise
        reason = " ".join(str(error).split())[:120]
        raise UserError(f"{path}: is not a readable Parquet file ({reason}); write it again") from None
    records = ((f"{path}, row {number}", cells) for number, cells in enumerate(zip(*columns, strict=True), 1))
    return list(table.column_names), records


def _columns(path: Path, header: list[str]) -> dict[str, int]:
    """Position of every known column. Raises UserError for missing, doubled or misspelt ones."""
    for name, meaning in REQUIRED.items():
        if name not in header:
            found = ", ".join(header)[:120]
            raise UserError(f"{path}: column {name!r} is missing (found: {found}); add it: {meaning}")
    for name in header:
        if header.count(name) > 1:
            raise UserError(f"{path}: column {name!r} appears twice; keep one of them")
        absent = [known for known in COLUMNS if known not in header]
        near = difflib.get_close_matches(name, absent, n=1, cutoff=0.85) if name not in COLUMNS else []
        if near:
            raise UserError(f"{path}: column {name!r} is unknown; did you mean {near[0]!r}? rename or drop it")
    return {name: header.index(name) for name in COLUMNS if name in header}


def _row(place: str, cells: Cells, index: dict[str, int], order: dict[str, int]) -> Row:
    def cell(name: str) -> Any:
        return cells[index[name]] if name in index else None

    def whole(name: str, required: bool = False) -> int | None:
        return _whole(place, name, cell(name), required)

    eval_set = _text(place, "eval_set", cell("eval_set"), None)
    by_appearance = order.setdefault(eval_set, len(order))
    names = {name: _text(place, name, cell(name), default) for name, default in _DEFAULTS.items()}
    return Row(
        step=whole("step", required=True),  # type: ignore[arg-type]
        tasks_seen=whole("tasks_seen", required=True),  # type: ignore[arg-type]
        eval_set=eval_set,
        value=_number(place, "value", cell("value")),
        n=whole("n"),
        belongs_to=whole("belongs_to") if "belongs_to" in index else by_appearance,
        se=_number(place, "se", cell("se")),
        base=_number(place, "base", cell("base")),
        **names,  # type: ignore[arg-type]
    )


def _text(place: str, name: str, cell: Any, default: str | None) -> str:
    text = "" if cell is None else str(cell).strip()
    if not text and default is None:
        raise UserError(f"{place}, column {name!r}: is empty; write the name of the evaluation set")
    return text or default or ""


def _number(place: str, name: str, cell: Any) -> float | None:
    if cell is None or (isinstance(cell, str) and cell.strip().lower() in _NULLS):
        return None
    try:
        if isinstance(cell, (bool, bytes)) or (isinstance(cell, str) and "_" in cell):
            raise ValueError
        return float(cell)
    except (TypeError, ValueError):
        raise UserError(
            f"{place}, column {name!r}: {str(cell)[:40]!r} is not a number; write one, or leave it empty"
        ) from None


def _whole(place: str, name: str, cell: Any, required: bool) -> int | None:
    if isinstance(cell, int) and not isinstance(cell, bool):
        number: int | None = cell
    elif isinstance(cell, str) and len(cell) < 20 and cell.strip().lstrip("+-").isdecimal():
        number = int(cell)
    else:
        as_float = _number(place, name, cell)
        if as_float is not None and (not math.isfinite(as_float) or as_float != int(as_float)):
            remedy = "write a whole number" if required else "write a whole number, or leave it empty"
            raise UserError(f"{place}, column {name!r}: {cell} is not a whole number; {remedy}")
        number = None if as_float is None else int(as_float)
    if number is None and required:
        raise UserError(f"{place}, column {name!r}: is empty; write a whole number, 0 or more")
    return number
