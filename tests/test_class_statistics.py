"""Class statistics: what one pass gives is what the whole data give, however they are ordered and cut."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as some
from sklearn.covariance import EmpiricalCovariance
from sklearn.linear_model import Ridge
from torch import Tensor

from clbench.class_statistics import ClassStatistics, Covariance, GramStatistics, packed, unpacked
from clbench.errors import RunFailed
from clbench.state import pack, unpack


def data(n: int = 200, d: int = 5, offset: float = 0.0, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Correlated features whose classes (four, of unequal sizes, one absent) have different covariances."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.tensor([0, 1, 3, 4])[torch.randint(10, (n,), generator=generator).clamp(max=3)]
    mixing = torch.randn(5, d, d, generator=generator, dtype=torch.float64)
    noise = torch.randn(n, 1, d, generator=generator, dtype=torch.float64)
    return (noise @ mixing[y]).squeeze(1) + y[:, None] + offset, y


def gathered(kind: Covariance, x: Tensor, y: Tensor, sizes: list[int]) -> ClassStatistics:
    statistics = ClassStatistics(kind)
    for rows, labels in zip(x.split(sizes), y.split(sizes), strict=True):
        statistics.add(rows, labels)
    return statistics


@settings(max_examples=20, deadline=None)
@given(some.permutations(range(60)), some.lists(some.integers(1, 20), min_size=1, max_size=12))
def test_order_and_cut_do_not_matter(order: list[int], cuts: list[int]) -> None:
    x, y = data(60, offset=100.0)
    sizes = [n for n in cuts if n][:3]
    sizes.append(60 - sum(sizes))
    for kind in ("shared", "class"):
        found = gathered(kind, x[order], y[order], sizes)
        for c in (0, 1, 3, 4):
            mine = x[y == c]
            torch.testing.assert_close(found.means()[c], mine.mean(0), rtol=0, atol=1e-10)
            if kind == "class" and len(mine) > 1:
                torch.testing.assert_close(found.covariance(c), mine.T.cov(), rtol=0, atol=1e-9)
        centred = torch.cat([x[y == c] - x[y == c].mean(0) for c in y.unique()])
        torch.testing.assert_close(found.shared_covariance(), centred.T @ centred / 60, rtol=0, atol=1e-9)


def test_covariances_are_those_of_scikit_learn() -> None:
    x, y = data()
    found = gathered("class", x.float(), y, [7] * 28 + [4])
    for c in found.classes:
        expected = EmpiricalCovariance().fit(x.float()[y == c].double().numpy())
        torch.testing.assert_close(found.covariance(c, correction=0), torch.from_numpy(expected.covariance_))
        torch.testing.assert_close(found.means()[c], torch.from_numpy(expected.location_))


def test_features_far_from_zero_keep_their_digits() -> None:
    """Sums of squares would leave 1e16 * 1e-16: nothing."""
    x, y = data()
    near, far = gathered("shared", x, y, [1] * 200), gathered("shared", x + 1e8, y, [1] * 200)
    torch.testing.assert_close(far.shared_covariance(), near.shared_covariance(), rtol=1e-5, atol=1e-5)


def test_one_sample_has_no_covariance_and_absent_classes_no_mean() -> None:
    statistics = ClassStatistics("class")
    statistics.add(torch.ones(1, 3), torch.tensor([2]))
    assert torch.equal(statistics.covariance(2), torch.zeros(3, 3, dtype=torch.float64))
    assert statistics.means()[:2].isnan().all() and statistics.classes == [2] and statistics.n_classes == 3
    statistics.add(torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64))
    assert statistics.counts.tolist() == [0, 0, 1]


def test_forgotten_classes_begin_anew() -> None:
    x, y = data()
    statistics = gathered("class", x, y, [200])
    statistics.forget([1, 9])
    assert statistics.classes == [0, 3, 4]
    statistics.add(x[y == 1] + 5, y[y == 1])
    torch.testing.assert_close(statistics.means()[1], x[y == 1].mean(0) + 5)
    torch.testing.assert_close(statistics.covariance(1), x[y == 1].T.cov())


def test_misuse_is_refused() -> None:
    statistics = ClassStatistics("shared")
    with pytest.raises(RunFailed, match="not finite"):
        statistics.add(torch.full((2, 3), float("inf")), torch.tensor([0, 1]))
    statistics.add(torch.randn(2, 3), torch.tensor([0, 1]))
    with pytest.raises(ValueError, match="4 dimensions after"):
        statistics.add(torch.randn(2, 4), torch.tensor([0, 1]))
    with pytest.raises(ValueError, match="single classes"):
        statistics.covariance(0)
    with pytest.raises(ValueError, match="taken out"):
        statistics.forget([0])
    with pytest.raises(ValueError, match="not kept"):
        ClassStatistics().shared_covariance()


@pytest.mark.parametrize("kind", ["none", "shared", "class"])
def test_saved_and_loaded_they_go_on_to_the_same_bits(kind: Covariance) -> None:
    x, y = data()
    whole = gathered(kind, x, y, [120, 80])
    tensors: dict[str, Tensor] = {}
    kept = pack(gathered(kind, x[:120], y[:120], [120]), "state", tensors)
    again = unpack(kept, tensors, ClassStatistics(kind))
    again.add(x[120:], y[120:])
    before, after = {}, {}
    pack(whole, "", before), pack(again, "", after)
    assert before.keys() == after.keys()
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def test_triangles_are_whole_matrices() -> None:
    for d in (1, 2, 7):
        matrix = torch.randn(d, d)
        assert len(packed(matrix)) == d * (d + 1) // 2
        assert torch.equal(unpacked(packed(matrix)), matrix.tril() + matrix.tril(-1).T)


@pytest.mark.slow
def test_two_hundred_classes_of_768_features_fit() -> None:
    statistics = ClassStatistics("class")
    for c in range(200):
        statistics.add(torch.randn(3, 768), torch.full((3,), c))
    tensors: dict[str, Tensor] = {}
    pack(statistics, "", tensors)
    assert sum(t.numel() * t.element_size() for t in tensors.values()) < 475e6


# -- Gram --------------------------------------------------------------------------------------------------------------


def gram_of(x: Tensor, y: Tensor, sizes: list[int]) -> GramStatistics:
    statistics = GramStatistics(x.shape[1])
    for rows, labels in zip(x.split(sizes), y.split(sizes), strict=True):
        statistics.add(rows, labels)
    return statistics


@pytest.mark.parametrize("ridge", [1e-3, 1.0, 1e3])
def test_ridge_weights_are_those_of_scikit_learn(ridge: float) -> None:
    x, y = data()
    targets = torch.eye(5, dtype=torch.float64)[y]
    expected = Ridge(alpha=ridge, fit_intercept=False, solver="svd").fit(x.numpy(), targets.numpy()).coef_
    order = torch.randperm(200)
    found = gram_of(x[order], y[order], [3, 97, 100]).solve(ridge)
    torch.testing.assert_close(found, torch.from_numpy(expected), rtol=1e-8, atol=1e-10)


def test_a_singular_matrix_gives_the_smallest_solution() -> None:
    """A repeated and an empty column, and a ridge far below rounding: the minimum-norm least-squares weights."""
    x, y = data()
    x = 1e4 * torch.cat([x, x[:, :1], torch.zeros(200, 1, dtype=x.dtype)], dim=1)
    statistics = gram_of(x, y, [200])
    found, before = statistics.solve(1e-12), statistics.gram.clone()
    expected = torch.linalg.lstsq(x, torch.eye(5, dtype=torch.float64)[y], driver="gelsd").solution.T
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-9)
    statistics.solve(1.0)
    assert torch.equal(statistics.gram, before)


def test_a_gram_matrix_goes_on_after_loading() -> None:
    x, y = data()
    tensors: dict[str, Tensor] = {}
    kept = pack(gram_of(x[:150], y[:150], [150]), "state", tensors)
    again = unpack(kept, tensors, GramStatistics(5))
    again.add(x[150:], y[150:])
    whole = gram_of(x, y, [150, 50])
    assert torch.equal(again.gram, whole.gram) and torch.equal(again.solve(0.1), whole.solve(0.1))
    assert again.counts.tolist() == y.bincount().tolist()
