"""The commands and their options. What a command does is imported when it is called: help and listings stay quick."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from clbench.cli.run_options import cost, resume, run
from clbench.errors import UserError

RESULTS = Path("results")

Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout and nothing else.")]
Results = Annotated[Path, typer.Option("--results", metavar="DIR", help="The folder that holds the runs.")]
DataRoot = Annotated[
    str | None, typer.Option("--data-root", metavar="DIR", help="Folder of data sets (else CLBENCH_DATA).")
]
Run = Annotated[str, typer.Argument(metavar="RUN", help="A run's folder, its id, or the beginning of its id.")]


def _group(summary: str) -> typer.Typer:
    names = {"help_option_names": ["-h", "--help"], "max_content_width": 110}
    return typer.Typer(help=summary, add_completion=False, rich_markup_mode=None, context_settings=names)


app = _group("Continual-learning benchmarks: one loop, one table, every metric.")
runs_app = _group("The runs under a results folder.")
data_app = _group("Data sets: what there is, fetching, checking.")
new_app = _group("Files to start from.")

app.command()(run)
app.command()(resume)
app.command()(cost)
app.add_typer(runs_app, name="runs")
app.add_typer(data_app, name="data")
app.add_typer(new_app, name="new")


def command() -> Any:
    """The command tree."""
    return typer.main.get_command(app)


def _version(asked: bool) -> None:
    if asked:
        from clbench import __version__

        typer.echo(f"clbench {__version__}")
        raise typer.Exit()


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Continual-learning benchmarks: one loop, one table, every metric."""


@app.command(name="list")
def list_(
    kind: Annotated[str, typer.Argument(metavar="KIND", help="strategies, streams, schedules, models or configs.")],
    as_json: Json = False,
) -> None:
    """Names and one-line summaries."""
    from clbench.cli.listing import list_command

    list_command(kind, as_json)


@app.command()
def show(
    kind: Annotated[str, typer.Argument(metavar="KIND", help="strategy, stream, schedule, metric or config.")],
    name: Annotated[str, typer.Argument(metavar="NAME", help="Its name, or file.py:Class.")],
    as_json: Json = False,
) -> None:
    """One strategy, stream, schedule, metric or recipe: documentation, settings, defaults and their sources."""
    from clbench.cli.listing import show_command

    show_command(kind, name, as_json)


@app.command()
def sweep(
    file: Annotated[str, typer.Argument(metavar="FILE", help="A suite (YAML), or the name of one that comes along.")],
    engine: Annotated[str, typer.Option(metavar="NAME", help="local: processes here; ray: a Ray cluster.")] = "local",
    jobs: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Runs at a time. [as many as there are cores for]")
    ] = None,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Results folder: runs land in DIR/runs.")] = RESULTS,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be run, and what it would take.")] = False,
    no_probe: Annotated[
        bool, typer.Option("--no-probe", help="With --dry-run: try no run out in order to estimate its time.")
    ] = False,
    address: Annotated[str | None, typer.Option(metavar="ADDRESS", help="Of the Ray cluster. [one of its own]")] = None,
    gather: Annotated[
        str | None,
        typer.Option(metavar="URL", help="With Ray: where nodes that share no disk put runs (fsspec)."),
    ] = None,
    data_root: DataRoot = None,
    no_tracking: Annotated[
        bool, typer.Option("--no-tracking", help="Do not log to MLflow (CLBENCH_TRACKING=off).")
    ] = False,
    as_json: Json = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
) -> int:
    """Many runs from one file: skips what is done, resumes what was interrupted, goes on past failures."""
    from clbench.cli.sweep import SweepOptions, sweep_command

    tracking = not no_tracking and os.environ.get("CLBENCH_TRACKING", "").lower() not in ("off", "0", "no", "false")
    options = SweepOptions(
        file, engine, jobs, out, dry_run, not no_probe, as_json, quiet, address, gather, tracking, data_root
    )
    return sweep_command(options)


@app.command()
def leaderboard(
    stream: Annotated[str | None, typer.Argument(metavar="[STREAM]", help="Only this stream's runs.")] = None,
    metric: Annotated[str | None, typer.Option(metavar="KEY", help="The metric to rank by.")] = None,
    format: Annotated[str, typer.Option(metavar="FORMAT", help="table, md, csv, json, latex or html.")] = "table",
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Write to a file instead of stdout.")] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NEED", help="Only strategies that are exemplar-free, no-task-boundaries, ...; repeatable."
        ),
    ] = None,
    budget_class: Annotated[
        list[str] | None,
        typer.Option(metavar="LIMITS", help="Only rows that kept flops=..,seconds=..,steps=..,memory=..; or none."),
    ] = None,
    chosen_on: Annotated[
        str | None, typer.Option(metavar="DATA", help="Only settings chosen on nothing, validation or test data.")
    ] = None,
    model: Annotated[str | None, typer.Option(metavar="SPEC", help="Only boards of this model.")] = None,
    across: Annotated[bool, typer.Option("--across", help="Compare strategies over streams, by average rank.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
    results: Results = RESULTS,
) -> Any:
    """Rows of runs on equal data: ranks with ties, mean and 95 % interval over seeds, declared needs, cost."""
    from clbench.cli.leaderboard import chosen_rows, leaderboard_command

    choose = chosen_rows(only or [], budget_class or [], chosen_on, model)
    return leaderboard_command(stream, metric, "json" if as_json else format, out, results, choose, across)


@app.command()
def power(
    rows: Annotated[
        list[str] | None, typer.Argument(metavar="[ROW_A ROW_B]", help="Two strategies of a board.")
    ] = None,
    stream: Annotated[str | None, typer.Option(metavar="NAME", help="The stream of the board.")] = None,
    model: Annotated[str | None, typer.Option(metavar="SPEC", help="The model of the board.")] = None,
    metric: Annotated[str, typer.Option(metavar="KEY", help="What is to differ.")] = "average",
    difference: Annotated[
        float | None, typer.Option(metavar="X", help="The difference to show (else the one observed).")
    ] = None,
    sd: Annotated[
        float | None, typer.Option(metavar="X", help="Standard deviation of paired differences, instead of rows.")
    ] = None,
    pairs: Annotated[int | None, typer.Option(metavar="N", help="With --sd: pairs of runs there are.")] = None,
    power: Annotated[float, typer.Option(metavar="P", help="The probability to find it.")] = 0.8,
    alpha: Annotated[float, typer.Option(metavar="P", help="The probability to find what is not there.")] = 0.05,
    comparisons: Annotated[int, typer.Option(metavar="M", help="Correct for so many comparisons.")] = 1,
    as_json: Json = False,
    results: Results = RESULTS,
) -> None:
    """How many seeds it takes to tell two rows apart, and what those there are can show."""
    from clbench.cli.power import Asked, power_command

    named = tuple(rows or ())
    asked = Asked(named, stream, model, metric, difference, sd, pairs, power, alpha, comparisons)
    power_command(asked, results, as_json)


@app.command()
def compare(
    runs: Annotated[
        list[str],
        typer.Argument(metavar="RUN...", help="Runs, or whole rows of a board: STRATEGY@STREAM[,KEY=VALUE...]."),
    ],
    out: Annotated[
        Path | None, typer.Option(metavar="FILE|DIR", help="A .png, .svg or .pdf; with --figures a folder.")
    ] = None,
    figures: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            help="One file each: curves,gap,matrix,differences,accumulation,ranks; all. Else one overview.",
        ),
    ] = None,
    form: Annotated[
        str | None, typer.Option("--format", metavar="NAMES", help="In a folder: png,svg,pdf, or all.")
    ] = None,
    width: Annotated[str, typer.Option(metavar="NAME", help="page (6.8 in) or column (3.3 in).")] = "page",
    as_json: Json = False,
    results: Results = RESULTS,
) -> Any:
    """Metrics side by side, paired differences, and figures: curves, gaps, matrices, ranks."""
    from clbench.cli.compare import Pictures, compare_command
    from clbench.selection import select_runs

    return compare_command(select_runs(runs, results), Pictures(out, figures, form, width), as_json)


@app.command()
def references(
    runs: Annotated[
        list[str], typer.Argument(metavar="RUN...", help="Runs of one stream, or whole rows: STRATEGY@STREAM.")
    ],
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="A setting of the reference strategies, instead of the run's."),
    ] = None,
    baseline: Annotated[
        list[str] | None,
        typer.Option(metavar="RUN", help="The same run without what is judged, replay say; repeatable, one a seed."),
    ] = None,
    target: Annotated[
        float | None, typer.Option(metavar="SCORE", help="Count tokens up to this score [that of scratch].")
    ] = None,
    horizon: Annotated[
        int | None, typer.Option(metavar="STEPS", help="Look so far behind each switch, at most.")
    ] = None,
    run: Annotated[bool, typer.Option("--run/--no-run", help="Run the references that are missing.")] = True,
    out: Annotated[Path | None, typer.Option("--out", metavar="FILE", help="All of it as JSON, too.")] = None,
    no_tracking: Annotated[bool, typer.Option("--no-tracking", help="Do not log new runs to MLflow.")] = False,
    as_json: Json = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No live display.")] = False,
    results: Results = RESULTS,
) -> Any:
    """Against joint, scratch, frozen and unshifted runs: union and learning gap, transfer, tokens, the shift's part."""
    from clbench.cli.references import Asked, references_command

    asked = Asked(
        runs, settings or [], baseline or [], target, horizon, run, out, as_json, quiet, tracking=not no_tracking
    )
    return references_command(asked, results)


@app.command()
def metrics(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="An evaluation log, CSV or Parquet.")],
    direction: Annotated[str, typer.Option(metavar="WAY", help="Which is better: higher or lower.")] = "higher",
    as_json: Json = False,
) -> Any:
    """Every metric, from anyone's evaluation log."""
    from clbench.cli.metrics import metrics_command

    return metrics_command(file, direction, as_json)


@app.command()
def verify(
    runs: Annotated[
        list[str] | None,
        typer.Argument(metavar="[RUN...]", help="Runs, or rows as STRATEGY@STREAM; with --board: a STREAM, or none."),
    ] = None,
    board: Annotated[bool, typer.Option("--board", help="A whole board, or all: one run of every row.")] = False,
    sample: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="N runs at random, at least one of every row.")
    ] = None,
    all_: Annotated[bool, typer.Option("--all", help="Every run of the rows.")] = False,
    sample_seed: Annotated[int, typer.Option("--sample-seed", metavar="N", help="What the sample depends on.")] = 0,
    stamp: Annotated[bool, typer.Option("--stamp/--no-stamp", help="Write the verdict into the record.")] = True,
    as_json: Json = False,
    results: Results = RESULTS,
) -> Any:
    """Run it again from its own record and compare: a run, a row, or a whole board."""
    from clbench.cli.verify import Sampling, verify_command

    if sample is not None and all_:
        raise UserError("--sample and --all are both given; use one of them")
    sampling = Sampling(sample, sample_seed) if sample is not None or all_ else None
    return verify_command(runs or [], board, sampling, stamp, as_json, results)


@app.command()
def export(
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="The archive: NAME.zip or NAME.tar.gz.")],
    runs: Annotated[
        list[str] | None, typer.Argument(metavar="[RUN...]", help="Runs, or rows as STRATEGY@STREAM.")
    ] = None,
    board: Annotated[
        list[str] | None, typer.Option("--board", metavar="STREAM", help="All finished runs of a stream; repeatable.")
    ] = None,
    all_: Annotated[bool, typer.Option("--all", help="All finished runs.")] = False,
    with_source: Annotated[
        bool, typer.Option("--with-source", help="With the text of strategies that lie in files, to be read.")
    ] = False,
    as_json: Json = False,
    results: Results = RESULTS,
) -> Any:
    """Pack records into one archive, without weights and folders of this machine."""
    from clbench.cli.sharing import Chosen, export_command

    return export_command(Chosen(runs or [], board or [], all_), out, with_source, as_json, results)


@app.command(name="import")
def import_(
    archive: Annotated[Path, typer.Argument(metavar="ARCHIVE", help="As `clbench export` writes it.")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Results folder: runs land in DIR/runs.")] = RESULTS,
    partial: Annotated[bool, typer.Option("--partial", help="Take what is sound where something is not.")] = False,
    as_json: Json = False,
) -> Any:
    """Check an archive of records, and add them as unverified."""
    from clbench.cli.sharing import import_command

    return import_command(archive, out, partial, as_json)


@app.command()
def check(
    strategy: Annotated[str, typer.Argument(metavar="STRATEGY", help="A name, or file.py:Class.")],
    objective: Annotated[
        str | None,
        typer.Option(
            "--objective",
            metavar="NAME",
            help="Try it on one alone: classification, language_modeling or contrastive; else on all it works with.",
        ),
    ] = None,
    as_json: Json = False,
) -> Any:
    """The conformance kit: determinism, resuming, leaks, declared needs, unequal tasks."""
    from clbench import catalogue
    from clbench.cli.check import check_command

    catalogue.find("strategy", strategy)
    return check_command(strategy, objective, as_json)


@app.command()
def doctor(as_json: Json = False, data_root: DataRoot = None, results: Results = RESULTS) -> None:
    """Is everything in place? Packages, threads, GPU, data, folders, tracking; a remedy for what is not."""
    from clbench.cli.doctor import doctor_command

    doctor_command(data_root, results, as_json)


@app.command()
def ui(
    results: Results = RESULTS,
    port: Annotated[int, typer.Option(metavar="N", help="The port to serve on.", min=1, max=65535)] = 5000,
) -> Any:
    """MLflow's pages on the results."""
    from clbench.cli.ui import ui_command

    return ui_command(results, port)


@new_app.command()
def strategy(
    name: Annotated[str, typer.Argument(metavar="NAME", help="As in my-method: makes my_method.py and its test.")],
) -> None:
    """A strategy and its test in the current folder, ready to edit."""
    from clbench.cli.new import new_strategy_command

    new_strategy_command(name)


@runs_app.command(name="list")
def runs_list(
    stream: Annotated[str | None, typer.Option(metavar="NAME", help="Only this stream's runs.")] = None,
    as_json: Json = False,
    results: Results = RESULTS,
) -> None:
    """All runs, oldest first."""
    from clbench.cli.runs import list_command

    list_command(stream, as_json, results)


@runs_app.command(name="show")
def runs_show(run: Run, as_json: Json = False, results: Results = RESULTS) -> None:
    """What a run's record holds: the summary printed at its end, or all of it as JSON."""
    from clbench.cli.runs import show_command

    show_command(run, as_json, results)


@runs_app.command(name="remove")
def runs_remove(
    runs: Annotated[list[str], typer.Argument(metavar="RUN...", help="Folders, ids, or beginnings of ids.")],
    results: Results = RESULTS,
) -> None:
    """Delete runs for good; one that is at work is left alone."""
    from clbench.cli.runs import remove_command

    remove_command(runs, results)


@runs_app.command(name="track")
def runs_track(run: Run, results: Results = RESULTS) -> None:
    """Log a run to MLflow that is not there yet."""
    from clbench.runs import find_run
    from clbench.tracking import log_run

    log_run(find_run(run, results), wait=True)


@data_app.command(name="list")
def data_list(data_root: DataRoot = None, as_json: Json = False) -> Any:
    """Sets that are here, and those that can be fetched."""
    from clbench.cli.data import list_command

    return list_command(data_root, as_json)


@data_app.command(name="get")
def data_get(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The set, as `clbench data list` names it.")],
    data_root: DataRoot = None,
) -> None:
    """Fetch a set from its official source, verify and convert it."""
    from clbench.cli.data import get_command

    get_command(name, data_root)


@data_app.command(name="check")
def data_check(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A set's name or folder.")],
    data_root: DataRoot = None,
    as_json: Json = False,
) -> Any:
    """Read every sample of a set and say what is wrong."""
    from clbench.cli.data import check_command

    return check_command(name, data_root, as_json)
