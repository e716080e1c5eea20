from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from sklearn import datasets

from clbench.data.digits import load_digits
from clbench.errors import UserError


def test_they_are_scikit_learns_digits_split_by_class() -> None:
    train, test = load_digits("train"), load_digits("test")
    assert train.x.shape == (1352, 1, 8, 8) and test.x.shape == (445, 1, 8, 8) and train.x.dtype == np.uint8
    theirs = datasets.load_digits()
    for label in range(10):
        rows = theirs.images[theirs.target == label]
        held_out = np.arange(len(rows)) % 4 == 3
        for found, expected in ((train, rows[~held_out]), (test, rows[held_out])):
            levels = (found.x[found.y == label, 0].astype(int) * 16 + 127) // 255
            np.testing.assert_array_equal(levels, expected)


def test_grey_levels_span_the_whole_range() -> None:
    assert sorted(set(load_digits("train").x.ravel().tolist())) == [
        *(0, 16, 32, 48, 64, 80, 96, 112, 128, 143, 159, 175, 191, 207, 223, 239, 255)
    ]


def test_scikit_learn_is_not_imported() -> None:
    code = (
        "import sys; from clbench.data.digits import load_digits; load_digits('train');"
        "print([m for m in ('sklearn', 'torch', 'pyarrow', 'pandas', 'PIL') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_unknown_split() -> None:
    with pytest.raises(UserError, match="train and test"):
        load_digits("val")
