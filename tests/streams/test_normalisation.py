"""Constants of the sources."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from clbench.data.digits import load_digits
from clbench.errors import UserError
from clbench.streams.normalisation import KNOWN, statistics


def test_digits_constants_are_those_of_the_images() -> None:
    x = np.concatenate([load_digits(split).x for split in ("train", "test")]) / 255
    (mean,), (std,) = KNOWN["digits"]
    assert abs(x.mean() - mean) < 1e-4
    assert abs(x.std() - std) < 1e-4


def test_known_then_stated_then_neutral() -> None:
    stated: dict[str, Any] = {"mean": [0.1, 0.2, 0.3], "std": 0.2}
    assert statistics("CIFAR-10", stated, 3) == KNOWN["cifar10"]
    assert statistics("mine", stated, 3) == ((0.1, 0.2, 0.3), (0.2, 0.2, 0.2))
    assert statistics("mine", {}, 1) == ((0.5,), (0.25,))
    assert statistics("mnist", {}, 3)[0] == (0.1307,) * 3
    assert statistics("mine", stated, 1)[0][0] == pytest.approx(0.2)


@pytest.mark.parametrize("info", [{"mean": "x", "std": 1}, {"mean": [0.1, 0.2], "std": 1}, {"mean": 0.5, "std": 0}])
def test_bad_statements_are_errors(info: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"mine: (mean|std) in info\.json"):
        statistics("mine", info, 3)
