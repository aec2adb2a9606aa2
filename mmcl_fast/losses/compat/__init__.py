"""The losses under the names and calls of other libraries: one import to replace, nothing else.

Each module is named after the library whose call it has, and says where its result differs.
"""

from mmcl_fast.losses.compat.inf_cl import cal_inf_loss as cal_inf_loss
from mmcl_fast.losses.compat.info_nce_pytorch import InfoNCE as InfoNCE
from mmcl_fast.losses.compat.lightly import DCLLoss as DCLLoss
from mmcl_fast.losses.compat.lightly import NTXentLoss as NTXentLoss
from mmcl_fast.losses.compat.memeff import MemoryEfficientCLIPLoss as MemoryEfficientCLIPLoss
from mmcl_fast.losses.compat.open_clip import ClipLoss as ClipLoss
from mmcl_fast.losses.compat.open_clip import SigLipLoss as SigLipLoss
from mmcl_fast.losses.compat.sup_contrast import SupConLoss as SupConLoss
