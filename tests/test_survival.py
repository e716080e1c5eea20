from __future__ import annotations

import pytest

from clbench.survival import Waited, describe, median, restricted_mean, survival


def times(*values: float, censored: tuple[float, ...] = ()) -> list[Waited]:
    return [Waited(v, True) for v in values] + [Waited(v, False) for v in censored]


def test_nothing_censored_is_the_plain_statistics() -> None:
    waited = times(10, 20, 30, 60)
    assert dict(survival(waited)) == pytest.approx({10: 0.75, 20: 0.5, 30: 0.25, 60: 0.0})
    assert median(waited) == 20
    assert restricted_mean(waited, 100) == pytest.approx(30)
    assert restricted_mean(waited, 25) == pytest.approx((10 + 20 + 25 + 25) / 4)


def test_kaplan_meier_by_hand() -> None:
    """At 6 three of seven happen; one of the other four was censored at 6, after that; 7 and 10 see three and two."""
    waited = times(6, 6, 6, 7, 10, censored=(6, 11))
    assert dict(survival(waited)) == pytest.approx({6: 4 / 7, 7: 4 / 7 * 2 / 3, 10: 4 / 7 * 2 / 3 / 2})
    assert median(waited) == 7


def test_who_never_recovers_is_not_left_out() -> None:
    found = describe(times(10, censored=(80, 80)), 80)
    assert (found.n, found.median) == (3, None)
    assert found.share == pytest.approx(1 / 3)
    assert found.restricted_mean == pytest.approx((10 + 80 + 80) / 3)
    assert describe(times(censored=(80,)), 80).share == 0


def test_nothing_after_the_horizon_counts() -> None:
    found = describe(times(10, 50), 40)
    assert (found.share, found.median, found.restricted_mean) == (0.5, 10, 25)


def test_never_fell_is_recovery_at_once() -> None:
    assert describe(times(0, 0, 0), 100).restricted_mean == 0


@pytest.mark.parametrize("bad", [[], [Waited(float("inf"), True)], [Waited(-1, False)]])
def test_infinities_are_refused(bad: list[Waited]) -> None:
    with pytest.raises(ValueError):
        survival(bad)
