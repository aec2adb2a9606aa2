"""Drop-in replacements for the losses of other libraries: same names, same signatures.

Each module is named after the library that it replaces, and lists where its results differ.
"""

from mmcl_fast.losses.compat.inf_cl import cal_inf_loss
from mmcl_fast.losses.compat.info_nce_pytorch import InfoNCE
from mmcl_fast.losses.compat.lightly import DCLLoss, DCLWLoss, NTXentLoss
from mmcl_fast.losses.compat.memeff import MemoryEfficientCLIPLoss
from mmcl_fast.losses.compat.memory_bank import MemoryBankModule
from mmcl_fast.losses.compat.open_clip import ClipLoss, SigLipLoss
from mmcl_fast.losses.compat.sup_contrast import SupConLoss

__all__ = [
    "ClipLoss",
    "DCLLoss",
    "DCLWLoss",
    "InfoNCE",
    "MemoryBankModule",
    "MemoryEfficientCLIPLoss",
    "NTXentLoss",
    "SigLipLoss",
    "SupConLoss",
    "cal_inf_loss",
]
