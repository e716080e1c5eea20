"""Rules of merging, against values worked out by hand and identities."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from clbench.merging import (
    added,
    averaged,
    chosen_rows,
    difference,
    dropped,
    elected_mean,
    extended,
    interpolated,
    summed,
    trimmed,
)


def w(*values: float) -> dict[str, Tensor]:
    return {"w": torch.tensor(values)}


def drawn(n: int, rows: int = 3) -> list[dict[str, Tensor]]:
    """Weights of two tensors and a scalar; the first tensor has `rows` rows."""
    generator = torch.Generator().manual_seed(n)
    shapes = {"a": (rows, 4), "b": (5,), "c": ()}
    return [{name: torch.randn(shape, generator=generator) for name, shape in shapes.items()} for _ in range(n)]


def mean(members: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    counts: dict[str, Tensor] = {}
    for member in members:
        found, counts = averaged(found, counts, member)
    return found


def test_interpolation_is_exact_at_both_ends_and_in_between() -> None:
    new, old = drawn(2)
    assert all(torch.equal(value, new[name]) for name, value in interpolated(new, old, 0.0).items())
    assert all(torch.equal(value, old[name]) for name, value in interpolated(new, old, 1.0).items())
    torch.testing.assert_close(interpolated(w(4.0, 0.0), w(0.0, 8.0), 0.25)["w"], torch.tensor([3.0, 2.0]))


def test_a_row_that_the_older_weights_lack_is_not_interpolated() -> None:
    found = interpolated(w(4.0, 8.0), w(0.0), 0.5)
    assert found["w"].tolist() == [2.0, 8.0]


def test_the_running_mean_is_the_mean_and_keeps_equal_members() -> None:
    members = drawn(7)
    for name, value in mean(members).items():
        torch.testing.assert_close(value, torch.stack([m[name] for m in members]).mean(0))
    same = drawn(1) * 7
    assert all(torch.equal(value, same[0][name]) for name, value in mean(same).items())


def test_a_row_is_averaged_over_the_members_that_have_it() -> None:
    assert mean([w(3.0), w(6.0, 1.0), w(9.0, 2.0, 5.0)])["w"].tolist() == [6.0, 1.5, 5.0]


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_a_row_is_averaged_over_the_members_that_vote_for_it(order: tuple[int, ...]) -> None:
    """Row 0: two of three; row 1: one, whose bits it has; row 2: none, so the first member's value stays."""
    members = [w(3.0, 0.7, 1.0), w(6.0, 0.1, 2.0), w(9.0, 0.2, 3.0)]
    voted = [[0], [1], [0]]
    found: dict[str, Tensor] = {}
    counts: dict[str, Tensor] = {}
    for i in order:
        votes = {"w": chosen_rows(members[i]["w"], voted[i])}
        found, counts = averaged(found, counts, members[i], votes)
    assert torch.equal(found["w"], torch.tensor([6.0, 0.1, members[order[0]]["w"][2]]))
    assert counts["w"].tolist() == [2, 1, 0]


def test_rows_without_a_vote_keep_the_older_value_and_give_no_vector() -> None:
    votes = {"w": torch.tensor([1, 0, 1])}
    assert interpolated(w(4.0, 8.0, 5.0), w(0.0, 2.0), 0.5, votes)["w"].tolist() == [2.0, 2.0, 5.0]
    assert difference(w(4.0, 8.0), w(1.0, 1.0), votes)["w"].tolist() == [3.0, 0.0]


def test_task_vectors_give_back_the_weights_and_sum() -> None:
    origin, trained = drawn(2)
    back = added(origin, difference(trained, origin), 1.0)
    for name, value in back.items():
        torch.testing.assert_close(value, trained[name])
    assert summed([w(1.0, 0.0), w(2.0, 3.0)])["w"].tolist() == [3.0, 3.0]


def test_later_rows_come_from_the_current_weights() -> None:
    assert extended(w(1.0), w(2.0, 3.0))["w"].tolist() == [1.0, 3.0]


# -- TIES ------------------------------------------------------------------------------------------------------------


def test_trimming_counts_over_all_tensors_together() -> None:
    """A third of six: the two largest both lie in one tensor; trimming each by itself would keep one of either."""
    kept = trimmed({"a": torch.tensor([5.0, -6.0, 1.0]), "b": torch.tensor([2.0, -3.0, 0.5])}, 1 / 3)
    assert kept["a"].tolist() == [5.0, -6.0, 0.0]
    assert kept["b"].tolist() == [0.0, 0.0, 0.0]


def test_at_least_one_entry_stays_and_density_one_keeps_all() -> None:
    assert trimmed(w(1.0, -3.0, 2.0), 0.01)["w"].tolist() == [0.0, -3.0, 0.0]
    assert trimmed(w(1.0, -3.0, 2.0), 1.0)["w"].tolist() == [1.0, -3.0, 2.0]


def test_ties_of_six_entries_by_hand() -> None:
    """Density 2/3 of three vectors; columns: agreement, a minority, a tie, only one, none, a cancelled pair.

    trimmed:  3  -4   2   0   0   5        sums: 9  3  0  -6  0  5     signs: +  +  (0)  -  (0)  +
              2   3  -2   0   0   1.5      most entries were given plus, so the two zeros count as plus
              4   4   0  -6   0  -1.5
    means:    3   3.5 2  -6   0   3.25
    """
    vectors = [w(3, -4, 2, 0.5, 0.1, 5), w(2, 3, -2, 0.5, 0.1, 1.5), w(4, 4, 0.2, -6, 0.1, -1.5)]
    found = elected_mean([trimmed(vector, 2 / 3) for vector in vectors])["w"]
    torch.testing.assert_close(found, torch.tensor([3.0, 3.5, 2.0, -6.0, 0.0, 3.25]))


def test_a_cancelled_entry_takes_the_sign_most_entries_have() -> None:
    """Minus here, where peft's rule would take plus. The majority is that of the whole vector, not of one tensor."""
    first = {"a": torch.tensor([2.0]), "b": torch.tensor([-1.0, -1.0])}
    second = {"a": torch.tensor([-2.0]), "b": torch.tensor([-3.0, -1.0])}
    found = elected_mean([first, second])
    assert found["a"].tolist() == [-2.0]
    assert found["b"].tolist() == [-2.0, -1.0]


def test_one_whole_vector_is_its_own_merge() -> None:
    (vector,) = drawn(1)
    found = elected_mean([trimmed(vector, 1.0)])
    assert all(torch.equal(value, vector[name]) for name, value in found.items())


def test_a_vector_that_is_zero_has_no_vote_there() -> None:
    assert elected_mean([w(1.0, 0.0), w(3.0, -4.0)])["w"].tolist() == [2.0, -4.0]


def test_vectors_without_entries_stay_so() -> None:
    empty = {"w": torch.zeros(0, 4)}
    assert elected_mean([trimmed(empty, 0.2)])["w"].shape == (0, 4)


# -- DARE ------------------------------------------------------------------------------------------------------------


def test_dropping_rescales_to_the_same_expectation() -> None:
    vector = {"w": torch.ones(100_000)}
    found = dropped(vector, 0.9, torch.Generator().manual_seed(1))["w"]
    torch.testing.assert_close(found.unique(), torch.tensor([0.0, 10.0]))
    assert found.mean().item() == pytest.approx(1.0, abs=0.05)
    assert found.count_nonzero() != 10_000, "each entry by itself"


def test_exact_dropping_drops_that_share_of_each_tensor() -> None:
    vector = {"a": torch.ones(10, 10), "b": torch.ones(20)}
    found = dropped(vector, 0.7, torch.Generator().manual_seed(1), exact=True)
    assert [int(value.count_nonzero()) for value in found.values()] == [30, 6]


@pytest.mark.parametrize("exact", [False, True])
def test_nothing_dropped_is_the_vector(exact: bool) -> None:
    (vector,) = drawn(1)
    found = dropped(vector, 0.0, torch.Generator().manual_seed(1), exact)
    assert all(torch.equal(value, vector[name]) for name, value in found.items())
