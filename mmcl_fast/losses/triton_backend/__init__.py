"""The contrastive losses on the kernels of `mmcl_fast.kernels`, and their only user here."""

from mmcl_fast.losses.triton_backend.contrastive import contrast_backward, contrast_forward

__all__ = ["contrast_backward", "contrast_forward"]
