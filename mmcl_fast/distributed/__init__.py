"""Losses of a batch, and training on samples, spread over processes by torch.distributed."""

from mmcl_fast.distributed.functional import clip_loss as clip_loss
from mmcl_fast.distributed.functional import siglip_loss as siglip_loss
from mmcl_fast.distributed.modules import DistributedInfoNCELoss as DistributedInfoNCELoss
from mmcl_fast.distributed.modules import DistributedNTXentLoss as DistributedNTXentLoss
from mmcl_fast.distributed.modules import DistributedSigLIPLoss as DistributedSigLIPLoss
from mmcl_fast.distributed.training import train as train
