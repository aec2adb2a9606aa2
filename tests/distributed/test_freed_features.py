"""A group of one process: what a loss keeps for its backward pass is freed by it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.multiprocessing.reductions import StorageWeakRef

from mmcl_fast.distributed import DistributedInfoNCELoss, DistributedSigLIPLoss


@pytest.fixture(autouse=True)
def one_process() -> Iterator[None]:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.parametrize("kind", [DistributedInfoNCELoss, DistributedSigLIPLoss])
def test_features_are_freed_by_the_backward_pass(kind: type[nn.Module]) -> None:
    weight = torch.randn(8, 8, requires_grad=True)
    features = torch.randn(12, 8) @ weight
    memory = StorageWeakRef(features.untyped_storage())
    loss = kind()(features, torch.randn(12, 8))
    del features
    loss.backward(retain_graph=True)
    assert not memory.expired()
    loss.backward()
    assert memory.expired()
