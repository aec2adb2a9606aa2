"""The contrastive losses on the Triton kernels of `mmcl_fast.kernels`."""

from mmcl_fast.losses.triton_backend.contrastive import contrast_backward, contrast_forward

__all__ = ["contrast_backward", "contrast_forward"]
