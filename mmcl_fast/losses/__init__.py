"""Contrastive losses of PyTorch tensors: five functions and `InfoNCELoss`.

`mmcl_fast.losses.compat` has the losses of other libraries under their names and signatures.
"""

# Earlier releases had the names of other libraries here.
from mmcl_fast.losses.compat import ClipLoss as ClipLoss
from mmcl_fast.losses.compat import DCLLoss as DCLLoss
from mmcl_fast.losses.compat import InfoNCE as InfoNCE
from mmcl_fast.losses.compat import MemoryEfficientCLIPLoss as MemoryEfficientCLIPLoss
from mmcl_fast.losses.compat import NTXentLoss as NTXentLoss
from mmcl_fast.losses.compat import SigLipLoss as SigLipLoss
from mmcl_fast.losses.compat import SupConLoss as SupConLoss
from mmcl_fast.losses.compat import cal_inf_loss as cal_inf_loss
from mmcl_fast.losses.contrastive import info_nce
from mmcl_fast.losses.family import dcl, nt_xent, siglip, sup_con
from mmcl_fast.losses.modules import InfoNCELoss

__all__ = ["InfoNCELoss", "dcl", "info_nce", "nt_xent", "siglip", "sup_con"]
