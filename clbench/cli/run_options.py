"""`clbench run`, `resume` and `cost`: their options. What they do is in `execute.py` and `cost.py`."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

Out = Annotated[Path, typer.Option("--out", metavar="DIR", help="Results folder: runs land in DIR/runs.")]
Json = Annotated[bool, typer.Option("--json", help="Print the record as JSON on stdout and nothing else.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No live display.")]
NoTracking = Annotated[bool, typer.Option("--no-tracking", help="Do not log to MLflow (CLBENCH_TRACKING=off).")]
CheckpointEvery = Annotated[
    int | None,
    typer.Option(
        "--checkpoint-every", metavar="N", min=1, help="Save every N steps; else often enough to cost 2 % of the time."
    ),
]
StrategyName = Annotated[str | None, typer.Argument(metavar="STRATEGY", help="A name, or file.py:Class.")]
StreamName = Annotated[str | None, typer.Argument(metavar="STREAM", help="A name, or file.py:Class.")]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="A setting of the strategy or the stream; repeatable. strategy.KEY or stream.KEY where both have it.",
    ),
]
ConfigFile = Annotated[
    Path | None,
    typer.Option("--config", metavar="FILE", help="YAML, or a recipe (`list configs`); options win."),
]
Seed = Annotated[int | None, typer.Option(metavar="N", help="Seed of weights, order of samples, ... [0]")]
OrderSeed = Annotated[int | None, typer.Option(metavar="N", help="Seed of the order of classes or tasks. [0]")]
Backbone = Annotated[str | None, typer.Option(metavar="SPEC", help="A model: `clbench list models`.")]
Head = Annotated[str | None, typer.Option(metavar="KIND", help="linear, cosine or prototype. [linear]")]
Tune = Annotated[str | None, typer.Option(metavar="WHAT", help="full, lora, ... [full]")]
ScheduleName = Annotated[
    str | None, typer.Option(metavar="NAME[:KEY=VALUE,...]", help="Or FILE.json: `clbench list schedules`.")
]
Online = Annotated[bool, typer.Option("--online", help="One pass over each task's data.")]
Scenario = Annotated[str | None, typer.Option(metavar="NAME", help="The stream's scenario: class or task.")]
Upstream = Annotated[
    str | None,
    typer.Option(metavar="HOW", help="How task 0 is learned: own, shared, given, or a path to weights. [own]"),
]
Budget = Annotated[
    list[str] | None,
    typer.Option(
        metavar="KEY=LIMIT,...",
        help="maf, flops: shared out over the tasks; seconds, steps: training stops there; memory: 10MB, ...",
    ),
]
Precision = Annotated[str | None, typer.Option(metavar="TYPE", help="fp32, bf16 or auto. [fp32]")]
Device = Annotated[str | None, typer.Option(metavar="NAME", help="auto, cpu or cuda. [auto]")]
Threads = Annotated[int | None, typer.Option(metavar="N", help="CPU threads. [all cores]")]
ChannelsLast = Annotated[
    bool | None, typer.Option("--channels-last/--no-channels-last", help="Memory format of images. [on a GPU]")
]
DataRoot = Annotated[
    str | None, typer.Option("--data-root", metavar="DIR", help="Folder of data sets (else CLBENCH_DATA).")
]


@dataclass(frozen=True)
class Handling:
    """How a run is shown and kept: nothing here changes its numbers."""

    out: Path
    as_json: bool
    quiet: bool
    tracking: bool
    checkpoint_every: int | None


def _handling(out: Path, as_json: bool, quiet: bool, no_tracking: bool, checkpoint_every: int | None) -> Handling:
    tracking = not no_tracking and os.environ.get("CLBENCH_TRACKING", "").lower() not in ("off", "0", "no", "false")
    return Handling(out, as_json, quiet, tracking, checkpoint_every)


def run(
    strategy: StrategyName = None,
    stream: StreamName = None,
    settings: Settings = None,
    config: ConfigFile = None,
    seed: Seed = None,
    order_seed: OrderSeed = None,
    seeds: Annotated[
        str | None, typer.Option(metavar="LIST", help="Several runs, as in 0-4 or 0,3,7, and their mean.")
    ] = None,
    backbone: Backbone = None,
    head: Head = None,
    tune: Tune = None,
    schedule: ScheduleName = None,
    eval_grid: Annotated[
        str | None, typer.Option(metavar="GRID", help="default, full, none, or every N steps. [default]")
    ] = None,
    online: Online = False,
    scenario: Scenario = None,
    upstream: Upstream = None,
    budget: Budget = None,
    precision: Precision = None,
    device: Device = None,
    threads: Threads = None,
    devices: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Devices that share the run, a process each. [1]")
    ] = None,
    sync_bn: Annotated[
        bool | None, typer.Option("--sync-bn/--no-sync-bn", help="Batch statistics over all devices.")
    ] = None,
    compile: Annotated[bool | None, typer.Option("--compile/--no-compile", help="torch.compile the model.")] = None,
    channels_last: ChannelsLast = None,
    chosen_on: Annotated[
        str | None, typer.Option(metavar="DATA", help="What chose the settings: nothing, validation or test.")
    ] = None,
    data_root: DataRoot = None,
    out: Out = Path("results"),
    checkpoint_every: CheckpointEvery = None,
    no_tracking: NoTracking = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Run a strategy on a stream: train, evaluate, keep the record."""
    from clbench.cli.execute import run_command
    from clbench.cli.specify import specifications

    options: dict[str, Any] = {
        "strategy": strategy,
        "stream": stream,
        "seed": seed,
        "order_seed": order_seed,
        "backbone": backbone,
        "head": head,
        "tune": tune,
        "eval_grid": eval_grid,
        "upstream": upstream,
        "precision": precision,
        "device": device,
        "threads": threads,
        "devices": devices,
        "sync_bn": sync_bn,
        "compile": compile,
        "channels_last": channels_last,
        "chosen_on": chosen_on,
        "data_root": data_root,
    }
    shortcuts = {"schedule": schedule, "online": online or None, "scenario": scenario}
    specs = specifications(options, shortcuts, settings or [], budget or [], config, seeds)
    return run_command(specs, seeds is not None, _handling(out, as_json, quiet, no_tracking, checkpoint_every))


def resume(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A run's folder, its id, or the beginning of its id.")],
    out: Out = Path("results"),
    checkpoint_every: CheckpointEvery = None,
    no_tracking: NoTracking = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Continue an interrupted run from its folder alone."""
    from clbench.cli.execute import resume_command

    return resume_command(run, _handling(out, as_json, quiet, no_tracking, checkpoint_every))


def cost(
    strategy: StrategyName = None,
    stream: StreamName = None,
    settings: Settings = None,
    config: ConfigFile = None,
    seed: Seed = None,
    order_seed: OrderSeed = None,
    backbone: Backbone = None,
    head: Head = None,
    tune: Tune = None,
    schedule: ScheduleName = None,
    online: Online = False,
    scenario: Scenario = None,
    upstream: Upstream = None,
    budget: Budget = None,
    precision: Precision = None,
    device: Device = None,
    threads: Threads = None,
    channels_last: ChannelsLast = None,
    data_root: DataRoot = None,
    time: Annotated[bool, typer.Option("--time", help="Time a few steps on this machine as well.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON on stdout and nothing else.")] = False,
) -> None:
    """What a run would cost: FLOPs, memory, steps under a budget. Tries a few steps of each task, keeps nothing."""
    from clbench.cli.cost import cost_command
    from clbench.cli.specify import specifications

    options: dict[str, Any] = {
        "strategy": strategy,
        "stream": stream,
        "seed": seed,
        "order_seed": order_seed,
        "backbone": backbone,
        "head": head,
        "tune": tune,
        "upstream": upstream,
        "precision": precision,
        "device": device,
        "threads": threads,
        "channels_last": channels_last,
        "data_root": data_root,
    }
    shortcuts = {"schedule": schedule, "online": online or None, "scenario": scenario}
    (spec,) = specifications(options, shortcuts, settings or [], budget or [], config, None)
    cost_command(spec, time, as_json)
