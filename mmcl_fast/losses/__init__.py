"""Public losses: usable without any other part of the package."""

from mmcl_fast.losses.compat import ClipLoss as ClipLoss
from mmcl_fast.losses.compat import DCLLoss as DCLLoss
from mmcl_fast.losses.compat import InfoNCE as InfoNCE
from mmcl_fast.losses.compat import MemoryEfficientCLIPLoss as MemoryEfficientCLIPLoss
from mmcl_fast.losses.compat import NTXentLoss as NTXentLoss
from mmcl_fast.losses.compat import SigLipLoss as SigLipLoss
from mmcl_fast.losses.compat import SupConLoss as SupConLoss
from mmcl_fast.losses.compat import cal_inf_loss as cal_inf_loss
from mmcl_fast.losses.contrastive import info_nce as info_nce
from mmcl_fast.losses.family import dcl as dcl
from mmcl_fast.losses.family import nt_xent as nt_xent
from mmcl_fast.losses.family import siglip as siglip
from mmcl_fast.losses.family import sup_con as sup_con
from mmcl_fast.losses.modules import InfoNCELoss as InfoNCELoss
