"""The sigmoid form over several processes: its pairs are independent, so one trip does it all.

Cost in products of 2 * (local rows) * (whole batch) * D flop, on each rank: 1 for the loss, and 1
more for each of query and key whose gradient is wanted.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from mmcl_fast.distributed.exchange import Payload, Trip
from mmcl_fast.distributed.group import Members
from mmcl_fast.distributed.off_diagonal import foreign_sigmoid
from mmcl_fast.losses.contrast import Contrast, Gradients, Wanted
from mmcl_fast.losses.torch_backend import contrast_forward


def sigmoid_pass(
    local: Contrast, members: Members, trip: type[Trip], wanted: Wanted, weight: float
) -> tuple[Tensor, Gradients]:
    """The sum of this rank's row losses, and gradients of `weight` times everyone's.

    Those of this rank's rows are complete; temperature's and bias's are this rank's share.
    """
    assert local.key is not None
    started = trip(members, (local.key,))
    own = contrast_forward(local, wanted, weight)
    losses, found = own.losses, own.gradients or Gradients()

    def visit(payload: Payload) -> Tensor | None:
        nonlocal losses, found
        more, part = foreign_sigmoid(replace(local, key=payload[0]), wanted, weight)
        losses = losses + more
        sums = {
            name: first + second
            for name, first, second in zip(Gradients._fields, found, part, strict=True)
            if name != "key" and first is not None and second is not None
        }
        found = found._replace(**sums)
        return part.key

    home = started.run(visit, torch.Tensor.add_)
    if home is not None and found.key is not None:
        found = found._replace(key=found.key + home)
    return losses.sum(), found


__all__ = ["sigmoid_pass"]
