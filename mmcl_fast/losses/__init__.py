"""Public losses: usable without any other part of the package."""

from mmcl_fast.losses.contrastive import info_nce as info_nce
from mmcl_fast.losses.family import dcl as dcl
from mmcl_fast.losses.family import nt_xent as nt_xent
from mmcl_fast.losses.family import siglip as siglip
from mmcl_fast.losses.family import sup_con as sup_con
from mmcl_fast.losses.modules import InfoNCELoss as InfoNCELoss
