from __future__ import annotations

import pytest
import torch
from torch import nn

from mmcl_fast.losses import InfoNCELoss, info_nce

G = torch.Generator().manual_seed(0)
X, Y, P = torch.randn(3, 6, 4, generator=G)
LABELS = torch.tensor([0, 1, 2, 0, 1, 2])


def test_equals_the_function_with_every_option_off_its_default() -> None:
    options = {"temperature": 0.4, "negatives": "other_label", "stop_gradient": "key"}
    options |= {"reduction": "sum", "backend": "torch", "exclude_self": True}
    options |= {"label_smoothing": 0.2}
    tensors = {"labels": LABELS, "key_labels": LABELS.flip(0), "positive_key": P}
    tensors |= {"extra_negatives": P[:2], "hard_negatives": P[:, None]}
    tensors |= {"hard_negative_counts": LABELS.clamp(max=1)}
    assert torch.equal(
        InfoNCELoss(**options)(X, Y, **tensors), info_nce(X, Y, **options, **tensors)
    )
    assert torch.equal(InfoNCELoss(symmetric=True)(X, Y), info_nce(X, Y, symmetric=True))
    positive = LABELS.flip(0)
    assert torch.equal(InfoNCELoss()(X, Y, positive=positive), info_nce(X, Y, positive=positive))


def test_a_parameter_learns_and_a_tensor_is_a_buffer() -> None:
    module = InfoNCELoss(temperature=nn.Parameter(torch.tensor(0.3)))
    module(X, Y).backward()
    (temperature,) = module.parameters()
    assert temperature.grad is not None
    assert temperature.grad != 0
    fixed = InfoNCELoss(temperature=torch.tensor(0.3))
    assert list(fixed.state_dict()) == ["temperature"]
    assert not list(fixed.parameters())
    assert not InfoNCELoss(temperature=0.3).state_dict()
    assert torch.equal(fixed(X, Y), module(X, Y).detach())


def test_repr_names_the_options() -> None:
    assert repr(InfoNCELoss(symmetric=True)) == (
        "InfoNCELoss(temperature=0.07, symmetric=True, negatives='all', exclude_self=False, "
        "stop_gradient=None, label_smoothing=0.0, reduction='mean', backend='auto')"
    )


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (
            {"temperature": -1.0},
            "temperature: expected a number > 0 in the normal range of float32, got -1.0",
        ),
        ({"negatives": "some"}, "negatives: expected 'all' | 'other_label', got 'some'"),
        ({"backend": "cuda"}, 'backend: expected one of "auto", "triton", "torch", got \'cuda\''),
        ({"symmetric": 1}, "symmetric: expected a bool, got int"),
        ({"exclude_self": None}, "exclude_self: expected a bool, got NoneType"),
        ({"label_smoothing": 1.5}, "label_smoothing: expected a number in 0 .. 1, got 1.5"),
    ],
)
def test_wrong_options_are_refused_at_construction(option: dict, message: str) -> None:
    with pytest.raises((ValueError, TypeError)) as caught:
        InfoNCELoss(**option)
    assert str(caught.value) == message
