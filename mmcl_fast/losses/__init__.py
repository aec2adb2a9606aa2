"""Public losses: usable without any other part of the package."""

from mmcl_fast.losses.contrastive import info_nce as info_nce
from mmcl_fast.losses.modules import InfoNCELoss as InfoNCELoss
