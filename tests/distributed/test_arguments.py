"""Scale, temperature and bias as numbers and tensors, without processes."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch

from mmcl_fast.distributed import DistributedSigLIPLoss
from mmcl_fast.distributed.arguments import temperature_of_scale

LIKE = torch.ones(2, 3)


@pytest.mark.parametrize(
    ("scale", "text"),
    [
        (0, "scale: expected a number > 0 whose inverse is in the normal range of float32, got 0"),
        (10**400, "got inf"),
        (float("nan"), "got nan"),
        (torch.tensor([-1.0]), "got -1"),
        (torch.ones(2), "scale: expected a tensor of shape [] or [1], got [2]"),
        (torch.ones((), device="meta"), "scale: expected a tensor on cpu as the features are"),
    ],
)
def test_a_scale_that_is_refused(scale: Any, text: str) -> None:
    with pytest.raises(ValueError, match=re.escape(text)):
        temperature_of_scale(scale, LIKE)


@pytest.mark.parametrize("scale", ["large", True, torch.tensor(3)])
def test_a_scale_of_another_kind(scale: Any) -> None:
    with pytest.raises(TypeError, match=r"^scale: expected a"):
        temperature_of_scale(scale, LIKE)


def test_the_inverse_of_a_bfloat16_scale_is_not_rounded_to_bfloat16() -> None:
    scale = torch.tensor([14.25], dtype=torch.bfloat16, requires_grad=True)
    temperature = temperature_of_scale(scale, LIKE.bfloat16())
    assert temperature.shape == ()
    assert temperature.item() == torch.tensor(1 / 14.25).item()
    temperature.backward()
    assert scale.grad is not None
    assert scale.grad.shape == (1,)
    assert temperature_of_scale(3, LIKE.double()).item() == 1 / 3


def test_parameters_of_shape_1_keep_it() -> None:
    parameter = torch.nn.Parameter(torch.tensor([0.1]))
    loss = DistributedSigLIPLoss(temperature=parameter, bias=torch.tensor([-10.0]))
    assert dict(loss.named_parameters())["temperature"] is parameter
    assert dict(loss.named_buffers())["bias"].shape == (1,)
    with pytest.raises(ValueError, match="bias: expected a"):
        DistributedSigLIPLoss(bias=torch.ones(2))
