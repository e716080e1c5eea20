from __future__ import annotations

import pytest

from clbench.errors import UserError
from clbench.metrics import DEFINITIONS, explain
from clbench.metrics.definitions import GAP_FIELDS


@pytest.mark.parametrize("key", [*DEFINITIONS, *GAP_FIELDS])
def test_every_key_is_explained(key: str) -> None:
    text = explain(key)
    definition = (DEFINITIONS | GAP_FIELDS)[key]
    assert text.startswith(f"{key} (version {definition.version})")
    for part in ("formula", "sign", "null when"):
        assert part in text


def test_forgetting_names_the_others_and_their_numbers() -> None:
    lines = [line.split(maxsplit=1) for line in explain("forgetting").splitlines() if line.strip()]
    printed = {(words[0], words[-1]) for words in lines}
    assert printed >= {
        ("0.1200", "clbench"),
        ("0.1033", "Avalanche"),
        ("0.0367", "LibContinual"),
        ("-0.2000", "clbench"),
        ("0.0000", "Mammoth, FoMo, PILOT, PyCIL"),
        ("0.1750", "clbench"),
        ("0.2000", "Renate"),
    }


def test_backward_transfer_names_the_others_and_their_numbers() -> None:
    text = explain("backward_transfer")
    assert "-0.1033  clbench" in text
    assert "-0.1100  Continuum" in text


def test_keys_of_other_metrics_and_weights() -> None:
    assert explain("loss:forgetting[train]") == explain("forgetting")


def test_unknown_key() -> None:
    with pytest.raises(UserError, match="did you mean forgetting"):
        explain("forgeting")
