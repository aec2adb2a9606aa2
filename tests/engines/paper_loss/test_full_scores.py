"""The one-pass loss and gradient against autograd of the reference, in float64."""

import pytest
import torch
from torch import Tensor

from mmcl_fast import reference
from mmcl_fast.engines.paper_loss import full_scores as module
from mmcl_fast.engines.paper_loss.full_scores import (
    Features,
    Labels,
    ListedNegatives,
    OtherLabel,
    Roles,
    Workspace,
    bias_of,
    one_pass,
)
from tests.engines.loss_cases import CASES, TAU, Case, by_autograd, problem


def ours(labels: Tensor, tensors: list[Tensor], negatives) -> tuple[Tensor, ...]:
    roles = stacked([t.unsqueeze(0) for t in tensors])
    loss, g = one_pass(
        roles, Labels(labels.unsqueeze(0)), negatives, tau=TAU, workspace=Workspace()
    )
    return loss[0], g.weight * g.signal[0].mT, g.weight * g.noise[0].mT


def stacked(tensors: list[Tensor]) -> Roles:
    """Query, key and positive from pairs of [R, 2, m] and [R, n, m]."""
    pairs = zip(tensors[::2], tensors[1::2], strict=True)
    return Roles(*(Features(torch.cat([noise, signal], dim=1).mT) for signal, noise in pairs))


@pytest.mark.parametrize("rows_at_once", [None, 3], ids=["whole", "chunked"])
@pytest.mark.parametrize("case", CASES, ids=lambda c: c.id)
def test_value_and_gradient(case: Case, rows_at_once: int | None, monkeypatch) -> None:
    if rows_at_once:
        monkeypatch.setattr(module, "CHUNK_SCORES", rows_at_once * case.n)
    labels, tensors = problem(case)
    exact = by_autograd(labels, tensors, reference.other_label(labels))
    for mine, theirs in zip(
        ours(labels, tensors, OtherLabel(labels.unsqueeze(0))), exact, strict=True
    ):
        scale = theirs.abs().max()
        torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-13 * float(scale))


def test_listed_negatives_and_a_row_without_any() -> None:
    labels, tensors = problem(CASES[1])
    chosen = reference.other_label(labels) & (torch.rand(13, 13) < 0.5)
    chosen[4] = False
    exact = by_autograd(labels, tensors, chosen)
    bias = ListedNegatives(bias_of(chosen.unsqueeze(0), 0, torch.float64))
    for mine, theirs in zip(ours(labels, tensors, bias), exact, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-14)
    assert not ours(labels, tensors, bias)[2][4].any()


def test_a_loss_near_zero_keeps_its_relative_accuracy() -> None:
    # Positives ahead by 30: loss about 5 e^-30, far below the rounding of logsumexp in float32.
    labels = torch.tensor([1.0, -1, -1, 1, -1], dtype=torch.float32)
    zero, noise = torch.zeros(1, 2, 1), torch.full((1, 5, 1), 1e-3)
    ahead = torch.full((1, 5, 1), 30 * TAU * 1e3)
    features = stacked([zero, noise, zero, noise, zero, ahead])
    others = OtherLabel(labels.unsqueeze(0))
    loss, _ = one_pass(
        features, Labels(labels.unsqueeze(0)), others, tau=TAU, workspace=Workspace()
    )
    counts = torch.where(labels > 0, 3.0, 2.0).double()
    expected = torch.log1p(counts * torch.exp(torch.tensor(1e-6 / TAU - 30, dtype=torch.float64)))
    torch.testing.assert_close(loss.double()[0], expected.mean(), rtol=1e-5, atol=0)


def test_dead_neurons_get_no_gradient() -> None:
    from mmcl_fast.engines.activation import activate_backward
    from mmcl_fast.model import power_relu

    z = torch.tensor([-1.0, 0.0, 2.0])
    for q, expected in ((1, [0.0, 0.0, 1.0]), (2, [0.0, 0.0, 4.0]), (3, [0.0, 0.0, 12.0])):
        leaf = z.clone().requires_grad_()
        power_relu(leaf, q).sum().backward()
        assert leaf.grad.tolist() == expected
        assert activate_backward(torch.ones(3), z, q).tolist() == expected


def test_independent_runs_do_not_touch_each_other() -> None:
    labels, tensors = problem(CASES[1])
    other_labels, other = problem(CASES[1], seed=9)
    both = [torch.stack(pair) for pair in zip(tensors, other, strict=True)]
    all_labels = torch.stack([labels, other_labels])
    others = OtherLabel(all_labels)
    loss, g = one_pass(stacked(both), Labels(all_labels), others, tau=TAU, workspace=Workspace())
    alone = ours(other_labels, other, OtherLabel(other_labels.unsqueeze(0)))
    assert torch.equal(loss[1], alone[0])
    assert torch.equal((g.weight * g.noise[1]).mT, alone[2])
