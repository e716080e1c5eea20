from __future__ import annotations

import pytest

from clbench.frontier import frontier, hypervolume

POINTS = [(1.0, 0.5), (2.0, 1.0), (1.5, 1.2), (0.5, 0.1), (2.0, 1.0)]


def test_what_another_run_beats_is_not_on_it() -> None:
    assert frontier(POINTS) == [3, 0, 1, 4]
    assert frontier([(1.0, 1.0), (1.0, 0.5)]) == [1]
    assert frontier([]) == []


def test_area_by_hand() -> None:
    assert hypervolume([(2.0, 1.0)], (0.0, 1.5)) == pytest.approx(1.0)
    assert hypervolume(POINTS, (0.0, 1.5)) == pytest.approx(2.0 * 0.5 + 1.0 * 0.5 + 0.5 * 0.4)


def test_beaten_and_worse_than_the_reference_add_nothing() -> None:
    assert hypervolume([*POINTS, (1.5, 1.4)], (0.0, 1.5)) == hypervolume(POINTS, (0.0, 1.5))
    assert hypervolume([(-0.5, 0.1), (1.0, 1.5), (1.0, 2.0)], (0.0, 1.5)) == 0


def test_a_better_point_never_takes_area_away() -> None:
    assert hypervolume([*POINTS, (2.5, 0.9)], (0.0, 1.5)) > hypervolume(POINTS, (0.0, 1.5))


def test_signed_forgetting_is_allowed() -> None:
    assert hypervolume([(1.0, -0.5)], (0.0, 0.5)) == pytest.approx(1.0)
