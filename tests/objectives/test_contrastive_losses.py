"""The losses against plain loops over pairs, and open_clip's own where it has one."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from clbench.objectives.contrastive_losses import LOSSES, collisions, similarity_divergence
from clbench.torchvision_schemas import prepare

IDS = torch.tensor([0, 1, 0, 2, 0])


def similar(n: int = 5, seed: int = 0) -> Tensor:
    return 3 * torch.randn(n, n, generator=torch.Generator().manual_seed(seed))


def looped(logits: Tensor, ids: Tensor, several: bool) -> list[float]:
    """Half the cross-entropy of each row and column, from the definition."""
    out = []
    n = len(ids)
    for i in range(n):
        right = [j for j in range(n) if (ids[j] == ids[i] if several else j == i)]
        row = -sum(math.log(math.exp(logits[i, j]) / sum(math.exp(logits[i, k]) for k in range(n))) for j in right)
        column = -sum(math.log(math.exp(logits[j, i]) / sum(math.exp(logits[k, i]) for k in range(n))) for j in right)
        out.append((row + column) / len(right) / 2)
    return out


@pytest.mark.parametrize(("name", "several"), [("clip", False), ("clip-mp", True)])
def test_cross_entropies_of_rows_and_columns(name: str, several: bool) -> None:
    found = LOSSES[name](similar(), IDS)  # type: ignore[index]
    torch.testing.assert_close(found, torch.tensor(looped(similar(), IDS, several)))


@pytest.mark.parametrize("name", ["clip", "siglip"])
def test_means_are_those_of_open_clip(name: str) -> None:
    prepare()
    from open_clip.loss import ClipLoss, SigLipLoss

    image, text = (F.normalize(torch.randn(6, 4, generator=torch.Generator().manual_seed(s)), dim=1) for s in (1, 2))
    scale, bias = torch.tensor(7.0), torch.tensor(-2.0)
    if name == "clip":
        theirs, logits = ClipLoss()(image, text, scale), scale * image @ text.T
    else:
        theirs, logits = SigLipLoss()(image, text, scale, bias), scale * image @ text.T + bias
    ours = LOSSES[name](logits, torch.zeros(6)).mean()  # type: ignore[index]
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("name", ["clip", "siglip"])
def test_several_positives_are_one_where_all_texts_differ(name: str) -> None:
    several = LOSSES[f"{name}-mp"](similar(), torch.arange(5))  # type: ignore[index]
    torch.testing.assert_close(several, LOSSES[name](similar(), torch.arange(5)))  # type: ignore[index]


def test_equal_captions_do_not_repel_with_several_positives() -> None:
    """With one text for all, no similarity can be too high: the gradient of the loss sums to zero at equality."""
    logits = torch.zeros(4, 4, requires_grad=True)
    LOSSES["clip-mp"](logits, torch.zeros(4)).mean().backward()
    assert logits.grad is not None and logits.grad.abs().max() < 1e-7
    logits = torch.zeros(4, 4, requires_grad=True)
    LOSSES["clip"](logits, torch.zeros(4)).mean().backward()
    assert logits.grad is not None and logits.grad.abs().max() > 0.1


def test_collisions_count_ordered_pairs() -> None:
    assert collisions(IDS) == (6, 20)
    assert collisions(torch.arange(3)) == (0, 6)


def test_distillation_is_zero_at_the_teacher_and_looks_both_ways() -> None:
    teacher = similar()
    torch.testing.assert_close(similarity_divergence(teacher, teacher, 2.0), torch.zeros(5), atol=1e-6, rtol=0)
    student = teacher + torch.tensor([1.0, 0, 0, 0, 0])[:, None]  # rows as they were, columns not
    by_row = F.kl_div((student / 2).log_softmax(1), (teacher / 2).softmax(1), reduction="none").sum(1)
    by_column = F.kl_div((student.T / 2).log_softmax(1), (teacher.T / 2).softmax(1), reduction="none").sum(1)
    assert by_row.abs().max() < 1e-6 < by_column.abs().max()
    torch.testing.assert_close(similarity_divergence(student, teacher, 2.0), 4 * (by_row + by_column) / 2)
