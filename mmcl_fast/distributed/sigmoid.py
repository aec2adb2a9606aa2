"""The sigmoid form over several processes: pairs are independent, so one exchange suffices.

Cost in products of 2 * (local rows) * (whole batch) * D flop, on each rank: 1 for the loss, and 1
more for each of query and key whose gradient is requested.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from mmcl_fast.distributed.exchange import Exchange, Payload
from mmcl_fast.distributed.group import Members
from mmcl_fast.distributed.off_diagonal import remote_sigmoid
from mmcl_fast.losses.contrast import Contrast, Gradients, Requested
from mmcl_fast.losses.torch_backend import contrast_forward


def sigmoid_pass(
    local: Contrast, members: Members, exchange: type[Exchange], requested: Requested, weight: float
) -> tuple[Tensor, Gradients]:
    """The sum of this rank's row losses, and gradients of `weight` times the sum over all ranks.

    Gradients of this rank's rows are complete, those of temperature and bias this rank's share.
    """
    assert local.key is not None
    started = exchange(members, (local.key,))
    diagonal = contrast_forward(local, requested, weight)
    losses, gradients = diagonal.losses, diagonal.gradients or Gradients()

    def visit(payload: Payload) -> Tensor | None:
        nonlocal losses, gradients
        tile_losses, part = remote_sigmoid(replace(local, key=payload[0]), requested, weight)
        losses = losses + tile_losses
        sums = {
            name: first + second
            for name, first, second in zip(Gradients._fields, gradients, part, strict=True)
            if name != "key" and first is not None and second is not None
        }
        gradients = gradients._replace(**sums)
        return part.key

    returned = started.run(visit, torch.Tensor.add_)
    if returned is not None and gradients.key is not None:
        gradients = gradients._replace(key=gradients.key + returned)
    return losses.sum(), gradients


__all__ = ["sigmoid_pass"]
