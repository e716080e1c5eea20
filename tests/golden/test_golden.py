"""Golden numbers: every built-in strategy still gives what it gave when `expected.json` was written.

A change of these numbers is a change of a method, of the engine or of a package. If it is intended, run
`python tests/golden/regenerate.py` and say why in the message of the commit.
"""

from __future__ import annotations

import json
import os
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")

EXPECTED = Path(__file__).with_name("expected.json")
NAMES = ("average", "average_incremental", "learning", "forgetting", "min_acc", "gap_depth")

DIGITS = {"stream": "split-digits", "backbone": "mlp", "stream_settings": {"sizes": [3, 5, 2]}}
PERMUTED = {"stream": "permuted-digits", "stream_settings": {"tasks": 3}}  # where penalties on weights do something
TEXT = {
    "stream": "text-shift",
    "backbone": "byte-gpt?d=16,layers=1,ctx=16",
    "stream_settings": {"context": 16, "tokens": 3000, "eval_blocks": 32},
    "strategy_settings": {"steps": 30},
}
SMALL_VIT = "timm:vit_tiny_patch16_224?img_size=16,patch_size=8,embed_dim=24,depth=1,num_heads=2"
ON_DIGITS = ("finetune", "joint", "cumulative", "frozen", "replay", "der++", "lwf", "wa", "icarl")
MERGING: dict[str, dict[str, Any]] = {
    "ema-merge": {},
    "ft-merge": {},
    "zs-merge": {"weight": 0.85},
    "wise-ft": {},
    "soup": {},
    "greedy-soup": {},
    "task-arithmetic": {"scale": 4.0},
    "ties": {},
    "dare": {"drop": 0.99, "scale": 1.0},
}
ON_PIXELS = ("simplecil", "slda", "fecam")
ON_TRANSFORMER: dict[str, dict[str, Any]] = {
    "slca++": {"lr": 0.1, "ca_lr": 0.1},
    "lae": {"ema": 0.95},
    "aper": {"lr": 0.1, "first_session": "finetune"},
    "ranpac": {"lr": 0.1, "projection": 200},
    "l2m": {"lr": 0.03},
    "codyra": {"lr": 0.03},
    "sora": {"lr": 0.03},
    "adalora": {"lr": 0.01},
}
ON_PERMUTED: dict[str, dict[str, Any]] = {
    "finetune": {},
    "scratch": {},
    "ewc": {"ewc_lambda": 300},
    "si": {"c": 10},
    "rwalk": {"rwalk_lambda": 1, "form": "official"},
    "bvcl": {},
}
SCHEDULED: dict[str, dict[str, Any]] = {
    "rewarm": {},
    "infinite": {},
    "wsd": {},
    "power": {"warmup": 5, "knee": 1000},
}
ON_TEXT = ("finetune", "joint", "cumulative", "replay", "ewc")
WITH_VALIDATION: dict[str, dict[str, Any]] = {
    "stability-gap": {},
    "skill-it": {"observe_every": 6, "eta": 1.0},
    "syne": {"observe_every": 6, "alpha": 2.0, "share": 0.1},
    "feedback": {"observe_every": 6, "gain": 1.0, "start": 0.2},
    "curriculum": {},
    "replay": {"memory": "domains", "share": 0.3, "order": "in_order", "budget": "compute_equivalent"},
}
CASES: dict[str, dict[str, Any]] = {
    "nmc on digits": {"strategy": "nmc", **DIGITS, "backbone": "pixels"},
    "gdumb on digits": {"strategy": "gdumb", **DIGITS, "strategy_settings": {"epochs": 6}},
    **{f"{name} on digits": {"strategy": name, **DIGITS, "strategy_settings": {"steps": 40}} for name in ON_DIGITS},
    **{
        f"{name} on digits": {"strategy": name, **DIGITS, "strategy_settings": {"steps": 40, **settings}}
        for name, settings in MERGING.items()
    },
    "slca on digits": {"strategy": "slca", **DIGITS, "strategy_settings": {"steps": 40, "lr": 0.1, "ca_lr": 0.1}},
    **{f"{name} on pixels": {"strategy": name, **DIGITS, "backbone": "pixels"} for name in ON_PIXELS},
    "dkvb on pixels": {
        "strategy": "dkvb",
        **DIGITS,
        "backbone": "pixels",
        "strategy_settings": {"codebooks": 32, "pairs": 32, "key_epochs": 2, "epochs": 3},
    },
    **{
        f"{name} on transformer": {
            "strategy": name,
            **DIGITS,
            "backbone": SMALL_VIT,
            "strategy_settings": {"steps": 40, "batch_size": 32, **settings},
        }
        for name, settings in ON_TRANSFORMER.items()
    },
    "der on digits": {"strategy": "der", **DIGITS, "strategy_settings": {"steps": 40, "alpha": 1.0}},
    **{
        f"{name} on permuted digits": {"strategy": name, **PERMUTED, "strategy_settings": {"steps": 150, **settings}}
        for name, settings in ON_PERMUTED.items()
    },
    **{f"{name} on text": {"strategy": name, **TEXT} for name in ON_TEXT},
    "zscl on text": {"strategy": "zscl", **TEXT},
    **{
        f"{name} on text with validation": {
            "strategy": name,
            **TEXT,
            "stream_settings": {**TEXT["stream_settings"], "validation": 0.1},
            "strategy_settings": {"steps": 30, **settings},
        }
        for name, settings in WITH_VALIDATION.items()
    },
    **{
        f"{name} on text": {"strategy": name, **TEXT, "strategy_settings": {"steps": 30, "lr": 0.03, **settings}}
        for name, settings in SCHEDULED.items()
    },
}


def tolerance(case: str, metric: str) -> float:
    """How far another processor's rounding may carry a number: accuracies, or nats per token for text.

    Means of pixels decide NMC: its numbers hold exactly. The depth of the gap is read from 64 to 256 samples at the
    worst of a few moments, where one sample more or less is wrong.
    """
    if case.startswith("nmc"):
        return 1e-6
    return 0.04 if metric == "gap_depth" else 0.02


def measure(case: str, folder: Path) -> dict[str, float | None]:
    """Run a case under a folder, on one thread; its metrics."""
    from clbench.launch import start_run
    from clbench.spec import make_spec

    _, record = start_run(make_spec({**CASES[case], "threads": 1, "device": "cpu"}), folder)
    return {name: record["metrics"][name] for name in NAMES}


def test_every_case_and_no_other_is_expected() -> None:
    assert list(json.loads(EXPECTED.read_text())) == list(CASES)


def test_every_built_in_strategy_has_a_case() -> None:
    from clbench.registry import STRATEGIES, targets

    built_in = {n for n, target in targets(STRATEGIES).items() if target.startswith("clbench.") and ":" not in n}
    assert {str(case["strategy"]) for case in CASES.values()} >= built_in


def test_no_two_cases_of_a_stream_could_be_mistaken_for_each_other() -> None:
    """A method whose effect is lost must not pass for what it falls back to."""
    expected = json.loads(EXPECTED.read_text())
    for one, other in combinations(CASES, 2):
        if one.partition(" on ")[2] == other.partition(" on ")[2]:
            pairs = [(m, expected[one][m], expected[other][m]) for m in NAMES]
            apart = [abs(a - b) > tolerance(one, m) for m, a, b in pairs if None not in (a, b)]
            assert any(apart), f"{one} and {other}"


@pytest.mark.parametrize("case", CASES)
def test_the_numbers(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLBENCH_CACHE", str(tmp_path / "cache"))
    expected = json.loads(EXPECTED.read_text())[case]
    measured = measure(case, tmp_path)
    assert measured.keys() == expected.keys()
    for name, value in expected.items():
        wanted = value if value is None else pytest.approx(value, abs=tolerance(case, name))
        assert measured[name] == wanted, name
