"""Data-parallel losses and training: one batch, or one run's samples, over a process group."""

from mmcl_fast.distributed.functional import clip_loss, siglip_loss
from mmcl_fast.distributed.modules import (
    DistributedDCLLoss,
    DistributedInfoNCELoss,
    DistributedNTXentLoss,
    DistributedSigLIPLoss,
    DistributedSupConLoss,
)
from mmcl_fast.distributed.training import train

__all__ = [
    "DistributedDCLLoss",
    "DistributedInfoNCELoss",
    "DistributedNTXentLoss",
    "DistributedSigLIPLoss",
    "DistributedSupConLoss",
    "clip_loss",
    "siglip_loss",
    "train",
]
