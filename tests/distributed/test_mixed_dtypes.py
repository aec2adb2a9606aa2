"""Features of two dtypes under autocast, in a group of one."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from mmcl_fast import reference
from mmcl_fast.distributed import (
    DistributedDCLLoss,
    DistributedInfoNCELoss,
    DistributedNTXentLoss,
    DistributedSigLIPLoss,
    clip_loss,
    siglip_loss,
)


@pytest.fixture
def _group_of_one() -> Iterator[None]:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


G = torch.Generator().manual_seed(0)
X, Y = torch.randn(2, 9, 6, generator=G)
HARD = torch.randn(9, 2, 6, generator=G)
T, B = 0.5, -1.0
Loss = Callable[[Tensor, Tensor], Tensor]
LOSSES: dict[str, tuple[Loss, Loss]] = {
    "info_nce": (
        lambda x, y: DistributedInfoNCELoss(temperature=T)(
            x, y, hard_negatives=HARD, extra_negatives=y[:2]
        ),
        lambda x, y: reference.info_nce(
            x, y, temperature=T, hard_negatives=HARD.to(x.dtype), extra_negatives=y[:2]
        ),
    ),
    "nt_xent": (
        lambda x, y: DistributedNTXentLoss(temperature=T)(x, y),
        lambda x, y: reference.nt_xent(x, y, temperature=T),
    ),
    "dcl": (
        lambda x, y: DistributedDCLLoss(temperature=T)(x, y),
        lambda x, y: reference.dcl(x, y, temperature=T),
    ),
    "siglip": (
        lambda x, y: DistributedSigLIPLoss(temperature=T, bias=B)(x, y),
        lambda x, y: reference.siglip(x, y, temperature=T, bias=B),
    ),
    "clip_loss": (
        lambda x, y: clip_loss(x, y, 1 / T),
        lambda x, y: reference.info_nce(x, y, temperature=T, symmetric=True),
    ),
    "siglip_loss": (
        lambda x, y: siglip_loss(x, y, 1 / T, B),
        lambda x, y: reference.siglip(x, y, temperature=T, bias=B),
    ),
}


@pytest.mark.usefixtures("_group_of_one")
@pytest.mark.parametrize("half_first", [False, True], ids=["second half", "first half"])
@pytest.mark.parametrize("name", LOSSES)
def test_taken_in_the_wider_dtype_under_autocast(name: str, *, half_first: bool) -> None:
    ours, dense = LOSSES[name]
    dtypes = [torch.bfloat16, torch.float32][:: 1 if half_first else -1]
    x = [z.to(dtype).requires_grad_() for z, dtype in zip((X, Y), dtypes, strict=True)]
    with pytest.raises(TypeError, match="expected the dtype of"):
        ours(x[0], x[1])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = ours(x[0], x[1])
    mine = torch.autograd.grad(loss, x)
    wide = [z.detach().double().requires_grad_() for z in x]
    exact = dense(*wide)
    torch.testing.assert_close(loss.double(), exact, rtol=1e-6, atol=0)
    for found, expected, z in zip(mine, torch.autograd.grad(exact, wide), x, strict=True):
        assert found.dtype == z.dtype
        eps = torch.finfo(z.dtype).eps
        torch.testing.assert_close(found.double(), expected, rtol=2 * eps, atol=1e-7)
