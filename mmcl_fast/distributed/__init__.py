"""Losses of a batch that is spread over processes, on torch.distributed."""

from mmcl_fast.distributed.functions import clip_loss as clip_loss
from mmcl_fast.distributed.functions import siglip_loss as siglip_loss
from mmcl_fast.distributed.modules import DistributedInfoNCELoss as DistributedInfoNCELoss
from mmcl_fast.distributed.modules import DistributedNTXentLoss as DistributedNTXentLoss
from mmcl_fast.distributed.modules import DistributedSigLIPLoss as DistributedSigLIPLoss
